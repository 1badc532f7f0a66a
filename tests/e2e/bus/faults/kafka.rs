//! Kafka that is emptied, or killed.

use std::sync::Arc;

use std::time::Duration;

use rdkafka::admin::AdminOptions;
use tidelog_domain::Position;
use tidelog_eventbus::{EventBus, KafkaEventBus};
use tidelog_test_support::{Engine, Server, ServerOptions, TcpProxy};

use super::Service;
use crate::bus::kit::{Log, P0, kafka_at, partitions, stream_in};

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

/// What comes takes longer than an answer may: that is no reason to begin again, as long as it comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_kafka_on_a_slow_line_has_what_comes_in_the_end() {
    let network = TcpProxy::start(0).await;
    let address = format!("tcp://127.0.0.1:{}", network.port());
    let options = ServerOptions {
        arguments: vec!["--advertised-listener-url".to_owned(), address],
        ..ServerOptions::default()
    };
    let server = Server::start_with(Engine::Kafka, options).await;
    network.lead_to(server.port());
    let bus = KafkaEventBus::new(&network.url(server.url()), "app", partitions()).unwrap();
    let log = Log::new();
    for _ in 0..400 {
        log.append_large(&stream_in(P0), 20_000).await;
    }
    let events = log.events(P0).await;
    bus.publish(log.history(), P0, &events).await.unwrap();
    network.delay(Duration::from_millis(60));
    let after = [(P0, Position::START)];
    let read = bus.read(log.history(), &after, 1_000, Duration::from_millis(1));
    assert_eq!(read.await.unwrap(), events);
}
