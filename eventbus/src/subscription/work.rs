//! Working on a partition that is held: read, handle, write the checkpoint.

use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::{Cursor, Partition, Position, RecordedEvent};
use tokio::sync::watch;
use tokio::time::Instant;

use super::delivery::{Portions, Undelivered, deliver};
use super::lease::{Held, Lease, renewal};
use super::observer::Seen;
use super::status::PartitionState;
use super::worker::{BACKOFF_FIRST, BACKOFF_MAX};
use super::{Ending, Running};
use crate::backoff::Backoff;
use crate::log::LogError;
use crate::state::StateError;
use crate::tail::{Next, PartitionTail};
use tidelog_domain::causes;

/// The first wait before an event that failed for good is tried again, at most.
const FAILED_FIRST: Duration = Duration::from_secs(1);

/// How long to wait when the log does not have yet what the bus has.
const LOG_BEHIND: Duration = Duration::from_millis(50);

/// How long to wait before another look at a record that could not be read.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Why work on a partition ends.
#[derive(Debug)]
pub(super) enum Leave {
    /// The subscription stops.
    Stopping,
    /// Somebody paused the partition.
    Paused,
    /// Somebody else has the partition now, or the record is gone with the data beside it.
    Lost,
    /// The whole subscription has to end.
    Ended(Ending),
}

/// Work on one partition, as long as it is held.
pub(super) struct Work {
    running: Arc<Running>,
    partition: Partition,
    lease: Lease,
    tail: PartitionTail,
    seen: watch::Receiver<Option<Seen>>,
    /// How far it is; the stored checkpoint may be behind by events that nobody wanted.
    cursor: Cursor,
    /// For what may pass.
    backoff: Backoff,
    /// For an event that cannot be handled.
    failing: Backoff,
}

impl Work {
    /// Work that begins at the lease's checkpoint; nothing when there is no such partition.
    pub(super) fn new(
        running: &Arc<Running>,
        partition: Partition,
        lease: Lease,
        seen: watch::Receiver<Option<Seen>>,
    ) -> Option<Self> {
        Some(Self {
            tail: running.tail.of_partition(running.history, partition)?,
            cursor: lease.checkpoint(),
            backoff: Backoff::new(BACKOFF_FIRST, BACKOFF_MAX),
            failing: Backoff::new(FAILED_FIRST, running.options.failed_retry_max),
            running: Arc::clone(running),
            partition,
            lease,
            seen,
        })
    }

    /// Works until there is a reason to leave.
    pub(super) async fn run(&mut self) -> Leave {
        let Err(leave) = self.work().await;
        leave
    }

    /// Gives the partition back, with all that is done.
    pub(super) async fn release(mut self) -> Result<(), StateError> {
        self.lease.release(self.cursor).await
    }

    async fn work(&mut self) -> Result<std::convert::Infallible, Leave> {
        // The checkpoint is compared with the log before anything else.
        let mut next = Next::ReadLog;
        loop {
            match next {
                Next::Events(events) => self.process(&events).await?,
                Next::ReadLog => {
                    let page = self.read_log().await?;
                    if page.is_empty() {
                        self.found_nothing().await?;
                    }
                    self.process(&page).await?;
                }
            }
            next = self.wait_for_next().await?;
        }
    }

    /// Waits for the next events. Meanwhile the checkpoint is written when it is due.
    async fn wait_for_next(&mut self) -> Result<Next, Leave> {
        let limit = self.running.options.live_batch_max_events;
        loop {
            let write_at = self.write_at();
            tokio::select! {
                biased;
                interruption = interrupted(&self.running, &mut self.seen, self.lease.revision()) => {
                    self.meet(interruption).await?;
                }
                () = tokio::time::sleep_until(write_at) => self.write_checkpoint().await?,
                next = self.tail.next(self.cursor.position, limit) => return Ok(next),
            }
        }
    }

    /// When the record is to be written next: soon, when events were passed over that nobody wanted; else in time to
    /// keep the lease.
    fn write_at(&self) -> Instant {
        let options = &self.running.options;
        let delay = if self.cursor == self.lease.checkpoint() {
            renewal(options.lease)
        } else {
            options.idle_checkpoint_delay
        };
        self.lease.written_at() + delay
    }

    /// Reads the log after the cursor.
    async fn read_log(&mut self) -> Result<Vec<RecordedEvent>, Leave> {
        let running = Arc::clone(&self.running);
        let limit = running.options.log_page_max_events;
        loop {
            let (partition, cursor) = (self.partition, self.cursor);
            let reading = async {
                let _permit = running.permits.acquire().await;
                running.log.read(partition, cursor, limit).await
            };
            let read = keep_alive(&mut self.lease, running.options.lease, reading).await;
            match read {
                Ok(page) => return Ok(page),
                Err(LogError::Diverged {
                    partition,
                    position,
                }) => {
                    return Err(Leave::Ended(Ending::Diverged {
                        partition,
                        position,
                    }));
                }
                Err(error @ LogError::Unavailable(_)) => self.back_off(&causes(&error)).await?,
                Err(error) => {
                    let position = self.cursor.position.next();
                    self.stay_failed(position, &causes(&error)).await?;
                }
            }
        }
    }

    /// The log has nothing after the cursor: all is done, or it is a moment behind the bus.
    async fn found_nothing(&mut self) -> Result<(), Leave> {
        self.is_well();
        if self.tail.head() > self.cursor.position {
            self.pause_for(LOG_BEHIND).await?;
        }
        Ok(())
    }

    /// Handles a batch, and writes the checkpoint after each portion that had an effect.
    async fn process(&mut self, batch: &[RecordedEvent]) -> Result<(), Leave> {
        let mut portions = Portions::of(batch);
        while let Some(portion) = portions.current() {
            match self.handle(portion).await {
                Ok(had_effect) => {
                    portions.done();
                    self.cursor = portion.last().map_or(self.cursor, RecordedEvent::cursor);
                    self.failing.reset();
                    if had_effect || Instant::now() >= self.write_at() {
                        self.write_checkpoint().await?;
                    }
                    self.is_well();
                }
                Err(failure) if failure.is_transient() => {
                    self.back_off(&causes(&failure)).await?;
                }
                Err(failure) => {
                    if let Some(position) = portions.narrow(&failure) {
                        self.cannot_be_handled(position, &failure).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// One event cannot be handled, and nothing before it is open. Its partition waits: nothing is skipped.
    ///
    /// (Here an event is to be parked with the later ones of its sequence, once its attempts are used up.)
    async fn cannot_be_handled(
        &mut self,
        position: Position,
        failure: &Undelivered,
    ) -> Result<(), Leave> {
        self.stay_failed(position, &causes(failure)).await
    }

    /// Gives a portion to the handler.
    async fn handle(&mut self, portion: &[RecordedEvent]) -> Result<bool, Undelivered> {
        let running = Arc::clone(&self.running);
        let partition = self.partition;
        let delivery = async {
            let _permit = running.permits.acquire().await;
            deliver(&*running.handler, partition, portion).await
        };
        keep_alive(&mut self.lease, running.options.lease, delivery).await
    }

    /// Writes the checkpoint, however long that takes.
    async fn write_checkpoint(&mut self) -> Result<(), Leave> {
        loop {
            match self.lease.checkpoint_at(self.cursor).await {
                Ok(held) => return leave_unless_held(held),
                Err(error) => self.back_off(&causes(&error)).await?,
            }
        }
    }

    /// Waits before another try of what may pass.
    async fn back_off(&mut self, reason: &str) -> Result<(), Leave> {
        let wait = self.backoff.next_wait();
        let attempts = self.backoff.attempts();
        self.running
            .fails(self.partition, reason.to_owned(), attempts);
        self.pause_for(wait).await
    }

    /// Waits before another try of what failed for good.
    async fn stay_failed(&mut self, position: Position, reason: &str) -> Result<(), Leave> {
        let wait = self.failing.next_wait();
        let attempts = self.failing.attempts();
        if attempts == 1 {
            tracing::error!(
                subscription = %self.running.records.subscription, partition = %self.partition, %position, %reason,
                "an event cannot be handled: this partition of the subscription waits at it"
            );
        }
        let failed = PartitionState::Failed {
            position,
            reason: reason.to_owned(),
            attempts,
        };
        self.running.status.set(self.partition, failed);
        self.pause_for(wait).await
    }

    /// Waits, keeps the lease alive, and leaves when there is a reason to.
    async fn pause_for(&mut self, wait: Duration) -> Result<(), Leave> {
        let until = Instant::now() + wait;
        let mut renew_at = self.lease.written_at() + renewal(self.running.options.lease);
        loop {
            tokio::select! {
                biased;
                interruption = interrupted(&self.running, &mut self.seen, self.lease.revision()) => {
                    self.meet(interruption).await?;
                }
                () = tokio::time::sleep_until(until) => return Ok(()),
                () = tokio::time::sleep_until(renew_at) => {
                    if let Ok(held) = self.lease.checkpoint_at(self.cursor).await {
                        leave_unless_held(held)?;
                    }
                    renew_at = Instant::now() + renewal(self.running.options.lease);
                }
            }
        }
    }

    /// What an interruption means.
    async fn meet(&mut self, interruption: Interruption) -> Result<(), Leave> {
        match interruption {
            Interruption::Stop => Err(Leave::Stopping),
            Interruption::RecordChanged => match self.lease.reload().await {
                Ok(held) => leave_unless_held(held),
                Err(_) => {
                    // The next write of the checkpoint finds out, and says so when it fails.
                    tokio::time::sleep(LOOK_AGAIN).await;
                    Ok(())
                }
            },
        }
    }

    /// Says that all is well, and how far it is.
    fn is_well(&mut self) {
        let head = self.tail.head();
        let state = if head > self.cursor.position.plus(self.live_bound()) {
            PartitionState::CatchingUp
        } else {
            PartitionState::Live
        };
        self.backoff.reset();
        self.running.outage.recovered(Some(self.partition));
        let status = &self.running.status;
        status.reached_by(self.partition, self.cursor, head);
        status.set(self.partition, state);
    }

    /// How far behind it may be and still count as live: one batch.
    fn live_bound(&self) -> u64 {
        u64::try_from(self.running.options.live_batch_max_events).unwrap_or(u64::MAX)
    }
}

/// Keeps the lease alive until the work is done, however long it takes and waits for its turn.
async fn keep_alive<T>(lease: &mut Lease, lasts: Duration, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    let mut renew_at = lease.written_at() + renewal(lasts);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep_until(renew_at) => {
                // Whatever comes of it, the work finishes; then the checkpoint finds out whose record it is.
                let _ = lease.checkpoint_at(lease.checkpoint()).await;
                renew_at = Instant::now() + renewal(lasts);
            }
        }
    }
}

/// Something that work must look at before it goes on.
enum Interruption {
    Stop,
    RecordChanged,
}

/// Waits until the subscription stops, or somebody changed the record since `revision`. The stop comes first: a record
/// that changed and cannot be read must not hold it up.
async fn interrupted(
    running: &Running,
    seen: &mut watch::Receiver<Option<Seen>>,
    revision: u64,
) -> Interruption {
    loop {
        if running.stop.is_cancelled() {
            return Interruption::Stop;
        }
        let changed = seen
            .borrow_and_update()
            .as_ref()
            .is_some_and(|seen| seen.revision > revision);
        if changed {
            return Interruption::RecordChanged;
        }
        tokio::select! {
            biased;
            () = running.stop.cancelled() => return Interruption::Stop,
            // The observer ends only with the subscription.
            changed = seen.changed() => if changed.is_err() {
                return Interruption::Stop;
            },
        }
    }
}

fn leave_unless_held(held: Held) -> Result<(), Leave> {
    match held {
        Held::Yes => Ok(()),
        Held::Paused => Err(Leave::Paused),
        Held::Lost => Err(Leave::Lost),
    }
}
