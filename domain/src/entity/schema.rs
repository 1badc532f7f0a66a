//! A JSON Schema that has been found to make an entity.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, ReferencingError, ValidationError, Validator};
use serde_json::{Map, Value};

use super::body::validate;
use super::event::EventNames;
use super::explain::explain;
use super::invalid::InvalidSchema;
use super::outline::{Outline, SERVER_SET};
use super::trace::{patterns, trace};
use crate::decider::FieldError;
use crate::stream::is_category;

/// How the name of a file with an entity's schema ends: `post.schema.json` makes the entity `post`.
pub const SCHEMA_FILE_SUFFIX: &str = ".schema.json";

/// The one dialect that is understood.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Where a schema names the list of its entities.
pub(super) const PLURAL: &str = "x-tidelog-plural";

/// An entity: its name, and the JSON Schema (draft 2020-12) of its own fields, compiled. Cloning is cheap.
///
/// The rules are those of the [module](crate::entity).
#[derive(Clone)]
pub struct EntitySchema(Arc<Parts>);

struct Parts {
    name: String,
    plural: String,
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
        let validator = compile(&schema)?;
        let outline = trace(&schema, &SERVER_SET)?;
        let defaults = defaults(&outline, &validator)?;
        Ok(Self(Arc::new(Parts {
            name: name.to_owned(),
            plural,
            schema,
            validator,
            outline,
            defaults,
            events: EventNames::of(name),
        })))
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
