//! Where a subscription begins.

use chrono::{DateTime, Utc};
use tidelog_domain::{ConsistencyToken, Cursor, HistoryId, Partition, Position};

use crate::log::{LogError, LogReader};

/// Where a subscription begins that has never run. It is looked up once, and persisted before the first event is read: a
/// process that is started again, or another one of the group, goes by what was found then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the first event of the log.
    #[default]
    Beginning,
    /// With the first event that is appended from now on.
    Now,
    /// After these positions; partitions that it does not name, from their beginning.
    After(ConsistencyToken),
    /// With the first event that was recorded at this time or later, by the log's clock.
    Time(DateTime<Utc>),
}

/// Why it cannot be told where a subscription begins.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The position is of another history of the log.
    #[error(
        "the position to start after is of the log's history {given}, but the log's is {log}: the log was restored or replaced \
         since; choose another start"
    )]
    OtherHistory {
        /// The history of the position.
        given: HistoryId,
        /// The log's.
        log: HistoryId,
    },
}

impl Start {
    /// After which event of each partition it begins, in this `history` of the log; index = partition.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn cursors(
        &self,
        log: &dyn LogReader,
        history: HistoryId,
    ) -> Result<Vec<Cursor>, StartError> {
        let heads = log.heads().await?;
        let positions = match self {
            Self::Beginning => vec![Position::START; heads.len()],
            Self::Now => heads,
            Self::After(token) if token.history != history => {
                return Err(StartError::OtherHistory {
                    given: token.history,
                    log: history,
                });
            }
            Self::After(token) => {
                let mut positions = vec![Position::START; heads.len()];
                for (partition, position) in &token.positions {
                    if let Some(slot) = positions.get_mut(partition.index()) {
                        *slot = *position;
                    }
                }
                positions
            }
            Self::Time(time) => {
                let mut positions = Vec::with_capacity(heads.len());
                for (partition, head) in (0..).map(Partition::new).zip(heads) {
                    positions.push(last_before(log, partition, head, *time).await?);
                }
                positions
            }
        };
        let cursor = |position| Cursor {
            position,
            event_id: None,
        };
        Ok(positions.into_iter().map(cursor).collect())
    }
}

/// The last position up to `head` that was recorded before `time`. Time never runs backwards within a partition, so it is found by
/// halving: about 30 reads for a billion events.
async fn last_before(
    log: &dyn LogReader,
    partition: Partition,
    head: Position,
    time: DateTime<Utc>,
) -> Result<Position, LogError> {
    let (mut before, mut after) = (0, head.number() + 1);
    while after - before > 1 {
        let middle = before + (after - before) / 2;
        let cursor = Cursor {
            position: Position::new(middle - 1),
            event_id: None,
        };
        let read = log.read(partition, cursor, 1).await?;
        if read.first().is_some_and(|event| event.recorded_at < time) {
            before = middle;
        } else {
            after = middle;
        }
    }
    Ok(Position::new(before))
}
