//! The relay: from the log to the bus, in order.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tidelog_domain::{HistoryId, Partitions};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::bus::EventBus;
use crate::heads::{Heads, Look};
use crate::log::LogReader;
use crate::outage::Outage;
use crate::signal::CommitSignal;
use tidelog_domain::causes;

mod partition;
mod status;

use partition::{Diverged, PartitionRelay};
pub use status::{RelayPartition, RelayState, RelayStatus};

/// The bounds and times of a relay.
#[derive(Clone, Debug)]
pub struct RelayOptions {
    /// How often the log's heads are looked at, for what no signal told. 500 ms.
    pub poll_interval: Duration,
    /// How many events are read from the log and published in one go, at most. 1,000.
    pub page_max_events: usize,
    /// How many partitions read and publish at once, at most. 4.
    pub concurrent_partitions: usize,
    /// How often the bus is asked again where it is, while there is something to publish. 10 s.
    pub recheck_interval: Duration,
    /// The longest wait before another try while the log or the bus is unavailable. 2 s.
    pub backoff_max: Duration,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_millis(500),
            page_max_events: 1_000,
            concurrent_partitions: 4,
            recheck_interval: Duration::from_secs(10),
            backoff_max: Duration::from_secs(2),
        }
    }
}

/// Publishes what is committed to the log on the bus, in order, partition by partition.
///
/// It has no state of its own: where it is, the bus knows ([`EventBus::last`]), which it is asked at start, after any
/// failure, now and then, and when the log has another history. So any number of relays may run. A partition that the bus has
/// nothing of begins at the log's head, or goes on where the relay had come to: what is older, consumers read from the log.
///
/// When the bus's last event is not what the log has at that position, the log went back in time: the relay stops
/// publishing and says so, until the log has a new history.
pub struct Relay {
    shared: Arc<Shared>,
    signal: Option<CommitSignal>,
}

/// What all partitions of a relay work with.
struct Shared {
    partitions: Partitions,
    log: Arc<dyn LogReader>,
    bus: Arc<dyn EventBus>,
    options: RelayOptions,
    status: RelayStatus,
    /// Bounds how many partitions work at once.
    permits: Semaphore,
    outage: Outage,
}

/// Why a relay stopped publishing a history.
enum Ended {
    HistoryChanged,
    Diverged(Diverged),
}

impl Relay {
    /// A relay of a log of `partitions`. `signal` is there where the commits are made in this process: then it
    /// publishes at once.
    #[must_use]
    pub fn new(
        partitions: Partitions,
        log: Arc<dyn LogReader>,
        bus: Arc<dyn EventBus>,
        signal: Option<CommitSignal>,
        options: RelayOptions,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                partitions,
                log,
                bus,
                status: RelayStatus::new(partitions),
                permits: Semaphore::new(options.concurrent_partitions.max(1)),
                options,
                outage: Outage::new("relay"),
            }),
            signal,
        }
    }

    /// What can be seen of it while it runs.
    #[must_use]
    pub fn status(&self) -> RelayStatus {
        self.shared.status.clone()
    }

    /// Publishes until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.publish_histories()).await;
        self.shared.status.set_all(&RelayState::Stopped);
    }

    /// Publishes one history of the log after the other.
    async fn publish_histories(&self) -> Infallible {
        let mut history = self.another_history(None).await;
        loop {
            self.shared.status.begin(history);
            let left = match self.publish_history(history).await {
                Ended::HistoryChanged => None,
                Ended::Diverged(Diverged {
                    partition,
                    position,
                }) => {
                    tracing::error!(
                        %partition, %position, %history,
                        "the log has another event, or none, where the bus has its last one: the log was restored \
                         or replaced. Nothing more is published until it is given a new history: stop the services, \
                         then run `doctor --new-history`"
                    );
                    self.shared.status.set_all(&RelayState::Diverged {
                        partition,
                        position,
                    });
                    Some(history)
                }
            };
            history = self.another_history(left).await;
        }
    }

    /// Publishes one history, until the log has another one or turns out to have gone back in time.
    async fn publish_history(&self, history: HistoryId) -> Ended {
        let heads = Heads::new(self.shared.partitions);
        let relays = self.shared.partitions.iter().filter_map(|partition| {
            Some(PartitionRelay {
                shared: &self.shared,
                history,
                partition,
                head: heads.watch(partition)?,
            })
        });
        let mut publishing: FuturesUnordered<_> = relays.map(PartitionRelay::run).collect();
        tokio::select! {
            Some(diverged) = publishing.next() => Ended::Diverged(diverged),
            () = self.poll(&heads, history) => Ended::HistoryChanged,
            never = heads.follow(self.signal.as_ref()) => match never {},
        }
    }

    /// Looks at the log's heads again and again, until the log has another history.
    async fn poll(&self, heads: &Heads, history: HistoryId) {
        let Shared {
            log,
            options,
            outage,
            ..
        } = &*self.shared;
        loop {
            match heads.look(&**log, history).await {
                Ok(Look::Seen) => outage.recovered(None),
                Ok(Look::AnotherHistory) => return,
                Err(error) => outage.failed(None, &causes(&error)),
            }
            tokio::time::sleep(options.poll_interval).await;
        }
    }

    /// The log's history, as soon as the log can be reached and it is not `left`.
    async fn another_history(&self, left: Option<HistoryId>) -> HistoryId {
        let Shared {
            log,
            options,
            outage,
            ..
        } = &*self.shared;
        let mut backoff = Backoff::new(options.poll_interval, options.backoff_max);
        loop {
            match log.identity().await {
                Ok(identity) => {
                    outage.recovered(None);
                    if Some(identity.history) != left {
                        return identity.history;
                    }
                    tokio::time::sleep(options.poll_interval).await;
                }
                Err(error) => {
                    let reason = causes(&error);
                    outage.failed(None, &reason);
                    let wait = backoff.next_wait();
                    self.shared.status.set_all(&RelayState::BackingOff {
                        reason,
                        attempts: backoff.attempts(),
                    });
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
}
