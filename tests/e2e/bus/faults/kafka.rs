//! Kafka that is emptied, or killed, or on a slow line, or takes less than it should.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::AdminOptions;
use tidelog_domain::{Payload, RecordedEvent};
use tidelog_eventbus::{EventBus, KafkaEventBus};
use tidelog_test_support::{Engine, Server, ServerOptions, TcpProxy, free_port};

use super::Service;
use super::bounded::Bounded;
use crate::bus::kit::{Bench, P0, kafka_at, partitions};

fn bus(server: &Server) -> KafkaEventBus {
    KafkaEventBus::new(server.url(), "app", partitions()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_whose_topic_is_deleted_in_the_middle_loses_nothing() {
    let server = Server::start(Engine::Kafka).await;
    let service = Service::on(Arc::new(bus(&server))).await;
    for _ in 0..3 {
        service.works().await;
        let topic = bus(&server).topic(service.log.history());
        let admin = kafka_at(server.url());
        // It may be gone already, and not made again.
        drop(admin.delete_topics(&[&topic], &AdminOptions::new()).await);
        service.works().await;
    }
    service.is_well_again().await;
    service.has_no_wrong_order().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_is_killed_and_comes_back_without_anything_loses_nothing() {
    let mut server = Server::start(Engine::Kafka).await;
    let service = Service::on(Arc::new(bus(&server))).await;
    for _ in 0..3 {
        service.works().await;
        server.kill();
        service.works().await;
        service.bus_is_down().await;
        server.restart().await;
        service.is_well_again().await;
    }
    service.has_no_wrong_order().await;
}

/// A broker that says that it is at another port.
async fn advertised_at(port: u16) -> Server {
    let mut options = ServerOptions::default();
    let advertised = format!("--advertised-listener-url=tcp://127.0.0.1:{port}");
    options.arguments.push(advertised);
    Server::start_with(Engine::Kafka, options).await
}

fn bus_at(port: u16, bench: &Bench) -> KafkaEventBus {
    KafkaEventBus::new(
        &format!("kafka://127.0.0.1:{port}"),
        &bench.app,
        partitions(),
    )
    .unwrap()
}

/// The event, with a payload of so many bytes and a little more.
fn with_bytes(event: &RecordedEvent, bytes: usize) -> RecordedEvent {
    let mut event = event.clone();
    let payload = format!("\"{}\"", "x".repeat(bytes));
    event.payload = Payload::from_stored(payload.as_bytes());
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_kafka_on_a_slow_line_has_in_the_end_what_comes_bit_by_bit() {
    let line = TcpProxy::start(free_port()).await;
    let server = advertised_at(line.port()).await;
    line.lead_to(server.port());
    let bench = Bench::new().await;
    let bus = bus_at(line.port(), &bench);
    // One answer has not much more than one of these: all take longer than an answer may.
    let large: Vec<_> = bench.events[..20]
        .iter()
        .map(|event| with_bytes(event, 900_000))
        .collect();
    bus.publish(bench.history, P0, &large).await.unwrap();
    line.delay(Duration::from_millis(20));
    assert_eq!(bench.read(&bus, 0).await, large);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_its_topic_of_kafka_refuses_does_not_hold_up_what_comes_after_it() {
    let mut bounded = Bounded::new();
    let server = advertised_at(bounded.port()).await;
    bounded.lead_to(server.port(), 64 * 1024).await;
    let mut bench = Bench::new().await;
    bench.events[3] = with_bytes(&bench.events[3], 100_000);
    let bus = bus_at(bounded.port(), &bench);
    bench.publish(&bus, 0..2).await;
    bench.publish(&bus, 2..5).await;
    bench.publish(&bus, 5..7).await;
    let last = bus.last(bench.history, P0).await.unwrap();
    assert_eq!(last, Some(bench.events[6].cursor()));
    bench.events.remove(3);
    assert_eq!(bench.read(&bus, 0).await, bench.events[..6]);
}
