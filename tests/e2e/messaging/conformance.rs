//! The conformance suite of the message bus, on each server. (The in-process bus runs it in its own crate.)

use std::sync::Arc;

use async_trait::async_trait;
use tidelog::messaging::{MessageBus, NatsMessageBus, RedisMessageBus};
use tidelog_eventbus::message_bus_conformance;
use tidelog_eventbus::messaging::conformance::MessageBusFactory;
use tidelog_test_support::{shared, unique_name};

struct Redis;

#[async_trait]
impl MessageBusFactory for Redis {
    async fn bus(&self) -> Arc<dyn MessageBus> {
        let url = shared::redis().await.url();
        Arc::new(RedisMessageBus::new(url, &unique_name()).unwrap())
    }
}

message_bus_conformance!(redis, Redis);

struct Nats;

#[async_trait]
impl MessageBusFactory for Nats {
    async fn bus(&self) -> Arc<dyn MessageBus> {
        let url = shared::nats().await.url();
        Arc::new(NatsMessageBus::new(url, &unique_name()).unwrap())
    }
}

message_bus_conformance!(nats, Nats);
