//! A log's events of one partition, to be put on any bus and read from it.

use std::ops::Range;
use std::time::Duration;

use tidelog_domain::{HistoryId, Partition, Position, RecordedEvent};
use tidelog_eventbus::EventBus;
use tidelog_test_support::unique_name;
use uuid::Uuid;

use super::Log;

pub(crate) const P0: Partition = Partition::new(0);

pub(crate) struct Bench {
    pub(crate) app: String,
    pub(crate) history: HistoryId,
    pub(crate) events: Vec<RecordedEvent>,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let log = Log::new();
        log.append(1_000).await;
        Self {
            app: unique_name(),
            history: HistoryId::new(Uuid::now_v7()),
            events: log.events(P0).await,
        }
    }

    pub(crate) async fn publish(&self, bus: &dyn EventBus, events: Range<usize>) {
        let published = bus.publish(self.history, P0, &self.events[events]);
        published.await.unwrap();
    }

    /// What there is after so many events.
    pub(crate) async fn read(&self, bus: &dyn EventBus, after: usize) -> Vec<RecordedEvent> {
        let after = match after {
            0 => Position::START,
            count => self.events[count - 1].position,
        };
        let (after, wait) = ([(P0, after)], Duration::from_millis(1));
        let read = bus.read(self.history, &after, 10_000, wait);
        read.await.unwrap()
    }
}
