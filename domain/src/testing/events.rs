//! Given events, then documents: of projections.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::documents::documents;
use super::entity::PastState;
use super::given::differ;
use crate::aggregate::Event;
use crate::decider::{Decider, EventDraft};
use crate::entity::{Entity, EntitySchema};
use crate::event::{EventId, Metadata, Payload, RecordedEvent};
use crate::position::{Partition, Partitions, Position, Version};
use crate::projection::{Projection, TypedProjector, ViewDefinition};
use crate::stream::StreamId;

/// An event that happened to some aggregate: see [`on`] and [`on_entity`].
pub struct PastEvent {
    stream: StreamId,
    draft: Draft,
}

enum Draft {
    Typed(EventDraft),
    Entity(EntitySchema, PastState),
}

/// `event` happened to the aggregate `id`, whose category is what the event's name begins with.
///
/// # Panics
///
/// When `id` cannot be an id, or the event cannot be stored.
#[must_use]
#[track_caller]
pub fn on<E: Event>(id: &str, event: E) -> PastEvent {
    let event_type = event.event_type();
    let (category, _) = event_type
        .split_once('.')
        .unwrap_or_else(|| panic!("{event_type} does not begin with a category and a dot"));
    let payload = event
        .encode()
        .unwrap_or_else(|error| panic!("{event:?} cannot be stored: {error}"));
    PastEvent {
        stream: stream(category, id),
        draft: Draft::Typed(EventDraft {
            event_type: event_type.into(),
            schema_version: event.schema_version(),
            payload,
        }),
    }
}

/// `past` happened to the entity `id`.
///
/// # Panics
///
/// When `id` cannot be an id, or the struct makes no entity's schema.
#[must_use]
#[track_caller]
pub fn on_entity<E: Entity>(id: &str, past: PastState<E>) -> PastEvent {
    let schema = EntitySchema::of::<E>()
        .unwrap_or_else(|error| panic!("{} cannot be an entity: {error}", E::NAME));
    on_entity_of(&schema, id, past.json())
}

/// `past` happened to the entity `id` of this schema.
///
/// # Panics
///
/// When `id` cannot be an id.
#[must_use]
#[track_caller]
pub fn on_entity_of(schema: &EntitySchema, id: &str, past: PastState) -> PastEvent {
    PastEvent {
        stream: stream(schema.name(), id),
        draft: Draft::Entity(schema.clone(), past),
    }
}

#[track_caller]
fn stream(category: &str, id: &str) -> StreamId {
    StreamId::new(category, id).unwrap_or_else(|error| panic!("{category}/{id}: {error}"))
}

/// A log with these events, one a second from the Unix epoch on, spread over the default number of partitions.
///
/// What is expected of a view is expected in whatever order its partitions bring the events: each document is made again in
/// every order that keeps that of each stream, or, where those are many, in up to 256 of them. A view that depends on the order is
/// refused: it would come out differently after a replay.
///
/// # Panics
///
/// When the state of an entity is no JSON object.
#[must_use]
#[track_caller]
pub fn given_events(events: impl IntoIterator<Item = PastEvent>) -> GivenEvents {
    let mut recorder = Recorder::default();
    let mut states: HashMap<StreamId, Map<String, Value>> = HashMap::new();
    for (number, PastEvent { stream, draft }) in (1_u32..).zip(events) {
        let draft = match draft {
            Draft::Typed(draft) => draft,
            Draft::Entity(schema, past) => {
                let last = states.entry(stream.clone()).or_default();
                let (draft, after) = past.event(&schema, last);
                *last = after;
                draft
            }
        };
        let recorded_at = DateTime::UNIX_EPOCH + TimeDelta::seconds(number.into());
        recorder.record(stream, draft, no_metadata(), recorded_at);
    }
    GivenEvents { log: recorder.log }
}

/// A log as it was stored once, maybe by an older program: a line of JSON an event, in the order of the log.
///
/// ```json
/// {"stream": "account/1", "event_type": "account.opened", "schema_version": 1, "payload": {"owner": "ann"}, "metadata": {},
///  "recorded_at": "2024-05-01T12:00:00Z"}
/// ```
///
/// Lines that are blank are passed over. Commit such a file whenever a shape changes: what was stored is then read in a test
/// for good.
///
/// # Panics
///
/// When a line is no such event.
#[must_use]
#[track_caller]
pub fn given_log(lines: &str) -> GivenEvents {
    let mut recorder = Recorder::default();
    let lines = (1..).zip(lines.lines());
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let stored: StoredEvent<'_> = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("line {number} is no stored event: {error}"));
        let stream = StreamId::parse(&stored.stream)
            .unwrap_or_else(|error| panic!("line {number}: {error}"));
        let draft = EventDraft {
            event_type: stored.event_type.into(),
            schema_version: stored.schema_version,
            payload: Payload::from_stored(stored.payload.get().as_bytes()),
        };
        let metadata = Payload::from_stored(stored.metadata.get().as_bytes());
        recorder.record(stream, draft, metadata, stored.recorded_at);
    }
    GivenEvents { log: recorder.log }
}

/// A line of [`given_log`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredEvent<'a> {
    stream: String,
    event_type: String,
    schema_version: u32,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow)]
    metadata: &'a RawValue,
    recorded_at: DateTime<Utc>,
}

/// Gives events their places.
#[derive(Default)]
struct Recorder {
    log: Vec<RecordedEvent>,
    versions: HashMap<StreamId, Version>,
    positions: HashMap<Partition, Position>,
}

impl Recorder {
    fn record(
        &mut self,
        stream: StreamId,
        draft: EventDraft,
        metadata: Payload,
        recorded_at: DateTime<Utc>,
    ) {
        let version = self.versions.entry(stream.clone()).or_default();
        *version = version.next();
        let partition = stream.partition(Partitions::DEFAULT);
        let position = self.positions.entry(partition).or_default();
        *position = position.next();
        let number = self.log.len() as u128 + 1;
        self.log.push(RecordedEvent {
            version: *version,
            partition,
            position: *position,
            id: EventId::new(Uuid::from_u128(number)),
            event_type: draft.event_type,
            schema_version: draft.schema_version,
            payload: draft.payload,
            metadata,
            recorded_at,
            stream,
        });
    }
}

fn no_metadata() -> Payload {
    Payload::of(&Metadata::default())
        .unwrap_or_else(|error| panic!("metadata cannot be stored: {error}"))
}

/// Events that happened; see [`given_events`].
pub struct GivenEvents {
    log: Vec<RecordedEvent>,
}

impl GivenEvents {
    /// The events as the log has them, in the order in which they were given.
    #[must_use]
    pub fn events(&self) -> &[RecordedEvent] {
        &self.log
    }

    /// Expects the aggregate `id` that `decider` runs to be in this state, as clients see it.
    ///
    /// # Panics
    ///
    /// When it is otherwise, or when an event cannot be read.
    #[track_caller]
    pub fn then_state(&self, decider: &dyn Decider, id: &str, expected: Value) -> &Self {
        let stream = stream(decider.category(), id);
        let mut state = decider.initial();
        for event in self.log.iter().filter(|event| event.stream == stream) {
            state = decider
                .evolve(
                    state,
                    &event.event_type,
                    event.schema_version,
                    &event.payload,
                )
                .unwrap_or_else(|error| unreadable(event, &error));
        }
        let actual = decider.show(&state);
        if actual != expected {
            differ(&expected, &actual);
        }
        self
    }

    /// Expects the document `key` of the view `P` to be `expected`.
    ///
    /// # Panics
    ///
    /// When it is otherwise, or when a document of the view comes out differently when the events are folded again, or in
    /// another order between their streams.
    #[track_caller]
    pub fn then_view<P: Projection>(&self, key: &str, expected: P) -> &Self {
        let actual: Option<P> = self
            .document(&TypedProjector::<P>::new(), key)
            .map(|document| {
                serde_json::from_value(Value::Object(document)).unwrap_or_else(|error| {
                    panic!("the document {key} cannot be read back: {error}")
                })
            });
        if actual.as_ref() != Some(&expected) {
            differ(&Some(expected), &actual);
        }
        self
    }

    /// Expects the view `P` to have no document `key`.
    ///
    /// # Panics
    ///
    /// When it has one, or when a document of the view comes out differently when the events are folded again, or in
    /// another order between their streams.
    #[track_caller]
    pub fn then_no_view<P: Projection>(&self, key: &str) -> &Self {
        self.then_document(&TypedProjector::<P>::new(), key, None)
    }

    /// Expects the document `key` of `view` to be `expected`, `None` for no document.
    ///
    /// # Panics
    ///
    /// When it is otherwise, or when a document of the view comes out differently when the events are folded again, or in
    /// another order between their streams.
    #[track_caller]
    pub fn then_document(
        &self,
        view: &dyn ViewDefinition,
        key: &str,
        expected: Option<Value>,
    ) -> &Self {
        let actual = self.document(view, key).map(Value::Object);
        if actual != expected {
            differ(&expected, &actual);
        }
        self
    }

    #[track_caller]
    fn document(&self, view: &dyn ViewDefinition, key: &str) -> Option<Map<String, Value>> {
        documents(view, &self.log).remove(key)
    }
}

#[track_caller]
pub(super) fn unreadable(event: &RecordedEvent, error: &dyn std::error::Error) -> ! {
    let (stream, version) = (&event.stream, event.version);
    panic!("version {version} of {stream} cannot be read: {error}")
}
