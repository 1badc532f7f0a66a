//! Snapshots: taken when they are due, used while they fit, and never in the way of a command.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidelog_domain::{Aggregate, Decider, Decision, EventId, Named, Payload};

use super::*;
use crate::store::{EventStore, ReadFrom, Snapshot, StreamRead};

/// An account of a later program, which remembers its notes: other state from the same events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct NotedAccount {
    cents: i64,
    #[serde(default)]
    notes: Vec<String>,
}

impl Named for NotedAccount {
    const NAME: &'static str = Account::NAME;
}

impl Aggregate for NotedAccount {
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Rejection = InsufficientFunds;

    fn decide(&self, command: AccountCommand, ctx: &Context) -> Decision<Self> {
        Account { cents: self.cents }.decide(command, ctx)
    }

    fn evolve(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Moved { cents } => self.cents += cents,
            AccountEvent::Noted { text } => self.notes.push(text.clone()),
            AccountEvent::Opened => {}
        }
    }
}

/// An account whose balance is not in the JSON of its state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct SecretAccount {
    #[serde(skip)]
    cents: i64,
}

impl Named for SecretAccount {
    const NAME: &'static str = Account::NAME;
}

impl Aggregate for SecretAccount {
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Rejection = InsufficientFunds;

    fn decide(&self, command: AccountCommand, ctx: &Context) -> Decision<Self> {
        Account { cents: self.cents }.decide(command, ctx)
    }

    fn evolve(&mut self, event: &AccountEvent) {
        if let AccountEvent::Moved { cents } = event {
            self.cents += cents;
        }
    }
}

fn every(events: u64) -> AppenderSettings {
    AppenderSettings {
        snapshot_every_events: events,
        snapshot_slow_load_ms: u64::MAX,
        ..AppenderSettings::default()
    }
}

/// A program whose accounts are `A`, as a process of its own that knows nothing yet.
async fn program<A: Aggregate>(
    store: &Arc<WatchedStore>,
    settings: AppenderSettings,
) -> Arc<CommandService> {
    let store = Arc::clone(store) as Arc<dyn EventStore>;
    let identity = store.identity().await.unwrap();
    let signal = CommitSignal::new(identity.partitions);
    let account: Arc<dyn Decider> = Arc::new(TypedDecider::<A>::new().unwrap());
    Arc::new(CommandService::new([account], store, identity, signal, settings).unwrap())
}

/// Ends a program. What was due is written then.
async fn end(service: Arc<CommandService>) -> SnapshotCounts {
    assert!(service.close(Duration::from_secs(60)).await);
    service.snapshots()
}

/// Opens the account `1` and pays in `count` cents, one by one.
async fn pay_in(
    store: &Arc<WatchedStore>,
    count: usize,
    settings: AppenderSettings,
) -> SnapshotCounts {
    let service = program::<Account>(store, settings).await;
    service.execute(open("1")).await.unwrap();
    for paid in (0..count).step_by(1_000) {
        let some = (paid..count).take(1_000).map(|_| deposit("1", 1));
        let results = at_once(&service, some).await;
        assert!(results.iter().all(Result::is_ok));
    }
    end(service).await
}

/// What a new program makes of the account `1` when one more cent is paid in, and how many events it read for that.
async fn one_more<A: Aggregate>(
    store: &Arc<WatchedStore>,
    settings: AppenderSettings,
) -> (Value, usize) {
    let service = program::<A>(store, settings).await;
    store.take_events_read();
    let done = service.execute(deposit("1", 1)).await.unwrap();
    end(service).await;
    (done.data, store.take_events_read())
}

/// The snapshot of the account `1` for programs whose accounts are `A`.
async fn kept<A: Aggregate>(store: &Arc<WatchedStore>) -> Option<Snapshot> {
    let decider = TypedDecider::<A>::new().unwrap();
    let read = StreamRead {
        stream: StreamId::parse("account/1").unwrap(),
        from: ReadFrom::Snapshot(decider.snapshots().unwrap().fingerprint().into()),
    };
    let mut pages = store.log.read_streams(&[read], 1).await.unwrap();
    pages.remove(0).snapshot.map(|(snapshot, _)| snapshot)
}

#[tokio::test]
async fn a_snapshot_is_taken_after_so_many_events_and_spares_reading_them() {
    let store = WatchedStore::new();
    let counts = pay_in(&store, 399, every(300)).await;
    assert_eq!((counts.written, counts.left_out, counts.failed), (1, 0, 0));
    let snapshot = kept::<Account>(&store).await.unwrap();
    let event = &store.events("account/1").await[299];
    assert_eq!(
        (snapshot.version, snapshot.event_id),
        (event.version, event.id)
    );
    assert_eq!(
        snapshot.state.as_bytes(),
        br#"{"ended":false,"state":{"cents":299}}"#
    );
    assert_eq!(
        one_more::<Account>(&store, every(300)).await,
        (json!({"cents": 400}), 100)
    );
    // What takes none uses none.
    assert_eq!(
        one_more::<Account>(&store, every(0)).await,
        (json!({"cents": 401}), 401)
    );
}

#[tokio::test]
async fn a_stream_that_was_never_kept_is_read_in_one_read() {
    let store = WatchedStore::new();
    pay_in(&store, 399, every(0)).await;
    let reads = store.reads().len();
    assert_eq!(one_more::<Account>(&store, every(500)).await.1, 400);
    assert_eq!(store.reads().len() - reads, 1);
}

#[tokio::test]
async fn a_stream_that_is_long_to_read_gets_a_snapshot() {
    let store = WatchedStore::new();
    pay_in(&store, 399, every(0)).await;
    one_more::<Account>(&store, every(500)).await;
    assert_eq!(kept::<Account>(&store).await, None);
    one_more::<Account>(&store, every(401)).await;
    let snapshot = kept::<Account>(&store).await.unwrap();
    assert_eq!(snapshot.version, Version::new(401));
}

#[tokio::test]
async fn a_stream_that_is_slow_to_read_gets_a_snapshot_unless_it_is_short() {
    let any_is_slow = || AppenderSettings {
        snapshot_slow_load_ms: 0,
        ..every(100_000)
    };
    let store = WatchedStore::new();
    pay_in(&store, 62, every(0)).await;
    one_more::<Account>(&store, any_is_slow()).await;
    assert_eq!(kept::<Account>(&store).await, None);
    one_more::<Account>(&store, any_is_slow()).await;
    let snapshot = kept::<Account>(&store).await.unwrap();
    assert_eq!(snapshot.version, Version::new(64));
}

#[tokio::test]
async fn an_aggregate_whose_shape_changed_ignores_the_old_snapshot_and_replaces_it() {
    let store = WatchedStore::new();
    pay_in(&store, 10, every(5)).await;
    let service = program::<Account>(&store, every(5)).await;
    service
        .execute(CommandRequest::new("account", "note", json!({"bytes": 3})).to("1"))
        .await
        .unwrap();
    end(service).await;
    let old = kept::<Account>(&store).await.unwrap();
    assert_eq!(old.version, Version::new(10));
    // Its JSON could be read, and the notes would be missing.
    let (data, read) = one_more::<NotedAccount>(&store, every(5)).await;
    assert_eq!((data, read), (json!({"cents": 11, "notes": ["xxx"]}), 12));
    let (data, read) = one_more::<NotedAccount>(&store, every(5)).await;
    assert_eq!((data, read), (json!({"cents": 12, "notes": ["xxx"]}), 1));
    assert_eq!(kept::<Account>(&store).await, None);
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_read_is_left_alone() {
    let store = WatchedStore::new();
    pay_in(&store, 10, every(0)).await;
    let event = store.events("account/1").await.remove(7);
    let decider = TypedDecider::<Account>::new().unwrap();
    let broken = Snapshot {
        stream: event.stream,
        version: event.version,
        event_id: event.id,
        fingerprint: decider.snapshots().unwrap().fingerprint().into(),
        state: Payload::from_stored(b"{"),
    };
    store.log.keep_snapshots(&[broken]).await.unwrap();
    let service = program::<Account>(&store, every(500)).await;
    let done = service.execute(deposit("1", 1)).await.unwrap();
    assert_eq!(done.data, json!({"cents": 11}));
    assert_eq!(end(service).await.failed, 1);
}

#[tokio::test]
async fn a_state_that_would_come_back_otherwise_is_never_kept() {
    let store = WatchedStore::new();
    let service = program::<SecretAccount>(&store, every(2)).await;
    service.execute(open("1")).await.unwrap();
    for _ in 0..3 {
        service.execute(deposit("1", 1)).await.unwrap();
    }
    let counts = end(service).await;
    assert_eq!((counts.written, counts.failed), (0, 2));
    let service = program::<SecretAccount>(&store, every(2)).await;
    service.execute(withdraw("1", 3)).await.unwrap();
}

#[tokio::test]
async fn a_state_that_is_too_large_is_not_kept() {
    let store = WatchedStore::new();
    let service = program::<NotedAccount>(&store, every(2)).await;
    service.execute(open("1")).await.unwrap();
    let note = || CommandRequest::new("account", "note", json!({"bytes": 500_000})).to("1");
    for _ in 0..9 {
        service.execute(note()).await.unwrap();
    }
    let counts = end(service).await;
    assert_eq!((counts.left_out, counts.failed), (1, 0));
    let snapshot = kept::<NotedAccount>(&store).await.unwrap();
    assert_eq!(snapshot.version, Version::new(8));
}

#[tokio::test]
async fn an_entity_has_no_snapshot() {
    let store = WatchedStore::new();
    let service = service_on(Arc::clone(&store) as _, every(1)).await;
    service.execute(create("1")).await.unwrap();
    service.execute(retitle("1", "b")).await.unwrap();
    assert_eq!(end(service).await, SnapshotCounts::default());
}

#[tokio::test]
async fn a_store_that_keeps_no_snapshots_fails_no_command() {
    let store = WatchedStore::new();
    store.snapshots.close();
    let counts = pay_in(&store, 30, every(10)).await;
    assert!(counts.failed > 0 && counts.written == 0, "{counts:?}");
    assert_eq!(
        one_more::<Account>(&store, every(10)).await.0,
        json!({"cents": 31})
    );
}

#[tokio::test]
async fn commands_go_on_while_snapshots_wait_and_what_is_too_much_is_left_out() {
    let store = WatchedStore::new();
    store.snapshots.forget_permits(usize::MAX);
    let service = program::<Account>(&store, every(1)).await;
    service.execute(open("1")).await.unwrap();
    for _ in 0..600 {
        service.execute(deposit("1", 1)).await.unwrap();
    }
    let counts = service.snapshots();
    assert_eq!(counts.written, 0);
    assert!(counts.left_out > 0, "{counts:?}");
    store.snapshots.add_permits(1_000);
    let counts = end(service).await;
    assert!(counts.written > 0, "{counts:?}");
}

#[cfg(feature = "sqlite")]
mod on_a_file {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::store::{SqliteEventStore, SqliteOptions};

    async fn in_file(directory: &TempDir) -> Arc<WatchedStore> {
        let options = SqliteOptions::new(directory.path().join("log.db"));
        WatchedStore::on(Arc::new(SqliteEventStore::open(options).await.unwrap()))
    }

    #[tokio::test]
    async fn a_long_stream_is_loaded_by_the_events_after_its_snapshot() {
        let directory = TempDir::new().unwrap();
        let store = in_file(&directory).await;
        pay_in(&store, 5_016, every(500)).await;
        let snapshot = kept::<Account>(&store).await.unwrap();
        let (data, read) = one_more::<Account>(&store, every(500)).await;
        assert_eq!(data, json!({"cents": 5_017}));
        assert_eq!((snapshot.version.number(), read), (5_000, 17));
    }

    /// What happens to the accounts `1` and `2`.
    #[derive(Clone, Debug)]
    enum Step {
        /// So many cents are paid in at once.
        PayIn(&'static str, usize),
        /// The program ends, and another begins.
        Restart,
        /// The log was restored, and an operator said so.
        NewHistory,
        /// Somebody keeps a snapshot of an event that is not in the log, of this version.
        Stray(&'static str, u64),
        /// Somebody keeps what another program makes of the account.
        OfAnotherProgram(&'static str),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let account = || prop_oneof![Just("1"), Just("2")];
        let step = prop_oneof![
            6 => (account(), 1..12_usize).prop_map(|(id, count)| Step::PayIn(id, count)),
            4 => Just(Step::Restart),
            1 => Just(Step::NewHistory),
            1 => (account(), 1..40_u64).prop_map(|(id, version)| Step::Stray(id, version)),
            1 => account().prop_map(Step::OfAnotherProgram),
        ];
        vec(step, 1..25)
    }

    fn snapshot_of(id: &str, version: u64, fingerprint: &str) -> Snapshot {
        Snapshot {
            stream: StreamId::new("account", id).unwrap(),
            version: Version::new(version),
            event_id: EventId::new(Uuid::now_v7()),
            fingerprint: fingerprint.into(),
            state: Payload::from_stored(br#"{"ended":false,"state":{"cents":-1000}}"#),
        }
    }

    /// Runs `steps`, and looks after each payment at what came of it.
    async fn run(store: Arc<WatchedStore>, every_events: u64, steps: Vec<Step>) {
        let decider = TypedDecider::<Account>::new().unwrap();
        let today = decider.snapshots().unwrap().fingerprint();
        let settings = || AppenderSettings {
            cache_max_bytes: 0,
            ..every(every_events)
        };
        let mut service = program::<Account>(&store, settings()).await;
        for id in ["1", "2"] {
            service.execute(open(id)).await.unwrap();
        }
        for step in steps {
            match step {
                Step::PayIn(id, count) => {
                    at_once(&service, (1..count).map(|_| deposit(id, 1))).await;
                    let done = service.execute(deposit(id, 1)).await.unwrap();
                    let events = store.events(&format!("account/{id}")).await;
                    assert_eq!(done.version.number(), events.len() as u64);
                    assert_eq!(done.data, json!({"cents": events.len() - 1}));
                }
                Step::Restart => {
                    end(service).await;
                    service = program::<Account>(&store, settings()).await;
                }
                Step::NewHistory => {
                    store.log.renew_history().await.unwrap();
                }
                Step::Stray(id, version) => {
                    let stray = snapshot_of(id, version, today);
                    store.log.keep_snapshots(&[stray]).await.unwrap();
                }
                Step::OfAnotherProgram(id) => {
                    let event = store.events(&format!("account/{id}")).await.pop().unwrap();
                    let theirs = Snapshot {
                        event_id: event.id,
                        ..snapshot_of(id, event.version.number(), "another")
                    };
                    store.log.keep_snapshots(&[theirs]).await.unwrap();
                }
            }
        }
        end(service).await;
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_kept_the_state_is_that_of_all_events(every_events in 1..8_u64, steps in steps()) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                run(WatchedStore::new(), every_events, steps.clone()).await;
                let directory = TempDir::new().unwrap();
                run(in_file(&directory).await, every_events, steps).await;
            });
        }
    }
}
