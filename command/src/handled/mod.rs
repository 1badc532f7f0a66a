//! Handling a message once: that it was handled is recorded in the transaction of its effects.
//!
//! A worker gets a message [at least once](tidelog_eventbus::messaging). With a record of the message beside the effects, both are there or
//! neither is, whatever dies in the middle: a second try finds the record and does nothing. Two tries at the same time wait for each other on it.
//!
//! A message is known by its source, its subject and its id: a sender chooses ids, and two may have chosen the same.
//!
//! The records of a group are kept for a window, 7 days unless told otherwise, and swept after it. A message that comes again later than that
//! is handled again: a dead letter that is retried after more than a week, say.
//!
//! ```no_run
//! use tidelog_command::handled::MySqlHandled;
//! use std::sync::Arc;
//!
//! use tidelog_command::handled;
//! use tidelog_eventbus::FailurePolicy;
//! use tidelog_eventbus::messaging::{HandlerError, Messaging, Subject};
//!
//! const PAID: Subject<u64> = Subject::new("shop.paid");
//!
//! # async fn example(pool: sqlx::MySqlPool, messaging: Messaging) -> Result<(), Box<dyn std::error::Error>> {
//! let handled = MySqlHandled::new("ledger")?;
//! handled.create_table(&pool).await?;
//! // What the database cannot do now is tried again until it can.
//! let policy = FailurePolicy {
//!     classify: Some(Arc::new(handled::classify)),
//!     ..FailurePolicy::default()
//! };
//! messaging.worker("ledger").policy(policy).handle(&PAID, move |amount, message| {
//!     let (pool, handled) = (pool.clone(), handled.clone());
//!     async move {
//!         let mut transaction = pool.begin().await?;
//!         if handled.is_first(&mut transaction, &message).await? {
//!             sqlx::query("UPDATE ledger SET balance = balance + ?")
//!                 .bind(amount)
//!                 .execute(&mut *transaction)
//!                 .await?;
//!         }
//!         transaction.commit().await?;
//!         Ok(())
//!     }
//! });
//! # Ok(())
//! # }
//! ```

use std::error::Error;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tidelog_eventbus::FailureKind;
use tidelog_eventbus::messaging::MessageContext;

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "mysql")]
pub use mysql::MySqlHandled;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteHandled;

/// How long the record of a message is kept, unless told otherwise: 7 days.
pub const DEFAULT_WINDOW: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How many records are swept in one statement, so that none holds others up for long.
const SWEEP_AT_ONCE: u32 = 1_000;

/// What of the database's errors passes by itself: a lost connection, a pool that has none to give in time, a deadlock, a lock that others
/// have, a server that is starting, stopping or full. For [`FailurePolicy::classify`](tidelog_eventbus::FailurePolicy::classify): without it they
/// count as failures of the message.
#[must_use]
pub fn classify(error: &(dyn Error + 'static)) -> Option<FailureKind> {
    let error = error.downcast_ref::<sqlx::Error>()?;
    let passes = match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(_) => passes(error),
        _ => false,
    };
    passes.then_some(FailureKind::Transient)
}

fn passes(error: &sqlx::Error) -> bool {
    #[cfg(feature = "mysql")]
    if crate::store::passes_on_mysql(error) {
        return true;
    }
    #[cfg(feature = "sqlite")]
    if crate::store::passes_on_sqlite(error) {
        return true;
    }
    false
}

/// What a message is known by.
fn key(message: &MessageContext) -> [u8; 32] {
    let channel = message.channel();
    let parts = [message.source(), channel.subject(), message.id().as_str()];
    let mut hash = Sha256::new();
    for part in parts {
        // The lengths keep two texts from running into each other.
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Whether a record was made, or was there.
fn is_new<T>(inserted: Result<T, sqlx::Error>) -> Result<bool, sqlx::Error> {
    match inserted {
        Ok(_) => Ok(true),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use tidelog_eventbus::messaging::{MessageId, MessageOptions, Messaging, Subject};

    use super::*;

    const PLACED: Subject<()> = Subject::new("order.placed");
    const PAID: Subject<()> = Subject::new("order.paid");

    async fn database() -> (tempfile::TempDir, sqlx::SqlitePool) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("effects.sqlite");
        let url = format!("sqlite://{}?mode=rwc", file.display());
        let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
        (directory, pool)
    }

    #[tokio::test]
    async fn records_older_than_the_window_are_swept_and_no_others() {
        let (_directory, pool) = database().await;
        let (one, two) = (
            SqliteHandled::new("g").unwrap(),
            SqliteHandled::new("h").unwrap(),
        );
        one.create_table(&pool).await.unwrap();
        one.create_table(&pool).await.unwrap();
        let add = async |group: &str, records: u32, seconds_ago: i64| {
            let insert =
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
                INSERT INTO tidelog_handled_messages (worker_group, message, handled_at)
                SELECT ?, randomblob(32), unixepoch() - ? FROM n";
            let insert = sqlx::query(insert)
                .bind(records)
                .bind(group.as_bytes())
                .bind(seconds_ago);
            insert.execute(&pool).await.unwrap();
        };
        let day = 24 * 60 * 60;
        // More than are swept in one statement.
        add("g", 2 * SWEEP_AT_ONCE + 1, 7 * day + 60).await;
        add("g", 3, 7 * day - 60).await;
        add("h", 5, 7 * day + 60).await;
        let swept = u64::from(2 * SWEEP_AT_ONCE + 1);
        assert_eq!(one.sweep(&pool).await.unwrap(), swept);
        assert_eq!(one.sweep(&pool).await.unwrap(), 0);
        let hour = Duration::from_secs(60 * 60);
        assert_eq!(one.keeping(hour).sweep(&pool).await.unwrap(), 3);
        let longer = Duration::from_secs(8 * 24 * 60 * 60);
        assert_eq!(two.clone().keeping(longer).sweep(&pool).await.unwrap(), 0);
        assert_eq!(two.sweep(&pool).await.unwrap(), 5);
    }

    #[tokio::test]
    async fn messages_of_two_subjects_with_one_id_are_two() {
        let (_directory, pool) = database().await;
        let handled = SqliteHandled::new("g").unwrap();
        handled.create_table(&pool).await.unwrap();
        let (said, mut first) = tokio::sync::mpsc::unbounded_channel();
        let handler = move |(), message: MessageContext| {
            let (pool, handled, said) = (pool.clone(), handled.clone(), said.clone());
            async move {
                let mut transaction = pool.begin().await?;
                let is_first = handled.is_first(&mut transaction, &message).await?;
                transaction.commit().await?;
                said.send((message.channel().subject().to_owned(), is_first))?;
                Ok(())
            }
        };
        let messaging = Messaging::in_process("shop");
        let worker = messaging.worker("g").concurrency(1);
        let worker = worker
            .handle(&PLACED, handler.clone())
            .handle(&PAID, handler);
        let worker = worker.start().await.unwrap();
        let mut emit = async |subject: &Subject<()>| {
            let options = MessageOptions::default().id(MessageId::new("order-17").unwrap());
            messaging.emit_with(subject, &(), options).await.unwrap();
            first.recv().await.unwrap()
        };
        assert_eq!(emit(&PLACED).await, ("order.placed".to_owned(), true));
        assert_eq!(emit(&PAID).await, ("order.paid".to_owned(), true));
        assert_eq!(emit(&PLACED).await, ("order.placed".to_owned(), false));
        worker.stop().await;
    }

    #[tokio::test]
    async fn what_a_database_cannot_do_now_is_transient() {
        let transient = |error: sqlx::Error| classify(&error) == Some(FailureKind::Transient);
        assert!(transient(std::io::Error::other("cut").into()));
        assert!(transient(sqlx::Error::PoolTimedOut));
        assert!(!transient(sqlx::Error::RowNotFound));
        let directory = tempfile::tempdir().unwrap();
        let url = format!(
            "sqlite://{}?mode=rwc",
            directory.path().join("busy").display()
        );
        let options: sqlx::sqlite::SqliteConnectOptions = url.parse().unwrap();
        let options = options.busy_timeout(Duration::ZERO);
        let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
        let _writes = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let busy = pool.begin_with("BEGIN IMMEDIATE").await.err().unwrap();
        assert!(transient(busy));
        let wrong = sqlx::query("SELECT * FROM nothing").execute(&pool).await;
        assert!(!transient(wrong.err().unwrap()));
    }
}
