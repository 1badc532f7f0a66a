//! One partition of a subscription: who works on it, and since when nobody else may.

use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::{Partition, Position};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Running;
use super::lease::Lease;
use super::observer::Seen;
use super::status::PartitionState;
use super::work::{Leave, Work};
use crate::backoff::Backoff;
use crate::state::{Claim, StateError, StateRecord};
use tidelog_domain::causes;

/// The first wait after a failure, at most.
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(50);

/// The longest wait after a failure that may pass.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How long giving a record back may take when the subscription stops. Then its lease just ends.
const RELEASE_BOUND: Duration = Duration::from_secs(2);

/// Works on one partition whenever it may.
pub(super) struct Worker {
    running: Arc<Running>,
    partition: Partition,
    seen: watch::Receiver<Option<Seen>>,
    /// Whether it may take the partition from a living owner, as it may when the subscription starts.
    takes_over: bool,
}

impl Worker {
    /// A worker for `partition`; nothing when there is no such partition.
    pub(super) fn new(running: &Arc<Running>, partition: Partition) -> Option<Self> {
        Some(Self {
            seen: running.observer.watch(partition)?,
            takes_over: running.options.take_over_at_start,
            running: Arc::clone(running),
            partition,
        })
    }

    /// Works until the subscription stops.
    pub(super) async fn run(mut self) {
        while let Some(lease) = self.acquire().await {
            let Some(mut work) = Work::new(&self.running, self.partition, lease, self.seen.clone())
            else {
                return;
            };
            match work.run().await {
                Leave::Lost => {}
                Leave::Paused | Leave::HandOver => self.release(work).await,
                Leave::Stopping => return self.release(work).await,
                Leave::Ended(ending) => {
                    self.running.end(ending);
                    return self.release(work).await;
                }
            }
        }
    }

    /// Waits until the partition can be taken, and takes it; `None` when the subscription stops.
    async fn acquire(&mut self) -> Option<Lease> {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX);
        loop {
            let wake_at = match self.try_acquire().await {
                Ok(Acquired::Lease(lease)) => {
                    self.takes_over = false;
                    self.running.outage.recovered(Some(self.partition));
                    return Some(*lease);
                }
                Ok(Acquired::Ended) => return None,
                Ok(Acquired::NotBefore(wake_at)) => wake_at,
                Err(error) => {
                    let wait = backoff.next_wait();
                    self.running
                        .fails(self.partition, causes(&error), backoff.attempts());
                    Some(Instant::now() + wait)
                }
            };
            tokio::select! {
                () = self.running.stop.cancelled() => return None,
                changed = self.seen.changed() => changed.ok()?,
                () = sleep_until(wake_at) => {}
            }
        }
    }

    /// Takes the partition if it can be taken now.
    async fn try_acquire(&mut self) -> Result<Acquired, StateError> {
        let running = &*self.running;
        let Some(seen) = self.seen.borrow_and_update().clone() else {
            return Ok(Acquired::NotBefore(None));
        };
        let record = seen.record.as_deref().cloned();
        let record = record.unwrap_or_else(|| StateRecord::at_start(running.history));
        if record.checkpoint.history != running.history {
            running.end(super::Ending::HistoryChanged);
            return Ok(Acquired::Ended);
        }
        running.status.reached_by(
            self.partition,
            record.checkpoint.cursor,
            &record.parked,
            Position::START,
        );
        let lease = running.options.lease;
        let unchanged = seen.unchanged_since.elapsed();
        match record.claim(&running.records.owner, unchanged, lease) {
            Claim::Paused => {
                running.status.set(self.partition, PartitionState::Paused);
                return Ok(Acquired::NotBefore(None));
            }
            Claim::Held if !self.takes_over => {
                let owner = record.owner.or(record.wanted_by).unwrap_or_default();
                let standby = PartitionState::Standby { owner };
                running.status.set(self.partition, standby);
                return Ok(Acquired::NotBefore(Some(seen.unchanged_since + lease)));
            }
            Claim::Free if record.owner.as_deref() != Some(&*running.records.owner) => {
                let free_since = match record.owner {
                    None => seen.unchanged_since,
                    Some(_) => seen.unchanged_since + lease,
                };
                if let Some(not_before) = running.lets_others_come_first(free_since) {
                    return Ok(Acquired::NotBefore(Some(not_before)));
                }
            }
            Claim::Held | Claim::Free => {}
        }
        let taking = running
            .records
            .take(self.partition, seen.revision, &record)
            .await?;
        Ok(taking.map_or(Acquired::NotBefore(None), |lease| {
            Acquired::Lease(Box::new(lease))
        }))
    }

    /// Gives the record back, so that another process need not wait for the lease to end.
    async fn release(&self, work: Work) {
        let releasing = tokio::time::timeout(RELEASE_BOUND, work.release());
        let problem = match releasing.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => causes(&error),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::warn!(
            subscription = %self.running.records.subscription, partition = %self.partition, %problem,
            "the partition could not be given back: it is free when its lease ends"
        );
    }
}

/// What came of taking a partition.
enum Acquired {
    /// It is taken.
    Lease(Box<Lease>),
    /// It cannot be taken before something changes, or this time has come.
    NotBefore(Option<Instant>),
    /// Nothing is to be taken any more.
    Ended,
}

/// Waits for a time; for ever without one.
pub(super) async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
