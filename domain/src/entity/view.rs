//! The view that every entity has: its last state.

use serde_json::{Map, Value};

use super::event::{EntityEventKind, read_state};
use super::invalid::InvalidSchema;
use super::publish;
use super::schema::{EntitySchema, require_plural};
use crate::aggregate::DecodeError;
use crate::event::RecordedEvent;
use crate::projection::{EventFilter, Folding, Keys, ViewDefinition};

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

impl ViewDefinition for EntityView {
    fn name(&self) -> &str {
        self.entity.name()
    }

    fn plural(&self) -> &str {
        &self.plural
    }

    fn schema(&self) -> &Value {
        &self.schema
    }

    fn fingerprint(&self) -> String {
        let meaning = publish::meaning(self.entity.schema());
        let hash = twox_hash::XxHash64::oneshot(0, meaning.as_bytes());
        format!("{}:{VERSION}:{hash:016x}", self.entity.name())
    }

    fn filter(&self) -> &EventFilter {
        &self.filter
    }

    fn folding(&self) -> Folding {
        Folding::FullState
    }

    fn keys(&self, event: &RecordedEvent) -> Result<Keys, DecodeError> {
        Ok(vec![event.stream.id().to_owned()])
    }

    fn project(
        &self,
        _: Option<Map<String, Value>>,
        _: &str,
        event: &RecordedEvent,
    ) -> Result<Option<Map<String, Value>>, DecodeError> {
        let kind = self
            .entity
            .events()
            .kind(&event.event_type, event.schema_version)?;
        if kind == EntityEventKind::Deleted {
            return Ok(None);
        }
        read_state(&event.event_type, event.schema_version, &event.payload).map(Some)
    }

    fn last_state(&self, event: &RecordedEvent) -> Result<Map<String, Value>, DecodeError> {
        self.entity
            .events()
            .kind(&event.event_type, event.schema_version)?;
        read_state(&event.event_type, event.schema_version, &event.payload)
    }
}
