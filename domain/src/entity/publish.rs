//! What others are told of an entity: the schemas of its commands and of its view, and the view's fingerprint.

use serde_json::{Map, Value, json};

use super::outline::{Outline, PlaceId};
use super::schema::EntitySchema;
use crate::decider::{CommandSpec, Endpoint, Lifecycle};

/// The command that makes an entity.
pub(super) const CREATE: &str = "create";
/// The command that changes some of its fields.
pub(super) const PATCH: &str = "patch";
/// The command that ends it.
pub(super) const DELETE: &str = "delete";

/// How deep a recursive schema is written out.
const MAX_DESCRIBED_DEPTH: usize = 8;

/// The most places that are written out: a schema that shares its parts could have very many.
const MAX_DESCRIBED_PLACES: usize = 4_096;

/// The commands of an entity.
pub(super) fn commands(schema: &EntitySchema) -> Vec<CommandSpec> {
    let command = |name: &str, endpoint, lifecycle, schema| CommandSpec {
        name: name.to_owned(),
        endpoint,
        lifecycle,
        schema,
    };
    vec![
        command(
            CREATE,
            Endpoint::Post,
            Lifecycle::Missing,
            create_schema(schema),
        ),
        command(
            PATCH,
            Endpoint::Patch,
            Lifecycle::Live,
            patch_schema(schema),
        ),
        command(
            DELETE,
            Endpoint::Delete,
            Lifecycle::Live,
            json!({"type": "null"}),
        ),
    ]
}

/// The schema as it was written, and that unknown fields of the entity itself are refused.
fn create_schema(schema: &EntitySchema) -> Value {
    let mut body = schema.schema().clone();
    let closed = schema.outline().place(0).is_some_and(|root| root.closed);
    if let (true, Some(fields)) = (closed, body.as_object_mut()) {
        // Of all keywords only this one sees what `$ref` and `allOf` beside it know.
        fields
            .entry("unevaluatedProperties")
            .or_insert(Value::Bool(false));
    }
    body
}

/// Every field as it may be patched: nothing is required, and `null` removes.
fn patch_schema(schema: &EntitySchema) -> Value {
    let mut patch = Description::of(schema.outline(), true).place(0, 0);
    patch.insert("type".to_owned(), json!("object"));
    patch.shift_remove("enum");
    patch.shift_remove("const");
    Value::Object(patch)
}

/// The entity's own fields, without a reference or a combination.
pub(super) fn state_schema(schema: &EntitySchema) -> Value {
    let mut state = Description::of(schema.outline(), false).place(0, 0);
    state.insert("type".to_owned(), json!("object"));
    Value::Object(state)
}

/// The documents of an entity's view: its fields and what the server sets, without a reference or a combination.
pub(super) fn view_schema(schema: &EntitySchema) -> Value {
    let mut view = Description::of(schema.outline(), false).place(0, 0);
    let mut properties = Map::new();
    properties.insert("id".to_owned(), json!({"type": "string"}));
    if let Some(Value::Object(own)) = view.shift_remove("properties") {
        properties.extend(own);
    }
    let time = json!({"type": "string", "format": "date-time"});
    properties.insert("created_at".to_owned(), time.clone());
    properties.insert("updated_at".to_owned(), time);
    properties.insert(
        "version".to_owned(),
        json!({"type": "integer", "minimum": 1}),
    );
    view.insert("type".to_owned(), json!("object"));
    view.insert("properties".to_owned(), Value::Object(properties));
    view.insert(
        "required".to_owned(),
        json!(["id", "created_at", "updated_at", "version"]),
    );
    Value::Object(view)
}

/// Writes an outline out as a plain schema.
struct Description<'a> {
    outline: &'a Outline,
    /// Whether it is a patch that is described.
    patch: bool,
    /// How many places may still be written out.
    budget: usize,
}

impl<'a> Description<'a> {
    const fn of(outline: &'a Outline, patch: bool) -> Self {
        Self {
            outline,
            patch,
            budget: MAX_DESCRIBED_PLACES,
        }
    }

    /// The plain schema of one place, `depth` below the entity itself; of one that is too deep, that anything may be there.
    fn place(&mut self, id: PlaceId, depth: usize) -> Map<String, Value> {
        let place = match self.outline.place(id) {
            Some(place) if depth <= MAX_DESCRIBED_DEPTH && self.budget > 0 => place,
            _ => return Map::new(),
        };
        self.budget -= 1;
        let mut schema = place.keywords.clone();
        schema.shift_remove("default");
        if self.patch {
            allow_null(&mut schema);
        }
        let mut properties = Map::new();
        for name in &place.names {
            if let Some(id) = place.fields.get(name) {
                let inner = self.place(*id, depth + 1);
                properties.insert(name.clone(), Value::Object(inner));
            }
        }
        if !properties.is_empty() {
            schema.insert("properties".to_owned(), Value::Object(properties));
        }
        if self.patch && place.closed && place.patterns.is_none() {
            schema.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
        if let Some(items) = place.items {
            let items = self.place(items, depth + 1);
            schema.insert("items".to_owned(), Value::Object(items));
        }
        schema
    }
}

/// Lets `null` pass, which removes a field.
fn allow_null(schema: &mut Map<String, Value>) {
    if let Some(types) = schema.get_mut("type") {
        match types {
            Value::Array(types) if !types.contains(&json!("null")) => types.push(json!("null")),
            Value::Array(_) => {}
            one => *one = json!([one.take(), "null"]),
        }
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum")
        && !values.contains(&Value::Null)
    {
        values.push(Value::Null);
    }
    if let Some(value) = schema.shift_remove("const") {
        schema.insert("enum".to_owned(), json!([value, null]));
    }
}
