//! The conformance suite of the event bus, on each server that it may be on. (The in-process bus runs it in its own crate.)

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tidelog_domain::{HistoryId, Partition};
use tidelog_eventbus::conformance::EventBusFactory;
use tidelog_eventbus::{EventBus, NatsEventBus, RedisEventBus, event_bus_conformance};
use tidelog_test_support::{shared, unique_name};

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
