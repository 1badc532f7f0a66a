//! What the cases publish and read.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::{
    EventId, HistoryId, Partition, Payload, Position, RecordedEvent, StreamId, Version,
};
use uuid::Uuid;

use super::EventBusFactory;
use crate::bus::{BusError, EventBus};

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

/// Events as a log would have them; the same positions give the same events.
pub(super) fn events(partition: u16, positions: RangeInclusive<u64>) -> Vec<RecordedEvent> {
    positions
        .map(|position| event(partition, position))
        .collect()
}

pub(super) fn event(partition: u16, position: u64) -> RecordedEvent {
    let stream = StreamId::new("sample", &format!("s{}", position % 3));
    let Ok(stream) = stream else {
        panic!("a sample's stream has a bad name: {stream:?}");
    };
    RecordedEvent {
        stream,
        version: Version::new(position),
        partition: Partition::new(partition),
        position: Position::new(position),
        id: event_id(partition, position),
        event_type: "sample.made".into(),
        schema_version: 2,
        payload: Payload::from_stored(payload(position).as_bytes()),
        metadata: Payload::from_stored(br#"{"correlation_id":"c","actor":"a\u00e9"}"#),
        recorded_at: std::time::UNIX_EPOCH.into(),
    }
}

pub(super) fn event_id(partition: u16, position: u64) -> EventId {
    EventId::new(Uuid::from_u128(
        u128::from(partition) << 64 | u128::from(position),
    ))
}

/// JSON whose bytes a careless adapter changes: the order of keys, white space, escapes, and numbers too big or too exact.
fn payload(position: u64) -> String {
    format!(
        r#"{{"z": {position}, "a":12345678901234567890.10,"e":"\u00e9é","n":1.0e+2,"\/":null}}"#
    )
}

/// The positions of events, in the order that they came.
pub(super) fn positions(events: &[RecordedEvent]) -> Vec<u64> {
    events.iter().map(|event| event.position.number()).collect()
}
