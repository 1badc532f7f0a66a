//! A log that lost events which this process has seen: a restore, or a failover to a stale replica.

use std::collections::BTreeSet;

use sqlx::Row as _;
use tidelog_domain::{HistoryId, Partition};
use uuid::Uuid;

use super::script::Script;
use super::session::Session;
use super::writer::{Setback, Shared};
use crate::store::failure::{Cause, Failure};

/// Why a transaction begins again that was planned on what was known of the log's old history.
pub(super) const NEW_HISTORY: &str = "the log has a new history";

impl Shared {
    /// Why the next position of one of `partitions` was not to be had: an event that was seen is not there any more, or a head
    /// is missing. Nothing is locked when this is called.
    pub(super) async fn find_what_is_lost<'a>(
        &self,
        session: &mut Session,
        partitions: &BTreeSet<Partition>,
    ) -> Setback<'a> {
        self.what_is_lost(session, partitions)
            .await
            .unwrap_or_else(Setback::Failed)
    }

    async fn what_is_lost<'a>(
        &self,
        session: &mut Session,
        partitions: &BTreeSet<Partition>,
    ) -> Result<Setback<'a>, Failure> {
        let history = history_now(session).await?;
        if history != self.known.history() {
            self.known.begin(history);
            return Ok(Setback::Again(Cause::new(NEW_HISTORY)));
        }
        if let Some(how) = self.lost(session, partitions).await? {
            self.known.set_diverged(how.clone());
            return Err(how);
        }
        let mut script = Script::default();
        script.count_heads(partitions);
        let rows = session.run(script).await.outcome?;
        let heads: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
        if usize::try_from(heads) == Ok(partitions.len()) {
            // Another lane has just found the new history.
            return Ok(Setback::Again(Cause::new(NEW_HISTORY)));
        }
        let what = "a partition of the log has no head".to_owned();
        Err(Failure::Corrupt(what))
    }

    /// The first event that was seen in one of `partitions` and is not there any more.
    async fn lost(
        &self,
        session: &mut Session,
        partitions: &BTreeSet<Partition>,
    ) -> Result<Option<Failure>, Failure> {
        let seen: Vec<_> = partitions
            .iter()
            .filter_map(|partition| Some((*partition, self.known.seen(*partition)?)))
            .collect();
        if seen.is_empty() {
            return Ok(None);
        }
        let mut script = Script::default();
        script.missing(&seen);
        let rows = session.run(script).await.outcome?;
        let lost = rows.first().map(|row| row.try_get::<i64, _>(0));
        let lost = lost
            .transpose()?
            .and_then(|n| seen.get(usize::try_from(n).ok()?));
        Ok(lost.map(|(partition, cursor)| Failure::Diverged {
            partition: *partition,
            position: cursor.position,
        }))
    }
}

/// The history that the log has now.
pub(super) async fn history_now(session: &mut Session) -> Result<HistoryId, Failure> {
    let mut script = Script::default();
    script.statement("SELECT history FROM log_meta");
    let rows = session.run(script).await.outcome?;
    let row = rows
        .first()
        .ok_or_else(|| Failure::Corrupt("the log does not say what it is".to_owned()))?;
    let bytes: &[u8] = row.try_get(0)?;
    Uuid::from_slice(bytes)
        .map(HistoryId::new)
        .map_err(|_| Failure::Corrupt("the history of the log is not a UUID".to_owned()))
}
