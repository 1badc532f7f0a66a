//! Records of handled messages in SQLite.

use std::time::Duration;

use sqlx::{SqliteConnection, SqlitePool};
use tidelog_eventbus::messaging::{Group, InvalidName, MessageContext};

use super::{DEFAULT_WINDOW, SWEEP_AT_ONCE, is_new, key};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS tidelog_handled_messages (
    worker_group BLOB NOT NULL,
    message BLOB NOT NULL,
    handled_at INTEGER NOT NULL,
    PRIMARY KEY (worker_group, message)
) WITHOUT ROWID";

const INSERT: &str = "INSERT INTO tidelog_handled_messages (worker_group, message, handled_at) VALUES (?, ?, unixepoch())";

const SWEEP: &str = "DELETE FROM tidelog_handled_messages WHERE (worker_group, message) IN (
    SELECT worker_group, message FROM tidelog_handled_messages
    WHERE worker_group = ? AND handled_at < unixepoch() - ? LIMIT ?
)";

/// The messages that a group of workers has handled, in the table `tidelog_handled_messages` of a SQLite database: the one that has the effects.
#[derive(Clone, Debug)]
pub struct SqliteHandled {
    group: Group,
    window: Duration,
}

impl SqliteHandled {
    /// The records of `group`.
    ///
    /// # Errors
    ///
    /// [`InvalidName::Group`].
    pub fn new(group: &str) -> Result<Self, InvalidName> {
        Ok(Self {
            group: Group::new(group)?,
            window: DEFAULT_WINDOW,
        })
    }

    /// Keeps records for `window`. It has to be longer than a message can be on its way, waits and outages included.
    #[must_use]
    pub fn keeping(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Makes the table where it is not there. A program whose user may not do that makes it beforehand.
    ///
    /// # Errors
    ///
    /// [`sqlx::Error`].
    pub async fn create_table(&self, pool: &SqlitePool) -> Result<(), sqlx::Error> {
        sqlx::query(TABLE).execute(pool).await?;
        Ok(())
    }

    /// Records `message` as handled, in the transaction that `connection` is in; `false` when it was recorded before: then its effects are
    /// there. While another transaction is at the same message, it waits for its end.
    ///
    /// # Errors
    ///
    /// [`sqlx::Error`]; roll the transaction back.
    pub async fn is_first(
        &self,
        connection: &mut SqliteConnection,
        message: &MessageContext,
    ) -> Result<bool, sqlx::Error> {
        let insert = sqlx::query(INSERT)
            .bind(self.group.as_str().as_bytes())
            .bind(key(message).as_slice())
            .execute(connection);
        is_new(insert.await)
    }

    /// Removes the records that are older than the window, a thousand at a time, and says how many there were. To be called now and then: once an
    /// hour, say, by one process or by all.
    ///
    /// # Errors
    ///
    /// [`sqlx::Error`]; the next call goes on.
    pub async fn sweep(&self, pool: &SqlitePool) -> Result<u64, sqlx::Error> {
        let window = i64::try_from(self.window.as_secs()).unwrap_or(i64::MAX);
        let mut all = 0;
        loop {
            let sweep = sqlx::query(SWEEP)
                .bind(self.group.as_str().as_bytes())
                .bind(window)
                .bind(SWEEP_AT_ONCE);
            let swept = sweep.execute(pool).await?.rows_affected();
            all += swept;
            if swept < u64::from(SWEEP_AT_ONCE) {
                return Ok(all);
            }
        }
    }
}
