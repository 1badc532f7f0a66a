//! The events of an entity as they are stored.

use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::aggregate::DecodeError;
use crate::decider::EventDraft;
use crate::event::Payload;

/// The version of the payload's shape.
const SCHEMA_VERSION: u32 = 1;

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
}

impl EventNames {
    /// The events of the entity `name`.
    pub(super) fn of(name: &str) -> Self {
        Self {
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
            schema_version: SCHEMA_VERSION,
            payload: Payload::of(&Written { state, before })?,
        })
    }

    /// The kind of the event that is stored as `event_type`, in the version of its shape.
    pub(super) fn kind(
        &self,
        event_type: &str,
        schema_version: u32,
    ) -> Result<EntityEventKind, DecodeError> {
        let kind = match event_type {
            name if *name == *self.updated => EntityEventKind::Updated,
            name if *name == *self.created => EntityEventKind::Created,
            name if *name == *self.deleted => EntityEventKind::Deleted,
            other => return Err(DecodeError::unknown(other)),
        };
        if schema_version == SCHEMA_VERSION {
            return Ok(kind);
        }
        let newer = serde_json::Error::custom("only version 1 of it is known here");
        Err(DecodeError::payload(event_type, schema_version, newer))
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

/// The full state in the payload of any event of an entity.
pub(super) fn read_state(
    event_type: &str,
    schema_version: u32,
    payload: &Payload,
) -> Result<Map<String, Value>, DecodeError> {
    payload
        .decode::<Read>()
        .map(|read| read.state)
        .map_err(|source| DecodeError::payload(event_type, schema_version, source))
}
