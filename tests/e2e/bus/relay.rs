//! The relay: order, uniqueness, where it begins, what it refuses.

use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::{Partition, Position, RecordedEvent};
use tidelog_eventbus::{EventBus, InProcessEventBus, RedisEventBus, RelayState};
use tidelog_test_support::{shared, unique_name};

use super::kit::{
    Log, RECHECK, begun_relay, del, eventually, partitions, redis_at, relay, stream_in,
    within_patience,
};

const P0: Partition = Partition::new(0);

async fn redis() -> (Arc<RedisEventBus>, Arc<dyn EventBus>) {
    let bus = RedisEventBus::new(shared::redis().await.url(), &unique_name()).unwrap();
    let bus = Arc::new(bus);
    (Arc::clone(&bus), bus)
}

/// All that the bus has of a partition.
async fn on_bus(bus: &dyn EventBus, log: &Log, partition: Partition) -> Vec<RecordedEvent> {
    let after = [(partition, Position::START)];
    let read = bus.read(log.history(), &after, 1_000_000, Duration::from_millis(1));
    read.await.unwrap()
}

async fn last(bus: &dyn EventBus, log: &Log, partition: Partition) -> Option<Position> {
    let last = bus.last(log.history(), partition).await.unwrap();
    last.map(|last| last.position)
}

/// Waits until the bus has the log's head of every partition that is not empty.
async fn is_up_to_date(bus: &dyn EventBus, log: &Log) {
    let heads = log.heads().await;
    eventually("the bus has the heads", || async {
        for (partition, head) in partitions().iter().zip(&heads) {
            if *head > Position::START && last(bus, log, partition).await != Some(*head) {
                return false;
            }
        }
        true
    })
    .await;
}

async fn has_the_same(bus: &dyn EventBus, log: &Log) {
    for partition in partitions().iter() {
        assert_eq!(
            on_bus(bus, log, partition).await,
            log.events(partition).await
        );
    }
}

#[tokio::test]
async fn a_stream_that_nothing_is_published_to_goes_after_a_week() {
    let (log, (redis, bus)) = (Log::new(), redis().await);
    let _relay = begun_relay(&log, &bus, true).await;
    log.append_to(&stream_in(P0), 1).await;
    is_up_to_date(&*bus, &log).await;
    let client = ::redis::Client::open(shared::redis().await.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut ttl = ::redis::cmd("TTL");
    ttl.arg(redis.key(log.history(), P0));
    let days = ttl.query_async::<i64>(&mut connection).await.unwrap() / (24 * 60 * 60);
    assert!((6..=7).contains(&days), "{days}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_committed_is_on_redis_in_order_and_to_the_byte() {
    let (log, (_, bus)) = (Log::new(), redis().await);
    let (_relay, status) = begun_relay(&log, &bus, true).await;
    for _ in 0..20 {
        log.append(37).await;
    }
    is_up_to_date(&*bus, &log).await;
    has_the_same(&*bus, &log).await;
    eventually("the status says so", || async {
        status.is_well() && status.partitions().iter().all(|p| p.lag() == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_that_work_side_by_side_publish_each_event_once() {
    let (log, (_, bus)) = (Log::new(), redis().await);
    let mut relays = Vec::new();
    for signal in [false, true, true] {
        relays.push(begun_relay(&log, &bus, signal).await);
    }
    for _ in 0..50 {
        log.append(10).await;
    }
    is_up_to_date(&*bus, &log).await;
    has_the_same(&*bus, &log).await;
}

#[tokio::test]
async fn what_no_signal_tells_of_is_found_by_the_poll() {
    let (log, bus) = (Log::new(), Arc::new(InProcessEventBus::new()));
    let bus: Arc<dyn EventBus> = bus;
    let (_relay, _) = begun_relay(&log, &bus, false).await;
    log.append(64).await;
    is_up_to_date(&*bus, &log).await;
    has_the_same(&*bus, &log).await;
}

#[tokio::test]
async fn what_comes_rarely_is_published_to_a_bus_that_has_nothing() {
    let log = Log::new();
    let bus: Arc<dyn EventBus> = Arc::new(InProcessEventBus::new());
    let (_relay, _) = begun_relay(&log, &bus, false).await;
    // It is the next event that makes the relay ask the bus again.
    tokio::time::sleep(2 * RECHECK).await;
    log.append_to(&stream_in(P0), 1).await;
    is_up_to_date(&*bus, &log).await;
    has_the_same(&*bus, &log).await;
}

#[tokio::test]
async fn a_partition_that_the_bus_has_nothing_of_begins_at_the_logs_head() {
    let (log, (_, bus)) = (Log::new(), redis().await);
    let partition = log.append_to(&stream_in(P0), 100).await;
    let (_relay, _) = begun_relay(&log, &bus, true).await;
    log.append_to(&stream_in(P0), 3).await;
    is_up_to_date(&*bus, &log).await;
    let expected = log.events(partition).await.split_off(100);
    assert_eq!(on_bus(&*bus, &log, partition).await, expected);
}

#[tokio::test]
async fn a_relay_goes_on_after_the_last_published_event() {
    let (log, (_, bus)) = (Log::new(), redis().await);
    let partition = log.append_to(&stream_in(P0), 60).await;
    let first = log.events(partition).await[..25].to_vec();
    bus.publish(log.history(), partition, &first).await.unwrap();
    let (_relay, _) = relay(&log, &bus, true);
    is_up_to_date(&*bus, &log).await;
    assert_eq!(
        on_bus(&*bus, &log, partition).await,
        log.events(partition).await
    );
}

#[tokio::test]
async fn a_log_that_went_back_in_time_is_not_published_until_it_has_a_new_history() {
    for (published, in_log) in [(10, 10), (10, 40), (10, 4)] {
        // The bus has events that this log does not have: the log was restored, and has written on.
        let (lost, log, (_, bus)) = (Log::new(), Log::new(), redis().await);
        let partition = lost.append_to(&stream_in(P0), published).await;
        let old = log.history();
        bus.publish(old, partition, &lost.events(partition).await)
            .await
            .unwrap();
        log.append_to(&stream_in(P0), in_log).await;

        let (_relay, status) = relay(&log, &bus, true);
        let mut watch = status.watch(partition).unwrap();
        within_patience(
            "it notices",
            watch.wait_for(
                |s| matches!(s.state, RelayState::Diverged { partition: p, .. } if p == partition),
            ),
        )
        .await
        .unwrap();
        assert!(!status.is_well());
        log.append(64).await;
        assert_eq!(
            bus.last(old, partition)
                .await
                .unwrap()
                .unwrap()
                .position
                .number(),
            published as u64
        );

        let new = log.renew_history();
        eventually("it goes on", || async {
            status.is_well() && status.history() == Some(new)
        })
        .await;
        log.append(64).await;
        is_up_to_date(&*bus, &log).await;
    }
}

#[tokio::test]
async fn a_running_relay_notices_that_the_log_lost_its_end() {
    for (kept, rewritten) in [(3, 0), (3, 1), (3, 9)] {
        let (log, backup, (_, bus)) = (Log::new(), Log::new(), redis().await);
        let (_relay, status) = begun_relay(&log, &bus, false).await;
        let partition = log.append_to(&stream_in(P0), 5).await;
        is_up_to_date(&*bus, &log).await;

        backup.append_to(&stream_in(P0), kept + rewritten).await;
        log.restore(&backup);
        let mut watch = status.watch(partition).unwrap();
        let noticed = watch.wait_for(|s| matches!(s.state, RelayState::Diverged { .. }));
        within_patience("it notices", noticed).await.unwrap();
        assert_eq!(last(&*bus, &log, partition).await, Some(Position::new(5)));
    }
}

#[tokio::test]
async fn an_entry_of_somebody_else_stops_its_partition_alone_and_only_until_it_is_gone() {
    let (log, (redis, bus)) = (Log::new(), redis().await);
    let (_relay, status) = begun_relay(&log, &bus, true).await;
    log.append(64).await;
    is_up_to_date(&*bus, &log).await;

    let (url, key) = (shared::redis().await.url(), redis.key(log.history(), P0));
    let mut foreign = redis::cmd("XADD");
    foreign.arg(&key).arg("99999999-7").arg("who").arg("me");
    let _: String = foreign.query_async(&mut redis_at(url).await).await.unwrap();
    log.append(64).await;
    // Its events are turned down by Redis, and that is not taken for success for ever: after the next start the
    // relay says what is wrong.
    let (_another, another) = relay(&log, &bus, true);
    let mut watch = another.watch(P0).unwrap();
    let failing = watch.wait_for(|s| matches!(&s.state, RelayState::BackingOff { reason, .. } if reason.contains("99999999-7")));
    within_patience("it says so", failing).await.unwrap();
    eventually("the others go on", || async {
        another
            .partitions()
            .iter()
            .skip(1)
            .all(|p| p.state == RelayState::Publishing && p.lag() == 0)
    })
    .await;

    del(url, &key).await;
    let well = watch.wait_for(|s| s.state == RelayState::Publishing);
    within_patience("it goes on", well).await.unwrap();
    log.append(64).await;
    is_up_to_date(&*bus, &log).await;
    assert!(status.is_well());
}

#[tokio::test]
async fn a_relay_starts_without_its_redis() {
    let nobody = format!("redis://127.0.0.1:{}", tidelog_test_support::free_port());
    let bus: Arc<dyn EventBus> = Arc::new(RedisEventBus::new(&nobody, "app").unwrap());
    let log = Log::new();
    let (relay, status) = relay(&log, &bus, true);
    log.append(64).await;
    for partition in partitions().iter() {
        let mut watch = status.watch(partition).unwrap();
        let failing = watch.wait_for(
            |s| matches!(s.state, RelayState::BackingOff { attempts, .. } if attempts > 1),
        );
        within_patience("it says so", failing).await.unwrap();
    }
    relay.stop().await;
}
