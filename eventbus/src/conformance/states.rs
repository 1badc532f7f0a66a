//! The conformance suite of the state store: what every adapter must do, one public function a case.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::Utc;
use futures_util::future::join_all;
use tidelog_domain::{Cursor, EventId, HistoryId, Partition, Position};
use uuid::Uuid;

use crate::parking::{Parked, ParkedState, Why};
use crate::state::{
    Ask, Checkpoint, Pause, Request, SkippedEvent, StateError, StateRecord, StateStore, Trouble,
    TroubleKind,
};

/// The partition of the cases that need one.
const PARTITION: Partition = Partition::new(3);

/// Gives a case the store that it tests.
#[async_trait]
pub trait StateStoreFactory: Send + Sync {
    /// A store that works. Each case asks once; the stores of two cases may share their data.
    async fn states(&self) -> Arc<dyn StateStore>;
}

/// Runs the state store's conformance suite: `state_store_conformance!(module, factory)` makes a module with one test a case.
/// `factory` is an expression that gives a [`StateStoreFactory`](crate::conformance::StateStoreFactory) (it may `.await`);
/// it is evaluated once a case. The crate that calls it needs tokio with `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! state_store_conformance {
    ($module:ident, $factory:expr) => {
        $crate::state_store_conformance!(@cases $module, $factory,
            a_state_record_is_made_once_among_racers,
            a_state_record_changes_only_at_its_revision,
            state_records_belong_to_their_partition_and_subscription,
            a_state_record_comes_back_as_it_was,
        );
    };
    (@cases $module:ident, $factory:expr, $($case:ident,)*) => {
        mod $module {
            #[allow(unused_imports, reason = "the factory may be named by its path")]
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    $crate::conformance::$case(&$factory).await;
                }
            )*
        }
    };
}

/// Of many that make the first record of a partition, and each next one, one does.
pub async fn a_state_record_is_made_once_among_racers(factory: &dyn StateStoreFactory) {
    let (states, name) = fresh(factory).await;
    for expected in 0..4 {
        let racers = (0..32).map(|racer| {
            let (states, name) = (Arc::clone(&states), name.clone());
            tokio::spawn(async move {
                let record = StateRecord {
                    owner: Some(format!("racer {racer}")),
                    ..state(expected)
                };
                let won = set(&*states, &name, PARTITION, expected, &record).await;
                won.then_some(record)
            })
        });
        let winners: Vec<_> = join_all(racers)
            .await
            .into_iter()
            .filter_map(|raced| raced.ok().flatten())
            .map(|winner| (PARTITION, expected + 1, winner))
            .collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(load(&*states, &name).await, winners);
    }
}

/// Neither an older nor a later revision, and not one of a record that is not there.
pub async fn a_state_record_changes_only_at_its_revision(factory: &dyn StateStoreFactory) {
    let (states, name) = fresh(factory).await;
    let (first, second, third) = (state(1), state(2), state(3));
    for (expected, record, done) in [
        (1, &first, false),
        (0, &first, true),
        (0, &second, false),
        (2, &second, false),
        (1, &second, true),
        (1, &third, false),
        (0, &third, false),
        (2, &third, true),
    ] {
        let changed = set(&*states, &name, PARTITION, expected, record).await;
        assert_eq!(changed, done, "{expected}");
    }
    assert_eq!(load(&*states, &name).await, [(PARTITION, 3, third)]);
}

/// One record a partition of a subscription, and they come in the order of the partitions.
pub async fn state_records_belong_to_their_partition_and_subscription(
    factory: &dyn StateStoreFactory,
) {
    let (states, name) = fresh(factory).await;
    let other = unique("other");
    let mut expected = Vec::new();
    for number in [10, 2, 0, 1023, 9, 100] {
        let partition = Partition::new(number);
        let record = state(number.into());
        assert!(set(&*states, &name, partition, 0, &record).await);
        expected.push((partition, 1, record));
    }
    expected.sort_by_key(|(partition, ..)| *partition);
    assert_eq!(load(&*states, &name).await, expected);
    assert!(load(&*states, &other).await.is_empty());
    assert!(set(&*states, &other, PARTITION, 0, &state(5)).await);
    assert_eq!(load(&*states, &name).await, expected);
    assert_eq!(load(&*states, &other).await.len(), 1);
}

/// Everything that is in a record, and the emptiest one.
pub async fn a_state_record_comes_back_as_it_was(factory: &dyn StateStoreFactory) {
    let (states, name) = fresh(factory).await;
    let mut full = state(i64::MAX.unsigned_abs());
    full.epoch = i64::MAX.unsigned_abs();
    full.parked = parked(1_000);
    let empty = StateRecord::at_start(HistoryId::new(Uuid::nil()));
    for (expected, record) in (0..).zip([full, empty, state(7)]) {
        assert!(set(&*states, &name, PARTITION, expected, &record).await);
        let stored = load(&*states, &name).await;
        assert_eq!(stored, [(PARTITION, expected + 1, record)]);
    }
}

/// The store, and the name of a subscription that has no records.
async fn fresh(factory: &dyn StateStoreFactory) -> (Arc<dyn StateStore>, String) {
    (factory.states().await, unique("post"))
}

/// A name that nobody else has.
fn unique(name: &str) -> String {
    format!("{name}_{}", Uuid::now_v7().simple())
}

async fn load(states: &dyn StateStore, name: &str) -> Vec<(Partition, u64, StateRecord)> {
    present(states.load_states(name).await)
}

async fn set(
    states: &dyn StateStore,
    name: &str,
    partition: Partition,
    expected: u64,
    record: &StateRecord,
) -> bool {
    let set = states.compare_and_set_state(name, partition, expected, record);
    present(set.await)
}

fn present<T>(answer: Result<T, StateError>) -> T {
    match answer {
        Ok(answer) => answer,
        Err(error) => panic!("the states are not there: {error:?}"),
    }
}

/// So many sequences that are set aside.
fn parked(count: u32) -> Parked {
    let mut parked = Parked::default();
    for number in 0..count {
        let why = Why {
            error: "it\nfailed".to_owned(),
            counts: true,
            state: ParkedState::Waiting {
                behind: "$q".to_owned(),
            },
            not_before: Some(Utc::now()),
            at: Utc::now(),
        };
        let sequence = format!("p$1.\0 \"quoted\" é {number}");
        parked.set_aside(Position::new(2), &[sequence], &why);
    }
    parked
}

/// A state record at `position`, with everything in it.
fn state(position: u64) -> StateRecord {
    StateRecord {
        owner: Some("host-1/4711".to_owned()),
        epoch: 7,
        wanted_by: Some("host-2/11".to_owned()),
        checkpoint: Checkpoint {
            history: HistoryId::new(Uuid::from_u128(9)),
            cursor: Cursor::at(Position::new(position), EventId::new(Uuid::now_v7())),
        },
        parked: parked(1),
        skipped: vec![SkippedEvent {
            position: Position::new(3),
            sequences: vec!["p$1.".to_owned()],
            reason: "it was a test".to_owned(),
            at: Utc::now(),
        }],
        requests: vec![Request {
            id: Uuid::now_v7(),
            what: Ask::Skip {
                sequence: "p$1.".to_owned(),
                position: Position::new(4),
                reason: "it was one, too".to_owned(),
            },
            at: Utc::now(),
        }],
        paused: true,
        pause: Some(Pause {
            reason: "for the night".to_owned(),
            since: Utc::now(),
        }),
        trouble: Some(Trouble {
            kind: TroubleKind::BackingOff,
            reason: "no \"server\"".to_owned(),
            since: Utc::now(),
        }),
    }
}
