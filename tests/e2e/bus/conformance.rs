//! The conformance suite of the event bus, on Redis. (The in-process bus runs it in its own crate.)

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tidelog_domain::{HistoryId, Partition};
use tidelog_eventbus::conformance::EventBusFactory;
use tidelog_eventbus::{EventBus, RedisEventBus, event_bus_conformance};
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
