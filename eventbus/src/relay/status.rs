//! What can be seen of a relay while it runs.

use std::sync::Arc;
use std::time::Instant;

use tidelog_domain::{HistoryId, Partition, Partitions, Position};
use tokio::sync::watch;

/// What a relay is doing with one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelayState {
    /// It has not begun.
    Starting,
    /// It publishes what is committed.
    Publishing,
    /// The log or the bus is unavailable; it is tried again, without end.
    BackingOff {
        /// The error and its causes.
        reason: String,
        /// How often it failed in a row.
        attempts: u32,
    },
    /// The log went back in time: nothing is published until it has a new history.
    Diverged {
        /// The partition where it was noticed.
        partition: Partition,
        /// The position that the log has no longer, or with another event.
        position: Position,
    },
    /// It was told to stop, and has.
    Stopped,
}

/// What can be seen of one partition of a relay.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RelayPartition {
    /// The partition.
    pub partition: Partition,
    /// The last position that this relay knows to be on the bus.
    pub published: Position,
    /// The log's head as far as this relay knows.
    pub head: Position,
    /// What it is doing.
    pub state: RelayState,
    /// Since when.
    pub since: Instant,
}

impl RelayPartition {
    /// How many events the bus is behind the log.
    #[must_use]
    pub const fn lag(&self) -> u64 {
        self.head.number().saturating_sub(self.published.number())
    }
}

/// What can be seen of a relay, always up to date. Cloning gives another look at the same relay.
#[derive(Clone, Debug)]
pub struct RelayStatus {
    history: watch::Sender<Option<HistoryId>>,
    partitions: Arc<[watch::Sender<RelayPartition>]>,
}

impl RelayStatus {
    pub(super) fn new(partitions: Partitions) -> Self {
        let starting = |partition| RelayPartition {
            partition,
            published: Position::START,
            head: Position::START,
            state: RelayState::Starting,
            since: Instant::now(),
        };
        Self {
            history: watch::Sender::new(None),
            partitions: partitions
                .iter()
                .map(|partition| watch::Sender::new(starting(partition)))
                .collect(),
        }
    }

    /// The history that it publishes; `None` before the log was reached for the first time.
    #[must_use]
    pub fn history(&self) -> Option<HistoryId> {
        *self.history.borrow()
    }

    /// All partitions, ascending.
    #[must_use]
    pub fn partitions(&self) -> Vec<RelayPartition> {
        self.partitions
            .iter()
            .map(|partition| partition.borrow().clone())
            .collect()
    }

    /// Whether nothing is wrong with any partition.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.partitions.iter().all(|partition| {
            matches!(
                partition.borrow().state,
                RelayState::Starting | RelayState::Publishing | RelayState::Stopped
            )
        })
    }

    /// A watch on one partition; `None` when there is no such partition.
    #[must_use]
    pub fn watch(&self, partition: Partition) -> Option<watch::Receiver<RelayPartition>> {
        self.partitions
            .get(partition.index())
            .map(watch::Sender::subscribe)
    }

    /// Another history: everything begins anew.
    pub(super) fn begin(&self, history: HistoryId) {
        self.history.send_replace(Some(history));
        for partition in self.partitions.iter() {
            partition.send_modify(|status| {
                (status.published, status.head) = (Position::START, Position::START);
            });
        }
        self.set_all(&RelayState::Starting);
    }

    pub(super) fn set_all(&self, state: &RelayState) {
        for partition in self.partitions.iter() {
            set_state(partition, state.clone());
        }
    }

    pub(super) fn set(&self, partition: Partition, state: RelayState) {
        if let Some(partition) = self.partitions.get(partition.index()) {
            set_state(partition, state);
        }
    }

    pub(super) fn published(&self, partition: Partition, published: Position) {
        if let Some(partition) = self.partitions.get(partition.index()) {
            partition.send_modify(|status| {
                status.published = published;
                status.head = status.head.max(published);
            });
            set_state(partition, RelayState::Publishing);
        }
    }

    pub(super) fn seen(&self, partition: Partition, head: Position) {
        if let Some(partition) = self.partitions.get(partition.index()) {
            partition.send_if_modified(|status| {
                let moved = head > status.head;
                status.head = status.head.max(head);
                moved
            });
        }
    }
}

/// Sets the state, with the time when it is another one than before.
fn set_state(partition: &watch::Sender<RelayPartition>, state: RelayState) {
    partition.send_if_modified(|status| {
        if status.state == state {
            return false;
        }
        if std::mem::discriminant(&status.state) != std::mem::discriminant(&state) {
            status.since = Instant::now();
        }
        status.state = state;
        true
    });
}
