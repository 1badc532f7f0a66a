//! Enums of which each variant is a command or an event, by the name that serde knows it by: what is stored and sent
//! is the content of a variant, without its name.

use std::iter::once;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::de::{DeserializeOwned, Error as _, IntoDeserializer};
use serde_json::{Map, Value, json};

use crate::aggregate::{DecodeError, Event};
use crate::decider::{CommandInput, CommandSpec, Endpoint, FieldError, Lifecycle};
use crate::event::Payload;

/// The names of several sets of events in one list; `N` MUST be how many they are.
#[must_use]
#[allow(
    clippy::indexing_slicing,
    reason = "iterators cannot be used in a constant, and a wrong N fails at compile time"
)]
pub const fn joined<const N: usize>(sets: &[&[&'static str]]) -> [&'static str; N] {
    let mut names = [""; N];
    let (mut set, mut at) = (0, 0);
    while set < sets.len() {
        let mut name = 0;
        while name < sets[set].len() {
            names[at] = sets[set][name];
            name += 1;
            at += 1;
        }
        set += 1;
    }
    names
}

/// What [`crate::Command::specs`] gives for an enum: its commands with the schemas of their fields.
#[must_use]
pub fn command_specs<C: JsonSchema>(commands: &[(&str, Endpoint, Lifecycle)]) -> Vec<CommandSpec> {
    let root = schema_of::<C>(SchemaSettings::draft2020_12());
    commands
        .iter()
        .map(|(name, endpoint, lifecycle)| CommandSpec {
            name: (*name).to_owned(),
            endpoint: *endpoint,
            lifecycle: *lifecycle,
            schema: variant_schema(&root, name),
        })
        .collect()
}

/// Makes a command that has fields of its name and body.
///
/// # Errors
///
/// What serde says of a body that the schema let pass: a type can want more than its schema says.
pub fn decode_command<C: DeserializeOwned>(input: &CommandInput) -> Result<C, Vec<FieldError>> {
    let empty = Value::Object(Map::new());
    let body = if input.body.is_null() {
        &empty
    } else {
        &input.body
    };
    variant(&input.name, body).map_err(|error| {
        vec![FieldError {
            field: String::new(),
            message: error.to_string(),
        }]
    })
}

/// The payload of an event: the content of its variant.
///
/// # Errors
///
/// When it cannot be JSON.
pub fn encode_event<E: Event>(event: &E) -> Result<Payload, serde_json::Error> {
    let text = serde_json::to_vec(event)?;
    // `{"account.opened":{…}}`, or `"account.closed"` when there are no fields. Such a name needs no escapes.
    let before = format!("{{\"{}\":", event.event_type());
    let content = text
        .strip_prefix(before.as_bytes())
        .and_then(|content| content.strip_suffix(b"}"));
    if let Some(content) = content {
        return Ok(Payload::from_stored(content));
    }
    let name = format!("\"{}\"", event.event_type());
    if text == name.as_bytes() {
        return Ok(Payload::from_stored(b"{}"));
    }
    Err(serde_json::Error::custom(
        "an enum of events is tagged as serde does it by default: take its own #[serde(…)] away",
    ))
}

/// Makes an event that has fields of its stored name and payload.
///
/// # Errors
///
/// [`DecodeError::Payload`].
pub fn decode_event<E: Event>(
    event_type: &str,
    schema_version: u32,
    payload: &Payload,
) -> Result<E, DecodeError> {
    payload
        .as_raw()
        .and_then(|content| variant(event_type, content))
        .map_err(|source| DecodeError::payload(event_type, schema_version, source))
}

/// Why an event of this name and version cannot be read: one of the two is not known.
#[must_use]
pub fn unknown_event<E: Event>(event_type: &str, schema_version: u32) -> DecodeError {
    if !E::TYPES.contains(&event_type) {
        return DecodeError::unknown(event_type);
    }
    DecodeError::UnknownVersion {
        event_type: event_type.to_owned(),
        schema_version,
        known: E::current_version(event_type),
    }
}

/// The JSON Schema of the payload of the event that is stored as `event_type`; `None` where `E` has none of that name.
#[must_use]
pub fn event_schema<E: Event + JsonSchema>(event_type: &str) -> Option<Value> {
    let is_ours = E::TYPES.contains(&event_type);
    is_ours.then(|| variant_schema(&stored_schema::<E>(), event_type))
}

/// The JSON Schema of what is stored of a `T`.
#[must_use]
pub fn stored_schema<T: JsonSchema>() -> Value {
    schema_of::<T>(SchemaSettings::draft2020_12().for_serialize())
}

/// The JSON Schema of a `T` that is sent to us.
#[must_use]
pub fn sent_schema<T: JsonSchema>() -> Value {
    schema_of::<T>(SchemaSettings::draft2020_12())
}

fn schema_of<T: JsonSchema>(settings: SchemaSettings) -> Value {
    settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// The variant `name` of a `T`, made of its `content`, which need not be copied for it.
fn variant<'de, T, C>(name: &'de str, content: C) -> Result<T, serde_json::Error>
where
    T: DeserializeOwned,
    C: IntoDeserializer<'de, serde_json::Error>,
{
    let tagged = MapDeserializer::<_, serde_json::Error>::new(once((name, content)));
    T::deserialize(MapAccessDeserializer::new(tagged))
}

/// The schema of the content of the variant `name`, by the schema `root` of the enum.
fn variant_schema(root: &Value, name: &str) -> Value {
    let forms = root.get("oneOf").and_then(Value::as_array);
    let form = forms.into_iter().flatten().find_map(|form| {
        let content = form.get("properties")?.get(name)?.as_object()?;
        Some((content.clone(), form.get("description")))
    });
    let Some((mut schema, description)) = form else {
        // A variant without fields is a text there, and an empty object here.
        return json!({"type": "object", "properties": {}, "additionalProperties": false});
    };
    // Where no field is declared, any would be allowed.
    schema.entry("properties").or_insert_with(|| json!({}));
    for (keyword, value) in [("description", description), ("$defs", root.get("$defs"))] {
        if let Some(value) = value {
            schema.insert(keyword.to_owned(), value.clone());
        }
    }
    Value::Object(schema)
}
