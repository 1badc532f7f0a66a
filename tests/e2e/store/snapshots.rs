//! Long streams of an aggregate on the servers: from one process' snapshot goes another on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidelog::prelude::*;
use tidelog_command::store::conformance::StoreFactory;
use tidelog_command::store::{EventStore, ReadFrom, StreamRead};
use tidelog_command::{AppenderSettings, CommandRequest, CommandService};
use tidelog_domain::{
    Append, Decider, EventId, ExpectedVersion, NewEvent, Payload, StreamId, TypedDecider,
};
use tidelog_eventbus::CommitSignal;
use tidelog_test_support::{Server, shared};

use super::kit::{DatabaseLog, partitions};

/// What was counted, and how often.
#[aggregate]
struct Tally {
    count: u64,
}

#[commands]
enum TallyCommand {
    #[create]
    Begin,
    Count,
}

#[events("tally")]
enum TallyEvent {
    Begun,
    Counted,
}

#[rejections]
enum TallyRejection {
    /// It is full.
    Full,
}

impl Aggregate for Tally {
    type Command = TallyCommand;
    type Event = TallyEvent;
    type Rejection = TallyRejection;

    fn decide(&self, command: TallyCommand, _: &Context) -> Decision<Self> {
        match command {
            TallyCommand::Begin => Ok(vec![TallyEvent::Begun]),
            TallyCommand::Count if self.count == u64::MAX => Err(TallyRejection::Full),
            TallyCommand::Count => Ok(vec![TallyEvent::Counted]),
        }
    }

    fn evolve(&mut self, event: &TallyEvent) {
        match event {
            TallyEvent::Begun => {}
            TallyEvent::Counted => self.count += 1,
        }
    }
}

/// A program that knows nothing yet, on connections of its own.
async fn program(log: &DatabaseLog, snapshot_every_events: u64) -> CommandService {
    let store = log.open(partitions()).await.unwrap();
    let identity = store.identity().await.unwrap();
    let signal = CommitSignal::new(identity.partitions);
    let decider: Arc<dyn Decider> = Arc::new(TypedDecider::<Tally>::new().unwrap());
    let settings = AppenderSettings {
        snapshot_every_events,
        ..AppenderSettings::default()
    };
    CommandService::new([decider], store, identity, signal, settings).unwrap()
}

/// The stream `tally/1`.
fn stream() -> StreamId {
    StreamId::new("tally", "1").unwrap()
}

/// Lets the tally `1` have `count` events more than its first.
async fn count(store: &dyn EventStore, count: usize) {
    let event = |kind: &str| NewEvent {
        id: EventId::new(uuid::Uuid::now_v7()),
        event_type: kind.into(),
        schema_version: 1,
        payload: Payload::from_stored(b"{}"),
        metadata: Payload::from_stored(b"{}"),
    };
    let append = |events| Append::one(stream(), ExpectedVersion::Any, events);
    let mut appends = vec![append(vec![event("tally.begun")])];
    for from in (0..count).step_by(1_000) {
        let some = (from..count).take(1_000).map(|_| event("tally.counted"));
        appends.push(append(some.collect()));
    }
    for one in appends {
        store.append(0, vec![one].into()).await.remove(0).unwrap();
    }
}

/// Counts one more, and says what that made and how long it took.
async fn one_more(service: &CommandService) -> (Value, Duration) {
    let begin = Instant::now();
    let request = CommandRequest::new("tally", "count", Value::Null).to("1");
    let done = service.execute(request).await.unwrap();
    (done.data, begin.elapsed())
}

async fn goes_on(server: &Server) {
    let log = DatabaseLog::fresh(server).await;
    let store = log.open(partitions()).await.unwrap();
    count(store.as_ref(), 1_200).await;
    let first = program(&log, 500).await;
    assert_eq!(one_more(&first).await.0, json!({"count": 1_201}));
    assert!(first.close(Duration::from_secs(60)).await);
    assert_eq!(first.snapshots().failed, 0);
    let decider = TypedDecider::<Tally>::new().unwrap();
    let read = StreamRead {
        stream: stream(),
        from: ReadFrom::Snapshot(decider.snapshots().unwrap().fingerprint().into()),
    };
    let page = store.read_streams(&[read], 10_000).await.unwrap().remove(0);
    let (snapshot, position) = page.snapshot.unwrap();
    assert_eq!(
        (snapshot.version.number(), position.number()),
        (1_201, 1_201)
    );
    assert_eq!(page.events.len(), 1);
    let second = program(&log, 500).await;
    assert_eq!(one_more(&second).await.0, json!({"count": 1_202}));
}

#[tokio::test]
async fn a_long_stream_goes_on_from_its_snapshot_on_mysql() {
    goes_on(shared::mysql().await).await;
}

#[tokio::test]
async fn a_long_stream_goes_on_from_its_snapshot_on_mariadb() {
    goes_on(shared::mariadb().await).await;
}
