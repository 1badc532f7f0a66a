//! A subscription that runs from the log alone, up to given heads: what a replay is made of.

use std::sync::Arc;

use tidelog_domain::{HistoryId, Partition, Position};
use tokio_util::sync::CancellationToken;

use crate::log::{LogError, LogReader};
use crate::state::{StateError, StateStore};
use crate::subscription::{Handler, HandlerError};

/// What a catch-up works with.
#[derive(Clone)]
pub struct CatchUp {
    /// The subscription's name: whose state records are moved.
    pub name: String,
    /// The process that does it, unique among all that run.
    pub owner: String,
    /// What is done with the events.
    pub handler: Arc<dyn Handler>,
    /// Where the state records are.
    pub states: Arc<dyn StateStore>,
    /// Where the events come from.
    pub log: Arc<dyn LogReader>,
    /// How many events are read and handled at once, at most.
    pub page_max_events: usize,
    /// How many partitions are worked on at once, at most.
    pub concurrent_partitions: usize,
}

impl CatchUp {
    /// Handles everything from the stored checkpoints up to `heads` (index = partition), several partitions at once,
    /// and returns when every checkpoint is there. It can be called again, with later heads.
    ///
    /// `progress` is told of each batch, and of each failure that is retried. Something unavailable is tried again without end, until `cancel`.
    /// The state records are taken over from whoever has them, and left without an owner.
    ///
    /// # Errors
    ///
    /// [`CatchUpError`]: what was done before stays, and the next call goes on from there.
    pub async fn run_to(
        &self,
        heads: &[Position],
        progress: &(dyn Fn(CatchUpProgress<'_>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<(), CatchUpError> {
        let _ = (heads, progress, cancel);
        Err(CatchUpError::Cancelled)
    }
}

/// How a catch-up is going on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum CatchUpProgress<'a> {
    /// A partition has come this far; its checkpoint is written.
    Reached {
        /// The partition.
        partition: Partition,
        /// Everything up to here is done.
        position: Position,
        /// How many events this batch had, unwanted ones included.
        events: usize,
    },
    /// Something failed and is tried again.
    Retrying {
        /// The partition.
        partition: Partition,
        /// The error and its causes.
        reason: &'a str,
    },
}

/// Why a catch-up ended before it was there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatchUpError {
    /// It was cancelled.
    #[error("the catch-up was cancelled")]
    Cancelled,
    /// An event cannot be handled.
    #[error("partition {partition} cannot go on")]
    Handler {
        /// The partition.
        partition: Partition,
        /// Why, and at which event.
        #[source]
        source: HandlerError,
    },
    /// The log cannot be read, for good.
    #[error("the log cannot be read")]
    Log(#[source] LogError),
    /// The state records cannot be read, for good.
    #[error("the state of the subscription cannot be read")]
    State(#[source] StateError),
    /// A checkpoint belongs to another history than the log has now: the view has to be built anew.
    #[error("the checkpoints belong to history {records}, and the log has {log} now")]
    HistoryChanged {
        /// Of the state records.
        records: HistoryId,
        /// Of the log.
        log: HistoryId,
    },
    /// Another process took the partition over, or paused it.
    #[error("partition {partition} was taken over or paused by another process")]
    TakenOver {
        /// The partition.
        partition: Partition,
    },
}
