//! An event, as people see it: a CloudEvent, without its payload unless that was asked for.

use serde_json::{Map, Value, json};
use tidelog_domain::{Payload, RecordedEvent};
use tidelog_eventbus::wire;

/// The CloudEvent of `event` of the program `app`. Without the payload it has `databytes` in the place of `data`: how many bytes there
/// are. What is stored and is no JSON comes as a text.
pub(super) fn entry(app: &str, event: &RecordedEvent, with_payload: bool) -> Value {
    let without = RecordedEvent {
        payload: Payload::from_stored(b"null"),
        ..event.clone()
    };
    let written = wire::encode(app, &without).or_else(|_| {
        // Only metadata that is no text is in the way.
        let metadata = Payload::from_stored(b"{}");
        let without = RecordedEvent {
            metadata,
            ..without
        };
        wire::encode(app, &without)
    });
    let mut attributes: Map<String, Value> = written
        .ok()
        .and_then(|written| serde_json::from_slice(&written).ok())
        .unwrap_or_default();
    attributes.shift_remove("data");
    let stored = event.payload.as_bytes();
    if with_payload {
        let text = || Value::String(String::from_utf8_lossy(stored).into_owned());
        let data = serde_json::from_slice(stored).unwrap_or_else(|_| text());
        attributes.insert("data".to_owned(), data);
    } else {
        attributes.insert("databytes".to_owned(), json!(stored.len()));
    }
    Value::Object(attributes)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use tidelog_domain::{EventId, Partition, Position, StreamId, Version};

    use super::*;

    fn event(payload: &[u8], metadata: &[u8]) -> RecordedEvent {
        RecordedEvent {
            stream: StreamId::new("post", "1").unwrap(),
            version: Version::new(2),
            partition: Partition::new(3),
            position: Position::new(4),
            id: EventId::new(uuid::Uuid::from_u128(5)),
            event_type: "post.created".into(),
            schema_version: 1,
            payload: Payload::from_stored(payload),
            metadata: Payload::from_stored(metadata),
            recorded_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_payload_is_shown_to_who_asks_alone() {
        let event = event(br#"{"title":"secret"}"#, br#"{"correlation_id":"c"}"#);
        let hidden = entry("blog", &event, false);
        assert!(!hidden.to_string().contains("secret"), "{hidden}");
        assert_eq!(hidden["databytes"], 18);
        assert_eq!(hidden["correlationid"], "c");
        let shown = entry("blog", &event, true);
        assert_eq!(shown["data"]["title"], "secret");
        assert_eq!(shown.get("databytes"), None);
    }

    #[test]
    fn what_is_stored_and_is_no_json_is_a_text() {
        let shown = entry("blog", &event(b"\xff{", b"\xff"), true);
        assert_eq!(shown["data"], "\u{fffd}{");
        assert_eq!(shown["subject"], "post/1");
    }
}
