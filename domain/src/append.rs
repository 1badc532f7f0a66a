//! What is asked of the log: events for one or several streams, each with the version it is expected at.

use chrono::{DateTime, Utc};

use crate::event::NewEvent;
use crate::position::{Partition, Position, Version};
use crate::stream::StreamId;

/// What an append expects of a stream, checked in the transaction that appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// Nothing.
    Any,
    /// That the stream has no event yet.
    NoStream,
    /// That the stream has at least one event.
    Exists,
    /// That the stream is at just this version; [`Version::NONE`] means the same as [`ExpectedVersion::NoStream`].
    Exact(Version),
}

impl ExpectedVersion {
    /// Whether a stream at `actual` is as expected.
    #[must_use]
    pub fn allows(self, actual: Version) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => actual == Version::NONE,
            Self::Exists => actual > Version::NONE,
            Self::Exact(version) => actual == version,
        }
    }
}

/// The events that an append has for one stream. Without events it is a check of the version alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamWrite {
    /// The stream.
    pub stream: StreamId,
    /// What is expected of it.
    pub expected: ExpectedVersion,
    /// What is appended to it, in order; none to check the version only.
    pub events: Vec<NewEvent>,
}

/// What a client names its command by, so that sending it twice does it once.
///
/// Both parts are hashes of 256 bits, so that any two keys or requests differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The key in its scope: unique in the log.
    pub scoped: [u8; 32],
    /// The request that the key came with. The same key with another fingerprint is a mistake of the client's.
    pub fingerprint: [u8; 32],
}

/// The key of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendKey {
    /// The key.
    pub key: IdempotencyKey,
    /// Whether the outcome is recorded under the key when the append happens; else the key is only looked up, as for a
    /// command that is rejected.
    pub records: bool,
}

/// One atomic append: all of its writes happen, or none.
///
/// A stream is named by at most one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// What is written or checked.
    pub writes: Vec<StreamWrite>,
    /// The key that it comes with. When the log knows the key, nothing of the append happens.
    pub key: Option<AppendKey>,
}

impl Append {
    /// An append of `writes`, without a key.
    #[must_use]
    pub const fn new(writes: Vec<StreamWrite>) -> Self {
        Self { writes, key: None }
    }

    /// An append of `events` to one `stream`, without a key.
    #[must_use]
    pub fn one(stream: StreamId, expected: ExpectedVersion, events: Vec<NewEvent>) -> Self {
        Self::new(vec![StreamWrite {
            stream,
            expected,
            events,
        }])
    }

    /// The same, recorded under `key`.
    #[must_use]
    pub const fn with_key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(AppendKey { key, records: true });
        self
    }

    /// The number of its events.
    #[must_use]
    pub fn events(&self) -> usize {
        self.writes.iter().map(|write| write.events.len()).sum()
    }

    /// The bytes of its events.
    #[must_use]
    pub fn size(&self) -> usize {
        self.writes
            .iter()
            .flat_map(|write| &write.events)
            .map(NewEvent::size)
            .sum()
    }
}

/// Where the events of one [`StreamWrite`] are after the append; for a check, where the stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The stream.
    pub stream: StreamId,
    /// Its partition.
    pub partition: Partition,
    /// The version of the stream after the append.
    pub version: Version,
    /// The position of the last of the events; `None` for a check.
    pub position: Option<Position>,
    /// When the events were recorded; `None` for a check.
    pub recorded_at: Option<DateTime<Utc>>,
}
