//! The envelope of an event, before and after it is recorded.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::position::{Cursor, Partition, Position, Version};
use crate::stream::StreamId;

/// The identity of an event: a UUID, unique for good. UUIDv7 where the framework makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(Uuid);

impl EventId {
    /// The event known as `id`.
    #[must_use]
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// The identity as a UUID.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A JSON text, kept as the exact bytes that were written: no reordered keys, no rounded numbers.
///
/// Cloning is cheap. It is not parsed until somebody asks for what is in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Arc<[u8]>);

impl Payload {
    /// The JSON of `value`.
    ///
    /// # Errors
    ///
    /// When `value` cannot be JSON (a map with keys that are not texts, or a `Serialize` that fails).
    pub fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::to_vec(value).map(|bytes| Self(bytes.into()))
    }

    /// Bytes that were a payload before: what a log or a bus stored.
    #[must_use]
    pub fn from_stored(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads the JSON as a `T`.
    ///
    /// # Errors
    ///
    /// When the bytes are not JSON, or not a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.0)
    }

    /// The JSON, checked but not taken apart, to be put into another JSON text as it is.
    ///
    /// # Errors
    ///
    /// When the bytes are not JSON.
    pub fn as_raw(&self) -> Result<&RawValue, serde_json::Error> {
        serde_json::from_slice(&self.0)
    }
}

impl fmt::Debug for Payload {
    /// Says how long it is, never what is in it: payloads do not belong into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

/// What is recorded with an event about why it happened. The texts that come over
/// HTTP are bounded there; all of it counts towards the size of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// What all messages of one conversation share; made when the client brings none (over HTTP an id of its own, else the
    /// command's).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub correlation_id: String,
    /// The message that caused this one: the command's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Uuid>,
    /// Who did it: over HTTP who is signed in, else what an in-process caller says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// For whom: over HTTP the tenant of who is signed in, else what an in-process caller says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The W3C trace context of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The key that the payload's fields are encrypted with. Reserved: nothing sets or reads it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
}

/// An event that is about to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Its identity: by it a commit whose answer was lost is found again.
    pub id: EventId,
    /// Its stored name, `post.created`: at most 128 bytes.
    pub event_type: Arc<str>,
    /// The version of the payload's shape, from 1.
    pub schema_version: u32,
    /// The event itself.
    pub payload: Payload,
    /// Its [`Metadata`], as JSON.
    pub metadata: Payload,
}

impl NewEvent {
    /// The bytes that the event takes in a log, keys and numbers aside.
    #[must_use]
    pub fn size(&self) -> usize {
        self.event_type.len() + self.payload.as_bytes().len() + self.metadata.as_bytes().len()
    }
}

/// An event as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedEvent {
    /// The stream that it belongs to.
    pub stream: StreamId,
    /// Its version in that stream.
    pub version: Version,
    /// The partition that the stream lives in.
    pub partition: Partition,
    /// Its position in that partition.
    pub position: Position,
    /// Its identity.
    pub id: EventId,
    /// Its stored name.
    pub event_type: Arc<str>,
    /// The version of the payload's shape.
    pub schema_version: u32,
    /// The event itself.
    pub payload: Payload,
    /// Its [`Metadata`], as JSON.
    pub metadata: Payload,
    /// When it was recorded, by the log's clock, to the microsecond; never runs backwards within a partition.
    pub recorded_at: DateTime<Utc>,
}

impl RecordedEvent {
    /// Reads the metadata.
    ///
    /// # Errors
    ///
    /// When what is stored is not [`Metadata`].
    pub fn metadata(&self) -> Result<Metadata, serde_json::Error> {
        self.metadata.decode()
    }

    /// A cursor at this event: where a reader stands after it.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        Cursor::at(self.position, self.id)
    }
}
