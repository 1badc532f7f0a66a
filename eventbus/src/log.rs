//! The port through which everything but the command service reads the log.

use async_trait::async_trait;
use tidelog_domain::{
    Cursor, HistoryId, Partition, Partitions, Position, RecordedEvent, StreamId, Version,
};

use crate::retry::Retry;

/// What a log is: fixed when it was made, but for the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The history that the positions belong to.
    pub history: HistoryId,
    /// How many partitions there are.
    pub partitions: Partitions,
}

/// Reads the log. Implemented by every event store.
#[async_trait]
pub trait LogReader: Send + Sync {
    /// Who the log is. MUST be read from the log at each call: an operator may give it a new history.
    ///
    /// # Errors
    ///
    /// [`LogError::Unavailable`].
    async fn identity(&self) -> Result<LogIdentity, LogError>;

    /// The last position of each partition, in one consistent look; index = partition.
    ///
    /// # Errors
    ///
    /// [`LogError::Unavailable`].
    async fn heads(&self) -> Result<Vec<Position>, LogError>;

    /// The events of `partition` after `cursor`, in order, at most `limit`, and fewer where they are large; empty only at
    /// the head.
    ///
    /// The events MUST be dense: the first is at `cursor.position + 1`, and none is missing. The read MUST
    /// start *at* the cursor and compare the event's id there. A row that cannot be understood MUST NOT hold back the events before
    /// it: the read ends there, and the one that begins there fails.
    ///
    /// # Errors
    ///
    /// [`LogError::Diverged`] when the log has no event at the cursor or another one; [`LogError::Corrupt`] when the row at the cursor, or
    /// the one after it, cannot be understood; [`LogError::Unavailable`].
    async fn read(
        &self,
        partition: Partition,
        cursor: Cursor,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError>;
}

/// Reads single streams of a log too. Implemented by every event store; the feed of another program does not tell streams.
#[async_trait]
pub trait StreamReader: LogReader {
    /// The events of `stream` after version `after`, in order, at most `limit`, and fewer where they are large; empty only at its
    /// end, and for a stream that does not exist.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] when a row on the page cannot be understood; [`LogError::Unavailable`].
    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError>;
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The database cannot be reached, or cannot answer now.
    #[error("the log is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The log went back in time and issued positions again: a restore, or a failover to a stale replica.
    #[error(
        "partition {partition} of the log no longer has the event that was read at position {position}: the log \
         was restored or replaced; stop the services, then run `doctor --new-history` to replay every view"
    )]
    Diverged {
        /// Where it was noticed.
        partition: Partition,
        /// The cursor's position.
        position: Position,
    },
    /// What is stored cannot be understood.
    #[error("the log has a row that cannot be understood: {what}")]
    Corrupt {
        /// Which, and why.
        what: String,
    },
}

impl LogError {
    /// What a caller may do.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Unavailable(_) => Retry::AfterBackoff,
            Self::Diverged { .. } | Self::Corrupt { .. } => Retry::Never,
        }
    }
}
