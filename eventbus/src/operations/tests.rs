use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use chrono::DateTime;
use tidelog_domain::{Cursor, Partitions, Position, RecordedEvent};
use uuid::Uuid;

use super::*;
use crate::log::{LogError, LogIdentity};
use crate::parking::{ParkedState, Why};
use crate::sample::event;
use crate::state::{Ask, MAX_REQUESTS, Progress, Request, StateError};

const P0: Partition = Partition::new(0);
const P1: Partition = Partition::new(1);
const HEAD: u64 = 9;
const LONG: Duration = Duration::from_secs(3_600);

/// Records in memory, whose owners come first a number of times.
#[derive(Default)]
struct Records {
    stored: Mutex<BTreeMap<Partition, (u64, StateRecord)>>,
    races: AtomicUsize,
}

#[async_trait]
impl StateStore for Records {
    async fn load_states(&self, _: &str) -> Result<Vec<(Partition, u64, StateRecord)>, StateError> {
        let stored = self.stored.lock().unwrap();
        let all = stored.iter();
        Ok(all
            .map(|(of, (rev, own))| (*of, *rev, own.clone()))
            .collect())
    }

    async fn compare_and_set_state(
        &self,
        _: &str,
        partition: Partition,
        expected: u64,
        record: &StateRecord,
    ) -> Result<bool, StateError> {
        let mut stored = self.stored.lock().unwrap();
        let left = self.races.load(Ordering::Relaxed);
        if let Some((revision, _)) = stored.get_mut(&partition).filter(|_| left > 0) {
            *revision += 1;
            self.races.store(left - 1, Ordering::Relaxed);
        }
        let now = stored.get(&partition).map_or(0, |(revision, _)| *revision);
        if now == expected {
            stored.insert(partition, (expected + 1, record.clone()));
        }
        Ok(now == expected)
    }
}

/// A log of two partitions with [`HEAD`] events each.
struct Log;

#[async_trait]
impl LogReader for Log {
    async fn identity(&self) -> Result<LogIdentity, LogError> {
        Ok(LogIdentity {
            history: history(),
            partitions: Partitions::new(2).unwrap(),
        })
    }

    async fn heads(&self) -> Result<Vec<Position>, LogError> {
        Ok(vec![Position::new(HEAD); 2])
    }

    async fn read(
        &self,
        partition: Partition,
        cursor: Cursor,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let after = cursor.position.number() + 1..=HEAD;
        let events = after.map(|position| event(u16::from(partition == P1), position));
        Ok(events.take(limit).collect())
    }
}

fn history() -> HistoryId {
    HistoryId::new(Uuid::from_u128(7))
}

fn at(position: u64) -> Cursor {
    Cursor {
        position: Position::new(position),
        event_id: None,
    }
}

/// A record at `position`, with these sequences parked at these positions.
fn record(position: u64, parked: &[(&str, u64)]) -> StateRecord {
    let record = StateRecord::beginning_at(history(), at(position)).taken_by("a");
    let mut progress = record.progress();
    for (sequence, first) in parked {
        let why = Why {
            error: "poison".to_owned(),
            counts: true,
            state: ParkedState::Parked,
            not_before: None,
            at: DateTime::UNIX_EPOCH,
        };
        let sequences = [(*sequence).to_owned()];
        progress
            .parked
            .set_aside(Position::new(*first), &sequences, &why);
    }
    record.with_progress(&progress)
}

fn on(records: impl IntoIterator<Item = (Partition, StateRecord)>) -> (Arc<Records>, Operations) {
    let states = Arc::new(Records::default());
    let records = records.into_iter().map(|(of, own)| (of, (1, own)));
    *states.stored.lock().unwrap() = records.collect();
    let operations = Operations::new("posts", states.clone(), Arc::new(Log));
    (states, operations)
}

impl Records {
    fn of(&self, partition: Partition) -> StateRecord {
        self.stored.lock().unwrap()[&partition].1.clone()
    }

    /// What an owner does who has executed all that he was asked for.
    fn execute(&self, partition: Partition, frees: bool) {
        let mut stored = self.stored.lock().unwrap();
        let (revision, record) = stored.get_mut(&partition).unwrap();
        let mut progress = Progress {
            done: record.requests.iter().map(|open| open.id).collect(),
            ..record.progress()
        };
        if frees {
            progress.parked = Default::default();
        }
        *record = record.with_progress(&progress);
        *revision += 1;
    }
}

#[tokio::test]
async fn a_pause_stops_all_partitions_also_those_that_nobody_has_begun_with() {
    let (states, posts) = on([(P0, record(4, &[]))]);
    posts.pause("a fix is on its way").await.unwrap();
    let pause = states.of(P0).pause.unwrap();
    assert_eq!(pause.reason, "a fix is on its way");
    assert_eq!(states.of(P1).pause, Some(pause.clone()));
    assert_eq!(states.of(P1).checkpoint.cursor, Cursor::START);
    // Its owner has not given it back yet.
    assert!(!posts.rests(Duration::ZERO).await.unwrap());
    posts.pause("another reason").await.unwrap();
    assert_eq!(states.of(P0).pause, Some(pause));
    posts.resume().await.unwrap();
    assert!([P0, P1].iter().all(|own| !states.of(*own).is_paused()));
    // The owner kept it all the time.
    assert_eq!(states.of(P0).owner.as_deref(), Some("a"));
}

#[tokio::test]
async fn what_never_ran_cannot_be_paused() {
    let (_, posts) = on([]);
    let paused = posts.pause("").await;
    assert!(matches!(paused, Err(OperationError::NotStarted)));
    let resumed = posts.resume().await;
    assert!(matches!(resumed, Err(OperationError::NotStarted)));
}

#[tokio::test]
async fn asking_for_a_retry_twice_is_asking_once_and_in_each_partition() {
    let parked = [("k", 3), ("other", 4)];
    let (states, posts) = on([(P0, record(4, &parked)), (P1, record(9, &[("k", 8)]))]);
    let asked = posts.retry("k").await.unwrap();
    assert_eq!(posts.retry("k").await.unwrap(), asked);
    let partitions: Vec<_> = asked.iter().map(|asked| asked.partition).collect();
    assert_eq!(partitions, [P0, P1]);
    assert_eq!(states.of(P0).requests.len(), 1);
    assert_eq!(
        states.of(P0).requests[0].what,
        Ask::Retry {
            sequence: "k".to_owned()
        }
    );
    let unknown = posts.retry("K").await;
    assert!(matches!(unknown, Err(OperationError::NotParked { .. })));
}

#[tokio::test]
async fn no_more_is_asked_for_than_a_record_may_hold() {
    let (states, posts) = on([(P0, record(4, &[("k", 3)]))]);
    {
        let mut stored = states.stored.lock().unwrap();
        let (_, full) = stored.get_mut(&P0).unwrap();
        for _ in 0..MAX_REQUESTS {
            *full = full.asked(Request::now(Ask::RetryAll)).unwrap();
        }
    }
    let refused = posts.retry("k").await;
    let is_full = |error| matches!(error, OperationError::TooManyRequests { partition: P0 });
    assert!(refused.is_err_and(is_full));
    assert_eq!(states.of(P0).requests.len(), MAX_REQUESTS);
}

#[tokio::test]
async fn a_skip_names_its_reason_and_the_event_that_is_the_first_now() {
    let (states, posts) = on([(P0, record(4, &[("k", 3)]))]);
    let skip = Skip {
        sequence: "k",
        reason: "a test order",
        ..Skip::default()
    };
    for reason in ["", " \n", &"x".repeat(MAX_REASON_CHARS + 1)] {
        let refused = posts.skip(&Skip { reason, ..skip }).await;
        assert!(matches!(refused, Err(OperationError::Reason { .. })));
    }
    let meant = |position| Skip {
        position: Some(Position::new(position)),
        ..skip
    };
    let refused = posts.skip(&meant(2)).await;
    let is_third =
        |error| matches!(error, OperationError::Moved { first, .. } if first == Position::new(3));
    assert!(refused.is_err_and(is_third));
    assert_eq!(states.of(P0).requests, []);
    let asked = posts.skip(&meant(3)).await.unwrap();
    assert_eq!(posts.skip(&skip).await.unwrap(), asked);
    assert_eq!(
        states.of(P0).requests[0].what,
        Ask::Skip {
            sequence: "k".to_owned(),
            position: Position::new(3),
            reason: "a test order".to_owned()
        }
    );
}

#[tokio::test]
async fn a_skip_of_what_is_set_aside_in_two_partitions_has_to_say_where() {
    let (states, posts) = on([(P0, record(4, &[("k", 3)])), (P1, record(9, &[("k", 8)]))]);
    let skip = Skip {
        sequence: "k",
        reason: "a test order",
        ..Skip::default()
    };
    match posts.skip(&skip).await {
        Err(OperationError::Ambiguous { partitions, .. }) => assert_eq!(partitions, [P0, P1]),
        other => panic!("{other:?}"),
    }
    let partition = Some(P1);
    posts.skip(&Skip { partition, ..skip }).await.unwrap();
    assert_eq!(
        (states.of(P0).requests.len(), states.of(P1).requests.len()),
        (0, 1)
    );
}

#[tokio::test]
async fn a_change_is_tried_again_beside_an_owner_that_writes_and_not_for_ever() {
    let (states, posts) = on([(P0, record(4, &[("k", 3)]))]);
    states.races.store(MAX_TRIES - 1, Ordering::Relaxed);
    posts.retry("k").await.unwrap();
    states.races.store(usize::MAX, Ordering::Relaxed);
    let refused = posts.retry_all().await;
    assert!(matches!(
        refused,
        Err(OperationError::Contended { partition: P0 })
    ));
    assert_eq!(states.of(P0).requests.len(), 1);
}

#[tokio::test]
async fn what_came_of_a_request_is_told_as_soon_as_it_is_done() {
    let (states, posts) = on([(P0, record(4, &[("k", 3)]))]);
    let asked = posts.retry("k").await.unwrap();
    let open = posts.answers(&asked, Duration::ZERO).await.unwrap();
    assert!(!open[0].is_done);
    assert_eq!(open[0].owner.as_deref(), Some("a"));
    states.execute(P0, false);
    let again = posts.answers(&asked, LONG).await.unwrap();
    assert!(again[0].is_done);
    assert_eq!(again[0].parked[0].error, "poison");
    states.execute(P0, true);
    let free = posts.answers(&asked, LONG).await.unwrap();
    assert_eq!((free[0].is_done, free[0].parked.len()), (true, 0));
}

#[tokio::test]
async fn what_is_set_aside_is_shown_with_the_event_that_it_waits_at() {
    let (_, posts) = on([(P0, record(4, &[("k", 3)])), (P1, record(9, &[]))]);
    let listed = posts.parked().await.unwrap();
    assert_eq!((listed.len(), listed[0].0), (1, P0));
    let shown = posts.show("k").await.unwrap();
    assert_eq!(shown[0].parked, listed[0].1);
    assert_eq!(shown[0].event, Some(event(0, 3)));
    let unknown = posts.show("nothing").await;
    assert!(matches!(unknown, Err(OperationError::NotParked { .. })));
}

#[tokio::test]
async fn a_partition_that_is_behind_says_since_when_its_first_event_waits() {
    let (_, posts) = on([(P1, record(HEAD, &[]))]);
    let partitions = posts.overview().await.unwrap();
    let [unstarted, live] = &partitions[..] else {
        panic!("{partitions:?}");
    };
    assert_eq!((unstarted.lag(), live.lag()), (HEAD, 0));
    assert_eq!(unstarted.waiting_since, Some(event(0, 1).recorded_at));
    let now = DateTime::UNIX_EPOCH + Duration::from_secs(5);
    assert_eq!(unstarted.lag_time(now), Duration::from_secs(5));
    assert_eq!(
        (live.waiting_since, live.lag_time(now)),
        (None, Duration::ZERO)
    );
}
