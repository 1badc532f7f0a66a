//! Relays, tails and subscriptions that run.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::Partition;
use tidelog_eventbus::{
    EventBus, FailurePolicy, Handler, PartitionState, Relay, RelayOptions, RelayState, RelayStatus,
    Start, StateStore, Subscription, SubscriptionEnd, SubscriptionOptions, SubscriptionStatus,
    Tail, TailOptions,
};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Log, partitions, within_patience};

/// Something that runs until it is dropped.
pub(crate) struct Run<T> {
    pub(crate) task: JoinHandle<T>,
    stop: DropGuard,
}

impl<T: Send + 'static> Run<T> {
    pub(crate) fn start<F>(run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        let stop = CancellationToken::new();
        Self {
            task: tokio::spawn(run(stop.clone())),
            stop: stop.drop_guard(),
        }
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) async fn stop(self) -> T {
        drop(self.stop);
        within_patience("it stops", self.task).await.unwrap()
    }

    /// Ends it in the middle, as a crash does.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.is_err_and(|ended| ended.is_cancelled()));
    }
}

/// How often a relay asks the bus again where it is.
pub(crate) const RECHECK: Duration = Duration::from_millis(200);

/// A relay that runs.
pub(crate) fn relay(log: &Log, bus: &Arc<dyn EventBus>, signal: bool) -> (Run<()>, RelayStatus) {
    let relay = Relay::new(
        partitions(),
        log.reader(),
        Arc::clone(bus),
        signal.then(|| log.signal.clone()),
        RelayOptions {
            poll_interval: Duration::from_millis(50),
            recheck_interval: RECHECK,
            ..RelayOptions::default()
        },
    );
    let status = relay.status();
    (Run::start(|stop| relay.run(stop)), status)
}

/// A relay that runs and has begun everywhere: what is appended from now on comes to the bus. (Of a partition that the
/// bus has nothing of, it leaves out what the log had before.)
pub(crate) async fn begun_relay(
    log: &Log,
    bus: &Arc<dyn EventBus>,
    signal: bool,
) -> (Run<()>, RelayStatus) {
    let (run, status) = relay(log, bus, signal);
    for partition in partitions().iter() {
        let mut watch = status.watch(partition).unwrap();
        let begun = watch.wait_for(|status| status.state == RelayState::Publishing);
        within_patience("the relay begins", begun).await.unwrap();
    }
    (run, status)
}

/// Times of a tail that a test can wait for.
pub(crate) fn quick_tail() -> TailOptions {
    TailOptions {
        poll_interval: Duration::from_millis(100),
        poll_interval_without_bus: Duration::from_millis(20),
        ..TailOptions::default()
    }
}

/// A tail that knows of the log's heads by what the bus brings only.
pub(crate) fn bus_only() -> TailOptions {
    let never = Duration::from_secs(3_600);
    TailOptions {
        poll_interval: never,
        poll_interval_without_bus: never,
        ..TailOptions::default()
    }
}

/// A tail that runs.
fn tail(log: &Log, bus: &Arc<dyn EventBus>, signal: bool, options: TailOptions) -> (Run<()>, Tail) {
    let tail = Tail::new(
        partitions(),
        Arc::clone(bus),
        log.reader(),
        signal.then(|| log.signal.clone()),
        options,
    );
    let running = tail.clone();
    (
        Run::start(|stop| async move { running.run(stop).await }),
        tail,
    )
}

/// Times that a test can wait for.
pub(crate) fn quick() -> SubscriptionOptions {
    SubscriptionOptions {
        lease: Duration::from_millis(600),
        watch_interval: Duration::from_millis(20),
        take_over_at_start: true,
        policy: FailurePolicy {
            first_delay: Duration::from_millis(10),
            max_delay: Duration::from_millis(50),
            ..FailurePolicy::default()
        },
        ..SubscriptionOptions::default()
    }
}

/// A process that runs a subscription, with a tail of its own.
pub(crate) struct Consumer {
    pub(crate) subscription: Run<SubscriptionEnd>,
    pub(crate) status: SubscriptionStatus,
    pub(crate) tail: Tail,
    _tail: Run<()>,
}

impl Consumer {
    /// Runs the subscription `view` as the process `owner`.
    pub(crate) fn start(
        owner: &str,
        log: &Log,
        bus: &Arc<dyn EventBus>,
        states: Arc<dyn StateStore>,
        handler: &Arc<impl Handler + 'static>,
        options: SubscriptionOptions,
    ) -> Self {
        let tail = tail(log, bus, true, quick_tail());
        Self::with_tail(tail, owner, log, states, handler, options)
    }

    /// The same, beginning at `start` if it has never run.
    pub(crate) fn starting(
        start: Start,
        owner: &str,
        log: &Log,
        bus: &Arc<dyn EventBus>,
        states: Arc<dyn StateStore>,
        handler: &Arc<impl Handler + 'static>,
        options: SubscriptionOptions,
    ) -> Self {
        let (running, tail) = tail(log, bus, true, quick_tail());
        let handler: Arc<dyn Handler> = handler.clone();
        let reader = log.reader();
        let subscription = Subscription::new("view", owner, handler, states, reader, tail.clone())
            .starting(start)
            .with_options(options);
        Self::of(subscription, running, tail)
    }

    fn of(subscription: Subscription, running: Run<()>, tail: Tail) -> Self {
        let status = subscription.status();
        Self {
            subscription: Run::start(|stop| subscription.run(stop)),
            status,
            tail,
            _tail: running,
        }
    }

    /// The same, in a process that no signal reaches.
    pub(crate) fn without_signal(
        log: &Log,
        bus: &Arc<dyn EventBus>,
        states: Arc<dyn StateStore>,
        handler: &Arc<impl Handler + 'static>,
        options: TailOptions,
    ) -> Self {
        let tail = tail(log, bus, false, options);
        Self::with_tail(tail, "a", log, states, handler, quick())
    }

    /// Another subscription of a process that has a tail already.
    pub(crate) fn beside(
        tail: Tail,
        owner: &str,
        log: &Log,
        states: Arc<dyn StateStore>,
        handler: &Arc<impl Handler + 'static>,
        options: SubscriptionOptions,
    ) -> Self {
        let elsewhere = Run::start(|stop| async move { stop.cancelled().await });
        Self::with_tail((elsewhere, tail), owner, log, states, handler, options)
    }

    fn with_tail(
        (running, tail): (Run<()>, Tail),
        owner: &str,
        log: &Log,
        states: Arc<dyn StateStore>,
        handler: &Arc<impl Handler + 'static>,
        options: SubscriptionOptions,
    ) -> Self {
        let handler: Arc<dyn Handler> = handler.clone();
        let subscription =
            Subscription::new("view", owner, handler, states, log.reader(), tail.clone())
                .with_options(options);
        Self::of(subscription, running, tail)
    }

    /// Waits until every partition is at the log's head, by its own account.
    pub(crate) async fn is_live(&self, log: &Log) {
        for (partition, head) in partitions().iter().zip(log.heads().await) {
            self.state(partition, |state| *state == PartitionState::Live)
                .await;
            within_patience("it is live", self.status.reached(partition, head)).await;
        }
    }

    /// Waits until a partition is in such a state, and gives it.
    pub(crate) async fn state(
        &self,
        partition: Partition,
        wanted: impl Fn(&PartitionState) -> bool,
    ) -> PartitionState {
        let mut watch = self.status.watch(partition).unwrap();
        let found = within_patience("the state", watch.wait_for(|status| wanted(&status.state)));
        found.await.unwrap().state.clone()
    }
}
