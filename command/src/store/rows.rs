//! What the SQL stores' rows hold: pure, and the same for both.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::DateTime;
use tidelog_domain::{EventId, Partition, Payload, Position, RecordedEvent, StreamId, Version};
use uuid::Uuid;

use super::failure::Failure;

/// A row of the table `events`, as the database gives it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredEvent<'r> {
    pub(crate) partition: Partition,
    pub(crate) position: Position,
    pub(crate) stream: &'r [u8],
    pub(crate) version: Version,
    pub(crate) id: &'r [u8],
    pub(crate) event_type: &'r [u8],
    pub(crate) schema_version: u32,
    pub(crate) payload: &'r [u8],
    pub(crate) metadata: &'r [u8],
    /// Microseconds since 1970.
    pub(crate) recorded_at: i64,
}

impl StoredEvent<'_> {
    /// How many bytes its payload and its metadata have.
    pub(crate) const fn bytes(&self) -> usize {
        self.payload.len() + self.metadata.len()
    }

    /// The event of this row.
    ///
    /// # Errors
    ///
    /// [`Failure::Corrupt`] when it cannot be one.
    pub(crate) fn event(&self, names: &mut EventNames) -> Result<RecordedEvent, Failure> {
        let corrupt = |what: &str| {
            Failure::Corrupt(format!(
                "position {} of partition {}: {what}",
                self.position, self.partition
            ))
        };
        let stream = std::str::from_utf8(self.stream)
            .ok()
            .and_then(|name| StreamId::parse(name).ok())
            .ok_or_else(|| corrupt("its stream is not a stream's name"))?;
        let id = Uuid::from_slice(self.id).map_err(|_| corrupt("its id is not a UUID"))?;
        Ok(RecordedEvent {
            stream,
            version: self.version,
            partition: self.partition,
            position: self.position,
            id: EventId::new(id),
            event_type: names
                .shared(self.event_type)
                .ok_or_else(|| corrupt("its name is not a text"))?,
            schema_version: self.schema_version,
            payload: Payload::from_stored(self.payload),
            metadata: Payload::from_stored(self.metadata),
            recorded_at: DateTime::from_timestamp_micros(self.recorded_at)
                .ok_or_else(|| corrupt("its time is out of range"))?,
        })
    }
}

/// The stream that a row names.
///
/// # Errors
///
/// [`Failure::Corrupt`] when it is no stream's name.
pub(crate) fn stream_name(name: &[u8]) -> Result<StreamId, Failure> {
    let stream = std::str::from_utf8(name).ok();
    let stream = stream.and_then(|name| StreamId::parse(name).ok());
    stream.ok_or_else(|| {
        let name = String::from_utf8_lossy(name);
        Failure::Corrupt(format!("{name:?} is not a stream's name"))
    })
}

/// The names of the events of one read, each kept once.
#[derive(Debug, Default)]
pub(crate) struct EventNames(HashSet<Arc<str>>);

impl EventNames {
    /// The name, shared with the events before it that have the same.
    fn shared(&mut self, name: &[u8]) -> Option<Arc<str>> {
        let name = std::str::from_utf8(name).ok()?;
        if let Some(known) = self.0.get(name) {
            return Some(Arc::clone(known));
        }
        let new: Arc<str> = name.into();
        self.0.insert(Arc::clone(&new));
        Some(new)
    }
}
