//! What the tests of this crate share: two aggregates, and a store that can be watched and disturbed.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidelog_domain::{
    Aggregate, Append, Appended, Command, CommandInput, CommandSpec, Context, Cursor, Decider,
    Decision, DecodeError, Endpoint, EntityDecider, EntitySchema, Event, EventId, ExpectedVersion,
    FieldError, HistoryId, Lifecycle, Named, NewEvent, Partition, Partitions, Payload, Position,
    RecordedEvent, Rejection, StreamId, TypedDecider, Version,
};
use tidelog_eventbus::{
    CommitSignal, EventQuery, Found, LogError, LogIdentity, LogReader, LogSearch, StateError,
    StateRecord, StateStore, StreamReader,
};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::appender::AppenderSettings;
use crate::handling::{CommandRequest, CommandService};
use crate::store::{AppendError, EventStore, InMemoryEventStore, Snapshot, StreamPage, StreamRead};

/// The entity of the README.
pub(crate) fn post() -> Arc<dyn Decider> {
    let schema = include_str!("../../examples/entities/post.schema.json");
    Arc::new(EntityDecider::new(
        EntitySchema::parse("post", schema).unwrap(),
    ))
}

/// A whole post.
pub(crate) fn a_post() -> Value {
    json!({"title": "a", "content": "c", "author_name": "ann"})
}

pub(crate) fn create(id: &str) -> CommandRequest {
    CommandRequest::new("post", "create", a_post()).to(id)
}

pub(crate) fn retitle(id: &str, title: &str) -> CommandRequest {
    CommandRequest::new("post", "patch", json!({"title": title})).to(id)
}

pub(crate) fn delete(id: &str) -> CommandRequest {
    CommandRequest::new("post", "delete", Value::Null).to(id)
}

pub(crate) fn open(id: &str) -> CommandRequest {
    CommandRequest::new("account", "open", Value::Null).to(id)
}

pub(crate) fn deposit(id: &str, cents: i64) -> CommandRequest {
    CommandRequest::new("account", "deposit", json!({"cents": cents})).to(id)
}

pub(crate) fn withdraw(id: &str, cents: i64) -> CommandRequest {
    CommandRequest::new("account", "withdraw", json!({"cents": cents})).to(id)
}

/// A service with the aggregates `post` and `account` on `store`, as a process of its own has it.
pub(crate) async fn service_on(
    store: Arc<dyn EventStore>,
    settings: AppenderSettings,
) -> Arc<CommandService> {
    let identity = store.identity().await.unwrap();
    let signal = CommitSignal::new(identity.partitions);
    let deciders = [post(), Arc::new(TypedDecider::<Account>::new().unwrap())];
    Arc::new(CommandService::new(deciders, store, identity, signal, settings).unwrap())
}

/// A bank account: an aggregate whose state takes all of its events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) cents: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum AccountEvent {
    Opened,
    Moved { cents: i64 },
    Noted { text: String },
}

pub(crate) enum AccountCommand {
    Open,
    Deposit { cents: i64 },
    Withdraw { cents: i64 },
    Note { bytes: usize },
    Break,
}

#[derive(Debug, PartialEq)]
pub(crate) struct InsufficientFunds;

impl Named for Account {
    const NAME: &'static str = "account";
}

impl Aggregate for Account {
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Rejection = InsufficientFunds;

    #[allow(clippy::panic, reason = "what happens to a panic is a test")]
    fn decide(&self, command: AccountCommand, _: &Context) -> Decision<Self> {
        let moved = |cents| vec![AccountEvent::Moved { cents }];
        match command {
            AccountCommand::Open => Ok(vec![AccountEvent::Opened]),
            AccountCommand::Deposit { cents: 0 } => Ok(Vec::new()),
            AccountCommand::Deposit { cents } => Ok(moved(cents)),
            AccountCommand::Withdraw { cents } if cents > self.cents => Err(InsufficientFunds),
            AccountCommand::Withdraw { cents } => Ok(moved(-cents)),
            AccountCommand::Note { bytes } => Ok(vec![AccountEvent::Noted {
                text: "x".repeat(bytes),
            }]),
            AccountCommand::Break => panic!("a defect of the aggregate"),
        }
    }

    fn evolve(&mut self, event: &AccountEvent) {
        if let AccountEvent::Moved { cents } = event {
            self.cents += cents;
        }
    }
}

impl Command for AccountCommand {
    fn specs() -> Vec<CommandSpec> {
        ["open", "deposit", "withdraw", "note", "break"]
            .map(|name| CommandSpec {
                name: name.to_owned(),
                endpoint: Endpoint::Named,
                lifecycle: if name == "open" {
                    Lifecycle::Missing
                } else {
                    Lifecycle::Live
                },
                schema: Value::Bool(true),
            })
            .into()
    }

    fn decode(input: &CommandInput) -> Result<Self, Vec<FieldError>> {
        let cents = input.body["cents"].as_i64();
        let wrong = || {
            vec![FieldError {
                field: "/cents".to_owned(),
                message: "must be an integer".to_owned(),
            }]
        };
        Ok(match input.name.as_str() {
            "open" => Self::Open,
            "deposit" => Self::Deposit {
                cents: cents.ok_or_else(wrong)?,
            },
            "withdraw" => Self::Withdraw {
                cents: cents.ok_or_else(wrong)?,
            },
            "note" => Self::Note {
                bytes: serde_json::from_value(input.body["bytes"].clone()).unwrap(),
            },
            _ => Self::Break,
        })
    }
}

impl Event for AccountEvent {
    const TYPES: &'static [&'static str] = &["account.opened", "account.moved", "account.noted"];

    fn event_type(&self) -> &'static str {
        match self {
            Self::Opened => "account.opened",
            Self::Moved { .. } => "account.moved",
            Self::Noted { .. } => "account.noted",
        }
    }

    fn encode(&self) -> Result<Payload, serde_json::Error> {
        Payload::of(self)
    }

    fn decode(event_type: &str, shape: u32, payload: &Payload) -> Result<Self, DecodeError> {
        payload
            .decode()
            .map_err(|source| DecodeError::payload(event_type, shape, source))
    }
}

impl Rejection for InsufficientFunds {
    fn code(&self) -> String {
        "insufficient-funds".to_owned()
    }

    fn detail(&self) -> String {
        "There is not enough in the account.".to_owned()
    }
}

/// A store, in memory unless said otherwise, whose batches can be seen, held up, disturbed and made to fail.
pub(crate) struct WatchedStore {
    pub(crate) log: Arc<dyn EventStore>,
    /// Each append of a batch takes one of these.
    pub(crate) permits: Semaphore,
    /// Each snapshot that is written takes one of these. None can be written once they are closed.
    pub(crate) snapshots: Semaphore,
    batches: Mutex<Vec<Arc<[Append]>>>,
    reads: Mutex<Vec<usize>>,
    events_read: AtomicUsize,
    faults: Mutex<VecDeque<Fault>>,
}

/// What happens to the next batch, or read.
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Somebody else appends an event to the stream just before.
    Rival(NewEvent, StreamId),
    /// The batch fails as a whole.
    Append(Box<dyn Fn() -> AppendError + Send>),
    /// It is committed, and the answer is lost.
    LostAnswer,
    /// The adapter has a defect.
    Panic,
}

impl WatchedStore {
    pub(crate) fn new() -> Arc<Self> {
        Self::on(Arc::new(InMemoryEventStore::default()))
    }

    pub(crate) fn on(log: Arc<dyn EventStore>) -> Arc<Self> {
        Arc::new(Self {
            log,
            permits: Semaphore::new(Semaphore::MAX_PERMITS),
            snapshots: Semaphore::new(Semaphore::MAX_PERMITS),
            batches: Mutex::default(),
            reads: Mutex::default(),
            events_read: AtomicUsize::new(0),
            faults: Mutex::default(),
        })
    }

    /// Lets no batch through until there are permits again.
    pub(crate) fn hold_up(&self) {
        self.permits.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets all batches through.
    pub(crate) fn let_go(&self) {
        self.permits.add_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    /// Nothing more happens to batches.
    pub(crate) fn forget_faults(&self) {
        self.faults.lock().unwrap().clear();
    }

    /// How many appends each batch had.
    pub(crate) fn batches(&self) -> Vec<usize> {
        self.batches
            .lock()
            .unwrap()
            .iter()
            .map(|b| b.len())
            .collect()
    }

    /// How many streams were asked for in each read.
    pub(crate) fn reads(&self) -> Vec<usize> {
        self.reads.lock().unwrap().clone()
    }

    /// How many events of streams were read since the last call.
    pub(crate) fn take_events_read(&self) -> usize {
        self.events_read.swap(0, Ordering::Relaxed)
    }

    /// The whole log of `stream`.
    pub(crate) async fn events(&self, stream: &str) -> Vec<RecordedEvent> {
        let read = StreamRead {
            stream: StreamId::parse(stream).unwrap(),
            from: crate::store::ReadFrom::After(Version::NONE),
        };
        let pages = self.log.read_streams(&[read], usize::MAX).await.unwrap();
        pages.into_iter().next().unwrap().events
    }

    /// How many events the log has.
    pub(crate) async fn size(&self) -> u64 {
        let heads = self.log.heads().await.unwrap();
        heads.into_iter().map(Position::number).sum()
    }

    /// Appends to `stream` as somebody else would.
    pub(crate) async fn rival(&self, stream: &str, event: NewEvent) {
        append_to(self.log.as_ref(), StreamId::parse(stream).unwrap(), event).await;
    }
}

/// An event of the post with this title, made by nobody in particular.
pub(crate) fn retitled(title: &str) -> NewEvent {
    let mut state = a_post();
    state["title"] = json!(title);
    event(
        "post.updated",
        &json!({"state": state, "before": {"title": "?"}}),
    )
}

pub(crate) fn event(event_type: &str, payload: &Value) -> NewEvent {
    NewEvent {
        id: EventId::new(Uuid::now_v7()),
        event_type: event_type.into(),
        schema_version: 1,
        payload: Payload::of(payload).unwrap(),
        metadata: Payload::of(&json!({})).unwrap(),
    }
}

async fn append_to(log: &dyn EventStore, stream: StreamId, event: NewEvent) {
    let append = Append::one(stream, ExpectedVersion::Any, vec![event]);
    let results = log.append(0, Arc::new([append])).await;
    assert!(results[0].is_ok());
}

#[async_trait]
impl EventStore for WatchedStore {
    async fn append(
        &self,
        lane: usize,
        batch: Arc<[Append]>,
    ) -> Vec<Result<Vec<Appended>, AppendError>> {
        self.batches.lock().unwrap().push(Arc::clone(&batch));
        self.permits.acquire().await.unwrap().forget();
        let fault = self.faults.lock().unwrap().pop_front();
        match fault.unwrap_or(Fault::None) {
            Fault::None => {}
            Fault::Rival(event, stream) => append_to(self.log.as_ref(), stream, event).await,
            Fault::LostAnswer => {
                let lost = || AppendError::InDoubt("the answer was lost".into());
                let verdicts = self.log.append(lane, batch).await;
                return verdicts.iter().map(|_| Err(lost())).collect();
            }
            Fault::Append(error) => return batch.iter().map(|_| Err(error())).collect(),
            #[allow(clippy::panic, reason = "what happens to a panic is a test")]
            Fault::Panic => panic!("a defect of the adapter"),
        }
        self.log.append(lane, batch).await
    }

    fn lanes(&self) -> usize {
        self.log.lanes()
    }

    async fn read_streams(
        &self,
        reads: &[StreamRead],
        limit: usize,
    ) -> Result<Vec<StreamPage>, AppendError> {
        self.reads.lock().unwrap().push(reads.len());
        let pages = self.log.read_streams(reads, limit).await?;
        let events = pages.iter().map(|page| page.events.len()).sum();
        self.events_read.fetch_add(events, Ordering::Relaxed);
        Ok(pages)
    }

    async fn keep_snapshots(&self, snapshots: &[Snapshot]) -> Result<(), AppendError> {
        for _ in snapshots {
            let permit = self.snapshots.acquire().await;
            let unavailable = |closed| AppendError::Unavailable(Box::new(closed));
            permit.map_err(unavailable)?.forget();
        }
        self.log.keep_snapshots(snapshots).await
    }

    async fn renew_history(&self) -> Result<HistoryId, AppendError> {
        self.log.renew_history().await
    }

    async fn forget_keys(&self, age: Duration, limit: usize) -> Result<usize, AppendError> {
        self.log.forget_keys(age, limit).await
    }
}

#[async_trait]
impl StateStore for WatchedStore {
    async fn load_states(
        &self,
        subscription: &str,
    ) -> Result<Vec<(Partition, u64, StateRecord)>, StateError> {
        self.log.load_states(subscription).await
    }

    async fn compare_and_set_state(
        &self,
        subscription: &str,
        partition: Partition,
        expected: u64,
        record: &StateRecord,
    ) -> Result<bool, StateError> {
        let states = &self.log;
        states
            .compare_and_set_state(subscription, partition, expected, record)
            .await
    }
}

#[async_trait]
impl LogSearch for WatchedStore {
    async fn search(
        &self,
        partition: Partition,
        range: RangeInclusive<Position>,
        wanted: &EventQuery,
        newest_first: bool,
        limit: usize,
    ) -> Result<Found, LogError> {
        let found = self
            .log
            .search(partition, range, wanted, newest_first, limit);
        found.await
    }

    async fn streams(
        &self,
        prefix: &str,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, Version)>, LogError> {
        self.log.streams(prefix, after, limit).await
    }
}

#[async_trait]
impl StreamReader for WatchedStore {
    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        self.log.read_stream(stream, after, limit).await
    }
}

#[async_trait]
impl LogReader for WatchedStore {
    async fn identity(&self) -> Result<LogIdentity, LogError> {
        self.log.identity().await
    }

    async fn heads(&self) -> Result<Vec<Position>, LogError> {
        self.log.heads().await
    }

    async fn read(
        &self,
        partition: Partition,
        cursor: Cursor,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        self.log.read(partition, cursor, limit).await
    }
}

/// How many partitions the logs of the tests have.
pub(crate) const PARTITIONS: Partitions = Partitions::DEFAULT;
