//! Saying anew where a subscription goes on.

use tidelog_domain::{Cursor, HistoryId, Partition};

use crate::log::{LogError, LogReader};
use crate::start::{Start, StartError};
use crate::state::{StateError, StateRecord, StateStore};

/// How often a record is tried to be changed that others change at the same time.
const MAX_TRIES: usize = 16;

/// Why a subscription could not be restarted. Some of its partitions may have been; it can be done again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestartError {
    /// It cannot be told where it begins.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Its state cannot be changed.
    #[error(transparent)]
    State(#[from] StateError),
    /// A state record changes all the time.
    #[error(
        "the state of partition {partition} changes all the time: stop the services that work on it"
    )]
    Busy {
        /// Which.
        partition: Partition,
    },
}

impl From<LogError> for RestartError {
    fn from(error: LogError) -> Self {
        Self::Start(error.into())
    }
}

/// Has `subscription` go on at `start`, in the history that `log` has now: what an operator says of one that is held, or that is to do
/// something again. What it had set aside is forgotten; whether it is paused stays.
///
/// Processes that work on it may go on running: they notice, and begin there.
///
/// # Errors
///
/// [`RestartError`].
pub async fn restart(
    subscription: &str,
    states: &dyn StateStore,
    log: &dyn LogReader,
    start: &Start,
) -> Result<(), RestartError> {
    let history = log.identity().await?.history;
    let cursors = start.cursors(log, history).await?;
    for (partition, cursor) in (0..).map(Partition::new).zip(cursors) {
        restart_one(subscription, partition, states, history, cursor).await?;
    }
    Ok(())
}

async fn restart_one(
    subscription: &str,
    partition: Partition,
    states: &dyn StateStore,
    history: HistoryId,
    cursor: Cursor,
) -> Result<(), RestartError> {
    for _ in 0..MAX_TRIES {
        let stored = states.load_states(subscription).await?.into_iter();
        let stored = stored.into_iter().find(|(of, ..)| *of == partition);
        let new = StateRecord::beginning_at(history, cursor);
        let (revision, record) = match stored {
            None => (0, new),
            // Another epoch, so that its owner does not take it for his.
            Some((_, revision, old)) => (
                revision,
                StateRecord {
                    epoch: old.epoch.saturating_add(1),
                    pause: old.pause,
                    ..new
                },
            ),
        };
        if states
            .compare_and_set_state(subscription, partition, revision, &record)
            .await?
        {
            return Ok(());
        }
    }
    Err(RestartError::Busy { partition })
}
