//! Publishing: order, uniqueness, loss and trimming.

use tidelog_domain::Partition;

use super::EventBusFactory;
use super::sample::{Bench, KEEP_ALL, positions};
use crate::sample::{event_id, events};

/// What is published comes back in order, the same in every byte.
pub async fn what_is_published_comes_in_order_and_to_the_byte(factory: &dyn EventBusFactory) {
    let bench = Bench::new(factory, KEEP_ALL).await;
    bench.publish(0, 1..=3).await;
    bench.publish(0, 4..=1_200).await;
    assert_eq!(bench.drain(0, 0).await, events(0, 1..=1_200));
}

/// Two publishers that publish the same, one after the other, leave it once.
pub async fn what_two_publishers_publish_comes_once(factory: &dyn EventBusFactory) {
    let bench = Bench::new(factory, KEEP_ALL).await;
    bench.publish(0, 1..=20).await;
    bench.publish(0, 1..=20).await;
    assert_eq!(bench.drain(0, 0).await, events(0, 1..=20));
}

/// Publishers that publish the same at the same time leave each position at most once, in order, and the last one for sure.
pub async fn publishers_that_race_leave_each_position_once_and_in_order(
    factory: &dyn EventBusFactory,
) {
    let bench = Bench::new(factory, KEEP_ALL).await;
    let publish = async |step: u64| {
        let mut from = 1;
        while from <= 400 {
            let to = (from + step - 1).min(400);
            bench.publish(0, from..=to).await;
            from = to + 1;
        }
    };
    futures_util::join!(publish(7), publish(16), publish(1));
    assert_eq!(bench.drain(0, 0).await, events(0, 1..=400));
}

/// Somebody who was away and publishes what is long there changes nothing, and is not told.
pub async fn a_zombies_late_publish_is_turned_down(factory: &dyn EventBusFactory) {
    let bench = Bench::new(factory, KEEP_ALL).await;
    bench.publish(0, 1..=10).await;
    bench.publish(0, 4..=6).await;
    bench.publish(0, 10..=10).await;
    assert_eq!(
        positions(&bench.drain(0, 0).await),
        (1..=10).collect::<Vec<_>>()
    );
    assert_eq!(bench.last(0).await, Some((10, Some(event_id(0, 10)))));
}

/// A publish that begins within what is there and goes beyond it adds the rest.
pub async fn a_publish_that_overlaps_adds_what_is_new(factory: &dyn EventBusFactory) {
    let bench = Bench::new(factory, KEEP_ALL).await;
    bench.publish(0, 1..=10).await;
    bench.publish(0, 5..=15).await;
    assert_eq!(bench.drain(0, 0).await, events(0, 1..=15));
}

/// The last event is known by position and id, also where earlier ones are missing.
pub async fn the_last_event_is_known(factory: &dyn EventBusFactory) {
    let bench = Bench::new(factory, KEEP_ALL).await;
    bench.publish(3, 1..=2).await;
    assert_eq!(bench.last(3).await, Some((2, Some(event_id(3, 2)))));
    bench.publish(3, 900..=901).await;
    assert_eq!(bench.last(3).await, Some((901, Some(event_id(3, 901)))));
}

/// A partition that never had an event has no last one, whatever others have.
pub async fn an_empty_partition_has_no_last_event(factory: &dyn EventBusFactory) {
    let bench = Bench::new(factory, KEEP_ALL).await;
    assert_eq!(bench.last(0).await, None);
    bench.publish(1, 1..=1).await;
    assert_eq!(bench.last(0).await, None);
    assert_eq!(bench.last(2).await, None);
}

/// Trimming does not touch the last event.
pub async fn the_last_event_is_known_after_trimming(factory: &dyn EventBusFactory) {
    let bench = Bench::new(factory, 100).await;
    bench.publish(0, 1..=1_000).await;
    assert_eq!(bench.last(0).await, Some((1_000, Some(event_id(0, 1_000)))));
}

/// After a loss there is no last event, and a publish begins where it begins.
pub async fn a_lost_partition_has_no_last_event_and_goes_on_where_it_is_told(
    factory: &dyn EventBusFactory,
) {
    let bench = Bench::new(factory, KEEP_ALL).await;
    bench.publish(0, 1..=5).await;
    bench.publish(1, 1..=5).await;
    factory.lose(bench.history, Partition::new(0)).await;
    assert_eq!(bench.last(0).await, None);
    assert_eq!(bench.drain(0, 0).await, []);
    assert_eq!(bench.drain(1, 0).await, events(1, 1..=5));
    bench.publish(0, 6..=7).await;
    assert_eq!(bench.drain(0, 0).await, events(0, 6..=7));
    assert_eq!(bench.last(0).await, Some((7, Some(event_id(0, 7)))));
}

/// What is thrown away to make room is the oldest, and not more than that.
pub async fn trimming_keeps_the_tail(factory: &dyn EventBusFactory) {
    let bench = Bench::new(factory, 200).await;
    bench.publish(0, 1..=700).await;
    bench.publish(0, 701..=2_000).await;
    let kept = bench.drain(0, 0).await;
    assert!((200..=400).contains(&kept.len()), "{} kept", kept.len());
    let first = 2_001 - u64::try_from(kept.len()).unwrap_or_default();
    assert_eq!(kept, events(0, first..=2_000));
}

/// Two histories have nothing to do with each other.
pub async fn histories_are_separate(factory: &dyn EventBusFactory) {
    let old = Bench::new(factory, KEEP_ALL).await;
    let new = old.in_another_history();
    old.publish(0, 1..=9).await;
    assert_eq!(new.last(0).await, None);
    assert_eq!(new.drain(0, 0).await, []);
    new.publish(0, 1..=2).await;
    assert_eq!(new.drain(0, 0).await, events(0, 1..=2));
    assert_eq!(old.drain(0, 0).await, events(0, 1..=9));
}

/// No events are no work.
#[allow(
    clippy::reversed_empty_ranges,
    reason = "the empty range is what is tested"
)]
pub async fn a_publish_of_nothing_does_nothing(factory: &dyn EventBusFactory) {
    let bench = Bench::new(factory, KEEP_ALL).await;
    bench.publish(0, 1..=0).await;
    assert_eq!(bench.last(0).await, None);
}
