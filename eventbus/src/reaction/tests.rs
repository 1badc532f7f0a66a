use std::num::ParseIntError;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidelog_domain::{DecodeError, Event, EventId, Payload, Position, Upcaster, Version};
use tokio::sync::Barrier;
use uuid::Uuid;

use super::*;

/// What the reactions here listen to: an order to do something.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Told(String);

impl Event for Told {
    const TYPES: &'static [&'static str] = &["thing.told"];

    fn event_type(&self) -> &'static str {
        "thing.told"
    }

    fn current_version(_: &str) -> u32 {
        2
    }

    fn upcasters() -> Vec<Upcaster> {
        vec![Upcaster::new("thing.said", 1, |said| said["what"].clone()).renamed("thing.told", 2)]
    }

    fn encode(&self) -> Result<Payload, serde_json::Error> {
        Payload::of(self)
    }

    fn decode(name: &str, version: u32, payload: &Payload) -> Result<Self, DecodeError> {
        let read = payload.decode();
        read.map_err(|error| DecodeError::payload(name, version, error))
    }
}

/// Notes what it was told, and does as it was told.
#[derive(Default)]
struct Obedient {
    done: Mutex<Vec<String>>,
    policy: FailurePolicy,
}

impl Reaction for Obedient {
    const NAME: &'static str = "obedient";
    type Event = Told;

    fn policy(&self) -> FailurePolicy {
        self.policy.clone()
    }

    async fn react(&self, e: &Recorded<Told>) -> Result<(), Failure> {
        // Somebody else's turn, so that the order is not by chance.
        tokio::task::yield_now().await;
        match e.event.0.as_str() {
            "parse" => drop("one".parse::<u32>()?),
            "skip" => return Err(Failure::skip("as told")),
            "park" => return Err(Failure::park("as told")),
            "panic" => panic!("as told"),
            told => {
                let done = format!("{}: {told}", e.stream_id);
                self.done.lock().unwrap().push(done);
            }
        }
        Ok(())
    }
}

fn told(position: u64, stream: &str, what: &str) -> RecordedEvent {
    RecordedEvent {
        stream: StreamId::new("thing", stream).unwrap(),
        version: Version::new(position),
        partition: Partition::new(0),
        position: Position::new(position),
        id: EventId::new(Uuid::from_u128(position.into())),
        event_type: "thing.told".into(),
        schema_version: 2,
        payload: Payload::of(&what).unwrap(),
        metadata: Payload::from_stored(b"{}"),
        recorded_at: Default::default(),
    }
}

/// Gives `events`, each a stream and what it is told, to the reaction.
async fn handled(handler: &ReactionHandler<Obedient>, events: &[(&str, &str)]) -> Handled {
    let events = (1..).zip(events);
    let events: Vec<_> = events
        .map(|(at, (stream, what))| told(at, stream, what))
        .collect();
    handler.handle(Partition::new(0), &events).await.unwrap()
}

fn failed(handled: &Handled) -> Vec<(u64, FailureKind)> {
    let failed = handled.failed.iter();
    failed
        .map(|own| (own.position.number(), own.failure.kind))
        .collect()
}

#[tokio::test]
async fn the_events_of_a_stream_come_in_order() {
    let handler = ReactionHandler::new(Obedient::default());
    let events = [
        ("a", "1"),
        ("b", "1"),
        ("a", "2"),
        ("c", "1"),
        ("a", "3"),
        ("b", "2"),
    ];
    assert_eq!(failed(&handled(&handler, &events).await), []);
    let done = handler.reaction.done.lock().unwrap();
    let of = |stream: &str| -> Vec<_> {
        done.iter()
            .filter(|one| one.starts_with(stream))
            .cloned()
            .collect()
    };
    assert_eq!(of("a"), ["a: 1", "a: 2", "a: 3"]);
    assert_eq!(of("b"), ["b: 1", "b: 2"]);
    assert_eq!(done.len(), events.len());
}

#[tokio::test]
async fn after_a_failure_nothing_more_is_done_for_its_stream_and_all_for_the_others() {
    let handler = ReactionHandler::new(Obedient::default());
    let events = [
        ("a", "1"),
        ("a", "parse"),
        ("b", "1"),
        ("a", "3"),
        ("c", "panic"),
        ("b", "2"),
        ("d", "park"),
    ];
    let handled = handled(&handler, &events).await;
    let kinds = [
        (2, FailureKind::Permanent),
        (5, FailureKind::Permanent),
        (7, FailureKind::Park),
    ];
    assert_eq!(failed(&handled), kinds);
    let mut done = handler.reaction.done.lock().unwrap().clone();
    done.sort();
    assert_eq!(done, ["a: 1", "b: 1", "b: 2"]);
    let said = causes(&*handled.failed[1].failure.cause);
    assert_eq!(said, "the reaction panicked: as told");
}

#[tokio::test]
async fn what_is_skipped_is_told_and_the_stream_goes_on() {
    let handler = ReactionHandler::new(Obedient::default());
    let handled = handled(&handler, &[("a", "skip"), ("a", "2")]).await;
    assert_eq!(failed(&handled), []);
    assert_eq!(handled.skipped, [(Position::new(1), "as told".to_owned())]);
    assert_eq!(*handler.reaction.done.lock().unwrap(), ["a: 2"]);
}

#[tokio::test]
async fn an_error_that_came_by_itself_is_for_the_policy_to_judge() {
    let classify: crate::failure::Classify = std::sync::Arc::new(|error| {
        error
            .is::<ParseIntError>()
            .then_some(FailureKind::Transient)
    });
    let handler = ReactionHandler::new(Obedient {
        policy: FailurePolicy {
            classify: Some(classify),
            ..FailurePolicy::default()
        },
        ..Obedient::default()
    });
    let handled = handled(&handler, &[("a", "parse"), ("b", "park")]).await;
    let kinds = [(1, FailureKind::Transient), (2, FailureKind::Park)];
    assert_eq!(failed(&handled), kinds);
}

#[tokio::test]
async fn older_shapes_are_wanted_and_brought_to_todays() {
    let handler = ReactionHandler::new(Obedient::default());
    let old = RecordedEvent {
        event_type: "thing.said".into(),
        schema_version: 1,
        payload: Payload::from_stored(br#"{"what": "old"}"#),
        ..told(1, "a", "")
    };
    let other = RecordedEvent {
        event_type: "thing.done".into(),
        ..old.clone()
    };
    assert!(handler.wants(&old) && !handler.wants(&other));
    let handled = handler.handle(Partition::new(0), &[old]).await.unwrap();
    assert_eq!(failed(&handled), []);
    assert_eq!(*handler.reaction.done.lock().unwrap(), ["a: old"]);
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_a_failure_of_its_own() {
    let handler = ReactionHandler::new(Obedient::default());
    let unreadable = RecordedEvent {
        payload: Payload::from_stored(b"7"),
        ..told(1, "a", "")
    };
    let events = [unreadable, told(2, "b", "1")];
    let handled = handler.handle(Partition::new(0), &events).await.unwrap();
    assert_eq!(failed(&handled), [(1, FailureKind::Permanent)]);
    assert_eq!(*handler.reaction.done.lock().unwrap(), ["b: 1"]);
}

/// Goes on only when so many streams are at it at once, and counts how many there ever were.
struct Together {
    all: Barrier,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Reaction for Together {
    const NAME: &'static str = "together";
    type Event = Told;

    async fn react(&self, _: &Recorded<Told>) -> Result<(), Failure> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.all.wait().await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test]
async fn streams_are_worked_on_side_by_side_up_to_the_bound() {
    let handler = ReactionHandler::new(Together {
        all: Barrier::new(STREAMS_AT_ONCE),
        now: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
    });
    let streams = u64::try_from(STREAMS_AT_ONCE).unwrap() * 3;
    let events: Vec<_> = (1..=streams)
        .map(|at| told(at, &at.to_string(), "go"))
        .collect();
    let handled = handler.handle(Partition::new(0), &events).await.unwrap();
    assert!(handled.failed.is_empty());
    assert_eq!(
        handler.reaction.most.load(Ordering::SeqCst),
        STREAMS_AT_ONCE
    );
}
