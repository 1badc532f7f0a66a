//! Reading the bus: one read that waits on all partitions, or one for each where they are on several machines.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use tidelog_domain::{HistoryId, Partition, Position, RecordedEvent};
use tokio::time::Instant;

use super::status::TailState;
use super::{BACKOFF_FIRST, Shared};
use crate::backoff::Backoff;
use crate::bus::BusError;
use tidelog_domain::causes;

/// How long a partition whose entries cannot be understood is left alone; subscriptions read it from the log.
const CORRUPT_RETRY: Duration = Duration::from_secs(5);

/// How far some partitions of the bus were read.
struct Progress {
    partitions: Vec<(Partition, From)>,
    /// Whether the last read was answered.
    is_up: bool,
}

/// Which reads of the bus were answered to the last, by the first of their partitions.
struct Up {
    reads: Mutex<BTreeSet<Partition>>,
    /// How many reads there are.
    all: usize,
}

/// Where one partition is read from next.
#[derive(Clone, Copy)]
enum From {
    /// After this position.
    After(Position),
    /// After the last event that the bus has, which has to be asked for; not before this time.
    Last(Instant),
}

impl Shared {
    /// Reads the bus for ever, one history of the log after the other.
    pub(super) async fn read_bus(&self) -> Infallible {
        let mut history = self.history.subscribe();
        loop {
            let known = *history.borrow_and_update();
            let changed = match known {
                None => history.changed().await,
                Some(known) => tokio::select! {
                    changed = history.changed() => changed,
                    never = self.read_history(known) => match never {},
                },
            };
            if changed.is_err() {
                // The history's sender is in `self`.
                return std::future::pending().await;
            }
        }
    }

    /// Reads one history for ever.
    async fn read_history(&self, history: HistoryId) -> Infallible {
        let all: Vec<_> = self.partitions.iter().collect();
        let together = if self.bus.reads_together() {
            all.len()
        } else {
            1
        };
        let up = Up {
            reads: Mutex::default(),
            all: all.len().div_ceil(together),
        };
        let reads = all
            .chunks(together)
            .map(|partitions| self.read_partitions(history, partitions, &up));
        let (never, ..) = select_all(reads.map(Box::pin)).await;
        match never {}
    }

    /// Reads some partitions of one history for ever.
    async fn read_partitions(
        &self,
        history: HistoryId,
        partitions: &[Partition],
        up: &Up,
    ) -> Infallible {
        let now = Instant::now();
        let mut progress = Progress {
            partitions: partitions.iter().map(|p| (*p, From::Last(now))).collect(),
            is_up: false,
        };
        let mut backoff = Backoff::new(BACKOFF_FIRST, self.options.backoff_max);
        loop {
            match self.read_on(history, &mut progress).await {
                Ok(events) => {
                    backoff.reset();
                    progress.is_up = true;
                    self.read_is_up(&progress, up);
                    self.push(history, events);
                }
                Err(BusError::Corrupt { partition, what }) => {
                    self.bus_outage.failed(Some(partition), &what);
                    progress.leave(partition);
                }
                Err(error) => {
                    let wait = backoff.next_wait();
                    progress.is_up = false;
                    self.read_is_down(&progress, up, causes(&error), backoff.attempts());
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Reads what the bus has next, or waits for it.
    async fn read_on(
        &self,
        history: HistoryId,
        progress: &mut Progress,
    ) -> Result<Vec<RecordedEvent>, BusError> {
        let asking = progress
            .due()
            .map(|partition| async move { (partition, self.bus.last(history, partition).await) });
        for (partition, last) in join_all(asking).await {
            let position = last?.map_or(Position::START, |last| last.position);
            progress.set(partition, position);
            self.bus_outage.recovered(Some(partition));
        }
        let wait = self.wait(progress);
        let limit = self.options.read_max_events;
        let after = progress.after();
        let events = self.bus.read(history, &after, limit, wait).await?;
        for event in &events {
            progress.set(event.partition, event.position);
        }
        Ok(events)
    }

    /// How long to wait for events: not at all as long as it is open whether the bus is there, and not beyond the time
    /// when something else is due.
    fn wait(&self, progress: &Progress) -> Duration {
        if !progress.is_up {
            return Duration::ZERO;
        }
        let until_due = progress
            .next_due()
            .map(|due| due.saturating_duration_since(Instant::now()));
        until_due.map_or(self.options.read_wait, |due| {
            due.min(self.options.read_wait)
        })
    }

    /// A read was answered: the bus is up when all others are.
    fn read_is_up(&self, progress: &Progress, up: &Up) {
        if !up.add(progress.first()) {
            return;
        }
        self.bus_outage.recovered(None);
        self.status.send_if_modified(|status| {
            let news = status.bus != TailState::Reading;
            status.set(TailState::Reading);
            news
        });
    }

    /// A read failed: the bus counts as down, also where others are answered.
    fn read_is_down(&self, progress: &Progress, up: &Up, reason: String, attempts: u32) {
        up.remove(progress.first());
        self.bus_outage.failed(None, &reason);
        self.status
            .send_modify(|status| status.set(TailState::Down { reason, attempts }));
    }
}

impl Up {
    /// Whether all reads are up with this one.
    fn add(&self, read: Partition) -> bool {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.insert(read);
        reads.len() == self.all
    }

    fn remove(&self, read: Partition) {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.remove(&read);
    }
}

impl Progress {
    /// The first of its partitions.
    fn first(&self) -> Partition {
        let first = self.partitions.first();
        first.map_or(Partition::new(0), |(partition, _)| *partition)
    }

    /// The partitions whose last event is to be asked for now.
    fn due(&self) -> impl Iterator<Item = Partition> {
        let now = Instant::now();
        let due: Vec<_> = self
            .partitions
            .iter()
            .filter(|(_, from)| matches!(from, From::Last(due) if *due <= now))
            .map(|(partition, _)| *partition)
            .collect();
        due.into_iter()
    }

    /// When the next of them is to be asked for.
    fn next_due(&self) -> Option<Instant> {
        let due = self.partitions.iter().filter_map(|(_, from)| match from {
            From::Last(due) => Some(*due),
            From::After(_) => None,
        });
        due.min()
    }

    /// The partitions that can be read, and from where.
    fn after(&self) -> Vec<(Partition, Position)> {
        let partitions = self.partitions.iter();
        partitions
            .filter_map(|(partition, from)| match from {
                From::After(position) => Some((*partition, *position)),
                From::Last(_) => None,
            })
            .collect()
    }

    fn set(&mut self, partition: Partition, position: Position) {
        self.put(partition, From::After(position));
    }

    /// Leaves a partition alone for a while, and goes on after its last event then.
    fn leave(&mut self, partition: Partition) {
        self.put(partition, From::Last(Instant::now() + CORRUPT_RETRY));
    }

    fn put(&mut self, partition: Partition, from: From) {
        // They follow one another.
        let place = partition.index().checked_sub(self.first().index());
        if let Some((_, place)) = place.and_then(|place| self.partitions.get_mut(place)) {
            *place = from;
        }
    }
}
