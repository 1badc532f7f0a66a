//! Reading the bus: one read that waits on all partitions.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::future::join_all;
use tidelog_domain::{HistoryId, Partition, Position, RecordedEvent};
use tokio::time::Instant;

use super::status::TailState;
use super::{BACKOFF_FIRST, Shared};
use crate::backoff::Backoff;
use crate::bus::BusError;
use tidelog_domain::causes;

/// How long a partition whose entries cannot be understood is left alone; subscriptions read it from the log.
const CORRUPT_RETRY: Duration = Duration::from_secs(5);

/// How far the bus was read.
struct Progress {
    partitions: Vec<From>,
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
        let now = Instant::now();
        let mut progress = Progress {
            partitions: self.partitions.iter().map(|_| From::Last(now)).collect(),
        };
        let mut backoff = Backoff::new(BACKOFF_FIRST, self.options.backoff_max);
        loop {
            match self.read_on(history, &mut progress).await {
                Ok(events) => {
                    backoff.reset();
                    self.bus_is_up();
                    self.push(history, events);
                }
                Err(BusError::Corrupt { partition, what }) => {
                    self.bus_outage.failed(Some(partition), &what);
                    progress.leave(partition);
                }
                Err(error) => {
                    let wait = backoff.next_wait();
                    self.bus_is_down(causes(&error), backoff.attempts());
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
        if self.status.borrow().bus != TailState::Reading {
            return Duration::ZERO;
        }
        let until_due = progress
            .next_due()
            .map(|due| due.saturating_duration_since(Instant::now()));
        until_due.map_or(self.options.read_wait, |due| {
            due.min(self.options.read_wait)
        })
    }

    fn bus_is_up(&self) {
        self.bus_outage.recovered(None);
        self.status.send_if_modified(|status| {
            let news = status.bus != TailState::Reading;
            status.set(TailState::Reading);
            news
        });
    }

    fn bus_is_down(&self, reason: String, attempts: u32) {
        self.bus_outage.failed(None, &reason);
        self.status
            .send_modify(|status| status.set(TailState::Down { reason, attempts }));
    }
}

impl Progress {
    /// The partitions whose last event is to be asked for now.
    fn due(&self) -> impl Iterator<Item = Partition> {
        let now = Instant::now();
        let partitions = (0..).map(Partition::new).zip(&self.partitions);
        let due: Vec<_> = partitions
            .filter(|(_, from)| matches!(from, From::Last(due) if *due <= now))
            .map(|(partition, _)| partition)
            .collect();
        due.into_iter()
    }

    /// When the next of them is to be asked for.
    fn next_due(&self) -> Option<Instant> {
        let due = self.partitions.iter().filter_map(|from| match from {
            From::Last(due) => Some(*due),
            From::After(_) => None,
        });
        due.min()
    }

    /// The partitions that can be read, and from where.
    fn after(&self) -> Vec<(Partition, Position)> {
        let partitions = (0..).map(Partition::new).zip(&self.partitions);
        partitions
            .filter_map(|(partition, from)| match from {
                From::After(position) => Some((partition, *position)),
                From::Last(_) => None,
            })
            .collect()
    }

    fn set(&mut self, partition: Partition, position: Position) {
        if let Some(from) = self.partitions.get_mut(partition.index()) {
            *from = From::After(position);
        }
    }

    /// Leaves a partition alone for a while, and goes on after its last event then.
    fn leave(&mut self, partition: Partition) {
        if let Some(from) = self.partitions.get_mut(partition.index()) {
            *from = From::Last(Instant::now() + CORRUPT_RETRY);
        }
    }
}
