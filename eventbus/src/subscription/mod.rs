//! Subscriptions: every event of the log, in order, to one handler.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tidelog_domain::{HistoryId, Partition, Position, causes};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::failure::FailurePolicy;
use crate::group::{has_share, to_ask_for};
use crate::log::LogReader;
use crate::outage::Outage;
use crate::start::{Start, StartError};
use crate::state::{StateError, StateRecord, StateStore};
use crate::tail::Tail;

mod catch_up;
mod delivery;
mod handler;
mod keeping;
mod lease;
mod observed;
mod observer;
mod retrying;
mod setting_aside;
mod sorting;
mod status;
mod taking_in;
mod trying_again;
mod work;
mod worker;

pub use catch_up::{CatchUp, CatchUpError, CatchUpProgress, Permission, Throttle};
pub(crate) use delivery::message as panic_message;
pub use handler::{Cause, EventFailure, Handled, Handler, HandlerError, HandlerKind};
use lease::Records;
use observer::{Observer, shares};
pub use status::{PartitionState, PartitionStatus, SubscriptionStatus};
use worker::{BACKOFF_FIRST, BACKOFF_MAX, Worker};

/// How often the heads of the status are brought up to date.
const HEADS_INTERVAL: Duration = Duration::from_millis(500);

/// The bounds and times of a subscription.
#[derive(Clone, Debug)]
pub struct SubscriptionOptions {
    /// How many events a batch from the bus has, at most. 500.
    pub live_batch_max_events: usize,
    /// How many events a page from the log has, at most. 5,000.
    pub log_page_max_events: usize,
    /// How many partitions read, handle and write at once, at most. 8.
    pub concurrent_partitions: usize,
    /// How long a state record may stay unchanged before its owner counts as dead, on the observer's own clock. 5 s.
    pub lease: Duration,
    /// Whether the partitions are taken at start from whoever has them, without waiting for the lease to end: right where only one
    /// process can run the subscription, as on a file that is locked. False.
    pub take_over_at_start: bool,
    /// How often the state records are looked at: how soon a pause, a request or another process of the group is noticed.
    /// 200 ms.
    pub watch_interval: Duration,
    /// How long a checkpoint that only passed over unwanted events may wait to be written. 100 ms.
    pub idle_checkpoint_delay: Duration,
    /// What is done about events that cannot be handled.
    pub policy: FailurePolicy,
}

impl Default for SubscriptionOptions {
    fn default() -> Self {
        Self {
            live_batch_max_events: 500,
            log_page_max_events: 5_000,
            concurrent_partitions: 8,
            lease: Duration::from_secs(5),
            take_over_at_start: false,
            watch_interval: Duration::from_millis(200),
            idle_checkpoint_delay: Duration::from_millis(100),
            policy: FailurePolicy::default(),
        }
    }
}

/// A subscription: a name, a handler, and where its state, the log and the tail are.
pub struct Subscription {
    name: String,
    owner: String,
    handler: Arc<dyn Handler>,
    states: Arc<dyn StateStore>,
    log: Arc<dyn LogReader>,
    tail: Tail,
    start: Start,
    options: SubscriptionOptions,
    status: SubscriptionStatus,
}

/// Why a subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscriptionEnd {
    /// It was told to stop: batches in flight were finished, their checkpoints written, the partitions handed over.
    Stopped,
    /// The checkpoints belong to another history than the log has now: a view has to be built anew.
    HistoryChanged,
}

impl Subscription {
    /// The subscription `name`, run by the process `owner` (a text that no other process has, ever).
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        owner: impl Into<String>,
        handler: Arc<dyn Handler>,
        states: Arc<dyn StateStore>,
        log: Arc<dyn LogReader>,
        tail: Tail,
    ) -> Self {
        let name = name.into();
        Self {
            status: SubscriptionStatus::new(&name, tail.partitions()),
            name,
            owner: owner.into(),
            handler,
            states,
            log,
            tail,
            start: Start::default(),
            options: SubscriptionOptions::default(),
        }
    }

    /// Beginning elsewhere than with the log's first event, if it has never run.
    #[must_use]
    pub fn starting(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// With other bounds and times than the defaults.
    #[must_use]
    pub fn with_options(mut self, options: SubscriptionOptions) -> Self {
        self.options = options;
        self
    }

    /// What can be seen of it while it runs.
    #[must_use]
    pub fn status(&self) -> SubscriptionStatus {
        self.status.clone()
    }

    /// Runs until `shutdown`, or until the log has another history than the state records.
    ///
    /// It waits for the log, the state store and the bus as long as it takes. When it is told to stop, it finishes the
    /// batches in flight, writes their checkpoints and gives its partitions back.
    pub async fn run(self, shutdown: CancellationToken) -> SubscriptionEnd {
        let status = self.status.clone();
        let mut history = self.tail.history();
        let known = tokio::select! {
            () = shutdown.cancelled() => None,
            known = history.wait_for(Option::is_some) => known.ok().and_then(|known| *known),
        };
        let Some(known) = known else {
            status.set_all(&PartitionState::Stopped);
            return SubscriptionEnd::Stopped;
        };
        let start = self.start.clone();
        let running = Arc::new(self.into_running(known, &shutdown));
        if shutdown
            .run_until_cancelled(running.persist_start(&start))
            .await
            .is_some()
        {
            Running::run(&running, &mut history).await;
        }
        match running.ending.get() {
            Some(Ending::Diverged { .. }) => {
                running.until_history_changes(&mut history, &shutdown).await
            }
            Some(Ending::HistoryChanged) => running.history_changed(*history.borrow()),
            None => {
                status.set_all(&PartitionState::Stopped);
                SubscriptionEnd::Stopped
            }
        }
    }

    fn into_running(self, history: HistoryId, shutdown: &CancellationToken) -> Running {
        let records = Records {
            states: self.states,
            subscription: self.name.as_str().into(),
            owner: self.owner.into(),
        };
        let partitions = self.tail.partitions();
        Running {
            observer: Observer::new(records.clone(), partitions, self.options.watch_interval),
            outage: Outage::new(format!("subscription {}", self.name)),
            permits: Semaphore::new(self.options.concurrent_partitions.max(1)),
            records,
            history,
            handler: self.handler,
            log: self.log,
            tail: self.tail,
            options: self.options,
            status: self.status,
            stop: shutdown.child_token(),
            ending: OnceLock::new(),
        }
    }
}

/// A subscription while it runs: what its workers share.
struct Running {
    records: Records,
    history: HistoryId,
    handler: Arc<dyn Handler>,
    log: Arc<dyn LogReader>,
    tail: Tail,
    options: SubscriptionOptions,
    status: SubscriptionStatus,
    observer: Observer,
    outage: Outage,
    /// Bounds how many partitions read and handle at once.
    permits: Semaphore,
    /// Tells the workers to stop.
    stop: CancellationToken,
    /// Why, when it was not the shutdown.
    ending: OnceLock<Ending>,
}

/// Why a subscription has to end as a whole.
#[derive(Clone, Copy, Debug)]
enum Ending {
    HistoryChanged,
    Diverged {
        partition: Partition,
        position: Position,
    },
}

impl Running {
    /// Runs the workers until all have stopped.
    async fn run(this: &Arc<Self>, history: &mut watch::Receiver<Option<HistoryId>>) {
        let mut workers = JoinSet::new();
        for partition in this.tail.partitions().iter() {
            if let Some(worker) = Worker::new(this, partition) {
                workers.spawn(worker.run());
            }
        }
        loop {
            tokio::select! {
                stopped = workers.join_next() => match stopped {
                    None => return,
                    Some(Ok(())) => {}
                    // Handlers' panics are caught; this one is a defect of ours or of an adapter. The subscription
                    // must not go on with a partition missing.
                    Some(Err(panic)) => {
                        if let Ok(panic) = panic.try_into_panic() {
                            std::panic::resume_unwind(panic);
                        }
                    }
                },
                _ = history.wait_for(|known| known.is_some_and(|known| known != this.history)),
                    if !this.stop.is_cancelled() => this.end(Ending::HistoryChanged),
                never = this.observer.run(&this.outage, &this.status) => match never {},
                never = this.follow_heads() => match never {},
                never = this.ask_for_share() => match never {},
            }
        }
    }

    /// Keeps the heads of the status up to date, whatever the workers are doing.
    async fn follow_heads(&self) -> Infallible {
        loop {
            for partition in self.tail.partitions().iter() {
                self.status.head(partition, self.tail.head(partition));
            }
            tokio::time::sleep(HEADS_INTERVAL).await;
        }
    }

    /// Makes the state records where it begins, where there are none. Those that there are stay as they are.
    async fn persist_start(&self, start: &Start) {
        if *start == Start::Beginning {
            // That is where a record begins that is made when it is taken.
            return;
        }
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX);
        while let Err(error) = self.try_persist_start(start).await {
            let reason = causes(&*error);
            self.outage.failed(None, &reason);
            let wait = backoff.next_wait();
            self.status.waits_for_records(&reason, backoff.attempts());
            tokio::time::sleep(wait).await;
        }
        self.outage.recovered(None);
    }

    async fn try_persist_start(&self, start: &Start) -> Result<(), Cause> {
        let Records {
            states,
            subscription,
            ..
        } = &self.records;
        let partitions = self.tail.partitions();
        let stored = states.load_states(subscription).await?;
        if stored.len() >= usize::from(partitions.count()) {
            return Ok(());
        }
        let cursors = match start.cursors(&*self.log, self.history).await {
            Err(error @ StartError::OtherHistory { .. }) => {
                tracing::error!(%subscription, reason = causes(&error), "it is held");
                self.end(Ending::HistoryChanged);
                return Ok(());
            }
            cursors => cursors?,
        };
        for (partition, cursor) in partitions.iter().zip(cursors) {
            let record = StateRecord::beginning_at(self.history, cursor);
            // False where there is one: by another process, which looked a moment before.
            states
                .compare_and_set_state(subscription, partition, 0, &record)
                .await?;
        }
        Ok(())
    }

    /// Asks the fullest of the group for partitions, as long as this process has fewer.
    async fn ask_for_share(&self) -> Infallible {
        let SubscriptionOptions {
            lease,
            watch_interval,
            ..
        } = self.options;
        loop {
            tokio::time::sleep(watch_interval).await;
            let Some(seen) = self.observer.all(lease) else {
                continue;
            };
            for partition in to_ask_for(&self.records.owner, &shares(&seen)) {
                let Some((seen, _)) = seen.get(partition.index()) else {
                    continue;
                };
                // Whatever comes of it, the next look tells.
                let _: Result<(), StateError> = self.records.ask_for(partition, seen).await;
            }
        }
    }

    /// Until when this process leaves a partition that is free since `free_since` to those who have fewer; `None` when it may take it.
    fn lets_others_come_first(&self, free_since: Instant) -> Option<Instant> {
        let patience = self.options.watch_interval * 2;
        let not_before = free_since + patience;
        if Instant::now() >= not_before {
            return None;
        }
        let seen = self.observer.all(self.options.lease)?;
        has_share(&self.records.owner, &shares(&seen)).then_some(not_before)
    }

    /// Ends the whole subscription.
    fn end(&self, ending: Ending) {
        // The first reason counts.
        let _ = self.ending.set(ending);
        self.stop.cancel();
    }

    /// A worker fails, and will try again.
    fn fails(&self, partition: Partition, reason: String, attempts: u32) {
        self.outage.failed(Some(partition), &reason);
        let state = PartitionState::BackingOff { reason, attempts };
        self.status.set(partition, state);
    }

    /// The log went back in time: nothing is done until it has a new history.
    async fn until_history_changes(
        &self,
        history: &mut watch::Receiver<Option<HistoryId>>,
        shutdown: &CancellationToken,
    ) -> SubscriptionEnd {
        if let Some(Ending::Diverged {
            partition,
            position,
        }) = self.ending.get().copied()
        {
            tracing::error!(
                subscription = %self.records.subscription, %partition, %position, history = %self.history,
                "the log has another event, or none, where this subscription has read its last one: the log was \
                 restored or replaced. Nothing goes on until it is given a new history: stop the services, \
                         then run `doctor --new-history`"
            );
            self.status.set_all(&PartitionState::Diverged {
                partition,
                position,
            });
        }
        let changed = history.wait_for(|known| known.is_some_and(|known| known != self.history));
        let known = tokio::select! {
            () = shutdown.cancelled() => None,
            known = changed => known.ok().and_then(|known| *known),
        };
        if known.is_none() {
            self.status.set_all(&PartitionState::Stopped);
            return SubscriptionEnd::Stopped;
        }
        self.history_changed(known)
    }

    fn history_changed(&self, log: Option<HistoryId>) -> SubscriptionEnd {
        if let Some(log) = log {
            tracing::warn!(
                subscription = %self.records.subscription, %log,
                "the checkpoints belong to another history than the log has now"
            );
            self.status.set_all(&PartitionState::HistoryChanged { log });
        }
        SubscriptionEnd::HistoryChanged
    }
}
