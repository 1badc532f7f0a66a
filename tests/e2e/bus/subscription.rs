//! A subscription takes from the bus what comes next, and everything else from the log.

use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::{Cursor, Partition};
use tidelog_eventbus::{EventBus, InProcessEventBus, RedisEventBus, TailOptions};
use tidelog_test_support::{shared, unique_name};

use super::kit::{
    Consumer, Log, Recorder, States, begun_relay, bus_only, del, eventually, partitions, quick,
    quick_tail, records, stream_in, within_patience,
};

const P0: Partition = Partition::new(0);

fn in_process() -> Arc<dyn EventBus> {
    Arc::new(InProcessEventBus::new())
}

async fn redis_keeping(events: usize) -> Arc<dyn EventBus> {
    let bus = RedisEventBus::new(shared::redis().await.url(), &unique_name()).unwrap();
    Arc::new(bus.keeping(events))
}

/// A consumer that hears of events by the bus alone is shown some of a partition and not others.
async fn fills_a_hole_from_the_log(bus: Arc<dyn EventBus>) {
    let (log, handler) = (Log::new(), Recorder::new());
    let consumer = Consumer::without_signal(&log, &bus, States::new(), &handler, bus_only());
    consumer.is_live(&log).await;
    let publish = async |positions: std::ops::RangeInclusive<usize>| {
        let events = &log.events(P0).await[positions.start() - 1..*positions.end()];
        bus.publish(log.history(), P0, events).await.unwrap();
    };
    log.append_to(&stream_in(P0), 3).await;
    publish(1..=3).await;
    handler.has_all_of(&log).await;

    log.append_to(&stream_in(P0), 7).await;
    publish(4..=4).await;
    let fourth = log.events(P0).await[3].position;
    within_patience("the next one", consumer.status.reached(P0, fourth)).await;
    assert_eq!(handler.positions(P0), [1, 2, 3, 4], "by the bus alone");
    publish(6..=7).await;
    publish(10..=10).await;
    handler.has_all_of(&log).await;
}

#[tokio::test]
async fn a_hole_in_process_is_filled_from_the_log() {
    fills_a_hole_from_the_log(in_process()).await;
}

#[tokio::test]
async fn a_hole_on_redis_is_filled_from_the_log() {
    fills_a_hole_from_the_log(redis_keeping(1_000).await).await;
}

#[tokio::test]
async fn what_the_bus_repeats_is_applied_once() {
    let (log, handler, bus) = (Log::new(), Recorder::new(), in_process());
    let consumer = Consumer::without_signal(&log, &bus, States::new(), &handler, bus_only());
    let partition = log.append_to(&stream_in(P0), 10).await;
    consumer.is_live(&log).await;
    let events = log.events(partition).await;
    bus.publish(log.history(), partition, &events)
        .await
        .unwrap();
    log.append_to(&stream_in(P0), 1).await;
    let last = log.events(partition).await.split_off(10);
    bus.publish(log.history(), partition, &last).await.unwrap();
    handler.has_all_of(&log).await;
}

#[tokio::test]
async fn a_bus_that_brings_nothing_is_noticed_by_the_poll() {
    // No relay runs: the bus is there, and silent.
    let (log, handler) = (Log::new(), Recorder::new());
    let bus = redis_keeping(1_000).await;
    let consumer = Consumer::without_signal(&log, &bus, States::new(), &handler, quick_tail());
    consumer.is_live(&log).await;
    for _ in 0..3 {
        log.append(50).await;
        handler.has_all_of(&log).await;
    }
}

#[tokio::test]
async fn a_bus_that_brings_nothing_is_noticed_by_the_signal() {
    let (log, handler, bus) = (Log::new(), Recorder::new(), in_process());
    let consumer = Consumer::start("a", &log, &bus, States::new(), &handler, quick());
    consumer.is_live(&log).await;
    log.append(50).await;
    handler.has_all_of(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_once_and_in_order_with_two_relays_on_redis() {
    let (log, handler) = (Log::new(), Recorder::new());
    let bus = redis_keeping(100_000).await;
    let _one = begun_relay(&log, &bus, true).await;
    let (other, _) = begun_relay(&log, &bus, true).await;
    let consumer = Consumer::start("a", &log, &bus, States::new(), &handler, quick());
    for _ in 0..30 {
        log.append(40).await;
        tokio::task::yield_now().await;
    }
    other.kill().await;
    for _ in 0..30 {
        log.append(40).await;
    }
    handler.has_all_of(&log).await;
    consumer.is_live(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_behind_a_trimmed_stream_reads_the_log() {
    let (log, handler) = (Log::new(), Recorder::new());
    let bus = redis_keeping(50).await;
    let _relay = begun_relay(&log, &bus, true).await;
    let small = TailOptions {
        ring_max_events: 20,
        read_max_events: 10,
        ..quick_tail()
    };
    let consumer = Consumer::without_signal(&log, &bus, States::new(), &handler, small);
    log.append(64).await;
    handler.has_all_of(&log).await;
    {
        let _held = handler.gate.write().await;
        for _ in 0..40 {
            log.append(100).await;
        }
        let heads = log.heads().await;
        eventually("the bus has gone on", || async {
            let last = bus.last(log.history(), P0).await.unwrap();
            last.is_some_and(|last| last.position == heads[0])
        })
        .await;
    }
    handler.has_all_of(&log).await;
    consumer.is_live(&log).await;
}

#[tokio::test]
async fn a_zombie_that_publishes_into_a_lost_stream_confuses_nobody() {
    let redis = RedisEventBus::new(shared::redis().await.url(), &unique_name()).unwrap();
    let redis = Arc::new(redis);
    let (log, handler) = (Log::new(), Recorder::new());
    let bus: Arc<dyn EventBus> = redis.clone();
    let _relay = begun_relay(&log, &bus, true).await;
    let consumer = Consumer::start("a", &log, &bus, States::new(), &handler, quick());
    log.append_to(&stream_in(P0), 10).await;
    handler.has_all_of(&log).await;
    eventually("the bus has it too", || async {
        let last = bus.last(log.history(), P0).await.unwrap();
        last.is_some_and(|last| last.position.number() == 10)
    })
    .await;
    del(shared::redis().await.url(), &redis.key(log.history(), P0)).await;
    let old = log.events(P0).await;
    bus.publish(log.history(), P0, &old[2..5]).await.unwrap();
    for _ in 0..5 {
        log.append_to(&stream_in(P0), 3).await;
        handler.has_all_of(&log).await;
    }
    // Neither does one who joins now.
    let late = Recorder::new();
    let _other = Consumer::start("b", &log, &bus, States::new(), &late, quick());
    log.append_to(&stream_in(P0), 3).await;
    late.has_all_of(&log).await;
    handler.has_all_of(&log).await;
    consumer.is_live(&log).await;
}

#[tokio::test]
async fn what_nobody_wants_moves_the_checkpoint_all_the_same() {
    let (log, states, bus) = (Log::new(), States::new(), in_process());
    let handler = Recorder::wanting(|event| event.position.number() % 7 == 0);
    let _relay = begun_relay(&log, &bus, true).await;
    let _consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, quick());
    for _ in 0..10 {
        log.append(20).await;
    }
    let mut ends = Vec::new();
    for partition in partitions().iter() {
        let events = log.events(partition).await;
        ends.push(events.last().map_or(Cursor::START, |last| last.cursor()));
    }
    eventually("the checkpoints are at the heads", || async {
        let records = records(&*states).await;
        let stored = records.values().map(|(_, record)| record.checkpoint.cursor);
        stored.eq(ends.iter().copied())
    })
    .await;
    for partition in partitions().iter() {
        let events = log.events(partition).await;
        let wanted = events
            .iter()
            .map(|event| event.position.number())
            .filter(|position| position % 7 == 0);
        assert_eq!(handler.positions(partition), wanted.collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_stop_in_the_middle_of_a_batch_finishes_it_and_the_next_run_goes_on() {
    let (log, states, bus) = (Log::new(), States::new(), in_process());
    let handler = Recorder::new();
    log.append(200).await;
    let held = handler.gate.write().await;
    let consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, quick());
    eventually("it is in the middle of a batch", || async {
        handler.waiting() > 0
    })
    .await;
    let stopping = tokio::spawn(consumer.subscription.stop());
    // Nothing ends it as long as the handler works.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!stopping.is_finished());
    drop(held);
    stopping.await.unwrap();
    let handled = handler.count() as u64;
    assert!(handled > 0, "the batch in flight was finished");
    let stored = records(&*states).await;
    let stored = stored.values();
    let stored = stored.inspect(|(_, record)| assert_eq!(record.owner, None));
    let checkpoints = stored.map(|(_, record)| record.checkpoint.cursor.position.number());
    assert_eq!(checkpoints.sum::<u64>(), handled);

    log.append(100).await;
    let _next = Consumer::start("b", &log, &bus, states, &handler, quick());
    handler.has_all_of(&log).await;
}
