//! The wire form of an event on any bus: CloudEvents 1.0 in JSON, structured mode.
//!
//! | attribute | what it has |
//! |---|---|
//! | `specversion` | `1.0` |
//! | `id` | the event's id |
//! | `source` | `/<app>/<category>` |
//! | `type` | the event's stored name |
//! | `subject` | the stream, `<category>/<id>` |
//! | `time` | when it was recorded, RFC 3339 with microseconds, UTC |
//! | `datacontenttype` | `application/json` |
//! | `partition` | the partition, an integer |
//! | `position`, `streamversion`, `schemaversion` | decimal texts, because integers of CloudEvents have 32 bits |
//! | `correlationid`, `causationid`, `actor`, `tenant`, `traceparent`, `keyid` | the metadata, each where there is one |
//! | `metadata` | the metadata's exact JSON, only where the attributes above do not say all of it |
//! | `data` | the payload, byte for byte as the log has it |
//!
//! `docs/wire-format.md` says it to other programs, to the byte.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidelog_domain::{
    EventId, Metadata, Partition, Payload, Position, RecordedEvent, StreamId, Version,
};
use uuid::Uuid;

/// What the largest event has on the wire: 512 KiB in the log, and room for what the wire form adds to it. One whose metadata is large and
/// full of characters that JSON escapes may have more.
pub const LARGEST_EVENT_BYTES: usize = 1024 * 1024;

/// Why a text is not an event of ours, or an event cannot be written as one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// It is not JSON, or not a CloudEvent with our attributes.
    #[error("it is not a CloudEvent of this log")]
    Malformed(#[source] serde_json::Error),
    /// An attribute has a value that it cannot have.
    #[error("the attribute {attribute} has a value that it cannot have")]
    Attribute {
        /// Its name.
        attribute: &'static str,
    },
}

/// A CloudEvent, borrowed from the event or from the text.
#[derive(Serialize, Deserialize)]
struct CloudEvent<'a> {
    specversion: &'a str,
    id: Uuid,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(rename = "type", borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    subject: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    datacontenttype: &'a str,
    partition: u16,
    #[serde(borrow)]
    position: Cow<'a, str>,
    #[serde(borrow)]
    streamversion: Cow<'a, str>,
    #[serde(borrow)]
    schemaversion: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    correlationid: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    causationid: Option<Uuid>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    actor: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    tenant: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    keyid: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    metadata: Option<Text<'a>>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// A text that is borrowed where it has no escapes, inside of an `Option` too.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Text<'a> {
    fn of(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }

    fn into_owned(self) -> String {
        self.0.into_owned()
    }
}

const SPEC_VERSION: &str = "1.0";
const CONTENT_TYPE: &str = "application/json";

/// Writes `event` as a CloudEvent of `app`, whose name is made of characters that a URL leaves alone.
///
/// # Errors
///
/// [`WireError`] when the payload is not JSON (or has white space around it, which could not be kept), or the
/// metadata is not UTF-8. A log does not have such events.
pub fn encode(app: &str, event: &RecordedEvent) -> Result<Vec<u8>, WireError> {
    let data = event.payload.as_raw().map_err(WireError::Malformed)?;
    if data.get().len() != event.payload.as_bytes().len() {
        return Err(WireError::Attribute { attribute: "data" });
    }
    let (metadata, exact) = readable_metadata(&event.metadata)?;
    let cloud_event = CloudEvent {
        specversion: SPEC_VERSION,
        id: event.id.uuid(),
        source: format!("/{app}/{}", event.stream.category()).into(),
        event_type: (&*event.event_type).into(),
        subject: event.stream.as_str().into(),
        time: event
            .recorded_at
            .to_rfc3339_opts(SecondsFormat::Micros, true)
            .into(),
        datacontenttype: CONTENT_TYPE,
        partition: event.partition.number(),
        position: event.position.to_string().into(),
        streamversion: event.version.to_string().into(),
        schemaversion: event.schema_version.to_string().into(),
        correlationid: (!metadata.correlation_id.is_empty())
            .then(|| Text::of(&metadata.correlation_id)),
        causationid: metadata.causation_id,
        actor: metadata.actor.as_deref().map(Text::of),
        tenant: metadata.tenant.as_deref().map(Text::of),
        traceparent: metadata.traceparent.as_deref().map(Text::of),
        keyid: metadata.key_id.as_deref().map(Text::of),
        metadata: exact.map(Text::of),
        data,
    };
    serde_json::to_vec(&cloud_event).map_err(WireError::Malformed)
}

/// The metadata as attributes can say it, and its exact text where they cannot say all.
fn readable_metadata(stored: &Payload) -> Result<(Metadata, Option<&str>), WireError> {
    let metadata: Metadata = stored.decode().unwrap_or_default();
    if Payload::of(&metadata).is_ok_and(|written| written == *stored) {
        return Ok((metadata, None));
    }
    let exact = std::str::from_utf8(stored.as_bytes()).map_err(|_| WireError::Attribute {
        attribute: "metadata",
    })?;
    Ok((metadata, Some(exact)))
}

/// Reads what [`encode`] wrote. Attributes that it does not know are ignored.
///
/// # Errors
///
/// [`WireError`] when it is not an event of ours.
pub fn decode(text: &[u8]) -> Result<RecordedEvent, WireError> {
    let event: CloudEvent<'_> = serde_json::from_slice(text).map_err(WireError::Malformed)?;
    if event.specversion != SPEC_VERSION {
        return Err(WireError::Attribute {
            attribute: "specversion",
        });
    }
    if event.datacontenttype != CONTENT_TYPE {
        return Err(WireError::Attribute {
            attribute: "datacontenttype",
        });
    }
    Ok(RecordedEvent {
        stream: StreamId::parse(&event.subject).map_err(|_| WireError::Attribute {
            attribute: "subject",
        })?,
        version: Version::new(number("streamversion", &event.streamversion)?),
        partition: Partition::new(event.partition),
        position: Position::new(number("position", &event.position)?),
        id: EventId::new(event.id),
        event_type: (&*event.event_type).into(),
        schema_version: number("schemaversion", &event.schemaversion)?,
        payload: Payload::from_stored(event.data.get().as_bytes()),
        recorded_at: time(&event.time)?,
        metadata: stored_metadata(event)?,
    })
}

/// Reads a decimal text.
fn number<N: std::str::FromStr>(attribute: &'static str, text: &str) -> Result<N, WireError> {
    text.parse().map_err(|_| WireError::Attribute { attribute })
}

/// Reads a time.
fn time(text: &str) -> Result<DateTime<Utc>, WireError> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.with_timezone(&Utc))
        .map_err(|_| WireError::Attribute { attribute: "time" })
}

/// The metadata as the log has it.
fn stored_metadata(event: CloudEvent<'_>) -> Result<Payload, WireError> {
    if let Some(exact) = event.metadata {
        return Ok(Payload::from_stored(exact.0.as_bytes()));
    }
    Payload::of(&Metadata {
        correlation_id: event
            .correlationid
            .map(Text::into_owned)
            .unwrap_or_default(),
        causation_id: event.causationid,
        actor: event.actor.map(Text::into_owned),
        tenant: event.tenant.map(Text::into_owned),
        traceparent: event.traceparent.map(Text::into_owned),
        key_id: event.keyid.map(Text::into_owned),
    })
    .map_err(WireError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event() -> RecordedEvent {
        RecordedEvent {
            stream: StreamId::parse("post/7f3a").unwrap(),
            version: Version::new(3),
            partition: Partition::new(5),
            position: Position::new(42),
            id: EventId::new(Uuid::from_u128(7)),
            event_type: "post.updated".into(),
            schema_version: 1,
            payload: Payload::from_stored(br#"{"b":1.10,"a":12345678901234567890123}"#),
            metadata: Payload::of(&Metadata {
                correlation_id: "c-1".to_owned(),
                actor: Some("ann \"a\"".to_owned()),
                ..Metadata::default()
            })
            .unwrap(),
            recorded_at: time("2026-01-02T03:04:05.000060Z").unwrap(),
        }
    }

    /// What other programs are promised.
    const PROMISED: &str = include_str!("../../docs/wire-format.md");

    #[test]
    fn the_wire_form_is_as_promised_to_the_byte() {
        let id = |text: &str| Uuid::parse_str(text).unwrap();
        let event = RecordedEvent {
            id: EventId::new(id("01890f3e-7b5a-7c3d-9f00-0123456789ab")),
            payload: Payload::from_stored(
                br#"{"b":1.10,"a":12345678901234567890123, "title":"Z\u00fcrich"}"#,
            ),
            metadata: Payload::of(&Metadata {
                correlation_id: "c-1".to_owned(),
                causation_id: Some(id("01890f3e-7b5a-7c3d-9f00-000000000001")),
                actor: Some("Ann \"a\" Müller".to_owned()),
                tenant: Some("acme".to_owned()),
                traceparent: Some(
                    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
                ),
                key_id: Some("k-7".to_owned()),
            })
            .unwrap(),
            ..event()
        };
        let text = String::from_utf8(encode("blog", &event).unwrap()).unwrap();
        let (_, promised) = PROMISED.split_once("```json\n").unwrap();
        assert_eq!(text, promised.split_once('\n').unwrap().0);
    }

    #[test]
    fn every_attribute_is_described_in_its_order() {
        let event = RecordedEvent {
            metadata: Payload::from_stored(
                br#"{"correlation_id":"c","causation_id":"01890f3e-7b5a-7c3d-9f00-000000000001","actor":"a","tenant":"t","traceparent":"p","key_id":"k","more":1}"#,
            ),
            ..event()
        };
        let text = encode("blog", &event).unwrap();
        let written: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&text).unwrap();
        let (_, table) = PROMISED.split_once("| attribute |").unwrap();
        let described = table.lines().skip(2);
        let described = described.map_while(|line| line.strip_prefix("| `")?.split_once('`'));
        assert!(
            described.map(|(name, _)| name).eq(written.keys()),
            "{:?}",
            written.keys()
        );
    }

    #[test]
    fn text_is_escaped_as_promised() {
        let event = RecordedEvent {
            event_type: "\"\\/\u{8}\t\n\u{c}\r\u{1}\u{1f}\u{7f}é\u{2028}".into(),
            ..event()
        };
        let text = String::from_utf8(encode("blog", &event).unwrap()).unwrap();
        let expected = "\"type\":\"\\\"\\\\/\\b\\t\\n\\f\\r\\u0001\\u001f\u{7f}é\u{2028}\",";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn metadata_of_another_shape_survives_to_the_byte() {
        for metadata in [
            r#"{ "correlation_id":"x" }"#,
            r#"{"later":1}"#,
            "[]",
            "not json",
        ] {
            let event = RecordedEvent {
                metadata: Payload::from_stored(metadata.as_bytes()),
                ..event()
            };
            let text = encode("blog", &event).unwrap();
            assert_eq!(decode(&text).unwrap(), event, "{metadata}");
        }
    }

    #[test]
    fn a_payload_that_could_not_be_kept_is_refused() {
        for payload in [&b" {}"[..], b"{}\n", b"", b"{", b"\xff"] {
            let event = RecordedEvent {
                payload: Payload::from_stored(payload),
                ..event()
            };
            assert!(encode("blog", &event).is_err(), "{payload:?}");
        }
    }

    #[test]
    fn what_is_not_one_of_our_events_is_refused() {
        let good = String::from_utf8(encode("blog", &event()).unwrap()).unwrap();
        assert!(decode(good.as_bytes()).is_ok());
        for (from, to) in [
            (r#""specversion":"1.0""#, r#""specversion":"0.3""#),
            ("application/json", "text/plain"),
            (r#""position":"42""#, r#""position":"-1""#),
            (r#""position":"42""#, r#""position":42"#),
            (r#""schemaversion":"1""#, r#""schemaversion":"5000000000""#),
            ("post/7f3a", "7f3a"),
            ("2026-01-02", "yesterday"),
            (r#""partition":5"#, r#""partition":70000"#),
            (r#""data":"#, r#""dat":"#),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good, "{from}");
            assert!(decode(bad.as_bytes()).is_err(), "{to}");
        }
        for bad in [&b""[..], b"{}", b"null", b"\xff\xfe", b"hello"] {
            assert!(decode(bad).is_err());
        }
    }

    #[test]
    fn attributes_that_others_added_are_ignored() {
        let text = String::from_utf8(encode("blog", &event()).unwrap()).unwrap();
        let extended = text.replacen('{', r#"{"sampledrate":3,"#, 1);
        assert_eq!(decode(extended.as_bytes()).unwrap(), event());
    }

    prop_compose! {
        fn any_metadata()(
            correlation_id in ".{0,20}",
            causation in proptest::option::of(any::<u128>()),
            actor in proptest::option::of(".{0,20}"),
            tenant in proptest::option::of(".{0,20}"),
            traceparent in proptest::option::of(".{0,20}"),
            key_id in proptest::option::of(".{0,20}"),
        ) -> Metadata {
            let causation_id = causation.map(Uuid::from_u128);
            Metadata { correlation_id, causation_id, actor, tenant, traceparent, key_id }
        }
    }

    /// JSON texts, of any nesting, number and escape, with and without white space inside.
    fn any_json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<f64>()
                .prop_filter("JSON has no such number", |n| n.is_finite())
                .prop_map(|n| format!("{n:e}")),
            "-?[1-9][0-9]{0,40}(\\.[0-9]{1,5})?",
            ".{0,12}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4)
                    .prop_map(|items| format!("[{}]", items.join(" ,"))),
                proptest::collection::vec((".{0,6}", inner), 0..4).prop_map(|fields| {
                    let fields: Vec<_> = fields
                        .iter()
                        .map(|(key, value)| {
                            format!("{}: {value}", serde_json::to_string(key).unwrap())
                        })
                        .collect();
                    format!("{{{}}}", fields.join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_the_same(
            id in any::<u128>(),
            stream in "[a-z][a-z0-9_-]{0,8}/[A-Za-z0-9_~-]{1,12}",
            event_type in ".{0,20}",
            partition in 0_u16..1024,
            position in any::<u64>(),
            version in any::<u64>(),
            schema_version in any::<u32>(),
            micros in 0_i64..253_402_300_800_000_000,
            payload in any_json(),
            metadata in any_metadata(),
        ) {
            let event = RecordedEvent {
                stream: StreamId::parse(&stream).unwrap(),
                version: Version::new(version),
                partition: Partition::new(partition),
                position: Position::new(position),
                id: EventId::new(Uuid::from_u128(id)),
                event_type: event_type.into(),
                schema_version,
                payload: Payload::from_stored(payload.as_bytes()),
                metadata: Payload::of(&metadata).unwrap(),
                recorded_at: DateTime::from_timestamp_micros(micros).unwrap(),
            };
            prop_assert_eq!(decode(&encode("app", &event).unwrap()).unwrap(), event);
        }
    }
}
