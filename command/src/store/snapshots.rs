//! Snapshots: states that are kept so that the events before them need not be read.

use std::sync::Arc;

use tidelog_domain::{EventId, Payload, Position, RecordedEvent, StreamId, Version};

/// The most bytes that a snapshot's state may have: 4 MiB. Larger states are made from their events.
pub const MAX_SNAPSHOT_BYTES: usize = 4 * 1024 * 1024;

/// The state of a stream after one of its events. A cache, never truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The stream.
    pub stream: StreamId,
    /// The version of the last event that is in the state.
    pub version: Version,
    /// The id of that event: while the log has another one there, or none, the snapshot does not count.
    pub event_id: EventId,
    /// What the state's shape and meaning depend on, from 1 to 64 bytes of ASCII.
    pub fingerprint: Arc<str>,
    /// The state, as JSON of at most [`MAX_SNAPSHOT_BYTES`].
    pub state: Payload,
}

/// What a read of a stream found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamPage {
    /// The snapshot that the events go on from, and the position of its event. Only where one was asked for.
    pub snapshot: Option<(Snapshot, Position)>,
    /// The events, in order.
    pub events: Vec<RecordedEvent>,
}
