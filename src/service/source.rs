//! Where the events of a process come from.

use std::sync::{Arc, OnceLock};

use tidelog_command::store::EventStore;
use tidelog_eventbus::{
    CommitSignal, EventBus, LogError, LogIdentity, Relay, RelayOptions, RelayStatus, Tail,
    TailOptions,
};

use super::group::Group;
use crate::backends::Opened;

/// The log of a process, and the bus that brings its tail.
pub(super) struct Source {
    pub(super) identity: LogIdentity,
    pub(super) log: Arc<dyn EventStore>,
    pub(super) bus: Arc<dyn EventBus>,
    /// What the log and the bus are, for people.
    pub(super) descriptions: [String; 2],
    /// Where the commits are made in this process.
    pub(super) signal: Option<CommitSignal>,
    tail: OnceLock<Tail>,
}

impl Source {
    /// The events of `log`, which this process appends to itself where it `commits`.
    ///
    /// # Errors
    ///
    /// [`LogError`] when the log cannot say what it is.
    pub(super) async fn new(
        log: Opened<dyn EventStore>,
        bus: Opened<dyn EventBus>,
        commits: bool,
    ) -> Result<Self, LogError> {
        let descriptions = [log.description, bus.description];
        let (log, bus) = (log.backend, bus.backend);
        let identity = log.identity().await?;
        Ok(Self {
            signal: commits.then(|| CommitSignal::new(identity.partitions)),
            identity,
            log,
            bus,
            descriptions,
            tail: OnceLock::new(),
        })
    }

    /// Publishes what is committed: at once where the commits are made in this process, else by polling.
    pub(super) fn publish(&self, workers: &Group) -> RelayStatus {
        let relay = Relay::new(
            self.identity.partitions,
            self.log.clone(),
            self.bus.clone(),
            self.signal.clone(),
            RelayOptions::default(),
        );
        let status = relay.status();
        workers.spawn(async |stop| relay.run(stop).await);
        status
    }

    /// The tail, one for all who read it in this process. It runs from the first call on.
    pub(super) fn tail(&self, workers: &Group) -> &Tail {
        self.tail.get_or_init(|| {
            let tail = Tail::new(
                self.identity.partitions,
                self.bus.clone(),
                self.log.clone(),
                self.signal.clone(),
                TailOptions::default(),
            );
            let running = tail.clone();
            workers.spawn(async move |stop| running.run(stop).await);
            tail
        })
    }
}
