//! Read models as pure folds of the log.

use std::marker::PhantomData;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::aggregate::{Data, DecodeError, Event, Named};
use crate::event::{EventId, Metadata, RecordedEvent};
use crate::position::{Partition, Position, Version};
use crate::tenant::{document_id, document_key};
use crate::upcasting::Upcasters;

/// The documents that an event touches, by key.
pub type Keys = Vec<String>;

/// An event as a projection or a reaction sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded<E> {
    /// What happened.
    pub event: E,
    /// The id of the aggregate that it happened to.
    pub stream_id: String,
    /// The aggregate's version after it.
    pub version: Version,
    /// The partition of the log that has it.
    pub partition: Partition,
    /// Its position there.
    pub position: Position,
    /// Its identity.
    pub id: EventId,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
    /// Who caused it, and why.
    pub metadata: Metadata,
}

impl<E> Recorded<E> {
    /// What a command carries along that is given because of this event: it belongs to the same conversation, trace and tenant, is done
    /// in the name of the same actor, and was caused by the event.
    ///
    /// What the command's own events name as their cause is the command: give it an identity that tells this event (`CommandId::caused_by`),
    /// and the chain of causes is whole.
    #[must_use]
    pub fn metadata_for_commands(&self) -> Metadata {
        Metadata {
            causation_id: Some(self.id.uuid()),
            // It is of the event's own payload.
            key_id: None,
            ..self.metadata.clone()
        }
    }
}

/// The state of a read model: a document.
pub trait View: Data + Default + Named {
    /// What a list of them is called: the name and an `s`, unless said otherwise.
    #[must_use]
    fn plural() -> String {
        format!("{}s", Self::NAME)
    }

    /// The JSON Schema of the document, where it is known.
    #[must_use]
    fn schema() -> Value {
        Value::Bool(true)
    }

    /// By what lists of it are searched, see [`ViewDefinition::indexes`]. By their ids alone, unless said otherwise.
    #[must_use]
    fn indexes() -> Vec<&'static str> {
        Vec::new()
    }
}

/// Events of one aggregate, or of several, that a projection or reaction listens to.
///
/// The events of an aggregate are one as they are. For those of several, [`#[event_set]`](crate::event_set) goes on an enum.
pub trait EventSet: Sized + Send + 'static {
    /// The stored names of the events.
    const NAMES: &'static [&'static str];

    /// What brings events that were stored in an older shape, or under another name, to those that [`EventSet::read`] reads. All
    /// are at version 1, and were never anything else, unless said otherwise; for several aggregates it is
    /// `Upcasters::of::<A>().and(Upcasters::of::<B>())`.
    #[must_use]
    fn evolution() -> Upcasters {
        Upcasters::new(Self::NAMES.iter().map(|&name| (name, 1)), [])
    }

    /// Reads an event whose name is one of [`EventSet::NAMES`], in its current shape: upcasters have run.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when it cannot be read.
    fn read(event: &RecordedEvent) -> Result<Self, DecodeError>;
}

impl<E: Event> EventSet for E {
    const NAMES: &'static [&'static str] = E::TYPES;

    fn evolution() -> Upcasters {
        Upcasters::of::<E>()
    }

    fn read(event: &RecordedEvent) -> Result<Self, DecodeError> {
        E::decode(&event.event_type, event.schema_version, &event.payload)
    }
}

/// A read model as a user writes it.
///
/// The result MUST depend on the events alone, and be the same for every interleaving of the log's
/// partitions that keeps the order within each.
pub trait Projection: View {
    /// Goes up when `keys` or `project` change their meaning: the view is then built anew. So it is, without this, when its own
    /// schema, or the names, the schema versions or the upcasters of its events change.
    const VERSION: u32 = 1;

    /// Whether each document is made from one stream, whose id is its key. Then [`Projection::keys`] is not asked, and an event that
    /// cannot be read holds up its own document alone: where it cannot be told which documents an event touches, its whole
    /// partition of the view has to wait at it.
    const SINGLE_STREAM: bool = false;

    /// What it listens to.
    type Event: EventSet;

    /// The documents that `e` touches.
    fn keys(e: &Recorded<Self::Event>) -> Keys;

    /// What becomes of the document whose id is `key`: its new state, or `None` to delete it.
    fn project(view: Option<Self>, key: &str, e: &Recorded<Self::Event>) -> Option<Self>;
}

/// Which events a view consumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventFilter {
    /// Those of these stored names.
    Types(Vec<String>),
    /// All of one category.
    Category(String),
}

impl EventFilter {
    /// Whether `event` is one of them.
    #[must_use]
    pub fn matches(&self, event: &RecordedEvent) -> bool {
        match self {
            Self::Types(names) => names.iter().any(|name| **name == *event.event_type),
            Self::Category(category) => event.stream.category() == category,
        }
    }
}

/// Reads stored events as those of a set: brings each to today's shape, decodes it, and puts its envelope around it.
#[derive(Debug)]
pub struct EventReader<E> {
    filter: EventFilter,
    upcasters: Upcasters,
    events: PhantomData<fn() -> E>,
}

impl<E: EventSet> EventReader<E> {
    /// Reads events as `E`.
    #[must_use]
    pub fn new() -> Self {
        let upcasters = E::evolution();
        Self {
            filter: EventFilter::Types(upcasters.stored_names(E::NAMES)),
            upcasters,
            events: PhantomData,
        }
    }

    /// Which stored events are of the set, in whatever shape.
    #[must_use]
    pub const fn filter(&self) -> &EventFilter {
        &self.filter
    }

    /// What brings them to today's shape.
    #[must_use]
    pub const fn upcasters(&self) -> &Upcasters {
        &self.upcasters
    }

    /// Reads an event that is of the set.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when it cannot be read.
    pub fn read(&self, event: &RecordedEvent) -> Result<Recorded<E>, DecodeError> {
        let unreadable =
            |source| DecodeError::payload(&event.event_type, event.schema_version, source);
        let metadata = event.metadata().map_err(unreadable)?;
        Ok(Recorded {
            event: E::read(&*self.upcasters.upcast_event(event)?)?,
            stream_id: event.stream.id().to_owned(),
            version: event.version,
            partition: event.partition,
            position: event.position,
            id: event.id,
            recorded_at: event.recorded_at,
            metadata,
        })
    }
}

impl<E: EventSet> Default for EventReader<E> {
    fn default() -> Self {
        Self::new()
    }
}

/// How the documents of a view come to be, which decides how cheaply they can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folding {
    /// One document a stream, and each event carries the full state: nothing needs to be read before writing.
    FullState,
    /// The document before an event is needed to make the one after it.
    ReadAndFold,
}

/// A document while events are folded into it.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentState {
    /// Its fields; where it is deleted, those that it had last.
    pub data: Map<String, Value>,
    /// Whether it is deleted, or never was.
    pub deleted: bool,
}

/// An event that could not be folded into a document.
#[derive(Debug)]
pub struct NotFolded {
    /// Which of the events: 0 is the first.
    pub index: usize,
    /// Why.
    pub source: DecodeError,
}

/// A read model as the projector runs it: names and JSON outside, the types inside.
pub trait ViewDefinition: Send + Sync + 'static {
    /// Its name: `GET /{name}/{id}`.
    fn name(&self) -> &str;

    /// What a list of its documents is called: `GET /{plural}`.
    fn plural(&self) -> &str;

    /// The roles of which a caller needs one to read it, where callers sign in; without one every caller that is signed in may.
    fn roles(&self) -> Vec<&str> {
        Vec::new()
    }

    /// The JSON Schema of its documents.
    fn schema(&self) -> &Value;

    /// Changes whenever the documents would come out differently: then the view is built anew.
    fn fingerprint(&self) -> String;

    /// What brings older events to the shapes that it reads, where it reads any but today's. It uses them by itself; here they
    /// are checked when the program starts.
    fn upcasters(&self) -> Option<&Upcasters> {
        None
    }

    /// By what lists of it are searched and sorted, beside the id: each an index that the read store keeps, in the words of `sort` in a
    /// query (`author_name`, `-created_at,title`). They change nothing but how fast a search is: other ones are made beside the
    /// documents, and nothing is built anew. Each field MUST be one that can be sorted by.
    fn indexes(&self) -> &[String] {
        &[]
    }

    /// Which events it consumes.
    fn filter(&self) -> &EventFilter;

    /// How its documents come to be.
    fn folding(&self) -> Folding;

    /// The category of the streams behind its documents, where each document is made from one stream of one category, whose id
    /// is its key: then the version of a document is that of its stream. `None` where a document may be made from several:
    /// then it is the number of events that made it.
    fn category(&self) -> Option<&str> {
        None
    }

    /// The ids of the documents that `event` touches: those of the tenant of its stream, as
    /// [`document_id`](crate::document_id) says. So no document is ever made of the events of two tenants.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the event cannot be read.
    fn keys(&self, event: &RecordedEvent) -> Result<Keys, DecodeError>;

    /// What becomes of the document `key`: its new state, or `None` to delete it.
    ///
    /// With [`Folding::FullState`] `before` is not looked at, and a deletion keeps the last state
    /// ([`ViewDefinition::last_state`]) in its tombstone.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the event or the document before it cannot be read.
    fn project(
        &self,
        before: Option<Map<String, Value>>,
        key: &str,
        event: &RecordedEvent,
    ) -> Result<Option<Map<String, Value>>, DecodeError>;

    /// What becomes of the document `key` by several events, in their order: as [`ViewDefinition::project`] says of each of them, which is
    /// what this does unless it can be done faster.
    ///
    /// # Errors
    ///
    /// [`NotFolded`] at the first event that cannot be folded.
    fn fold(
        &self,
        before: DocumentState,
        key: &str,
        events: &[&RecordedEvent],
    ) -> Result<DocumentState, NotFolded> {
        fold_one_by_one(self, before, key, events)
    }

    /// The last state of the document that `event` deletes, for its tombstone.
    ///
    /// It is asked for with [`Folding::FullState`] only, after [`ViewDefinition::project`] gave `None` for the same
    /// event: there the document before it is not read, so the event must tell. Without an implementation the tombstone is
    /// empty.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the event cannot be read.
    fn last_state(&self, event: &RecordedEvent) -> Result<Map<String, Value>, DecodeError> {
        let _ = event;
        Ok(Map::new())
    }
}

/// Folds events into a document as [`ViewDefinition::project`] says of each of them.
fn fold_one_by_one<D: ViewDefinition + ?Sized>(
    view: &D,
    before: DocumentState,
    key: &str,
    events: &[&RecordedEvent],
) -> Result<DocumentState, NotFolded> {
    let mut state = before;
    for (index, event) in events.iter().enumerate() {
        let live = (!state.deleted).then(|| state.data.clone());
        let after = view.project(live, key, event);
        let after = after.map_err(|source| NotFolded { index, source })?;
        state.deleted = after.is_none();
        if let Some(data) = after {
            state.data = data;
        }
    }
    Ok(state)
}

/// Runs a [`Projection`] that is written in Rust.
pub struct TypedProjector<P: Projection> {
    plural: String,
    schema: Value,
    indexes: Vec<String>,
    reader: EventReader<P::Event>,
}

impl<P: Projection> TypedProjector<P> {
    /// Runs `P`.
    #[must_use]
    pub fn new() -> Self {
        Self {
            plural: P::plural(),
            schema: P::schema(),
            indexes: P::indexes().into_iter().map(str::to_owned).collect(),
            reader: EventReader::new(),
        }
    }
}

impl<P: Projection> Default for TypedProjector<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Projection> ViewDefinition for TypedProjector<P> {
    fn name(&self) -> &str {
        P::NAME
    }

    fn plural(&self) -> &str {
        &self.plural
    }

    fn roles(&self) -> Vec<&str> {
        P::roles().to_vec()
    }

    fn schema(&self) -> &Value {
        &self.schema
    }

    fn fingerprint(&self) -> String {
        let meaning = crate::json::meaning(&self.schema).to_string();
        let schema = twox_hash::XxHash64::oneshot(0, meaning.as_bytes());
        let events = self.reader.upcasters().fingerprint();
        // The 2: since then a document's version is that of its stream.
        let keys = if P::SINGLE_STREAM { "s2" } else { "" };
        format!("{}:{}{keys}:{schema:016x}:{events}", P::NAME, P::VERSION)
    }

    fn upcasters(&self) -> Option<&Upcasters> {
        Some(self.reader.upcasters())
    }

    fn indexes(&self) -> &[String] {
        &self.indexes
    }

    fn filter(&self) -> &EventFilter {
        self.reader.filter()
    }

    fn folding(&self) -> Folding {
        Folding::ReadAndFold
    }

    fn category(&self) -> Option<&str> {
        P::SINGLE_STREAM.then(|| common_category(<P::Event as EventSet>::NAMES))?
    }

    fn keys(&self, event: &RecordedEvent) -> Result<Keys, DecodeError> {
        if P::SINGLE_STREAM {
            return Ok(vec![event.stream.document_id()]);
        }
        let mut keys = self.reader.read(event).map(|e| P::keys(&e))?;
        let tenant = event.stream.tenant();
        for key in &mut keys {
            *key = document_id(tenant.as_ref(), key);
        }
        Ok(keys)
    }

    fn project(
        &self,
        before: Option<Map<String, Value>>,
        key: &str,
        event: &RecordedEvent,
    ) -> Result<Option<Map<String, Value>>, DecodeError> {
        let unreadable =
            |source| DecodeError::payload(&event.event_type, event.schema_version, source);
        let before = before
            .map(|map| serde_json::from_value(Value::Object(map)))
            .transpose();
        let (key, before) = (document_key(key), before.map_err(unreadable)?);
        let after = P::project(before, key, &self.reader.read(event)?);
        after.map(fields).transpose().map_err(unreadable)
    }

    /// Reads the document once and writes it once, however many the events are.
    fn fold(
        &self,
        before: DocumentState,
        key: &str,
        events: &[&RecordedEvent],
    ) -> Result<DocumentState, NotFolded> {
        // A deletion keeps what the document was before it, and one event alone costs the same either way.
        match events {
            [] | [_] => fold_one_by_one(self, before, key, events),
            _ => match self.fold_live(&before, key, events)? {
                Some(data) => Ok(DocumentState {
                    data,
                    deleted: false,
                }),
                None => fold_one_by_one(self, before, key, events),
            },
        }
    }
}

impl<P: Projection> TypedProjector<P> {
    /// What several events make of a document; nothing where one of them deletes it.
    fn fold_live(
        &self,
        before: &DocumentState,
        key: &str,
        events: &[&RecordedEvent],
    ) -> Result<Option<Map<String, Value>>, NotFolded> {
        let unreadable = |index: usize, source| {
            let event = events.get(index);
            let (name, version) =
                event.map_or(("", 1), |event| (&*event.event_type, event.schema_version));
            let source = DecodeError::payload(name, version, source);
            NotFolded { index, source }
        };
        let live = (!before.deleted).then(|| P::deserialize(&before.data));
        let mut view = live.transpose().map_err(|source| unreadable(0, source))?;
        for (index, event) in events.iter().enumerate() {
            let event = self.reader.read(event);
            let event = event.map_err(|source| NotFolded { index, source })?;
            view = P::project(view, document_key(key), &event);
            if view.is_none() {
                return Ok(None);
            }
        }
        let last = events.len().saturating_sub(1);
        let data = view.map(fields).transpose();
        data.map_err(|source| unreadable(last, source))
    }
}

/// The fields of a view.
fn fields<V: Serialize>(view: V) -> Result<Map<String, Value>, serde_json::Error> {
    Ok(match serde_json::to_value(view)? {
        Value::Object(map) => map,
        // A view that is no JSON object (a unit struct) has no fields.
        _ => Map::new(),
    })
}

/// What the names of all events begin with, up to the dot; `None` where that is not one category.
fn common_category(names: &'static [&'static str]) -> Option<&'static str> {
    let mut categories = names
        .iter()
        .map(|name| name.split_once('.').map(|(category, _)| category));
    let first = categories.next()??;
    categories
        .all(|category| category == Some(first))
        .then_some(first)
}

#[cfg(test)]
mod tests {
    use super::common_category;

    #[test]
    fn events_of_one_aggregate_have_one_category() {
        assert_eq!(
            common_category(&["post.created", "post.deleted"]),
            Some("post")
        );
        assert_eq!(common_category(&["post.created", "order.placed"]), None);
        assert_eq!(common_category(&["post.created", "placed"]), None);
        assert_eq!(common_category(&[]), None);
    }
}
