//! What is particular to the bus on NATS: who the server is, and what publishers and readers remember of it.

use std::time::Duration;

use tidelog_eventbus::{EventBus, NatsConnectError, NatsEventBus};
use tidelog_test_support::{free_port, shared};

use super::kit::{Bench, P0, nats_at};
use crate::services::{Backends, Role, Service};

/// A bus that remembers nothing.
async fn bus(bench: &Bench) -> NatsEventBus {
    let url = shared::nats().await.url();
    NatsEventBus::new(url, &bench.app).unwrap()
}

#[tokio::test]
async fn a_nats_says_who_it_is() {
    let url = shared::nats().await.url();
    let server = NatsEventBus::new(url, "app").unwrap().server().await;
    let server = server.unwrap();
    assert!(server.version.starts_with(|c: char| c.is_ascii_digit()));
    assert_eq!(server.warnings, [""; 0]);
}

#[tokio::test]
async fn where_no_nats_is_nothing_can_be_reached() {
    let url = format!("nats://127.0.0.1:{}", free_port());
    let error = NatsEventBus::new(&url, "app").unwrap().server().await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, NatsConnectError::Unreachable(_)) && error.is_temporary(),
        "{error:?}"
    );
}

#[tokio::test]
async fn another_kind_of_server_than_nats_is_named() {
    let mut backends = Backends::fresh().await;
    backends.bus_url = format!("nats://127.0.0.1:{}", shared::redis().await.port());
    let service = Service::launch(Role::EventBus, &backends.settings());
    let line = service.process().wait_for_line("error: ").await;
    for part in ["TIDELOG_BUS_URL", "a NATS server", "a Redis server"] {
        assert!(line.contains(part), "{line}");
    }
    backends.bus_url = format!("redis://127.0.0.1:{}", shared::nats().await.port());
    let service = Service::launch(Role::EventBus, &backends.settings());
    let line = service.process().wait_for_line("error: ").await;
    assert!(line.contains("found a NATS server"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_keeps_each_position_once_though_several_programs_publish_at_once() {
    let bench = Bench::new().await;
    let all = bench.events.len();
    let publish = async |step: usize| {
        let bus = bus(&bench).await;
        for from in (0..all).step_by(step) {
            bench.publish(&bus, from..(from + step).min(all)).await;
        }
    };
    tokio::join!(publish(7), publish(16), publish(1), publish(300));
    let read = bench.read(&bus(&bench).await, 0).await;
    assert_eq!(read, bench.events);
    let streams = nats_at(shared::nats().await.url()).await;
    let name = bus(&bench).await.stream(P0);
    let stream = streams.get_stream(name).await.unwrap();
    assert_eq!(stream.cached_info().state.messages, all as u64);
}

#[tokio::test]
async fn a_program_that_was_away_adds_nothing_to_nats() {
    let bench = Bench::new().await;
    let (one, other) = (bus(&bench).await, bus(&bench).await);
    bench.publish(&one, 0..5).await;
    bench.publish(&other, 5..20).await;
    bench.publish(&one, 5..9).await;
    bench.publish(&one, 9..21).await;
    assert_eq!(bench.read(&other, 0).await, bench.events[..21]);
}

#[tokio::test]
async fn a_stream_of_nats_that_was_lost_is_noticed_by_who_remembers_it() {
    let bench = Bench::new().await;
    let (publisher, reader) = (bus(&bench).await, bus(&bench).await);
    bench.publish(&publisher, 0..10).await;
    assert_eq!(bench.read(&reader, 0).await, bench.events[..10]);
    let streams = nats_at(shared::nats().await.url()).await;
    let name = publisher.stream(P0);
    streams.delete_stream(&name).await.unwrap();
    assert_eq!(bench.read(&reader, 10).await, []);
    assert_eq!(publisher.last(bench.history, P0).await.unwrap(), None);
    // In the new stream another event is where the tenth was.
    bench.publish(&publisher, 12..30).await;
    assert_eq!(bench.read(&reader, 10).await, bench.events[12..30]);
    // Emptied, a stream goes on where it was.
    let stream = streams.get_stream(&name).await.unwrap();
    stream.purge().await.unwrap();
    bench.publish(&publisher, 30..40).await;
    assert_eq!(bench.read(&reader, 30).await, bench.events[30..40]);
}

#[tokio::test]
async fn what_is_no_event_of_ours_on_nats_is_said_to_be_corrupt() {
    let bench = Bench::new().await;
    let bus = bus(&bench).await;
    bench.publish(&bus, 0..3).await;
    let subject = format!("{}.events.{}.0", bench.app, bench.history);
    let streams = nats_at(shared::nats().await.url()).await;
    let published = streams.publish(subject, "{}".into()).await.unwrap();
    published.await.unwrap();
    let after = [(P0, bench.events[2].position)];
    let read = bus.read(bench.history, &after, 10, Duration::from_millis(1));
    let error = read.await.unwrap_err();
    assert!(error.to_string().contains("partition 0"), "{error}");
    let error = bus.last(bench.history, P0).await.unwrap_err();
    assert!(error.to_string().contains("message 4"), "{error}");
}

#[tokio::test]
async fn the_bounds_of_the_settings_are_those_of_the_streams_of_nats() {
    let bench = Bench::new().await;
    let url = shared::nats().await.url();
    let bus = |events, bytes| {
        let bus = NatsEventBus::new(url, &bench.app).unwrap();
        bus.keeping(events)
            .keeping_bytes(bytes, super::kit::partitions())
    };
    bench.publish(&bus(1_000, 4 << 20), 0..3).await;
    let streams = nats_at(url).await;
    let config = async || {
        let stream = streams.get_stream(bus(1, 4).stream(P0)).await.unwrap();
        let config = stream.cached_info().config.clone();
        (config.max_messages, config.max_bytes)
    };
    assert_eq!(config().await, (1_000, 1 << 20));
    // Another program has other settings.
    bench.publish(&bus(50, 8 << 20), 3..100).await;
    assert_eq!(config().await, (50, 2 << 20));
    assert_eq!(
        bench.read(&bus(50, 8 << 20), 0).await,
        bench.events[50..100]
    );
}
