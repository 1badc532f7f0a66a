//! What `dev` prints when it is ready: addresses, and four commands to paste.

use std::fmt::Write;

use serde_json::{Map, Value, json};
use tidelog_domain::{CommandInput, Decider, Endpoint};

/// The addresses, which are URLs, and a create, read, patch and delete of the first entity there is.
pub(crate) fn welcome(
    deciders: &[std::sync::Arc<dyn Decider>],
    command: &str,
    query: &str,
    admin: &str,
    file: &str,
) -> String {
    let pages = match cfg!(feature = "pages") {
        true => format!("  pages     {admin}/admin\n"),
        false => String::new(),
    };
    let mut text = format!(
        "\n  commands  {command}\n  queries   {query}\n{pages}  health    {admin}/health/ready\n  data      {file}\n"
    );
    let lines = deciders
        .iter()
        .find_map(|decider| curl_lines(decider.as_ref(), command, query));
    if let Some(lines) = lines {
        let _ = write!(text, "\nTry it (create, read, patch, delete):\n\n{lines}");
    }
    text
}

/// Four commands for an entity, with an id that is new each time; none for what is not an entity.
fn curl_lines(decider: &dyn Decider, command: &str, query: &str) -> Option<String> {
    let create = decider
        .commands()
        .iter()
        .find(|spec| spec.endpoint == Endpoint::Post)?;
    decider
        .commands()
        .iter()
        .find(|spec| spec.endpoint == Endpoint::Patch)?;
    let Value::Object(mut body) = sample(&create.schema) else {
        return None;
    };
    let input = CommandInput {
        name: create.name.clone(),
        body: Value::Object(body.clone()),
    };
    decider.check(&input).ok()?;
    let name = decider.category();
    let id = short_id();
    let change = change(&body)?;
    body.shift_insert(0, "id".to_owned(), Value::from(id.as_str()));
    let json = "-H 'content-type: application/json'";
    Some(format!(
        "  curl -s {command}/{name} {json} -d '{}'; echo\n  \
           curl -s {query}/{name}/{id}; echo\n  \
           curl -s -X PATCH {command}/{name}/{id} {json} -d '{}'; echo\n  \
           curl -s -X DELETE {command}/{name}/{id}; echo\n",
        quoted(&Value::Object(body)),
        quoted(&change),
    ))
}

/// An id that a person can read and that was not there before.
fn short_id() -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("try-{}", id.get(..8).unwrap_or(&id))
}

/// A patch of the first text field of `body`.
fn change(body: &Map<String, Value>) -> Option<Value> {
    let (field, text) = body
        .iter()
        .find_map(|(field, value)| Some((field, value.as_str()?)))?;
    let mut patch = Map::new();
    patch.insert(field.clone(), json!(format!("{text}, again")));
    Some(Value::Object(patch))
}

/// JSON that may stand between single quotes in a shell.
fn quoted(value: &Value) -> String {
    value.to_string().replace('\'', "\\u0027")
}

/// A body that fits `schema`: its first example, or one made of its required fields.
fn sample(schema: &Value) -> Value {
    if let Some(example) = schema.pointer("/examples/0") {
        return example.clone();
    }
    let required = schema
        .get("required")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let fields = required.iter().filter_map(Value::as_str).map(|field| {
        let schema = schema
            .get("properties")
            .and_then(|all| all.get(field))
            .unwrap_or(&Value::Null);
        (field.to_owned(), sample_field(field, schema))
    });
    Value::Object(fields.collect())
}

/// A value for one field.
fn sample_field(field: &str, schema: &Value) -> Value {
    let given = ["const", "default"].iter().find_map(|key| schema.get(key));
    let given = given
        .or_else(|| schema.pointer("/examples/0"))
        .or_else(|| schema.pointer("/enum/0"));
    if let Some(value) = given {
        return value.clone();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(json!(1)),
        Some("boolean") => json!(false),
        Some("array") => json!([]),
        Some("object") => sample(schema),
        _ => match schema.get("format").and_then(Value::as_str) {
            Some("email") => json!("ann@example.org"),
            Some("date") => json!("2026-01-31"),
            Some("date-time") => json!("2026-01-31T12:00:00Z"),
            Some("uri") => json!("https://example.org/"),
            Some("uuid") => json!("01890f3e-7b5a-7c3d-9f00-0123456789ab"),
            _ => json!(format!("a {}", field.replace('_', " "))),
        },
    }
}
