//! What the cases publish and read.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::{EventId, HistoryId, Partition, Position, RecordedEvent};
use uuid::Uuid;

use super::EventBusFactory;
use crate::bus::{BusError, EventBus};
use crate::sample::events;

/// More than any case publishes.
pub(super) const KEEP_ALL: usize = 100_000;

/// Long enough for any machine; no case waits for it when all is well.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A bus with a history of its own.
pub(super) struct Bench {
    pub(super) bus: Arc<dyn EventBus>,
    pub(super) history: HistoryId,
}

impl Bench {
    pub(super) async fn new(factory: &dyn EventBusFactory, keep: usize) -> Self {
        Self {
            bus: factory.bus(keep).await,
            history: HistoryId::new(Uuid::now_v7()),
        }
    }

    pub(super) fn in_another_history(&self) -> Self {
        Self {
            bus: Arc::clone(&self.bus),
            history: HistoryId::new(Uuid::now_v7()),
        }
    }

    pub(super) async fn publish(&self, partition: u16, positions: RangeInclusive<u64>) {
        let published = self.try_publish(partition, positions).await;
        assert!(published.is_ok(), "publishing failed: {published:?}");
    }

    pub(super) async fn try_publish(
        &self,
        partition: u16,
        positions: RangeInclusive<u64>,
    ) -> Result<(), BusError> {
        let events = events(partition, positions);
        self.bus
            .publish(self.history, Partition::new(partition), &events)
            .await
    }

    /// The position and the event's id of the last event.
    pub(super) async fn last(&self, partition: u16) -> Option<(u64, Option<EventId>)> {
        match self.bus.last(self.history, Partition::new(partition)).await {
            Ok(last) => last.map(|cursor| (cursor.position.number(), cursor.event_id)),
            Err(error) => panic!("the last event is not known: {error:?}"),
        }
    }

    pub(super) async fn read(
        &self,
        after: &[(u16, u64)],
        limit: usize,
        wait: Duration,
    ) -> Vec<RecordedEvent> {
        let after: Vec<_> = after
            .iter()
            .map(|(partition, position)| (Partition::new(*partition), Position::new(*position)))
            .collect();
        match self.bus.read(self.history, &after, limit, wait).await {
            Ok(events) => events,
            Err(error) => panic!("reading failed: {error:?}"),
        }
    }

    /// Reads one partition until nothing more is there.
    pub(super) async fn drain(&self, partition: u16, after: u64) -> Vec<RecordedEvent> {
        let (mut all, mut after) = (Vec::new(), after);
        loop {
            let wait = Duration::from_millis(1);
            let page = self.read(&[(partition, after)], 1_000, wait).await;
            let Some(last) = page.last() else { return all };
            assert!(last.position.number() > after, "a read went backwards");
            after = last.position.number();
            all.extend(page);
        }
    }
}

/// The positions of events, in the order that they came.
pub(super) fn positions(events: &[RecordedEvent]) -> Vec<u64> {
    events.iter().map(|event| event.position.number()).collect()
}
