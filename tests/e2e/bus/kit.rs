//! What the tests of the bus are written with: a log in memory, a handler that remembers, a process made of them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tidelog_command::store::{EventStore, InMemoryEventStore};
use tidelog_domain::{
    Append, Cursor, EventId, ExpectedVersion, HistoryId, NewEvent, Partition, Partitions, Payload,
    Position, RecordedEvent, StreamId,
};
use tidelog_eventbus::{
    CommitSignal, EventBus, Handler, HandlerError, LogError, LogIdentity, LogReader,
    PartitionState, Relay, RelayOptions, RelayState, RelayStatus, StateError, StateRecord,
    StateStore, Subscription, SubscriptionEnd, SubscriptionOptions, SubscriptionStatus, Tail,
    TailOptions,
};
use tidelog_query::store::InMemoryReadStore;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// Long enough for any machine; no test waits for it when all is well.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// Few partitions, so that each has many events.
pub(super) const PARTITIONS: u16 = 4;

pub(super) fn partitions() -> Partitions {
    Partitions::new(PARTITIONS).unwrap()
}

/// A log in memory that can be restored from a backup, and the signal of its commits.
#[derive(Clone)]
pub(super) struct Log {
    disk: Arc<Disk>,
    pub(super) signal: CommitSignal,
}

/// What a log in memory is kept on. A restore puts another log in its place, with the same history.
struct Disk {
    history: Mutex<HistoryId>,
    store: Mutex<InMemoryEventStore>,
    is_down: AtomicBool,
}

impl Disk {
    fn store(&self) -> InMemoryEventStore {
        self.store.lock().unwrap().clone()
    }

    fn is_up(&self) -> Result<(), LogError> {
        match self.is_down.load(Ordering::SeqCst) {
            true => Err(LogError::Unavailable("the test has switched it off".into())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl LogReader for Disk {
    async fn identity(&self) -> Result<LogIdentity, LogError> {
        self.is_up()?;
        Ok(LogIdentity {
            history: *self.history.lock().unwrap(),
            partitions: partitions(),
        })
    }

    async fn heads(&self) -> Result<Vec<Position>, LogError> {
        self.is_up()?;
        self.store().heads().await
    }

    async fn read(
        &self,
        partition: Partition,
        cursor: Cursor,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        self.is_up()?;
        self.store().read(partition, cursor, limit).await
    }
}

impl Log {
    pub(super) fn new() -> Self {
        Self {
            disk: Arc::new(Disk {
                history: Mutex::new(HistoryId::new(Uuid::now_v7())),
                store: Mutex::new(InMemoryEventStore::new(partitions())),
                is_down: AtomicBool::new(false),
            }),
            signal: CommitSignal::new(partitions()),
        }
    }

    pub(super) fn reader(&self) -> Arc<dyn LogReader> {
        Arc::clone(&self.disk) as Arc<dyn LogReader>
    }

    /// Puts another log in the place of this one, as a restore of a backup does: positions are issued again.
    pub(super) fn restore(&self, backup: &Log) {
        *self.disk.store.lock().unwrap() = backup.disk.store();
    }

    /// Makes the log unavailable to those who read it, or available again. (Appends go on.)
    pub(super) fn be_down(&self, is_down: bool) {
        self.disk.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Gives the log a new history, as the operator does after a restore.
    pub(super) fn renew_history(&self) -> HistoryId {
        let new = HistoryId::new(Uuid::now_v7());
        *self.disk.history.lock().unwrap() = new;
        new
    }

    /// Appends `count` events, spread over streams in all partitions, and tells the signal.
    pub(super) async fn append(&self, count: usize) {
        let batch: Vec<_> = (0..count)
            .map(|number| append_to(&format!("sample/s{}", number % 64)))
            .collect();
        let appended = self.disk.store().append(0, batch.into()).await;
        let heads: Vec<_> = appended
            .into_iter()
            .flat_map(Result::unwrap)
            .map(|appended| (appended.partition, appended.position.unwrap()))
            .collect();
        self.signal.committed(heads);
    }

    /// Appends `count` events one by one to one stream, and says which partition has it.
    pub(super) async fn append_to(&self, stream: &str, count: usize) -> Partition {
        for _ in 0..count {
            let batch = vec![append_to(stream)].into();
            let appended = self.disk.store().append(0, batch).await;
            let appended = appended.into_iter().next().unwrap().unwrap();
            let heads = appended
                .iter()
                .map(|one| (one.partition, one.position.unwrap()));
            self.signal.committed(heads.collect::<Vec<_>>());
        }
        StreamId::parse(stream).unwrap().partition(partitions())
    }

    pub(super) async fn heads(&self) -> Vec<Position> {
        self.disk.store().heads().await.unwrap()
    }

    pub(super) fn history(&self) -> HistoryId {
        *self.disk.history.lock().unwrap()
    }

    /// All events of a partition.
    pub(super) async fn events(&self, partition: Partition) -> Vec<RecordedEvent> {
        let store = self.disk.store();
        let all = store.read(partition, Cursor::START, usize::MAX - 1);
        all.await.unwrap()
    }
}

fn append_to(stream: &str) -> Append {
    let event = NewEvent {
        id: EventId::new(Uuid::now_v7()),
        event_type: "sample.made".into(),
        schema_version: 1,
        payload: Payload::from_stored(br#"{"a":1,"text":"some words that an event may have"}"#),
        metadata: Payload::from_stored(br#"{"correlation_id":"c"}"#),
    };
    let stream = StreamId::parse(stream).unwrap();
    Append::one(stream, ExpectedVersion::Any, vec![event])
}

/// The name of a stream in `partition`.
pub(super) fn stream_in(partition: Partition) -> String {
    (0..)
        .map(|number| format!("sample/s{number}"))
        .find(|name| StreamId::parse(name).unwrap().partition(partitions()) == partition)
        .unwrap()
}

/// What a handler is to do with the next batch.
type Behaviour = Arc<dyn Fn(&[RecordedEvent]) -> Result<(), HandlerError> + Send + Sync>;

/// A handler that remembers what it handled, and insists that each event comes once and in order.
pub(super) struct Recorder {
    handled: Mutex<BTreeMap<Partition, Vec<RecordedEvent>>>,
    behaviour: Mutex<Behaviour>,
    wants: Box<dyn Fn(&RecordedEvent) -> bool + Send + Sync>,
    /// Held by a test to stop the handler in the middle.
    pub(super) gate: tokio::sync::RwLock<()>,
    /// How many batches it was given.
    batches: AtomicUsize,
    /// How many it has ended with.
    ended: AtomicUsize,
}

impl Recorder {
    pub(super) fn new() -> Arc<Self> {
        Self::wanting(|_| true)
    }

    pub(super) fn wanting(
        wants: impl Fn(&RecordedEvent) -> bool + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            handled: Mutex::default(),
            behaviour: Mutex::new(Arc::new(|_| Ok(()))),
            wants: Box::new(wants),
            gate: tokio::sync::RwLock::new(()),
            batches: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
        })
    }

    /// What it does from now on, before it remembers a batch.
    pub(super) fn behave(
        &self,
        behaviour: impl Fn(&[RecordedEvent]) -> Result<(), HandlerError> + Send + Sync + 'static,
    ) {
        *self.behaviour.lock().unwrap() = Arc::new(behaviour);
    }

    pub(super) fn positions(&self, partition: Partition) -> Vec<u64> {
        let handled = self.handled.lock().unwrap();
        let of_it = handled.get(&partition).map_or(&[][..], Vec::as_slice);
        of_it.iter().map(|event| event.position.number()).collect()
    }

    /// How many batches it was given, and has not ended with.
    pub(super) fn waiting(&self) -> usize {
        let ended = self.ended.load(Ordering::SeqCst);
        self.batches.load(Ordering::SeqCst) - ended
    }

    pub(super) fn count(&self) -> usize {
        self.handled.lock().unwrap().values().map(Vec::len).sum()
    }

    /// Waits until it has handled as much as the log has, and compares event by event.
    pub(super) async fn has_all_of(&self, log: &Log) {
        let heads = log.heads().await;
        let all: u64 = heads.iter().map(|head| head.number()).sum();
        eventually("the handler has all events", || async {
            self.count() as u64 >= all
        })
        .await;
        for partition in partitions().iter() {
            let handled = self.handled.lock().unwrap().get(&partition).cloned();
            assert_eq!(
                handled.unwrap_or_default(),
                log.events(partition).await,
                "partition {partition}"
            );
        }
    }
}

#[async_trait]
impl Handler for Recorder {
    fn wants(&self, event: &RecordedEvent) -> bool {
        (self.wants)(event)
    }

    async fn handle(
        &self,
        _partition: Partition,
        events: &[RecordedEvent],
    ) -> Result<(), HandlerError> {
        self.batches.fetch_add(1, Ordering::SeqCst);
        let _open = self.gate.read().await;
        self.ended.fetch_add(1, Ordering::SeqCst);
        assert!(!events.is_empty(), "a batch of nothing");
        let behaviour = Arc::clone(&*self.behaviour.lock().unwrap());
        behaviour(events)?;
        let mut handled = self.handled.lock().unwrap();
        for event in events {
            handled
                .entry(event.partition)
                .or_default()
                .push(event.clone());
        }
        Ok(())
    }
}

/// Something that runs until it is dropped.
pub(super) struct Run<T> {
    pub(super) task: JoinHandle<T>,
    stop: DropGuard,
}

impl<T: Send + 'static> Run<T> {
    pub(super) fn start<F>(run: impl FnOnce(CancellationToken) -> F) -> Self
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
    pub(super) async fn stop(self) -> T {
        drop(self.stop);
        within_patience("it stops", self.task).await.unwrap()
    }

    /// Ends it in the middle, as a crash does.
    pub(super) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.is_err_and(|ended| ended.is_cancelled()));
    }
}

/// A relay that runs.
pub(super) fn relay(log: &Log, bus: &Arc<dyn EventBus>, signal: bool) -> (Run<()>, RelayStatus) {
    let relay = Relay::new(
        partitions(),
        log.reader(),
        Arc::clone(bus),
        signal.then(|| log.signal.clone()),
        RelayOptions {
            poll_interval: Duration::from_millis(50),
            recheck_interval: Duration::from_millis(200),
            ..RelayOptions::default()
        },
    );
    let status = relay.status();
    (Run::start(|stop| relay.run(stop)), status)
}

/// A relay that runs and has begun everywhere: what is appended from now on comes to the bus. (Of a partition that the
/// bus has nothing of, it leaves out what the log had before.)
pub(super) async fn begun_relay(
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
pub(super) fn quick_tail() -> TailOptions {
    TailOptions {
        poll_interval: Duration::from_millis(100),
        poll_interval_without_bus: Duration::from_millis(20),
        ..TailOptions::default()
    }
}

/// A tail that knows of the log's heads by what the bus brings only.
pub(super) fn bus_only() -> TailOptions {
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
pub(super) fn quick() -> SubscriptionOptions {
    SubscriptionOptions {
        lease: Duration::from_millis(600),
        watch_interval: Duration::from_millis(20),
        failed_retry_max: Duration::from_millis(50),
        ..SubscriptionOptions::default()
    }
}

/// A process that runs a subscription, with a tail of its own.
pub(super) struct Consumer {
    pub(super) subscription: Run<SubscriptionEnd>,
    pub(super) status: SubscriptionStatus,
    pub(super) tail: Tail,
    _tail: Run<()>,
}

impl Consumer {
    /// Runs the subscription `view` as the process `owner`.
    pub(super) fn start(
        owner: &str,
        log: &Log,
        bus: &Arc<dyn EventBus>,
        states: Arc<dyn StateStore>,
        handler: &Arc<Recorder>,
        options: SubscriptionOptions,
    ) -> Self {
        let tail = tail(log, bus, true, quick_tail());
        Self::with_tail(tail, owner, log, states, handler, options)
    }

    /// The same, in a process that no signal reaches.
    pub(super) fn without_signal(
        log: &Log,
        bus: &Arc<dyn EventBus>,
        states: Arc<dyn StateStore>,
        handler: &Arc<Recorder>,
        options: TailOptions,
    ) -> Self {
        let tail = tail(log, bus, false, options);
        Self::with_tail(tail, "a", log, states, handler, quick())
    }

    /// Another subscription of a process that has a tail already.
    pub(super) fn beside(
        tail: Tail,
        owner: &str,
        log: &Log,
        states: Arc<dyn StateStore>,
        handler: &Arc<Recorder>,
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
        handler: &Arc<Recorder>,
        options: SubscriptionOptions,
    ) -> Self {
        let handler = Arc::clone(handler) as Arc<dyn Handler>;
        let subscription =
            Subscription::new("view", owner, handler, states, log.reader(), tail.clone())
                .with_options(options);
        let status = subscription.status();
        Self {
            subscription: Run::start(|stop| subscription.run(stop)),
            status,
            tail,
            _tail: running,
        }
    }

    /// Waits until every partition is at the log's head, by its own account.
    pub(super) async fn is_live(&self, log: &Log) {
        for (partition, head) in partitions().iter().zip(log.heads().await) {
            self.state(partition, |state| *state == PartitionState::Live)
                .await;
            within_patience("it is live", self.status.reached(partition, head)).await;
        }
    }

    /// Waits until a partition is in such a state, and gives it.
    pub(super) async fn state(
        &self,
        partition: Partition,
        wanted: impl Fn(&PartitionState) -> bool,
    ) -> PartitionState {
        let mut watch = self.status.watch(partition).unwrap();
        let found = within_patience("the state", watch.wait_for(|status| wanted(&status.state)));
        found.await.unwrap().state.clone()
    }
}

/// Where subscriptions keep their state, in memory; it can fail, and be restored from a backup.
pub(super) struct States {
    store: Mutex<Arc<InMemoryReadStore>>,
    /// Nothing can be read or written.
    is_down: AtomicBool,
    /// So many loads are answered although it is down.
    loads_to_answer: AtomicUsize,
    /// So many answers to writes that are done are still to be lost.
    answers_to_lose: AtomicUsize,
}

impl States {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            store: Mutex::default(),
            is_down: AtomicBool::new(false),
            loads_to_answer: AtomicUsize::new(0),
            answers_to_lose: AtomicUsize::new(0),
        })
    }

    pub(super) fn be_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Answers so many loads although it is down.
    pub(super) fn answer_loads(&self, count: usize) {
        self.loads_to_answer.store(count, Ordering::SeqCst);
    }

    pub(super) fn loads_to_answer(&self) -> usize {
        self.loads_to_answer.load(Ordering::SeqCst)
    }

    /// What is behind it, which never fails.
    pub(super) fn inner(&self) -> Arc<InMemoryReadStore> {
        Arc::clone(&*self.store.lock().unwrap())
    }

    pub(super) fn lose_answers(&self, count: usize) {
        self.answers_to_lose.store(count, Ordering::SeqCst);
    }

    pub(super) fn are_all_answers_lost(&self) -> bool {
        self.answers_to_lose.load(Ordering::SeqCst) == 0
    }

    /// Puts these records in the place of those that there are, as a restore of a backup does.
    pub(super) async fn restore(&self, backup: &BTreeMap<Partition, (u64, StateRecord)>) {
        let store = Arc::new(InMemoryReadStore::new());
        for (partition, (_, record)) in backup {
            let written = store.compare_and_set_state("view", *partition, 0, record);
            assert!(written.await.unwrap());
        }
        *self.store.lock().unwrap() = store;
    }

    fn store(&self) -> Result<Arc<InMemoryReadStore>, StateError> {
        match self.is_down.load(Ordering::SeqCst) {
            true => Err(StateError::Unavailable(
                "the test has switched it off".into(),
            )),
            false => Ok(self.inner()),
        }
    }
}

#[async_trait]
impl StateStore for States {
    async fn load_states(
        &self,
        subscription: &str,
    ) -> Result<Vec<(Partition, u64, StateRecord)>, StateError> {
        let store = match count_down(&self.loads_to_answer) {
            true => self.inner(),
            false => self.store()?,
        };
        store.load_states(subscription).await
    }

    async fn compare_and_set_state(
        &self,
        subscription: &str,
        partition: Partition,
        expected: u64,
        record: &StateRecord,
    ) -> Result<bool, StateError> {
        let store = self.store()?;
        let written = store.compare_and_set_state(subscription, partition, expected, record);
        let written = written.await?;
        match count_down(&self.answers_to_lose) {
            true => Err(StateError::Unavailable(
                "the test has lost the answer".into(),
            )),
            false => Ok(written),
        }
    }
}

/// Takes one off, unless there is none left.
fn count_down(count: &AtomicUsize) -> bool {
    let one_less = |count: usize| count.checked_sub(1);
    count
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
        .is_ok()
}

/// The state records of `view`, by partition.
pub(super) async fn records(states: &dyn StateStore) -> BTreeMap<Partition, (u64, StateRecord)> {
    let stored = states.load_states("view").await.unwrap();
    stored
        .into_iter()
        .map(|(partition, revision, record)| (partition, (revision, record)))
        .collect()
}

/// Changes a state record, whatever else happens to it.
pub(super) async fn change(
    states: &dyn StateStore,
    partition: Partition,
    change: impl Fn(&StateRecord) -> StateRecord,
) {
    loop {
        let (revision, record) = records(states).await.remove(&partition).unwrap();
        let changed = change(&record);
        let written = states.compare_and_set_state("view", partition, revision, &changed);
        if written.await.unwrap() {
            return;
        }
    }
}

/// Waits until the condition holds.
pub(super) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    within_patience(what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Waits for something that will happen.
pub(super) async fn within_patience<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

/// A connection of the test's own to a Redis.
pub(super) async fn redis_at(url: &str) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// Removes a key.
pub(super) async fn del(url: &str, key: &str) {
    let removed: i64 = redis::cmd("DEL")
        .arg(key)
        .query_async(&mut redis_at(url).await)
        .await
        .unwrap();
    assert_eq!(removed, 1, "{key} was not there");
}
