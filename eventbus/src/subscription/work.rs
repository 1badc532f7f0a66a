//! Working on a partition that is held: read, handle, set aside what cannot be handled, write the checkpoint.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::{Cursor, Partition, Position, RecordedEvent, causes};
use tokio::sync::watch;

use super::delivery::{Portions, Undelivered, deliver};
use super::handler::Handled;
use super::keeping::{interrupted, keep_alive};
use super::lease::Lease;
use super::observed::Occasion;
use super::observer::Seen;
use super::retrying::Retries;
use super::sorting::{Sorted, Stop, sort};
use super::status::PartitionState;
use super::taking_in::{TakenIn, Unkeyed};
use super::worker::{BACKOFF_FIRST, BACKOFF_MAX, sleep_until};
use super::{Ending, Running};
use crate::backoff::Backoff;
use crate::log::LogError;
use crate::state::{Progress, StateError, TroubleKind};
use crate::tail::{Next, PartitionTail};

/// How long to wait when the log does not have yet what the bus has.
pub(super) const LOG_BEHIND: Duration = Duration::from_millis(50);

/// Why work on a partition ends.
#[derive(Debug)]
pub(super) enum Leave {
    /// The subscription stops.
    Stopping,
    /// Somebody paused the partition.
    Paused,
    /// Another process of the group is to have the partition.
    HandOver,
    /// Somebody else has the partition now, or the record is gone with the data beside it.
    Lost,
    /// The whole subscription has to end.
    Ended(Ending),
}

/// Work on one partition, as long as it is held.
pub(super) struct Work {
    pub(super) running: Arc<Running>,
    pub(super) partition: Partition,
    pub(super) lease: Lease,
    tail: PartitionTail,
    pub(super) seen: watch::Receiver<Option<Seen>>,
    /// What is done; the stored record may be behind by events that nobody wanted.
    pub(super) progress: Progress,
    /// What of it is tried again, and when.
    pub(super) retries: Retries,
    /// For what may pass.
    backoff: Backoff,
    /// For an event that nothing can be done about.
    pub(super) stuck: Backoff,
}

/// What is to be done next.
enum Todo {
    /// Apply these: they follow the cursor.
    Events(Vec<RecordedEvent>),
    /// Read the log.
    ReadLog,
    /// Try again what was set aside.
    Retry,
}

impl Work {
    /// Work that begins at the lease's checkpoint; nothing when there is no such partition.
    pub(super) fn new(
        running: &Arc<Running>,
        partition: Partition,
        lease: Lease,
        seen: watch::Receiver<Option<Seen>>,
    ) -> Option<Self> {
        let policy = &running.options.policy;
        Some(Self {
            tail: running.tail.of_partition(running.history, partition)?,
            progress: lease.progress(),
            retries: Retries::default(),
            backoff: Backoff::new(BACKOFF_FIRST, BACKOFF_MAX),
            stuck: Backoff::new(policy.first_delay, policy.max_delay),
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
        self.lease.release(&self.progress).await
    }

    async fn work(&mut self) -> Result<Infallible, Leave> {
        // The checkpoint is compared with the log before anything else.
        let mut todo = Todo::ReadLog;
        loop {
            match todo {
                Todo::Events(events) => self.process(&events).await?,
                Todo::ReadLog => {
                    let page = self.read_log(self.progress.cursor).await?;
                    if page.is_empty() {
                        self.found_nothing().await?;
                    }
                    self.process(&page).await?;
                }
                Todo::Retry => {}
            }
            self.retry_some().await?;
            todo = self.wait_for_work().await?;
        }
    }

    /// Waits for the next events, or until something is to be tried again. Meanwhile the checkpoint is written when it is due.
    async fn wait_for_work(&mut self) -> Result<Todo, Leave> {
        let limit = self.running.options.live_batch_max_events;
        loop {
            let write_at = self.write_at();
            let retry_at = self.retry_at();
            tokio::select! {
                biased;
                interruption = interrupted(&self.running, &mut self.seen, self.lease.revision()) => {
                    self.meet(interruption).await?;
                }
                () = tokio::time::sleep_until(write_at) => self.write_checkpoint().await?,
                next = self.tail.next(self.progress.cursor.position, limit) => {
                    return Ok(match next {
                        Next::Events(events) => Todo::Events(events),
                        Next::ReadLog => Todo::ReadLog,
                    });
                }
                () = sleep_until(retry_at) => return Ok(Todo::Retry),
            }
        }
    }

    /// Reads the log after `cursor`.
    pub(super) async fn read_log(&mut self, cursor: Cursor) -> Result<Vec<RecordedEvent>, Leave> {
        let running = Arc::clone(&self.running);
        let limit = running.options.log_page_max_events;
        loop {
            let partition = self.partition;
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
                    let position = cursor.position.next();
                    self.stay_failed(position, &causes(&error)).await?;
                }
            }
        }
    }

    /// The log has nothing after the cursor: all is done, or it is a moment behind the bus.
    async fn found_nothing(&mut self) -> Result<(), Leave> {
        self.is_well();
        if self.tail.head() > self.progress.cursor.position {
            self.pause_for(LOG_BEHIND).await?;
        }
        Ok(())
    }

    /// Handles a batch, or sets aside what cannot be handled and what waits behind it. Afterwards all of it is passed.
    async fn process(&mut self, batch: &[RecordedEvent]) -> Result<(), Leave> {
        let running = Arc::clone(&self.running);
        let max_parked = running.options.policy.max_parked;
        let mut rest = batch;
        while !rest.is_empty() {
            let mut sorted = sort(&*running.handler, rest, &self.progress.parked, max_parked);
            let more_waits = self.handle_sorted(&mut sorted).await?;
            if !more_waits {
                if let Some(end) = sorted.end {
                    self.pass(&mut sorted, end);
                    self.stuck.reset();
                    self.is_well();
                }
                match sorted.stop {
                    None => {}
                    Some(Stop::Full(growth)) => self.wait_for_room(growth).await?,
                    Some(Stop::Unkeyed(position, failure)) => {
                        self.stay_failed(position, &causes(&failure)).await?;
                        self.retry_some().await?;
                    }
                }
            }
            self.checkpoint_if_due(false).await?;
            let cursor = self.progress.cursor.position;
            let passed = rest.partition_point(|event| event.position <= cursor);
            rest = rest.get(passed..).unwrap_or_default();
        }
        Ok(())
    }

    /// Handles what was sorted to be handled, and passes it. Says whether more is set aside since: what comes after that is to be
    /// sorted anew.
    async fn handle_sorted(&mut self, sorted: &mut Sorted<'_>) -> Result<bool, Leave> {
        let events = std::mem::take(&mut sorted.handle);
        let mut portions = Portions::of(&events);
        while let Some(portion) = portions.current() {
            match self.handle(portion, Occasion::Live).await {
                Ok(handled) => {
                    let had_effect = handled.is_some();
                    let handled = handled.unwrap_or_default();
                    let taken_in = self.take_in(sorted, portion, handled).await?;
                    if let TakenIn::UpTo(unkeyed) = taken_in {
                        self.stay_at(sorted, portion, unkeyed).await?;
                        return Ok(true);
                    }
                    portions.done();
                    if let Some(last) = portion.last() {
                        self.pass(sorted, last.cursor());
                        let status = &self.running.status;
                        status.recorded(self.partition, last.recorded_at);
                    }
                    self.stuck.reset();
                    self.checkpoint_if_due(had_effect).await?;
                    self.is_well();
                    if matches!(taken_in, TakenIn::MoreWaits) {
                        return Ok(true);
                    }
                }
                Err(failure) if failure.is_transient() => {
                    self.back_off(&causes(&failure)).await?;
                }
                Err(failure) => {
                    if portions.narrow(&failure).is_some()
                        && let Some(event) = portion.first()
                    {
                        self.cannot_be_handled(sorted, event, &failure).await?;
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Passes what of `portion` comes before an event that cannot be passed, and waits there.
    async fn stay_at(
        &mut self,
        sorted: &mut Sorted<'_>,
        portion: &[RecordedEvent],
        unkeyed: Unkeyed,
    ) -> Result<(), Leave> {
        let Unkeyed { position, reason } = unkeyed;
        let mut before = portion.iter().rev();
        if let Some(last) = before.find(|event| event.position < position) {
            self.pass(sorted, last.cursor());
        }
        self.checkpoint_if_due(true).await?;
        self.stay_failed(position, &reason).await?;
        self.retry_some().await
    }

    /// Everything up to `cursor` is handled or set aside.
    pub(super) fn pass(&mut self, sorted: &mut Sorted<'_>, cursor: Cursor) {
        sorted.pass(cursor.position, &mut self.progress.parked);
        self.progress.cursor = cursor;
    }

    /// Gives a portion to the handler.
    pub(super) async fn handle(
        &mut self,
        portion: &[RecordedEvent],
        occasion: Occasion,
    ) -> Result<Option<Handled>, Undelivered> {
        let running = Arc::clone(&self.running);
        let partition = self.partition;
        let delivery = async {
            let _permit = running.permits.acquire().await;
            deliver(&*running.handler, partition, portion).await
        };
        let spans = running.spans(portion, occasion);
        let delivered = keep_alive(&mut self.lease, running.options.lease, delivery).await;
        running.observe(spans, &delivered);
        delivered.map(|all| all.map(|all| all.handled))
    }

    /// Waits before another try of what may pass.
    pub(super) async fn back_off(&mut self, reason: &str) -> Result<(), Leave> {
        let wait = self.backoff.next_wait();
        let attempts = self.backoff.attempts();
        self.progress.trouble(TroubleKind::BackingOff, reason);
        self.running
            .fails(self.partition, reason.to_owned(), attempts);
        self.pause_for(wait).await
    }

    /// Waits before another try of what nothing can be done about.
    pub(super) async fn stay_failed(
        &mut self,
        position: Position,
        reason: &str,
    ) -> Result<(), Leave> {
        let wait = self.stuck.next_wait();
        let attempts = self.stuck.attempts();
        if attempts == 1 {
            tracing::error!(
                subscription = %self.running.records.subscription, partition = %self.partition, %position, %reason,
                "an event cannot be handled, and it cannot be told what it belongs to: this partition of the subscription \
                 waits at it"
            );
        }
        let at = format!("at position {position}: {reason}");
        self.progress.trouble(TroubleKind::Failed, &at);
        self.set_state(PartitionState::Failed {
            position,
            reason: reason.to_owned(),
            attempts,
        });
        self.pause_for(wait).await
    }

    /// Says that all is well, and how far it is.
    pub(super) fn is_well(&mut self) {
        let head = self.tail.head();
        let cursor = self.progress.cursor;
        let state = if head > cursor.position.plus(self.live_bound()) {
            PartitionState::CatchingUp
        } else {
            PartitionState::Live
        };
        self.backoff.reset();
        self.progress.trouble = None;
        self.running.outage.recovered(Some(self.partition));
        self.tell_progress(head);
        self.running.status.set(self.partition, state);
    }

    pub(super) fn set_state(&self, state: PartitionState) {
        self.tell_progress(Position::START);
        self.running.status.set(self.partition, state);
    }

    /// Shows how far it is and what is set aside; the log is known to have `head`.
    pub(super) fn tell_progress(&self, head: Position) {
        let progress = &self.progress;
        let status = &self.running.status;
        status.reached_by(self.partition, progress.cursor, &progress.parked, head);
    }

    /// How far behind it may be and still count as live: one batch.
    fn live_bound(&self) -> u64 {
        u64::try_from(self.running.options.live_batch_max_events).unwrap_or(u64::MAX)
    }
}
