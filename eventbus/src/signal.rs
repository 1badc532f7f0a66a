//! The hint, within a process, that something was committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidelog_domain::{Partition, Partitions, Position};
use tokio::sync::watch;

/// Tells, within one process, how far each partition was committed. A hint: it may lag, and it starts at 0.
///
/// Cloning gives another handle to the same signal.
#[derive(Clone, Debug)]
pub struct CommitSignal {
    heads: Arc<[AtomicU64]>,
    changed: watch::Sender<()>,
}

impl CommitSignal {
    /// A signal for a log of `partitions`.
    #[must_use]
    pub fn new(partitions: Partitions) -> Self {
        Self {
            heads: partitions.iter().map(|_| AtomicU64::new(0)).collect(),
            changed: watch::Sender::new(()),
        }
    }

    /// Says that everything up to these positions is committed, and wakes who waits.
    pub fn committed(&self, heads: impl IntoIterator<Item = (Partition, Position)>) {
        for (partition, position) in heads {
            if let Some(head) = self.heads.get(partition.index()) {
                head.fetch_max(position.number(), Ordering::AcqRel);
            }
        }
        self.changed.send_replace(());
    }

    /// The last position that `partition` is known to have.
    #[must_use]
    pub fn head(&self, partition: Partition) -> Position {
        let head = self.heads.get(partition.index());
        Position::new(head.map_or(0, |head| head.load(Ordering::Acquire)))
    }

    /// Something to wait on: changes whenever a head may have moved.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
