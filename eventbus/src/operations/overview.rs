//! How far a subscription is, partition by partition.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use tidelog_domain::{Cursor, HistoryId, Partition, Position};

use super::{OperationError, Operations};
use crate::log::LogReader;
use crate::state::StateRecord;

/// How many partitions are looked at in the log at once.
const READS_AT_ONCE: usize = 8;

/// What the records and the log say of one partition of a subscription.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PartitionOverview {
    /// The partition.
    pub partition: Partition,
    /// The history that the log has now.
    pub history: HistoryId,
    /// The log's head.
    pub head: Position,
    /// The revision of the record, which goes up with each change of it; 0 where there is none.
    pub revision: u64,
    /// The record; `None` where nobody has begun yet.
    pub record: Option<StateRecord>,
    /// When the first event was recorded that is not handled, by the log's clock; `None` where all are.
    pub waiting_since: Option<DateTime<Utc>>,
}

impl PartitionOverview {
    /// How far it is.
    #[must_use]
    pub fn checkpoint(&self) -> Position {
        let record = self.record.as_ref();
        record.map_or(Position::START, |own| own.checkpoint.cursor.position)
    }

    /// How many events it is behind. What is set aside does not count: that is passed.
    #[must_use]
    pub fn lag(&self) -> u64 {
        let checkpoint = self.checkpoint().number();
        self.head.number().saturating_sub(checkpoint)
    }

    /// How long, at `now`, the oldest event that is not handled has been waiting for it; zero where there is none.
    #[must_use]
    pub fn lag_time(&self, now: DateTime<Utc>) -> Duration {
        let since = self.waiting_since.unwrap_or(now);
        (now - since).to_std().unwrap_or(Duration::ZERO)
    }

    /// Whether its record belongs to another history than the log has: its positions mean nothing then.
    #[must_use]
    pub fn is_of_other_history(&self) -> bool {
        let record = self.record.as_ref();
        record.is_some_and(|own| own.checkpoint.history != self.history)
    }
}

impl Operations {
    /// What the records and the log say of each partition, in order.
    ///
    /// # Errors
    ///
    /// [`OperationError::States`], [`OperationError::Log`].
    pub async fn overview(&self) -> Result<Vec<PartitionOverview>, OperationError> {
        let history = self.log.identity().await?.history;
        // The heads come first: what is appended and handled meanwhile must not look like a lag.
        let heads = self.log.heads().await?;
        let mut stored = self.all().await?.into_iter().peekable();
        let mut partitions = Vec::with_capacity(heads.len());
        for (partition, head) in (0..).map(Partition::new).zip(heads) {
            let own = stored.next_if(|stored| stored.partition == partition);
            partitions.push(PartitionOverview {
                partition,
                history,
                head,
                revision: own.as_ref().map_or(0, |own| own.revision),
                record: own.map(|own| own.record),
                waiting_since: None,
            });
        }
        let log = &*self.log;
        let dated = partitions.into_iter().map(|own| dated(log, own));
        stream::iter(dated)
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await
    }
}

/// Looks up since when the first event waits that is not handled.
async fn dated(
    log: &dyn LogReader,
    mut overview: PartitionOverview,
) -> Result<PartitionOverview, OperationError> {
    if overview.lag() == 0 || overview.is_of_other_history() {
        return Ok(overview);
    }
    // Whether it still is the log that was read is for the subscription to find out.
    let cursor = Cursor {
        position: overview.checkpoint(),
        event_id: None,
    };
    let first = log.read(overview.partition, cursor, 1).await?;
    overview.waiting_since = first.first().map(|event| event.recorded_at);
    Ok(overview)
}
