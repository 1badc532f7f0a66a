//! Reading: positions, holes, waiting, several partitions.

use std::time::{Duration, Instant};

use super::EventBusFactory;
use super::sample::{Bench, KEEP_ALL, PATIENCE, positions};
use crate::sample::events;

const NO_WAIT: Duration = Duration::from_millis(1);

/// A read gives what is after the position, not what is at it.
pub async fn a_read_begins_after_the_position(factory: &dyn EventBusFactory) {
    let bench = Bench::new(factory, KEEP_ALL).await;
    bench.publish(0, 1..=10).await;
    assert_eq!(bench.read(&[(0, 7)], 100, NO_WAIT).await, events(0, 8..=10));
    assert_eq!(bench.read(&[(0, 10)], 100, NO_WAIT).await, []);
    assert_eq!(bench.read(&[(0, 99)], 100, NO_WAIT).await, []);
}

/// Where events are missing the others come all the same, in order.
pub async fn a_read_may_meet_holes_but_no_disorder(factory: &dyn EventBusFactory) {
    let bench = Bench::new(factory, KEEP_ALL).await;
    bench.publish(0, 1..=2).await;
    bench.publish(0, 5..=6).await;
    bench.publish(0, 3..=4).await;
    bench.publish(0, 9..=9).await;
    assert_eq!(positions(&bench.drain(0, 0).await), [1, 2, 5, 6, 9]);
    assert_eq!(
        positions(&bench.read(&[(0, 3)], 100, NO_WAIT).await),
        [5, 6, 9]
    );
}

/// A reader that is too far behind gets what there still is.
pub async fn a_read_from_before_what_is_kept_begins_at_what_is_kept(factory: &dyn EventBusFactory) {
    let bench = Bench::new(factory, 100).await;
    bench.publish(0, 1..=1_000).await;
    let first = bench.read(&[(0, 5)], 1, NO_WAIT).await;
    let first = positions(&first);
    assert!(
        first.iter().all(|first| (600..=901).contains(first)) && first.len() == 1,
        "{first:?}"
    );
}

/// A read that waits comes back when something is published, long before its time is up.
pub async fn a_waiting_read_wakes_when_something_is_published(factory: &dyn EventBusFactory) {
    let bench = Bench::new(factory, KEEP_ALL).await;
    bench.publish(0, 1..=1).await;
    let started = Instant::now();
    let publish = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        bench.publish(0, 2..=2).await;
    };
    let (read, ()) = futures_util::join!(bench.read(&[(0, 1)], 100, PATIENCE), publish);
    assert_eq!(read, events(0, 2..=2));
    assert!(started.elapsed() < PATIENCE / 2, "it slept on");
}

/// A read that waits in vain comes back empty: not before its time, and not never.
pub async fn a_read_that_waits_for_nothing_comes_back_empty_in_time(factory: &dyn EventBusFactory) {
    let bench = Bench::new(factory, KEEP_ALL).await;
    bench.publish(0, 1..=3).await;
    let wait = Duration::from_millis(700);
    let started = Instant::now();
    assert_eq!(bench.read(&[(0, 3), (1, 0)], 100, wait).await, []);
    let waited = started.elapsed();
    // Clocks of two processes may differ in their last digits.
    assert!(waited >= wait - Duration::from_millis(20), "{waited:?}");
    assert!(waited < PATIENCE, "{waited:?}");
}

/// One read gives the events of several partitions, each in order.
pub async fn several_partitions_are_read_at_once(factory: &dyn EventBusFactory) {
    let bench = Bench::new(factory, KEEP_ALL).await;
    for partition in 0..16 {
        bench.publish(partition, 1..=30).await;
    }
    let after: Vec<_> = (0..16)
        .map(|partition| (partition, u64::from(partition)))
        .collect();
    let read = bench.read(&after, 100, NO_WAIT).await;
    for partition in 0..16 {
        let of_it: Vec<_> = read
            .iter()
            .filter(|event| event.partition.number() == partition)
            .cloned()
            .collect();
        assert_eq!(of_it, events(partition, u64::from(partition) + 1..=30));
    }
}

/// A read that waits on several partitions is woken by any of them.
pub async fn a_read_waits_on_all_of_its_partitions(factory: &dyn EventBusFactory) {
    let mut bench = Bench::new(factory, KEEP_ALL).await;
    let after: Vec<_> = (0..16).map(|partition| (partition, 0)).collect();
    for partition in [0, 15, 7] {
        bench = bench.in_another_history();
        let publish = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            bench.publish(partition, 1..=1).await;
        };
        let (read, ()) = futures_util::join!(bench.read(&after, 100, PATIENCE), publish);
        assert_eq!(read, events(partition, 1..=1));
    }
}

/// The limit bounds each partition of a read, and what is left out comes with the next read.
pub async fn the_limit_is_for_each_partition(factory: &dyn EventBusFactory) {
    let bench = Bench::new(factory, KEEP_ALL).await;
    bench.publish(0, 1..=50).await;
    bench.publish(1, 1..=5).await;
    let mut read = bench.read(&[(0, 0), (1, 0)], 10, NO_WAIT).await;
    read.sort_by_key(|event| event.partition);
    assert_eq!(read, [events(0, 1..=10), events(1, 1..=5)].concat());
    assert_eq!(
        bench.read(&[(0, 10)], 10, NO_WAIT).await,
        events(0, 11..=20)
    );
}

/// A read that waits holds up neither another read nor a publish.
pub async fn readers_do_not_hold_each_other_up(factory: &dyn EventBusFactory) {
    let bench = Bench::new(factory, KEEP_ALL).await;
    bench.publish(0, 1..=1).await;
    let waits = bench.read(&[(1, 0)], 100, PATIENCE);
    let works = async {
        for last in 1..=20 {
            assert_eq!(bench.drain(0, last - 1).await, events(0, last..=last));
            bench.publish(0, last + 1..=last + 1).await;
        }
        bench.publish(1, 1..=1).await;
    };
    let started = Instant::now();
    let (waited, ()) = futures_util::join!(waits, works);
    assert_eq!(waited, events(1, 1..=1));
    assert!(started.elapsed() < PATIENCE, "one waited for the other");
}

/// A read that is given up in the middle takes nothing away from later ones.
pub async fn a_reader_that_goes_away_leaves_the_bus_as_it_was(factory: &dyn EventBusFactory) {
    let bench = Bench::new(factory, KEEP_ALL).await;
    for position in 1..=10 {
        let after = [(0, position - 1)];
        let given_up = bench.read(&after, 100, PATIENCE);
        drop(tokio::time::timeout(Duration::from_millis(5), given_up).await);
        bench.publish(0, position..=position).await;
    }
    assert_eq!(bench.drain(0, 0).await, events(0, 1..=10));
}
