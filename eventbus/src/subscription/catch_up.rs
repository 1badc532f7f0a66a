//! A subscription that runs from the log alone, up to given heads: what a replay is made of.

use std::panic::resume_unwind;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::Utc;
use tidelog_domain::{Cursor, HistoryId, Partition, Position, RecordedEvent};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

mod throttle;

use super::delivery::{Portions, Undelivered, deliver, sequences_of};
use super::handler::{Handled, Handler, HandlerError};
use super::lease::{Held, Lease, Records};
use super::sorting::{Sorted, Stop, sort};
use super::worker::{BACKOFF_FIRST, BACKOFF_MAX};
use crate::backoff::Backoff;
use crate::failure::FailurePolicy;
use crate::log::{LogError, LogReader};
use crate::parking::{ParkedState, Why};
use crate::retry::Retry;
use crate::state::{Progress, StateError, StateRecord, StateStore};
use tidelog_domain::causes;

pub use throttle::Throttle;

/// How many reports of progress may wait to be told.
const PROGRESS_BUFFER: usize = 64;

/// Says whether a catch-up may work on: asked before it takes a partition from whoever has it.
#[async_trait]
pub trait Permission: Send + Sync {
    /// Whether it may, as of now. Once it may not, it MUST NOT be let again: another one goes on with the same records.
    ///
    /// # Errors
    ///
    /// [`StateError`] when it cannot be told.
    async fn is_granted(&self) -> Result<bool, StateError>;
}

/// What a catch-up works with.
#[derive(Clone)]
pub struct CatchUp {
    /// The subscription's name: whose state records are moved.
    pub name: String,
    /// The process that does it, unique among all that run.
    pub owner: String,
    /// What is done with the events.
    pub handler: Arc<dyn Handler>,
    /// Where the state records are.
    pub states: Arc<dyn StateStore>,
    /// Where the events come from.
    pub log: Arc<dyn LogReader>,
    /// How many events are read and handled at once, at most.
    pub page_max_events: usize,
    /// How many partitions are worked on at once, at most.
    pub concurrent_partitions: usize,
    /// What is done about events that cannot be handled: they are set aside, and tried again by who follows the subscription
    /// live.
    pub policy: FailurePolicy,
    /// Whether it may work on; without one it may. One that may not ends with [`CatchUpError::TakenOver`].
    pub permission: Option<Arc<dyn Permission>>,
    /// How fast it may go; without one as fast as it can.
    pub throttle: Option<Throttle>,
}

impl CatchUp {
    /// Handles everything from the stored checkpoints up to `heads` (index = partition), several partitions at once,
    /// and returns when every checkpoint is there. It can be called again, with later heads.
    ///
    /// `progress` is told of each batch, and of each failure that is tried again: what is unavailable is waited for
    /// without end, until `cancel`. The state records are made if there are none, taken over from whoever has them (while that is
    /// permitted), and left without an owner.
    ///
    /// # Errors
    ///
    /// [`CatchUpError`]: what was done before stays, and the next call goes on from there.
    pub async fn run_to(
        &self,
        heads: &[Position],
        progress: &(dyn Fn(CatchUpProgress<'_>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<(), CatchUpError> {
        let (reports, mut reported) = mpsc::channel(PROGRESS_BUFFER);
        let mut first = PartitionRun {
            catch_up: Arc::new(self.clone()),
            partition: Partition::new(0),
            reports,
            // One that fails stops the others, and they give their partitions back.
            cancel: cancel.child_token(),
            permits: Arc::new(Semaphore::new(self.concurrent_partitions.max(1))),
            backoff: Backoff::new(BACKOFF_FIRST, BACKOFF_MAX),
        };
        let cancel_all = first.cancel.clone();
        let running = async {
            let history = first.history().await?;
            let mut partitions = JoinSet::new();
            for (partition, head) in (0..).map(Partition::new).zip(heads.iter().copied()) {
                partitions.spawn(first.of(partition).run_to(history, head));
            }
            drop(first);
            let mut result = Ok(());
            while let Some(done) = partitions.join_next().await {
                // A panic of an adapter goes on where it was waited for.
                let done = done.unwrap_or_else(|panic| resume_unwind(panic.into_panic()));
                if done.is_err() && result.is_ok() {
                    cancel_all.cancel();
                    result = done;
                }
            }
            result
        };
        tokio::pin!(running);
        loop {
            tokio::select! {
                biased;
                Some(report) = reported.recv() => report.tell(progress),
                result = &mut running => {
                    while let Ok(report) = reported.try_recv() {
                        report.tell(progress);
                    }
                    return result;
                }
            }
        }
    }
}

/// What a partition reports to the one who asked for the catch-up.
enum Report {
    Reached {
        partition: Partition,
        position: Position,
        events: usize,
    },
    Retrying {
        partition: Partition,
        reason: String,
    },
}

impl Report {
    fn tell(&self, progress: &(dyn Fn(CatchUpProgress<'_>) + Send + Sync)) {
        progress(match self {
            &Self::Reached {
                partition,
                position,
                events,
            } => CatchUpProgress::Reached {
                partition,
                position,
                events,
            },
            Self::Retrying { partition, reason } => CatchUpProgress::Retrying {
                partition: *partition,
                reason,
            },
        });
    }
}

/// A catch-up of one partition.
struct PartitionRun {
    catch_up: Arc<CatchUp>,
    partition: Partition,
    reports: mpsc::Sender<Report>,
    cancel: CancellationToken,
    permits: Arc<Semaphore>,
    backoff: Backoff,
}

impl PartitionRun {
    /// The same for another partition.
    fn of(&self, partition: Partition) -> Self {
        Self {
            catch_up: Arc::clone(&self.catch_up),
            partition,
            reports: self.reports.clone(),
            cancel: self.cancel.clone(),
            permits: Arc::clone(&self.permits),
            backoff: Backoff::new(BACKOFF_FIRST, BACKOFF_MAX),
        }
    }

    /// The log's history.
    async fn history(&mut self) -> Result<HistoryId, CatchUpError> {
        loop {
            match self.catch_up.log.identity().await {
                Ok(identity) => return Ok(identity.history),
                Err(error) => self.wait_out_log(error).await?,
            }
        }
    }

    async fn run_to(mut self, history: HistoryId, head: Position) -> Result<(), CatchUpError> {
        let permits = Arc::clone(&self.permits);
        let _permit = permits.acquire().await;
        let mut lease = self.acquire(history).await?;
        let done = self.handle_up_to(&mut lease, head).await;
        // Given back also after a failure, so that the next one need not wait; if that fails too, its lease ends.
        let progress = lease.progress();
        let released = lease.release(&progress).await;
        done.and_then(|()| released.map_err(CatchUpError::State))
    }

    /// Takes the state record, made at the start of the log if there is none.
    async fn acquire(&mut self, history: HistoryId) -> Result<Lease, CatchUpError> {
        let records = Records {
            states: Arc::clone(&self.catch_up.states),
            subscription: self.catch_up.name.as_str().into(),
            owner: self.catch_up.owner.as_str().into(),
        };
        loop {
            self.unless_cancelled()?;
            let loaded = records.load(self.partition).await;
            // Asked after the record was read: who was permitted before, and is slow, takes nothing from his successor.
            if !self.is_permitted().await? {
                return Err(self.taken_over());
            }
            let taken = match loaded {
                Ok((revision, record)) => {
                    let record = record.unwrap_or_else(|| StateRecord::at_start(history));
                    if record.checkpoint.history != history {
                        return Err(CatchUpError::HistoryChanged {
                            records: record.checkpoint.history,
                            log: history,
                        });
                    }
                    if record.is_paused() {
                        return Err(self.taken_over());
                    }
                    records.take(self.partition, revision, &record).await
                }
                Err(error) => Err(error),
            };
            match taken {
                Ok(Some(lease)) => return Ok(lease),
                // Somebody changed it in between: look again.
                Ok(None) => {}
                Err(error) => self.wait_out_state(error).await?,
            }
        }
    }

    async fn is_permitted(&mut self) -> Result<bool, CatchUpError> {
        let Some(permission) = self.catch_up.permission.clone() else {
            return Ok(true);
        };
        loop {
            self.unless_cancelled()?;
            match permission.is_granted().await {
                Ok(granted) => return Ok(granted),
                Err(error) => self.wait_out_state(error).await?,
            }
        }
    }

    async fn handle_up_to(
        &mut self,
        lease: &mut Lease,
        head: Position,
    ) -> Result<(), CatchUpError> {
        while lease.checkpoint().position < head {
            let mut page = self.read_log(lease.checkpoint()).await?;
            page.retain(|event| event.position <= head);
            self.throttle(page.len()).await?;
            if page.is_empty() {
                // The heads are not the log's own, or older than what a restore left of it.
                return Err(CatchUpError::Log(LogError::Diverged {
                    partition: self.partition,
                    position: head,
                }));
            }
            self.handle_page(lease, &page).await?;
        }
        Ok(())
    }

    /// Waits until so many events may be handled.
    async fn throttle(&self, events: usize) -> Result<(), CatchUpError> {
        let Some(throttle) = &self.catch_up.throttle else {
            return Ok(());
        };
        let passed = self.cancel.run_until_cancelled(throttle.pass(events));
        passed.await.ok_or(CatchUpError::Cancelled)
    }

    /// Handles a page, and sets aside what cannot be handled and what waits behind it.
    async fn handle_page(
        &mut self,
        lease: &mut Lease,
        page: &[RecordedEvent],
    ) -> Result<(), CatchUpError> {
        let catch_up = Arc::clone(&self.catch_up);
        let mut progress = lease.progress();
        let mut rest = page;
        while !rest.is_empty() {
            let max_parked = catch_up.policy.max_parked;
            let mut sorted = sort(&*catch_up.handler, rest, &progress.parked, max_parked);
            match self
                .handle_sorted(lease, &mut sorted, &mut progress)
                .await?
            {
                Some((event, failure)) => {
                    self.set_aside(&mut sorted, &mut progress, &event, failure)?;
                }
                None => {
                    if let Some(end) = sorted.end {
                        sorted.pass(end.position, &mut progress.parked);
                        progress.cursor = end;
                    }
                    match sorted.stop {
                        None => {}
                        Some(Stop::Full(_)) => return Err(self.full()),
                        Some(Stop::Unkeyed(position, failure)) => {
                            return Err(self.stopped(position, failure));
                        }
                    }
                }
            }
            self.checkpoint(lease, &progress).await?;
            let cursor = progress.cursor.position;
            let passed = rest.partition_point(|event| event.position <= cursor);
            rest = rest.get(passed..).unwrap_or_default();
        }
        Ok(())
    }

    /// Handles what was sorted to be handled, up to an event that cannot be: that one is given, with the reason.
    async fn handle_sorted(
        &mut self,
        lease: &mut Lease,
        sorted: &mut Sorted<'_>,
        progress: &mut Progress,
    ) -> Result<Option<(RecordedEvent, Undelivered)>, CatchUpError> {
        let catch_up = Arc::clone(&self.catch_up);
        let events = std::mem::take(&mut sorted.handle);
        let mut portions = Portions::of(&events);
        while let Some(portion) = portions.current() {
            let delivered = deliver(&*catch_up.handler, self.partition, portion).await;
            let handled = delivered.map(|all| all.map(|all| all.handled));
            let failure = match handled.map(Handled::first_failure) {
                Ok(None) => {
                    portions.done();
                    if let Some(last) = portion.last() {
                        sorted.pass(last.position, &mut progress.parked);
                        progress.cursor = last.cursor();
                    }
                    self.checkpoint(lease, progress).await?;
                    continue;
                }
                Ok(Some(failure)) => Undelivered::Failed(failure),
                Err(failure) => failure,
            };
            if failure.is_transient() {
                self.wait_out(&causes(&failure)).await?;
            } else if portions.narrow(&failure).is_some()
                && let Some(event) = portion.first()
            {
                return Ok(Some((event.clone(), failure)));
            }
        }
        Ok(None)
    }

    /// Sets aside an event that cannot be handled, and passes it. It is not tried again here: who follows the subscription live does.
    fn set_aside(
        &self,
        sorted: &mut Sorted<'_>,
        progress: &mut Progress,
        event: &RecordedEvent,
        failure: Undelivered,
    ) -> Result<(), CatchUpError> {
        let CatchUp {
            handler,
            policy,
            name,
            ..
        } = &*self.catch_up;
        let Ok(names) = sequences_of(&**handler, event) else {
            return Err(self.stopped(event.position, failure));
        };
        sorted.pass(event.position, &mut progress.parked);
        if progress.parked.len() + progress.parked.growth(&names) > policy.max_parked {
            return Err(self.full());
        }
        let reason = causes(&failure);
        tracing::warn!(
            subscription = %name, partition = %self.partition, position = %event.position, event = %event.id,
            stream = %event.stream, event_type = %event.event_type, sequences = ?names, %reason,
            "an event cannot be handled: its sequence is set aside, and all others go on"
        );
        let why = Why {
            error: reason,
            counts: true,
            state: if policy.attempts > 1 {
                ParkedState::Retrying
            } else {
                ParkedState::Parked
            },
            not_before: None,
            at: Utc::now(),
        };
        progress.parked.set_aside(event.position, &names, &why);
        progress.cursor = event.cursor();
        Ok(())
    }

    async fn read_log(&mut self, cursor: Cursor) -> Result<Vec<RecordedEvent>, CatchUpError> {
        let catch_up = Arc::clone(&self.catch_up);
        let CatchUp {
            log,
            page_max_events,
            throttle,
            ..
        } = &*catch_up;
        let limit = throttle
            .as_ref()
            .map_or(*page_max_events, |throttle| throttle.page(*page_max_events));
        loop {
            self.unless_cancelled()?;
            match log.read(self.partition, cursor, limit).await {
                Ok(page) => return Ok(page),
                Err(error) => self.wait_out_log(error).await?,
            }
        }
    }

    /// Writes how far it is, unless that is written.
    async fn checkpoint(
        &mut self,
        lease: &mut Lease,
        progress: &Progress,
    ) -> Result<(), CatchUpError> {
        let before = lease.checkpoint().position;
        if progress.cursor.position == before {
            return Ok(());
        }
        loop {
            match lease.write(progress).await {
                // Nobody else follows what is being built: whoever asks for it waits.
                Ok(Held::Yes | Held::Wanted) => break,
                Ok(Held::Paused | Held::Lost) => return Err(self.taken_over()),
                Err(error) => self.wait_out_state(error).await?,
            }
        }
        self.backoff.reset();
        let passed = progress
            .cursor
            .position
            .number()
            .saturating_sub(before.number());
        let report = Report::Reached {
            partition: self.partition,
            position: progress.cursor.position,
            events: usize::try_from(passed).unwrap_or(usize::MAX),
        };
        self.report(report).await;
        Ok(())
    }

    async fn wait_out_log(&mut self, error: LogError) -> Result<(), CatchUpError> {
        match error.retry() {
            Retry::Never => Err(CatchUpError::Log(error)),
            Retry::AfterReload | Retry::AfterBackoff => self.wait_out(&causes(&error)).await,
        }
    }

    async fn wait_out_state(&mut self, error: StateError) -> Result<(), CatchUpError> {
        match error.retry() {
            Retry::Never => Err(CatchUpError::State(error)),
            Retry::AfterReload | Retry::AfterBackoff => self.wait_out(&causes(&error)).await,
        }
    }

    /// Waits before another try.
    async fn wait_out(&mut self, reason: &str) -> Result<(), CatchUpError> {
        let report = Report::Retrying {
            partition: self.partition,
            reason: reason.to_owned(),
        };
        self.report(report).await;
        let wait = tokio::time::sleep(self.backoff.next_wait());
        match self.cancel.run_until_cancelled(wait).await {
            Some(()) => Ok(()),
            None => Err(CatchUpError::Cancelled),
        }
    }

    /// Reports, unless nobody listens any more.
    async fn report(&self, report: Report) {
        let _ = self.reports.send(report).await;
    }

    fn unless_cancelled(&self) -> Result<(), CatchUpError> {
        if self.cancel.is_cancelled() {
            return Err(CatchUpError::Cancelled);
        }
        Ok(())
    }

    fn stopped(&self, position: Position, failure: Undelivered) -> CatchUpError {
        CatchUpError::Handler {
            partition: self.partition,
            source: failure.into_handler_error(position),
        }
    }

    fn full(&self) -> CatchUpError {
        CatchUpError::Full {
            partition: self.partition,
            max: self.catch_up.policy.max_parked,
        }
    }

    const fn taken_over(&self) -> CatchUpError {
        CatchUpError::TakenOver {
            partition: self.partition,
        }
    }
}

/// How a catch-up is going on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum CatchUpProgress<'a> {
    /// A partition has come this far; its checkpoint is written.
    Reached {
        /// The partition.
        partition: Partition,
        /// Everything up to here is done.
        position: Position,
        /// How many events this batch had, unwanted ones included.
        events: usize,
    },
    /// Something failed and is tried again.
    Retrying {
        /// The partition.
        partition: Partition,
        /// The error and its causes.
        reason: &'a str,
    },
}

/// Why a catch-up ended before it was there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatchUpError {
    /// It was cancelled.
    #[error("the catch-up was cancelled")]
    Cancelled,
    /// More sequences of a partition cannot be handled than may be set aside.
    #[error(
        "more than {max} sequences of partition {partition} cannot be handled (the process's log names each): no more are set aside"
    )]
    Full {
        /// The partition.
        partition: Partition,
        /// How many may be set aside.
        max: usize,
    },
    /// An event cannot be handled, and it cannot be told what it belongs to.
    #[error("partition {partition} cannot go on")]
    Handler {
        /// The partition.
        partition: Partition,
        /// Why, and at which event.
        #[source]
        source: HandlerError,
    },
    /// The log cannot be read, for good.
    #[error("the log cannot be read")]
    Log(#[source] LogError),
    /// The state records cannot be read, for good.
    #[error("the state of the subscription cannot be read")]
    State(#[source] StateError),
    /// A checkpoint belongs to another history than the log has now: the view has to be built anew.
    #[error("the checkpoints belong to history {records}, and the log has {log} now")]
    HistoryChanged {
        /// Of the state records.
        records: HistoryId,
        /// Of the log.
        log: HistoryId,
    },
    /// Another process took the partition over, or paused it.
    #[error("partition {partition} was taken over or paused by another process")]
    TakenOver {
        /// The partition.
        partition: Partition,
    },
}
