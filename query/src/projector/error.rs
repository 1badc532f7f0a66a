//! Why an event could not be projected.

use tidelog_domain::{DecodeError, EventId, Partition, Position, RecordedEvent, Version};
use tidelog_eventbus::HandlerError;

use crate::store::ReadError;

/// Why an event cannot be projected: for good, or as long as nobody does something about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectError {
    /// The event, or the document before it, cannot be read by this program.
    #[error(
        "{event_type}, version {version} of {stream}, at {partition}-{position} (event {event}), cannot be \
         read for the view {view}"
    )]
    Unreadable {
        /// The view.
        view: String,
        /// The event's stored name.
        event_type: String,
        /// The event's stream.
        stream: String,
        /// Its version there.
        version: Version,
        /// The partition that has it.
        partition: Partition,
        /// Its position there.
        position: Position,
        /// Its identity.
        event: EventId,
        /// What the decoder said.
        #[source]
        source: DecodeError,
    },
    /// The projection gave a key that cannot name a document.
    #[error(
        "the view {view} gave event {event} of {stream} a key of {bytes} bytes; a key has 1 to {max}"
    )]
    BadKey {
        /// The view.
        view: String,
        /// The event's stream.
        stream: String,
        /// The event.
        event: EventId,
        /// The length of the key.
        bytes: usize,
        /// The most that it may have.
        max: usize,
    },
    /// The read store cannot take the document, or has a record that cannot be understood.
    #[error("the document {document} of {collection} cannot be written or read")]
    Store {
        /// The collection.
        collection: String,
        /// The document.
        document: String,
        /// What the store said.
        #[source]
        source: ReadError,
    },
    /// The document must have been made by earlier events, and is not there.
    ///
    /// Something other than tidelog took it away: a restore of half a database, a deletion by hand. Going on would show a
    /// document with a wrong `created_at` beside others that are missing, so nothing goes on until the view is replayed.
    #[error(
        "the document {document} is missing from {collection}, though events before version {version} made it: the \
         collection was damaged; replay the view {view} to build it anew"
    )]
    Damaged {
        /// The view.
        view: String,
        /// The collection.
        collection: String,
        /// The document.
        document: String,
        /// The version of the first event in the batch that is about it.
        version: u64,
    },
}

impl ProjectError {
    /// `event` could not be read for `view`.
    pub(crate) fn unreadable(view: &str, event: &RecordedEvent, source: DecodeError) -> Self {
        Self::Unreadable {
            view: view.to_owned(),
            event_type: event.event_type.to_string(),
            stream: event.stream.to_string(),
            version: event.version,
            partition: event.partition,
            position: event.position,
            event: event.id,
            source,
        }
    }

    /// The same as the subscription wants to hear it: `event` is where it stops.
    pub(super) fn at(self, event: &RecordedEvent) -> HandlerError {
        HandlerError::permanent(event, self)
    }
}

/// The documents of a batch were changed by others again and again while it was written.
#[derive(Debug, thiserror::Error)]
#[error("{documents} documents of {collection} kept changing while they were written")]
pub(super) struct KeptChanging {
    /// How many.
    pub(super) documents: usize,
    /// Where.
    pub(super) collection: String,
}
