//! Events for tests.

use std::ops::RangeInclusive;

use tidelog_domain::{EventId, Partition, Payload, Position, RecordedEvent, StreamId, Version};
use uuid::Uuid;

/// Events as a log would have them; the same positions give the same events.
pub(crate) fn events(partition: u16, positions: RangeInclusive<u64>) -> Vec<RecordedEvent> {
    positions
        .map(|position| event(partition, position))
        .collect()
}

pub(crate) fn event(partition: u16, position: u64) -> RecordedEvent {
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

pub(crate) fn event_id(partition: u16, position: u64) -> EventId {
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
