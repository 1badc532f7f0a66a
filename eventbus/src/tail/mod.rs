//! The tail of the log, as the bus brings it: read once a process, shared by all subscriptions.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidelog_domain::{HistoryId, Partition, Partitions, Position, RecordedEvent};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::bus::EventBus;
use crate::heads::{Heads, Look};
use crate::log::LogReader;
use crate::outage::Outage;
use crate::signal::CommitSignal;
use tidelog_domain::causes;

mod consumer;
mod reader;
mod ring;
mod status;

pub(crate) use consumer::{Next, PartitionTail};
use ring::{Bounds, Ring};
pub use status::{TailState, TailStatus};

/// The first wait after a failure, at most.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);

/// The bounds and times of a tail.
#[derive(Clone, Debug)]
pub struct TailOptions {
    /// How many events of a partition are kept for subscriptions that are a little behind, at most. 4,096.
    pub ring_max_events: usize,
    /// How many bytes of events are kept, all partitions together, at most. 64 MiB.
    pub rings_max_bytes: usize,
    /// How many events of a partition are read from the bus at once, at most. 500.
    pub read_max_events: usize,
    /// How long a read waits on the bus. 5 s.
    pub read_wait: Duration,
    /// How often the log's heads are looked at: how soon a stalled bus is noticed. 1 s.
    pub poll_interval: Duration,
    /// How often they are looked at while the bus is down. 200 ms.
    pub poll_interval_without_bus: Duration,
    /// How long the bus may take to bring what the log is known to have, before a subscription reads the log. 50 ms.
    pub stall_after: Duration,
    /// The longest wait before another try while the bus is unavailable. 2 s.
    pub backoff_max: Duration,
}

impl Default for TailOptions {
    fn default() -> Self {
        Self {
            ring_max_events: 4_096,
            rings_max_bytes: 64 * 1024 * 1024,
            read_max_events: 500,
            read_wait: Duration::from_secs(5),
            poll_interval: Duration::from_secs(1),
            poll_interval_without_bus: Duration::from_millis(200),
            stall_after: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
        }
    }
}

/// The newest events of every partition, read from the bus once for all subscriptions of a process, and the log's
/// heads, by which they notice what the bus does not bring.
///
/// Cloning gives another handle to the same tail. It must [run](Tail::run) for subscriptions to see anything new.
#[derive(Clone)]
pub struct Tail {
    shared: Arc<Shared>,
}

struct Shared {
    partitions: Partitions,
    bus: Arc<dyn EventBus>,
    log: Arc<dyn LogReader>,
    signal: Option<CommitSignal>,
    options: TailOptions,
    heads: Heads,
    rings: Box<[Mutex<Slot>]>,
    /// The log's history; `None` before the log was reached for the first time.
    history: watch::Sender<Option<HistoryId>>,
    status: watch::Sender<TailStatus>,
    bus_outage: Outage,
    log_outage: Outage,
}

/// The ring of a partition, and the history that it belongs to.
#[derive(Default)]
struct Slot {
    history: Option<HistoryId>,
    ring: Ring,
}

impl Tail {
    /// A tail of a log of `partitions`. `signal` is there where the commits are made in this process.
    #[must_use]
    pub fn new(
        partitions: Partitions,
        bus: Arc<dyn EventBus>,
        log: Arc<dyn LogReader>,
        signal: Option<CommitSignal>,
        options: TailOptions,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                partitions,
                bus,
                log,
                signal,
                options,
                heads: Heads::new(partitions),
                rings: partitions.iter().map(|_| Mutex::default()).collect(),
                history: watch::Sender::new(None),
                status: watch::Sender::new(TailStatus::new()),
                bus_outage: Outage::new("tail of the bus"),
                log_outage: Outage::new("watch on the log's heads"),
            }),
        }
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partitions(&self) -> Partitions {
        self.shared.partitions
    }

    /// Whether the bus is there.
    #[must_use]
    pub fn status(&self) -> TailStatus {
        self.shared.status.borrow().clone()
    }

    /// Reads the bus and watches the log's heads until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        let shared = &*self.shared;
        let reading = async {
            tokio::select! {
                never = shared.watch_log() => match never {},
                never = shared.heads.follow(shared.signal.as_ref()) => match never {},
                never = shared.read_bus() => match never {},
            }
        };
        let _: Option<Infallible> = shutdown.run_until_cancelled(reading).await;
    }

    /// The log's history, as it is known and changes.
    pub(crate) fn history(&self) -> watch::Receiver<Option<HistoryId>> {
        self.shared.history.subscribe()
    }

    /// The head of `partition`, as far as it is known.
    pub(crate) fn head(&self, partition: Partition) -> Position {
        let head = self.shared.heads.watch(partition);
        head.map_or(Position::START, |head| head.borrow().known)
    }

    /// What a consumer of `partition` sees of the tail; `None` when there is no such partition.
    pub(crate) fn of_partition(
        &self,
        history: HistoryId,
        partition: Partition,
    ) -> Option<PartitionTail> {
        let head = self.shared.heads.watch(partition)?;
        Some(PartitionTail::new(
            Arc::clone(&self.shared),
            history,
            partition,
            head,
        ))
    }
}

impl Shared {
    /// Follows the log: its history, and its heads.
    async fn watch_log(&self) -> Infallible {
        let mut backoff = Backoff::new(BACKOFF_FIRST, self.options.backoff_max);
        loop {
            match self.look().await {
                Ok(()) => {
                    self.log_outage.recovered(None);
                    backoff.reset();
                    tokio::time::sleep(self.poll_interval()).await;
                }
                Err(error) => {
                    self.log_outage.failed(None, &causes(&error));
                    tokio::time::sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    /// Asks the log for its history and its heads.
    async fn look(&self) -> Result<(), crate::log::LogError> {
        let known = *self.history.borrow();
        if let Some(history) = known
            && let Look::Seen = self.heads.look(&*self.log, history).await?
        {
            return Ok(());
        }
        let history = self.log.identity().await?.history;
        self.heads.reset();
        self.heads.look(&*self.log, history).await?;
        self.history.send_replace(Some(history));
        Ok(())
    }

    fn poll_interval(&self) -> Duration {
        if self.is_bus_down() {
            self.options.poll_interval_without_bus
        } else {
            self.options.poll_interval
        }
    }

    fn is_bus_down(&self) -> bool {
        matches!(self.status.borrow().bus, TailState::Down { .. })
    }

    /// The ring of `partition`.
    fn slot(&self, partition: Partition) -> Option<MutexGuard<'_, Slot>> {
        // Nothing panics while it is held, and no state of it would be invalid if something did.
        let slot = self.rings.get(partition.index())?;
        Some(slot.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes in what the bus brought.
    fn push(&self, history: HistoryId, events: Vec<RecordedEvent>) {
        let bounds = Bounds {
            events: self.options.ring_max_events,
            bytes: self.options.rings_max_bytes / usize::from(self.partitions.count()),
        };
        let mut events = events.into_iter().peekable();
        while let Some(partition) = events.peek().map(|event| event.partition) {
            let Some(mut slot) = self.slot(partition) else {
                // A partition that the log does not have: nobody asks for it.
                events.next();
                continue;
            };
            if slot.history != Some(history) {
                *slot = Slot {
                    history: Some(history),
                    ring: Ring::default(),
                };
            }
            let mut arrived = slot.ring.last();
            while let Some(event) = events.next_if(|event| event.partition == partition) {
                arrived = arrived.max(event.position);
                slot.ring.push(event, bounds);
            }
            drop(slot);
            self.heads.arrived(partition, arrived);
        }
    }
}
