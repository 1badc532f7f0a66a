//! Events of which it cannot be told what they belong to, or that belong to another sequence by now: none is lost, none comes out
//! of order, and an operator can say what becomes of them.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chrono::{TimeDelta, Utc};
use tidelog_domain::{Partition, Position, RecordedEvent};
use tidelog_eventbus::{
    Ask, EventBus, EventFailure, Failure, FailurePolicy, Handled, Handler, HandlerError,
    InProcessEventBus, Parked, ParkedState, PartitionState, Request, StateRecord,
    SubscriptionOptions, Why,
};

use super::kit::{Consumer, Log, States, change, eventually, quick, records, stream_in};

const P0: Partition = Partition::new(0);

/// The sequences of the events that are in none, or cannot be told.
#[derive(Clone)]
enum Keys {
    Are(&'static [&'static str]),
    AreBroken(&'static [&'static str]),
    AreNotWanted,
}

use Keys::{Are, AreBroken, AreNotWanted};

impl Keys {
    /// What the handler itself goes by.
    fn true_ones(&self) -> &'static [&'static str] {
        match self {
            Are(names) | AreBroken(names) => names,
            AreNotWanted => &[],
        }
    }
}

/// Has the keys of its events, by position, and those that it cannot handle.
struct Keyed {
    keys: Mutex<Vec<Keys>>,
    poison: Mutex<HashSet<u64>>,
    handled: Mutex<BTreeMap<&'static str, Vec<u64>>>,
}

impl Keyed {
    fn new<const N: usize>(keys: [Keys; N], poison: &[u64]) -> Arc<Self> {
        Arc::new(Self {
            keys: Mutex::new(keys.to_vec()),
            poison: Mutex::new(poison.iter().copied().collect()),
            handled: Mutex::default(),
        })
    }

    fn keys(&self, event: &RecordedEvent) -> Keys {
        let index = usize::try_from(event.position.number()).unwrap() - 1;
        self.keys.lock().unwrap()[index].clone()
    }

    fn set(&self, position: usize, keys: Keys) {
        self.keys.lock().unwrap()[position - 1] = keys;
    }

    fn recover(&self) {
        self.poison.lock().unwrap().clear();
    }

    /// The positions that it handled of a sequence; again and again is once.
    fn of(&self, sequence: &str) -> Vec<u64> {
        let handled = self.handled.lock().unwrap();
        let mut positions = handled.get(sequence).cloned().unwrap_or_default();
        positions.dedup();
        positions
    }
}

#[async_trait]
impl Handler for Keyed {
    fn wants(&self, event: &RecordedEvent) -> bool {
        !matches!(self.keys(event), AreNotWanted)
    }

    fn sequences(&self, event: &RecordedEvent) -> Result<Vec<String>, HandlerError> {
        match self.keys(event) {
            Are(names) => Ok(names.iter().map(|name| (*name).to_owned()).collect()),
            AreBroken(_) | AreNotWanted => Err(HandlerError::permanent(event, "no keys")),
        }
    }

    async fn handle(
        &self,
        _: Partition,
        events: &[RecordedEvent],
    ) -> Result<Handled, HandlerError> {
        let mut outcome = Handled::default();
        let mut held_up: HashSet<&str> = HashSet::new();
        for event in events {
            let (names, position) = (self.keys(event).true_ones(), event.position.number());
            let waits = names.iter().any(|name| held_up.contains(name));
            let fails = self.poison.lock().unwrap().contains(&position);
            if waits || fails {
                held_up.extend(names);
            }
            if fails && !waits {
                let failure = Failure::permanent("poison");
                outcome.failed.push(EventFailure {
                    position: event.position,
                    failure,
                });
            }
            if !waits && !fails {
                let mut handled = self.handled.lock().unwrap();
                for name in names {
                    handled.entry(name).or_default().push(position);
                }
            }
        }
        Ok(outcome)
    }
}

/// A log of as many events as there are keys, and a subscription that handles them in one batch.
struct Case {
    log: Log,
    states: Arc<States>,
    bus: Arc<dyn EventBus>,
    handler: Arc<Keyed>,
}

impl Case {
    async fn of<const N: usize>(keys: [Keys; N], poison: &[u64]) -> Self {
        let log = Log::new();
        log.append_to(&stream_in(P0), N).await;
        Self {
            log,
            states: States::new(),
            bus: Arc::new(InProcessEventBus::new()),
            handler: Keyed::new(keys, poison),
        }
    }

    fn start(&self, owner: &str) -> Consumer {
        let policy = FailurePolicy {
            attempts: 1,
            ..quick().policy
        };
        let options = SubscriptionOptions { policy, ..quick() };
        let states = self.states.clone();
        Consumer::start(owner, &self.log, &self.bus, states, &self.handler, options)
    }

    async fn record(&self) -> Option<StateRecord> {
        let stored = records(&*self.states).await.remove(&P0);
        stored.map(|(_, record)| record)
    }

    async fn passes_all(&self) {
        let head = self.log.heads().await[0];
        eventually("all is passed", async || {
            let record = self.record().await;
            record.is_some_and(|record| record.checkpoint.cursor.position == head)
        })
        .await;
    }

    /// What waits, and from where on.
    async fn waits(&self) -> Vec<(String, u64)> {
        let record = self.record().await;
        let parked = record.map(|record| record.parked).unwrap_or_default();
        let waits = parked.iter();
        waits
            .map(|own| (own.sequence.clone(), own.first.number()))
            .collect()
    }

    async fn wait_for(&self, waits: &[(&str, u64)]) {
        let wanted = waits
            .iter()
            .map(|(name, first)| ((*name).to_owned(), *first));
        let wanted: Vec<_> = wanted.collect();
        eventually(&format!("{wanted:?} wait"), async || {
            self.waits().await == wanted
        })
        .await;
    }

    async fn ask(&self, all: &[Ask]) {
        let requests: Vec<_> = all.iter().cloned().map(Request::now).collect();
        change(&*self.states, P0, |record| {
            let all = requests.iter().cloned();
            all.fold(record.clone(), |record, request| {
                record.asked(request).unwrap()
            })
        })
        .await;
        eventually("the requests are done", async || {
            self.record().await.unwrap().requests.is_empty()
        })
        .await;
    }

    /// What an earlier process left: all is passed but for what is `parked`.
    async fn is_left_with(&self, parked: impl Fn(&mut Parked)) {
        let earlier = self.start("earlier");
        self.passes_all().await;
        earlier.subscription.stop().await;
        change(&*self.states, P0, |record| {
            let mut progress = record.progress();
            progress.parked = Parked::default();
            parked(&mut progress.parked);
            record.with_progress(&progress)
        })
        .await;
        self.handler.handled.lock().unwrap().clear();
    }
}

fn skip(sequence: &str, position: u64) -> Ask {
    Ask::Skip {
        sequence: sequence.to_owned(),
        position: Position::new(position),
        reason: "a test order".to_owned(),
    }
}

#[tokio::test]
async fn an_event_that_may_wait_with_one_that_failed_is_not_handled_before_that_is_known() {
    let keys = [Are(&["a"]), AreBroken(&["a"]), Are(&["a"]), Are(&["b"])];
    let case = Case::of(keys, &[1]).await;
    let consumer = case.start("a");
    let failed = |state: &PartitionState| matches!(state, PartitionState::Failed { position, .. } if position.number() == 2);
    consumer.state(P0, failed).await;
    case.wait_for(&[("a", 1)]).await;
    case.handler.set(2, Are(&["a"]));
    case.passes_all().await;
    case.wait_for(&[("a", 1)]).await;
    case.handler.recover();
    case.ask(&[Ask::RetryAll]).await;
    case.wait_for(&[]).await;
    assert_eq!(case.handler.of("a"), [1, 2, 3]);
    assert_eq!(case.handler.of("b"), [4]);
}

#[tokio::test]
async fn an_event_that_nobody_wants_is_passed_whatever_its_keys_say() {
    let keys = [Are(&["a"]), AreNotWanted, Are(&["b"])];
    let case = Case::of(keys, &[1]).await;
    let _consumer = case.start("a");
    case.passes_all().await;
    assert_eq!(case.waits().await, [("a".to_owned(), 1)]);
    assert_eq!(case.handler.of("b"), [3]);
}

#[tokio::test]
async fn what_was_handled_before_the_first_failure_needs_no_keys() {
    let keys = [AreBroken(&["b"]), Are(&["a"]), Are(&["c"])];
    let case = Case::of(keys, &[2]).await;
    let _consumer = case.start("a");
    case.passes_all().await;
    assert_eq!(case.waits().await, [("a".to_owned(), 2)]);
    assert_eq!(case.handler.of("b"), [1]);
}

#[tokio::test]
async fn an_event_of_no_sequence_that_cannot_be_handled_is_recorded_as_skipped() {
    let case = Case::of([Are(&["a"]), Are(&[]), Are(&["b"])], &[2]).await;
    let _consumer = case.start("a");
    case.passes_all().await;
    let record = case.record().await.unwrap();
    assert!(record.parked.is_empty());
    let [skipped] = &record.skipped[..] else {
        panic!("{:?}", record.skipped)
    };
    assert_eq!(skipped.position, Position::new(2));
    assert!(skipped.reason.contains("poison"), "{}", skipped.reason);
    assert_eq!(
        (case.handler.of("a"), case.handler.of("b")),
        (vec![1], vec![3])
    );
}

#[tokio::test]
async fn an_event_without_keys_stops_none_of_those_that_began_to_wait_after_it() {
    let keys = [Are(&["a"]), Are(&["c"]), Are(&["a"]), Are(&["b"])];
    let case = Case::of(keys, &[1, 4]).await;
    let _consumer = case.start("a");
    case.wait_for(&[("a", 1), ("b", 4)]).await;
    case.handler.set(2, AreBroken(&["c"]));
    case.handler.recover();
    case.ask(&[Ask::RetryAll]).await;
    case.wait_for(&[("a", 2)]).await;
    assert_eq!(
        (case.handler.of("a"), case.handler.of("b")),
        (vec![1], vec![4])
    );
    // An operator who knows that it is none of its events has it go on.
    case.ask(&[skip("a", 2)]).await;
    case.wait_for(&[]).await;
    assert_eq!(case.handler.of("a"), [1, 3]);
}

#[tokio::test]
async fn an_event_that_moved_to_a_sequence_that_waits_is_handled_there_in_its_turn() {
    let keys = [
        Are(&["right"]),
        Are(&["right"]),
        Are(&["wrong"]),
        Are(&["right"]),
        Are(&["wrong"]),
    ];
    let case = Case::of(keys, &[2, 3]).await;
    let _consumer = case.start("a");
    case.wait_for(&[("right", 2), ("wrong", 3)]).await;
    case.handler.set(3, Are(&["right"]));
    case.handler.recover();
    case.ask(&[Ask::RetryAll]).await;
    case.wait_for(&[("wrong", 3)]).await;
    assert_eq!(case.handler.of("right"), [1, 2, 3, 4]);
    let parked = case.record().await.unwrap().parked;
    let own = parked.get("wrong").unwrap();
    assert_eq!(own.state, ParkedState::Parked);
    assert!(own.error.contains("right"), "{}", own.error);
    case.ask(&[skip("wrong", 3)]).await;
    case.wait_for(&[]).await;
    let skipped = case.record().await.unwrap().skipped;
    assert_eq!(
        (skipped.len(), &*skipped[0].sequences),
        (1, &["wrong".to_owned()][..])
    );
    assert_eq!(case.handler.of("right"), [1, 2, 3, 4]);
    assert_eq!(case.handler.of("wrong"), [5]);
}

#[tokio::test]
async fn two_sequences_that_wait_for_each_other_go_on() {
    let case = Case::of([Are(&["a"]), Are(&["b"])], &[]).await;
    case.is_left_with(|parked| {
        let (first, second) = (Position::new(1), Position::new(2));
        parked.set_aside(first, &["a".to_owned()], &Why::behind("b", Utc::now()));
        parked.set_aside(second, &["b".to_owned()], &Why::behind("a", Utc::now()));
    })
    .await;
    let _consumer = case.start("b");
    case.wait_for(&[]).await;
    assert_eq!(
        (case.handler.of("a"), case.handler.of("b")),
        (vec![1], vec![2])
    );
}

#[tokio::test]
async fn what_a_sequence_is_to_skip_is_an_event_of_its_own() {
    let case = Case::of([Are(&["b"]), Are(&["a"])], &[]).await;
    let why = |error: &str, state| Why {
        error: error.to_owned(),
        counts: false,
        state,
        not_before: Some(Utc::now() + TimeDelta::hours(1)),
        at: Utc::now(),
    };
    case.is_left_with(|parked| {
        // A retry of `a` was cut off after the event before this one.
        let first = Position::new(1);
        parked.set_aside(first, &["a".to_owned()], &why("", ParkedState::Retrying));
        parked.set_aside(
            first,
            &["b".to_owned()],
            &why("poison", ParkedState::Parked),
        );
    })
    .await;
    let _consumer = case.start("b");
    case.ask(&[skip("a", 1), Ask::RetryAll]).await;
    case.wait_for(&[]).await;
    assert_eq!(
        (case.handler.of("a"), case.handler.of("b")),
        (vec![2], vec![1])
    );
    assert!(case.record().await.unwrap().skipped.is_empty());
}
