//! The view that every entity has: its last state.

use serde_json::{Map, Value};

use super::event::{EntityEventKind, read_state};
use super::invalid::InvalidSchema;
use super::publish;
use super::roles::READ;
use super::schema::{EntitySchema, require_plural};
use crate::aggregate::DecodeError;
use crate::event::RecordedEvent;
use crate::json::meaning;
use crate::projection::{EventFilter, Folding, Keys, ViewDefinition};
use crate::upcasting::Upcasters;

/// Goes up when this module makes other documents of the same events.
const VERSION: u32 = 1;

/// The default view of an entity: a document an entity, with its id as the key and its last state as the data.
///
/// Its schema is plain: it has no reference and no combination, but every field that any part of the entity's schema
/// names, with its type and format, nested as deep as a query can reach; beside them `id`, `created_at`,
/// `updated_at` and `version`, which the read store sets.
pub struct EntityView {
    entity: EntitySchema,
    plural: String,
    schema: Value,
    filter: EventFilter,
}

impl EntityView {
    /// The default view of `entity`.
    #[must_use]
    pub fn new(entity: EntitySchema) -> Self {
        Self {
            plural: entity.plural().to_owned(),
            schema: publish::view_schema(&entity),
            filter: EventFilter::Category(entity.name().to_owned()),
            entity,
        }
    }

    /// The same view, its list under another name.
    ///
    /// # Errors
    ///
    /// [`InvalidSchema::Plural`] when the list cannot be called that.
    pub fn with_plural(self, plural: &str) -> Result<Self, InvalidSchema> {
        require_plural(self.entity.name(), plural)?;
        Ok(Self {
            plural: plural.to_owned(),
            ..self
        })
    }
}

impl EntityView {
    /// What an event says: its kind, and the full state after it.
    fn read(
        &self,
        event: &RecordedEvent,
    ) -> Result<(EntityEventKind, Map<String, Value>), DecodeError> {
        let (name, version) = (&event.event_type, event.schema_version);
        let today = self
            .entity
            .upcasters()
            .upcast(name, version, &event.payload)?;
        let kind = self.entity.events().kind(today.event_type)?;
        Ok((kind, read_state(&today)?))
    }
}

impl ViewDefinition for EntityView {
    fn name(&self) -> &str {
        self.entity.name()
    }

    fn plural(&self) -> &str {
        &self.plural
    }

    fn roles(&self) -> Vec<&str> {
        self.entity.roles(READ)
    }

    fn schema(&self) -> &Value {
        &self.schema
    }

    fn fingerprint(&self) -> String {
        let meaning = meaning(self.entity.schema()).to_string();
        let hash = twox_hash::XxHash64::oneshot(0, meaning.as_bytes());
        let events = self.entity.upcasters().fingerprint();
        format!("{}:{VERSION}:{hash:016x}:{events}", self.entity.name())
    }

    fn upcasters(&self) -> Option<&Upcasters> {
        Some(self.entity.upcasters())
    }

    fn filter(&self) -> &EventFilter {
        &self.filter
    }

    fn indexes(&self) -> &[String] {
        self.entity.indexes()
    }

    fn folding(&self) -> Folding {
        Folding::FullState
    }

    fn category(&self) -> Option<&str> {
        Some(self.entity.name())
    }

    fn keys(&self, event: &RecordedEvent) -> Result<Keys, DecodeError> {
        Ok(vec![event.stream.document_id()])
    }

    fn project(
        &self,
        _: Option<Map<String, Value>>,
        _: &str,
        event: &RecordedEvent,
    ) -> Result<Option<Map<String, Value>>, DecodeError> {
        let (kind, state) = self.read(event)?;
        Ok(match kind {
            EntityEventKind::Deleted => None,
            EntityEventKind::Created | EntityEventKind::Updated => Some(state),
        })
    }

    fn last_state(&self, event: &RecordedEvent) -> Result<Map<String, Value>, DecodeError> {
        self.read(event).map(|(_, state)| state)
    }
}
