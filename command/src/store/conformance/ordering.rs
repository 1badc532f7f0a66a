//! Positions, versions and times under concurrency.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use tidelog_domain::{
    Append, Appended, Cursor, ExpectedVersion, Partition, RecordedEvent, StreamId,
};
use tokio::task::JoinSet;

use super::StoreFactory;
use super::support::{
    append, append_one, event, events_of, exact, grow, open, part, partitions, stream, streams_of,
    whole_log, write,
};
use crate::store::EventStore;

/// How many tasks append at once.
const WRITERS: usize = 12;
/// How many batches each of them appends.
const BATCHES: usize = 15;

/// An append, and the moments before it was asked for and after it was answered.
struct Timed {
    before: Instant,
    after: Instant,
    appended: Vec<Appended>,
}

/// While many append, a reader that only follows the heads sees every event, in order, and none twice; and an
/// append that was answered before another was asked for comes before it.
///
/// This is what a store that orders by an auto-increment column gets wrong: ids are handed out at the insert but
/// become visible at the commit.
///
/// # Panics
///
/// When the store does not.
pub async fn positions_are_dense_and_in_the_order_of_commits(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    follow_while_writing(&[Arc::clone(&store)], &store).await;
}

/// Appends by all of `writers` while `reader` follows, and looks at what both saw.
pub(super) async fn follow_while_writing(
    writers: &[Arc<dyn EventStore>],
    reader: &Arc<dyn EventStore>,
) {
    let mut readers = JoinSet::new();
    let per_partition = WRITERS / usize::from(partitions().count());
    for partition in partitions().iter() {
        let expected = per_partition * BATCHES * 3;
        readers.spawn(follow(Arc::clone(reader), partition, expected));
    }
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&writers[writer % writers.len()]);
        let partition = u16::try_from(writer).unwrap() % partitions().count();
        let stream = streams_of(partition, WRITERS).remove(writer);
        tasks.spawn(write_batches(store, writer, stream));
    }
    let timed: Vec<Timed> = tasks.join_all().await.into_iter().flatten().collect();
    assert_real_time_order(timed);
    let followed = readers.join_all().await;
    let log = whole_log(&**reader).await;
    for events in followed {
        assert_eq!(
            events,
            log[events[0].partition.index()],
            "a follower sees the log"
        );
    }
}

/// Appends batches of two appends, three events together, to one stream.
async fn write_batches(store: Arc<dyn EventStore>, writer: usize, stream: StreamId) -> Vec<Timed> {
    let mut timed = Vec::new();
    for _ in 0..BATCHES {
        let batch: Arc<[Append]> = vec![
            write(&stream, ExpectedVersion::Any, 1),
            write(&stream, ExpectedVersion::Any, 2),
        ]
        .into();
        let before = Instant::now();
        let verdicts = store.append(writer % store.lanes(), batch).await;
        let after = Instant::now();
        timed.extend(verdicts.into_iter().map(|verdict| Timed {
            before,
            after,
            appended: verdict.unwrap(),
        }));
    }
    timed
}

/// Follows one partition by its cursor alone, until it has seen `expected` events or waited for too long.
async fn follow(
    store: Arc<dyn EventStore>,
    partition: Partition,
    expected: usize,
) -> Vec<RecordedEvent> {
    let patience = Duration::from_secs(60);
    let mut seen: Vec<RecordedEvent> = Vec::new();
    let mut last_progress = Instant::now();
    while seen.len() < expected {
        assert!(
            last_progress.elapsed() < patience,
            "partition {partition} stopped at {} of {expected} events: one was missed",
            seen.len()
        );
        let cursor = seen.last().map_or(Cursor::START, RecordedEvent::cursor);
        let page = store.read(partition, cursor, 7).await.unwrap();
        if page.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        for event in page {
            let next = seen.last().map_or(1, |last| last.position.next().number());
            assert_eq!(
                event.position.number(),
                next,
                "the follower of partition {partition} was given a position before the one that comes first: it went past \
                 an event that becomes visible later, and will never see it"
            );
            seen.push(event);
        }
        last_progress = Instant::now();
    }
    seen
}

/// Asserts that what was answered before something else was asked for has the lower position.
fn assert_real_time_order(timed: Vec<Timed>) {
    let mut by_partition: HashMap<Partition, Vec<(Instant, Instant, u64)>> = HashMap::new();
    for one in timed {
        for appended in one.appended {
            let position = appended.position.unwrap().number();
            by_partition
                .entry(appended.partition)
                .or_default()
                .push((one.before, one.after, position));
        }
    }
    for mut appends in by_partition.into_values() {
        appends.sort_by_key(|(_, _, position)| *position);
        let mut latest_start = None;
        for (before, after, position) in appends {
            assert!(
                latest_start.is_none_or(|start| start <= after),
                "position {position} was answered before one below it was asked for"
            );
            latest_start = latest_start.max(Some(before));
        }
    }
}

/// Many who append to one stream at once, whatever its version, get one version each.
///
/// # Panics
///
/// When the store does not.
pub async fn versions_are_dense_under_concurrent_appends(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let hot = stream("hot");
    let mut tasks = JoinSet::new();
    for writer in 0..8 {
        let (store, hot) = (Arc::clone(&store), hot.clone());
        tasks.spawn(async move {
            let mut versions = Vec::new();
            for _ in 0..20 {
                let batch: Arc<[Append]> = vec![write(&hot, ExpectedVersion::Any, 1)].into();
                let mut verdicts = store.append(writer % store.lanes(), batch).await;
                versions.push(verdicts.remove(0).unwrap()[0].version.number());
            }
            versions
        });
    }
    let mut versions: Vec<u64> = tasks.join_all().await.into_iter().flatten().collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=160).collect::<Vec<u64>>());
    assert_eq!(events_of(&*store, &hot).await.len(), 160);
    whole_log(&*store).await;
}

/// Appends that each need the heads of several partitions, named in every order, by all lanes at once: all come through.
///
/// # Panics
///
/// When the store does not.
pub async fn lanes_work_in_parallel_without_deadlock(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let mut tasks = JoinSet::new();
    for writer in 0..8 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for round in 0..15 {
                let mut targets: Vec<StreamId> = (0..partitions().count())
                    .map(|partition| streams_of(partition, 9).remove(writer))
                    .collect();
                let turn = (writer + round) % targets.len();
                targets.rotate_left(turn);
                if writer % 2 == 0 {
                    targets.reverse();
                }
                let writes = targets
                    .iter()
                    .map(|stream| part(stream, ExpectedVersion::Any, 1))
                    .collect();
                let lane = writer % store.lanes();
                let mut verdicts = store.append(lane, vec![Append::new(writes)].into()).await;
                assert_eq!(
                    verdicts.remove(0).unwrap().len(),
                    usize::from(partitions().count())
                );
            }
        });
    }
    tasks.join_all().await;
    for events in whole_log(&*store).await {
        assert_eq!(events.len(), 8 * 15);
    }
}

/// `recorded_at` comes from the log's clock, is the same when it is read again, and never runs backwards.
///
/// # Panics
///
/// When the store does not.
pub async fn time_never_runs_backwards_in_a_partition(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let clock = stream("clock");
    let mut answered = Vec::new();
    for _ in 0..50 {
        let appended = append_one(&*store, write(&clock, ExpectedVersion::Any, 1)).await;
        answered.push(appended.unwrap()[0].recorded_at.unwrap());
    }
    assert!(answered.is_sorted());
    let read = events_of(&*store, &clock).await;
    let read: Vec<_> = read.into_iter().map(|event| event.recorded_at).collect();
    assert_eq!(read, answered);
    let off = (Utc::now() - answered[0]).abs();
    assert!(
        off < TimeDelta::days(1),
        "the log's clock is {off} away from ours"
    );
    let together = append(
        &*store,
        vec![
            write(&clock, exact(50), 2),
            Append::one(clock.clone(), exact(52), vec![event()]),
        ],
    )
    .await;
    let times: Vec<_> = together
        .into_iter()
        .map(|verdict| verdict.unwrap()[0].recorded_at.unwrap())
        .collect();
    assert_eq!(times[0], times[1], "one transaction has one time");
    grow(&*store, &clock, 1).await;
    whole_log(&*store).await;
}
