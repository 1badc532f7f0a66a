//! The port through which people look for events: the command line and the admin pages.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use serde_json::Value;
use tidelog_domain::{
    EventId, Metadata, Partition, Position, RecordedEvent, StreamId, Tenant, Version,
};
use uuid::Uuid;

use crate::log::{LogError, StreamReader};

/// Looks for events in a log. Implemented by every event store.
///
/// There is no index for it: each would cost every append, for good. So a search looks at the rows themselves, a bounded number at a
/// time, and whoever searches goes on for as long as it is worth it.
#[async_trait]
pub trait LogSearch: StreamReader {
    /// The events of `partition` at the positions of `range` that are `wanted`, at most `limit` (0 counts as 1): the newest first if
    /// `newest_first`, else the oldest. The range MUST NOT be empty; positions beyond the head count as looked at.
    ///
    /// It MAY stop anywhere in the range, so that it takes neither long nor much memory, and says where ([`Found::looked_to`]); it
    /// MUST look at one position at least. A row that cannot be understood MUST NOT hide the others: it is named where it could
    /// be one that is wanted.
    ///
    /// # Errors
    ///
    /// [`LogError::Unavailable`].
    async fn search(
        &self,
        partition: Partition,
        range: RangeInclusive<Position>,
        wanted: &EventQuery,
        newest_first: bool,
        limit: usize,
    ) -> Result<Found, LogError>;

    /// The streams whose name begins with `prefix`, in the order of their names' bytes, after the stream `after`, each with its last
    /// version; at most `limit`. Empty only where there are no more.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] when one of the names is no stream's; [`LogError::Unavailable`].
    async fn streams(
        &self,
        prefix: &str,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, Version)>, LogError>;
}

/// Which events are wanted: those that have all that is set here. With nothing set, all are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// The event's stored name.
    pub event_type: Option<String>,
    /// The correlation id in its metadata.
    pub correlation_id: Option<String>,
    /// The causation id in its metadata.
    pub causation_id: Option<Uuid>,
    /// Its own id.
    pub event_id: Option<EventId>,
    /// Whose it is. Where none is named, it may be anybody's, or nobody's.
    pub tenant: Option<Tenant>,
}

impl EventQuery {
    /// Whether `event` is wanted. Metadata that cannot be understood has no ids.
    #[must_use]
    pub fn fits(&self, event: &RecordedEvent) -> bool {
        let named = self.event_type.as_ref();
        if named.is_some_and(|name| **name != *event.event_type)
            || self.event_id.is_some_and(|id| id != event.id)
            || self.tenant.is_some() && self.tenant != event.stream.tenant()
        {
            return false;
        }
        if self.correlation_id.is_none() && self.causation_id.is_none() {
            return true;
        }
        let Ok(metadata) = event.metadata.decode::<Metadata>() else {
            return false;
        };
        self.correlation_id
            .as_ref()
            .is_none_or(|id| *id == metadata.correlation_id)
            && self
                .causation_id
                .is_none_or(|id| metadata.causation_id == Some(id))
    }

    /// What the stored metadata of each event that is wanted contains, to the byte: a database can look for that. The metadata
    /// may contain it all the same where the event is not wanted ([`EventQuery::fits`] says).
    #[must_use]
    pub fn metadata_parts(&self) -> Vec<String> {
        let part = |name: &str, text: String| format!("\"{name}\":{}", Value::String(text));
        let correlation = self.correlation_id.as_ref();
        let correlation = correlation.map(|id| part("correlation_id", id.clone()));
        let causation = self
            .causation_id
            .map(|id| part("causation_id", id.to_string()));
        correlation.into_iter().chain(causation).collect()
    }
}

/// What a search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The events that are wanted, in the order asked for.
    pub events: Vec<RecordedEvent>,
    /// The rows that cannot be understood, and might be wanted: where, and why.
    pub unreadable: Vec<(Position, String)>,
    /// The last position that was looked at; the search goes on after it.
    pub looked_to: Position,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::event;
    use tidelog_domain::Payload;

    /// An event with this metadata.
    fn with(metadata: &Metadata) -> RecordedEvent {
        RecordedEvent {
            metadata: Payload::of(metadata).unwrap(),
            ..event(1, 1)
        }
    }

    fn correlated(id: &str) -> Metadata {
        Metadata {
            correlation_id: id.to_owned(),
            causation_id: Some(Uuid::from_u128(7)),
            ..Metadata::default()
        }
    }

    #[test]
    fn all_that_is_asked_for_must_fit() {
        let event = with(&correlated("c"));
        let right = EventQuery {
            event_type: Some(event.event_type.to_string()),
            correlation_id: Some("c".to_owned()),
            causation_id: Some(Uuid::from_u128(7)),
            event_id: Some(event.id),
            tenant: None,
        };
        assert!(right.fits(&event));
        assert!(EventQuery::default().fits(&event));
        let other = "other".to_owned();
        for wrong in [
            EventQuery {
                event_type: Some(other.clone()),
                ..right.clone()
            },
            EventQuery {
                correlation_id: Some(other),
                ..right.clone()
            },
            EventQuery {
                causation_id: Some(Uuid::nil()),
                ..right.clone()
            },
            EventQuery {
                event_id: Some(EventId::new(Uuid::nil())),
                ..right.clone()
            },
            EventQuery {
                tenant: Some(Tenant::new("acme").unwrap()),
                ..right.clone()
            },
        ] {
            assert!(!wrong.fits(&event), "{wrong:?}");
        }
        let unreadable = RecordedEvent {
            metadata: Payload::from_stored(b"[]"),
            ..event
        };
        assert!(!right.fits(&unreadable));
    }

    #[test]
    fn what_a_database_looks_for_is_in_the_stored_metadata() {
        for id in ["c", "with \"quotes\" and \\", "größe\n\u{1}", "a/b"] {
            let query = EventQuery {
                correlation_id: Some(id.to_owned()),
                causation_id: Some(Uuid::from_u128(7)),
                ..EventQuery::default()
            };
            let stored = with(&correlated(id)).metadata;
            let stored = std::str::from_utf8(stored.as_bytes()).unwrap();
            let parts = query.metadata_parts();
            assert_eq!(parts.len(), 2);
            for part in parts {
                assert!(stored.contains(&part), "no {part} in {stored}");
            }
        }
    }
}
