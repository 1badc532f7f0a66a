//! The events of an entity as they are stored.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::aggregate::DecodeError;
use crate::decider::EventDraft;
use crate::event::Payload;
use crate::upcasting::Upcasted;

/// What can happen to an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntityEventKind {
    Created,
    Updated,
    Deleted,
}

/// The stored names of an entity's events.
pub(crate) struct EventNames {
    created: Arc<str>,
    updated: Arc<str>,
    deleted: Arc<str>,
    version: u32,
}

impl EventNames {
    /// The events of the entity `name`, whose schema has this version.
    pub(super) fn of(name: &str, version: u32) -> Self {
        Self {
            version,
            created: format!("{name}.created").into(),
            updated: format!("{name}.updated").into(),
            deleted: format!("{name}.deleted").into(),
        }
    }

    /// The event of this kind, to be stored: the full state after it, and the values before it of the fields that
    /// it changed (`null` for a field that was not there).
    pub(crate) fn draft(
        &self,
        kind: EntityEventKind,
        state: &Map<String, Value>,
        before: &Map<String, Value>,
    ) -> Result<EventDraft, serde_json::Error> {
        let name = match kind {
            EntityEventKind::Created => &self.created,
            EntityEventKind::Updated => &self.updated,
            EntityEventKind::Deleted => &self.deleted,
        };
        Ok(EventDraft {
            event_type: Arc::clone(name),
            schema_version: self.version,
            payload: Payload::of(&Written { state, before })?,
        })
    }

    /// Their names.
    pub(super) fn names(&self) -> [&Arc<str>; 3] {
        [&self.created, &self.updated, &self.deleted]
    }

    /// The version in which they are written.
    pub(super) const fn version(&self) -> u32 {
        self.version
    }

    /// The kind of the event that is called `event_type` today.
    pub(super) fn kind(&self, event_type: &str) -> Result<EntityEventKind, DecodeError> {
        match event_type {
            name if *name == *self.updated => Ok(EntityEventKind::Updated),
            name if *name == *self.created => Ok(EntityEventKind::Created),
            name if *name == *self.deleted => Ok(EntityEventKind::Deleted),
            other => Err(DecodeError::unknown(other)),
        }
    }
}

/// Those of the fields `names` that differ, each with its value before, `null` where there was none.
pub(crate) fn changed<'a>(
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    names: impl Iterator<Item = &'a String>,
) -> Map<String, Value> {
    names
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| (name.clone(), before.get(name).cloned().unwrap_or_default()))
        .collect()
}

/// The payload as it is written.
#[derive(Serialize)]
struct Written<'a> {
    state: &'a Map<String, Value>,
    before: &'a Map<String, Value>,
}

/// What of the payload makes the state: `before` is skipped, not built.
#[derive(Deserialize)]
struct Read {
    state: Map<String, Value>,
}

/// The full state in the payload of any event of an entity, brought to today's shape.
pub(super) fn read_state(event: &Upcasted<'_>) -> Result<Map<String, Value>, DecodeError> {
    let read = event.payload.decode::<Read>().map(|read| read.state);
    read.map_err(|source| DecodeError::payload(event.event_type, event.schema_version, source))
}
