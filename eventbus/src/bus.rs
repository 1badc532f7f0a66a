//! The port of the event bus.

use std::time::Duration;

use async_trait::async_trait;
use tidelog_domain::{Cursor, HistoryId, Partition, Position, RecordedEvent};

use crate::retry::Retry;

/// An event bus: for each partition of one history of the log, an ordered, trimmed, disposable copy of its tail.
///
/// Any number of relays may publish at once: an adapter MUST turn down what is already there by position, so
/// that order and uniqueness come from the positions alone. A bus may lose any of its entries at any moment, and
/// keeps a bounded number of them. Every adapter passes the same conformance suite (the feature `conformance`).
#[async_trait]
pub trait EventBus: Send + Sync {
    /// Publishes `events` of `partition`, in order.
    ///
    /// An event at or below the last published position is skipped, silently: it is a duplicate, or a zombie's.
    ///
    /// # Errors
    ///
    /// [`BusError::Unavailable`], after which any prefix of the events may have been published, and
    /// [`BusError::Full`].
    async fn publish(
        &self,
        history: HistoryId,
        partition: Partition,
        events: &[RecordedEvent],
    ) -> Result<(), BusError>;

    /// The last published event of `partition`; `None` when the bus has nothing of it (new, or lost).
    ///
    /// The event's id is missing when the bus remembers the position but has trimmed or lost the entry.
    ///
    /// # Errors
    ///
    /// [`BusError::Unavailable`]; [`BusError::Corrupt`] when the last entry is not one of ours.
    async fn last(
        &self,
        history: HistoryId,
        partition: Partition,
    ) -> Result<Option<Cursor>, BusError>;

    /// Whether one read of several partitions costs no more than a read of one. Where it does, as where each partition
    /// may be on another machine, who follows all of them reads each by itself, all at once.
    fn reads_together(&self) -> bool {
        true
    }

    /// Waits until there is something after one of the positions, at most `wait`, and gives what is there.
    ///
    /// The events of a partition come in order, each position once; there may be holes. At most `limit` a
    /// partition. Empty when nothing came in time.
    ///
    /// # Errors
    ///
    /// [`BusError::Unavailable`]; [`BusError::Corrupt`] when an entry is not one of ours: the partition may be read
    /// on from its last event, or left out.
    async fn read(
        &self,
        history: HistoryId,
        after: &[(Partition, Position)],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<RecordedEvent>, BusError>;
}

/// Why the bus did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// It cannot be reached, or cannot answer now.
    #[error("the event bus is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It has no room.
    #[error("the event bus is full: give it more memory, or let it keep fewer entries")]
    Full(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It has an entry that cannot be understood.
    #[error(
        "partition {partition} of the event bus has an entry that cannot be understood: {what}"
    )]
    Corrupt {
        /// Which partition it is in. The others can be read without it.
        partition: Partition,
        /// Which, and why.
        what: String,
    },
}

impl BusError {
    #[cfg(any(feature = "redis", feature = "nats", feature = "kafka"))]
    pub(crate) fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unavailable(Box::new(error))
    }

    /// What a caller may do.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Unavailable(_) | Self::Full(_) => Retry::AfterBackoff,
            Self::Corrupt { .. } => Retry::Never,
        }
    }
}
