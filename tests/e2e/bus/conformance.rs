//! The conformance suite of the event bus, on each server that it may be on. (The in-process bus runs it in its own crate.)

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tidelog_domain::{HistoryId, Partition, Partitions, Position};
use tidelog_eventbus::conformance::EventBusFactory;
use tidelog_eventbus::{
    EventBus, KafkaEventBus, NatsEventBus, RedisEventBus, event_bus_conformance,
};
use tidelog_test_support::{shared, unique_name};

use super::kit::delete_topic;

#[derive(Default)]
struct Redis {
    given: Mutex<Option<Arc<RedisEventBus>>>,
}

#[async_trait]
impl EventBusFactory for Redis {
    async fn bus(&self, keep: usize) -> Arc<dyn EventBus> {
        let url = shared::redis().await.url();
        let bus = RedisEventBus::new(url, &unique_name()).unwrap();
        let bus = Arc::new(bus.keeping(keep));
        *self.given.lock().unwrap() = Some(Arc::clone(&bus));
        bus
    }

    async fn lose(&self, history: HistoryId, partition: Partition) {
        let bus = self.given.lock().unwrap().clone().unwrap();
        super::kit::del(shared::redis().await.url(), &bus.key(history, partition)).await;
    }
}

event_bus_conformance!(redis, Redis::default());

#[derive(Default)]
struct Nats {
    given: Mutex<Option<Arc<NatsEventBus>>>,
}

#[async_trait]
impl EventBusFactory for Nats {
    async fn bus(&self, keep: usize) -> Arc<dyn EventBus> {
        let url = shared::nats().await.url();
        let bus = NatsEventBus::new(url, &unique_name()).unwrap();
        let bus = Arc::new(bus.keeping(keep));
        *self.given.lock().unwrap() = Some(Arc::clone(&bus));
        bus
    }

    async fn lose(&self, _: HistoryId, partition: Partition) {
        let bus = self.given.lock().unwrap().clone().unwrap();
        let streams = super::kit::nats_at(shared::nats().await.url()).await;
        streams.delete_stream(bus.stream(partition)).await.unwrap();
    }
}

event_bus_conformance!(nats, Nats::default());

fn partitions() -> Partitions {
    Partitions::new(16).unwrap()
}

#[derive(Default)]
struct Kafka {
    app: Mutex<String>,
}

impl Kafka {
    async fn again(&self) -> KafkaEventBus {
        let url = shared::kafka().await.url();
        let app = self.app.lock().unwrap().clone();
        KafkaEventBus::new(url, &app, partitions()).unwrap()
    }
}

#[async_trait]
impl EventBusFactory for Kafka {
    async fn bus(&self, keep: usize) -> Arc<dyn EventBus> {
        *self.app.lock().unwrap() = unique_name();
        Arc::new(self.again().await.keeping(keep))
    }

    /// A partition cannot be deleted by itself: its topic is, and the others' events are published again.
    async fn lose(&self, history: HistoryId, lost: Partition) {
        let bus = self.again().await;
        let mut others = Vec::new();
        for partition in partitions().iter().filter(|own| *own != lost) {
            let after = [(partition, Position::START)];
            let read = bus.read(history, &after, 100_000, Duration::from_millis(1));
            others.push((partition, read.await.unwrap()));
        }
        delete_topic(shared::kafka().await.url(), &bus.topic(history)).await;
        let bus = self.again().await;
        for (partition, events) in others {
            bus.publish(history, partition, &events).await.unwrap();
        }
    }
}

event_bus_conformance!(kafka, Kafka::default());
