//! A JSON Schema that has been found to make an entity.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, ReferencingError, ValidationError, Validator};
use serde_json::{Map, Value, json};

use super::body::validate;
use super::event::EventNames;
use super::explain::explain;
use super::invalid::InvalidSchema;
use super::outline::{Outline, SERVER_SET};
use super::roles::{ROLES, Roles};
use super::trace::{patterns, trace};
use crate::decider::FieldError;
use crate::stream::is_category;
use crate::upcasting::{EventShape, Upcaster, Upcasters};

/// How the name of a file with an entity's schema ends: `post.schema.json` makes the entity `post`.
pub const SCHEMA_FILE_SUFFIX: &str = ".schema.json";

/// The one dialect that is understood.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Where a schema names the list of its entities.
pub(super) const PLURAL: &str = "x-tidelog-plural";

/// Where a schema says which version of the entity it is.
pub(super) const VERSION: &str = "x-tidelog-version";

/// Where a schema says by what its entities are searched.
pub(super) const INDEXES: &str = "x-tidelog-indexes";

/// The highest version that an entity's schema may have.
pub const MAX_ENTITY_VERSION: u32 = 1_000;

/// An entity: its name, and the JSON Schema (draft 2020-12) of its own fields, compiled. Cloning is cheap.
///
/// The rules are those of the [module](mod@crate::entity).
#[derive(Clone)]
pub struct EntitySchema(Arc<Parts>, Arc<Upcasters>);

struct Parts {
    name: String,
    plural: String,
    indexes: Vec<String>,
    roles: Roles,
    schema: Value,
    validator: Validator,
    outline: Outline,
    defaults: Map<String, Value>,
    events: EventNames,
}

impl EntitySchema {
    /// Reads the schema of the entity `name` from the text of a file.
    ///
    /// # Errors
    ///
    /// [`InvalidSchema`], which says what to do.
    pub fn parse(name: &str, json: &str) -> Result<Self, InvalidSchema> {
        let schema = serde_json::from_str(json).map_err(InvalidSchema::NotJson)?;
        Self::from_value(name, schema)
    }

    /// Makes the entity `name` from its schema.
    ///
    /// # Errors
    ///
    /// [`InvalidSchema`], which says what to do.
    pub fn from_value(name: &str, schema: Value) -> Result<Self, InvalidSchema> {
        if !is_category(name) {
            return Err(InvalidSchema::Name {
                name: name.to_owned(),
            });
        }
        require_dialect(&schema)?;
        let plural = plural(name, &schema)?;
        let indexes = indexes(&schema)?;
        let roles = Roles::read(&schema)?;
        let events = EventNames::of(name, version(&schema)?);
        let upcasters = upcasters(&events, Vec::new());
        let validator = compile(&schema)?;
        let outline = trace(&schema, &SERVER_SET)?;
        let defaults = defaults(&outline, &validator)?;
        let parts = Parts {
            name: name.to_owned(),
            plural,
            indexes,
            roles,
            schema,
            validator,
            outline,
            defaults,
            events,
        };
        Ok(Self(Arc::new(parts), Arc::new(upcasters)))
    }

    /// The same with steps from older versions of its events. Their payloads are `{"state": …, "before": …}`, see
    /// [`EntityDecider`](crate::EntityDecider).
    ///
    /// A version that no step begins at is read as it is: an entity needs a step only where a field was renamed, or
    /// changed its type.
    #[must_use]
    pub fn with_upcasters(self, steps: impl IntoIterator<Item = Upcaster>) -> Self {
        let upcasters = upcasters(self.events(), steps.into_iter().collect());
        Self(self.0, Arc::new(upcasters))
    }

    /// What brings its older events to today's shape.
    #[must_use]
    pub fn upcasters(&self) -> &Upcasters {
        &self.1
    }

    /// The shapes in which its events are stored.
    pub(super) fn shapes(&self) -> Vec<EventShape> {
        let schema = payload_schema(self.name(), self.schema());
        let names = self.events().names().into_iter();
        names
            .map(|name| EventShape {
                event_type: Arc::clone(name),
                schema_version: self.events().version(),
                schema: Some(schema.clone()),
            })
            .collect()
    }

    /// The entity's name, which is its streams' category: `POST /{name}`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What a list of them is called, `GET /{plural}`: `"x-tidelog-plural"` of the schema, else the name and an `s`.
    #[must_use]
    pub fn plural(&self) -> &str {
        &self.0.plural
    }

    /// By what its view is searched: `"x-tidelog-indexes"` of the schema, see [`ViewDefinition::indexes`](crate::ViewDefinition::indexes).
    #[must_use]
    pub fn indexes(&self) -> &[String] {
        &self.0.indexes
    }

    /// The roles of which a caller needs one to `create`, `patch`, `delete` or `read` it; without one every caller that is signed in may.
    #[must_use]
    pub fn roles(&self, operation: &str) -> Vec<&str> {
        self.0.roles.of(operation)
    }

    /// The schema as it was written.
    #[must_use]
    pub fn schema(&self) -> &Value {
        &self.0.schema
    }

    /// Which fields are known, place by place.
    pub(super) fn outline(&self) -> &Outline {
        &self.0.outline
    }

    /// The names of the entity's events.
    pub(crate) fn events(&self) -> &EventNames {
        &self.0.events
    }

    /// The body of a creation with the defaults of the fields that it leaves out.
    pub(super) fn with_defaults<'a>(&self, body: &'a Value) -> Cow<'a, Value> {
        let Value::Object(fields) = body else {
            return Cow::Borrowed(body);
        };
        let missing: Vec<_> = self
            .0
            .defaults
            .iter()
            .filter(|(name, _)| !fields.contains_key(*name))
            .collect();
        if missing.is_empty() {
            return Cow::Borrowed(body);
        }
        let mut filled = fields.clone();
        filled.extend(
            missing
                .into_iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        Cow::Owned(Value::Object(filled))
    }

    /// Checks a full state against the schema.
    ///
    /// # Errors
    ///
    /// What is wrong with it, field by field.
    pub(super) fn validate(&self, state: &Value) -> Result<(), Vec<FieldError>> {
        validate(&self.0.validator, state)
    }
}

impl fmt::Debug for EntitySchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntitySchema({})", self.0.name)
    }
}

impl From<ValidationError<'static>> for InvalidSchema {
    /// What went wrong when a schema was compiled.
    fn from(error: ValidationError<'static>) -> Self {
        match error.kind() {
            ValidationErrorKind::Referencing(ReferencingError::Unretrievable { uri, .. }) => {
                Self::RemoteReference { uri: uri.clone() }
            }
            ValidationErrorKind::Referencing(reason) => Self::BrokenReference {
                reason: reason.to_string(),
            },
            _ => Self::Malformed {
                pointer: error.instance_path().as_str().to_owned(),
                reason: error.to_string(),
            },
        }
    }
}

/// Compiles a schema: formats are asserted, nothing is fetched, and patterns are bounded.
pub(super) fn compile(schema: &Value) -> Result<Validator, InvalidSchema> {
    let validator = jsonschema::options()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        .with_pattern_options(patterns())
        .offline()
        .build(schema)?;
    Ok(validator)
}

/// Requires that the schema is written in the dialect that is understood, or does not say which.
fn require_dialect(schema: &Value) -> Result<(), InvalidSchema> {
    match schema.get("$schema") {
        None => Ok(()),
        Some(Value::String(uri)) if uri.trim_end_matches('#') == DIALECT => Ok(()),
        Some(other) => Err(InvalidSchema::Dialect {
            found: other.to_string(),
        }),
    }
}

/// What a list of the entities is called.
fn plural(name: &str, schema: &Value) -> Result<String, InvalidSchema> {
    match schema.get(PLURAL) {
        None => Ok(format!("{name}s")),
        Some(Value::String(plural)) => {
            require_plural(name, plural)?;
            Ok(plural.clone())
        }
        Some(other) => Err(InvalidSchema::Plural {
            name: name.to_owned(),
            plural: other.to_string(),
        }),
    }
}

/// Which version of the entity the schema is: 1, unless it says otherwise.
fn version(schema: &Value) -> Result<u32, InvalidSchema> {
    let Some(found) = schema.get(VERSION) else {
        return Ok(1);
    };
    let version = found.as_u64().and_then(|version| version.try_into().ok());
    let version = version.filter(|version| (1..=MAX_ENTITY_VERSION).contains(version));
    version.ok_or_else(|| InvalidSchema::Version {
        found: found.to_string(),
    })
}

/// What a schema says by what its entities are searched.
fn indexes(schema: &Value) -> Result<Vec<String>, InvalidSchema> {
    let Some(found) = schema.get(INDEXES) else {
        return Ok(Vec::new());
    };
    let texts = found.as_array().map(|listed| {
        let texts = listed.iter().map(|one| one.as_str().map(str::to_owned));
        texts.collect::<Option<Vec<_>>>()
    });
    texts.flatten().ok_or_else(|| InvalidSchema::Indexes {
        found: found.to_string(),
    })
}

/// What brings the events of an entity to its version: `steps`, and where there is none, what is older is read as it is.
fn upcasters(events: &EventNames, steps: Vec<Upcaster>) -> Upcasters {
    upcasters_of(&events.names().map(|name| &**name), events.version(), steps)
}

/// The same for events of these names.
pub(super) fn upcasters_of(names: &[&str], version: u32, steps: Vec<Upcaster>) -> Upcasters {
    let current = names.iter().map(|name| (*name, version));
    let mut all = steps;
    for name in names {
        let older = (1..version).map(|from| Upcaster::unchanged(name, from));
        let missing: Vec<_> = older
            .filter(|one| !all.iter().any(|step| step.begins_with(one)))
            .collect();
        all.extend(missing);
    }
    Upcasters::new(current, all)
}

/// The JSON Schema of the payload of an entity's event.
fn payload_schema(name: &str, schema: &Value) -> Value {
    let mut state = schema.clone();
    if let Some(keywords) = state.as_object_mut() {
        keywords.shift_remove(PLURAL);
        keywords.shift_remove(VERSION);
        keywords.shift_remove(INDEXES);
        keywords.shift_remove(ROLES);
        // References within it begin at the state, not at the payload.
        let id = Value::String(format!("urn:tidelog:{name}"));
        keywords.entry("$id").or_insert(id);
    }
    json!({
        "type": "object",
        "properties": {"state": state, "before": {"type": "object"}},
        "required": ["state", "before"],
    })
}

/// Requires that `plural` can be the name of the list of `name`.
pub(super) fn require_plural(name: &str, plural: &str) -> Result<(), InvalidSchema> {
    if is_category(plural) && plural != name {
        return Ok(());
    }
    Err(InvalidSchema::Plural {
        name: name.to_owned(),
        plural: plural.to_owned(),
    })
}

/// The defaults of the entity's own fields, each of which fits its field.
fn defaults(outline: &Outline, validator: &Validator) -> Result<Map<String, Value>, InvalidSchema> {
    let default_of = |name: &String| {
        let place = outline.place(*outline.place(0)?.fields.get(name)?)?;
        Some((name.clone(), place.keywords.get("default")?.clone()))
    };
    let names = outline.place(0).map(|root| root.names.as_slice());
    let defaults: Map<_, _> = names
        .unwrap_or_default()
        .iter()
        .filter_map(default_of)
        .collect();
    let all = Value::Object(defaults.clone());
    outline
        .inspect(&all)
        .map_err(|errors| first_wrong(&errors))?;
    // What a default cannot help, a field that is required beside it, is found at the top.
    let errors: Vec<_> = validator
        .iter_errors(&all)
        .filter(|error| !error.instance_path().is_empty())
        .collect();
    match explain(&errors).as_slice() {
        [] => Ok(defaults),
        errors => Err(first_wrong(errors)),
    }
}

/// The first default that is wrong.
fn first_wrong(errors: &[FieldError]) -> InvalidSchema {
    let (field, reason) = errors
        .first()
        .map(|error| (error.field.trim_start_matches('/'), error.message.as_str()))
        .unwrap_or_default();
    InvalidSchema::Default {
        field: field.to_owned(),
        reason: reason.to_owned(),
    }
}
