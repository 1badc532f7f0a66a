//! Kafka that is emptied, or killed.

use std::sync::Arc;

use rdkafka::admin::AdminOptions;
use tidelog_eventbus::KafkaEventBus;
use tidelog_test_support::{Engine, Server};

use super::Service;
use crate::bus::kit::{kafka_at, partitions};

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
