//! The command service as an OpenAPI document.

mod multi_stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tidelog_domain::{CommandSpec, Decider, Endpoint, Lifecycle, MAX_ID_BYTES, MultiStreamDecider};
use tidelog_http::{ApiDocument, ProblemKind, header, parameter, with};

use super::{accepted_types, feed};
use crate::handling::MAX_KEY_LENGTH;

/// What may go wrong with any command.
const ANY_COMMAND: [ProblemKind; 16] = [
    ProblemKind::MalformedRequest,
    ProblemKind::UnknownParameter,
    ProblemKind::NotAcceptable,
    ProblemKind::Conflict,
    ProblemKind::RequestInProgress,
    ProblemKind::PreconditionFailed,
    ProblemKind::TooLarge,
    ProblemKind::UnsupportedMediaType,
    ProblemKind::Invalid,
    ProblemKind::Rejected,
    ProblemKind::IdempotencyKeyReused,
    ProblemKind::RateLimited,
    ProblemKind::Internal,
    ProblemKind::Overloaded,
    ProblemKind::Unavailable,
    ProblemKind::InDoubt,
];

/// The command service of the program `app` with the aggregates that `deciders` run, the commands over several of them, and the
/// feed of its log: an OpenAPI 3.1 document, made from the schemas of the commands. What is served beside it may be added.
pub fn command_document(
    app: &str,
    deciders: &[Arc<dyn Decider>],
    multi_stream: &[Arc<dyn MultiStreamDecider>],
) -> ApiDocument {
    let mut api = gateway_document(app, deciders, multi_stream);
    feed::describe(&mut api);
    api
}

/// The same of a gateway, which has no feed.
pub fn gateway_document(
    app: &str,
    deciders: &[Arc<dyn Decider>],
    multi_stream: &[Arc<dyn MultiStreamDecider>],
) -> ApiDocument {
    let mut api = ApiDocument::new(
        &format!("{app}: commands"),
        "Writes only. A command is answered when what it did is durable; what was written is read from the query service.",
    );
    let mut outcomes = BTreeMap::new();
    for decider in deciders {
        let outcome = describe(&mut api, decider.as_ref());
        outcomes.insert(decider.category(), outcome);
    }
    for command in multi_stream {
        multi_stream::describe(&mut api, command.as_ref(), &outcomes);
    }
    api
}

/// Adds an aggregate. Returns the schema of its state after a command.
fn describe(api: &mut ApiDocument, decider: &dyn Decider) -> Value {
    let category = decider.category();
    api.tag(category, &format!("Commands to the aggregate {category}."));
    let data = data(api, decider);
    let outcome = outcome(api, &format!("{category}.outcome"), &data);
    for spec in decider.commands() {
        let (method, path) = route(category, spec);
        let body = body(api, category, spec);
        let operation = operation(api, category, spec, &outcome, body);
        api.operation(method, &path, operation);
    }
    data
}

/// Where a command is served: the method in lower case, and the path.
fn route(category: &str, spec: &CommandSpec) -> (&'static str, String) {
    let name = &spec.name;
    match spec.endpoint {
        Endpoint::Post => ("post", format!("/{category}")),
        Endpoint::Patch => ("patch", format!("/{category}/{{id}}")),
        Endpoint::Delete => ("delete", format!("/{category}/{{id}}")),
        Endpoint::Named if creates(spec) => ("post", format!("/{category}/{name}")),
        Endpoint::Named => ("post", format!("/{category}/{{id}}/{name}")),
    }
}

fn creates(spec: &CommandSpec) -> bool {
    spec.lifecycle == Lifecycle::Missing
}

fn operation(
    api: &mut ApiDocument,
    category: &str,
    spec: &CommandSpec,
    outcome: &Value,
    body: Option<Value>,
) -> Value {
    let mut operation = json!({
        "tags": [category],
        "operationId": format!("{category}.{}", spec.name),
        "summary": format!("{} {category}", spec.name),
        "parameters": parameters(spec),
        "responses": responses(api, spec, outcome),
    });
    if let Some(description) = spec.schema.get("description") {
        operation = with(operation, "description", description.clone());
    }
    match body {
        Some(body) => with(operation, "requestBody", body),
        None => operation,
    }
}

/// The id in the path, and the preconditions.
fn parameters(spec: &CommandSpec) -> Vec<Value> {
    let text = json!({"type": "string"});
    let if_match = parameter(
        "header",
        "If-Match",
        &text,
        "The versions that the aggregate may be at, as an ETag had them: \"7\". Else 412, and nothing is written.",
    );
    let key = idempotency_key();
    if creates(spec) {
        let none = parameter(
            "header",
            "If-None-Match",
            &json!({"type": "string", "const": "*"}),
            "With *: 412 instead of 409 where the id is taken.",
        );
        return vec![none, key];
    }
    vec![
        parameter("path", "id", &id_schema(), "The aggregate's id."),
        if_match,
        key,
    ]
}

/// The header that a command can be sent again with.
fn idempotency_key() -> Value {
    parameter(
        "header",
        "Idempotency-Key",
        &json!({"type": "string", "pattern": format!("^\".{{1,{MAX_KEY_LENGTH}}}\"$")}),
        "One string in double quotes, new for each new command: a command that is sent again with the same key is done once, \
         and answered as it was the first time.",
    )
}

/// What an aggregate's id looks like.
fn id_schema() -> Value {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_ID_BYTES,
        "pattern": "^[A-Za-z0-9._~-]+$",
    })
}

/// The body that a command takes; `None` where it takes none.
fn body(api: &mut ApiDocument, category: &str, spec: &CommandSpec) -> Option<Value> {
    let says_nothing = spec.schema.get("type").and_then(Value::as_str) == Some("null");
    let schema = match (says_nothing, creates(spec)) {
        (true, false) => return None,
        (true, true) => {
            json!({"type": "object", "maxProperties": 1, "properties": {"id": id_schema()}})
        }
        (false, true) => with_id(&spec.schema),
        (false, false) => spec.schema.clone(),
    };
    let needed = match spec.endpoint {
        Endpoint::Post | Endpoint::Patch => true,
        Endpoint::Delete => false,
        Endpoint::Named => spec
            .schema
            .get("required")
            .and_then(Value::as_array)
            .is_some_and(|names| !names.is_empty()),
    };
    let reference = api.schema(&format!("{category}.{}", spec.name), &schema);
    let content: Map<String, Value> = accepted_types(spec.endpoint)
        .iter()
        .map(|media| ((*media).to_owned(), json!({"schema": reference})))
        .collect();
    Some(json!({"required": needed, "content": content}))
}

/// `schema`, with the id that a creating body may bring.
fn with_id(schema: &Value) -> Value {
    let Value::Object(keywords) = schema else {
        return schema.clone();
    };
    let mut keywords = keywords.clone();
    let left_out = "The id to create it under; left out, it gets a new one.";
    let id = with(id_schema(), "description", left_out);
    let properties = keywords
        .entry("properties")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(properties) = properties {
        properties.shift_insert(0, "id".to_owned(), id);
    }
    Value::Object(keywords)
}

/// The body of a success.
fn outcome(api: &mut ApiDocument, name: &str, data: &Value) -> Value {
    let body = json!({"type": "object", "properties": {"data": data}, "required": ["data"]});
    api.component(name, body)
}

/// An aggregate's state after a command.
fn data(api: &mut ApiDocument, decider: &dyn Decider) -> Value {
    let category = decider.category();
    let envelope = json!({
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "version": {"type": "integer", "minimum": 1, "description": "How many events the aggregate has."},
        },
        "required": ["id", "version"],
    });
    match decider.state_schema() {
        Value::Bool(true) => envelope,
        state => {
            let state = api.schema(&format!("{category}.state"), &state);
            json!({"allOf": [envelope, state]})
        }
    }
}

fn responses(api: &mut ApiDocument, spec: &CommandSpec, outcome: &Value) -> Map<String, Value> {
    let mut kinds = ANY_COMMAND.to_vec();
    if creates(spec) {
        kinds.push(ProblemKind::AlreadyExists);
    } else {
        kinds.extend([ProblemKind::NotFound, ProblemKind::Deleted]);
    }
    let headers = json!({
        "ETag": header("The aggregate's version, \"7\": for If-Match."),
        "Consistency-Token": header("Brought along by a read, the read sees this write."),
        "X-Correlation-Id": header("The conversation."),
        "Idempotency-Replayed": header("`true` where the command was done before, under the same key."),
    });
    let done = |description: &str, headers: &Value| {
        json!({
            "description": description,
            "headers": headers,
            "content": {"application/json": {"schema": outcome}},
        })
    };
    let mut responses = Map::new();
    if creates(spec) {
        let headers = with(headers, "Location", header("Where it is read."));
        responses.insert("201".to_owned(), done("It was created.", &headers));
    } else {
        responses.insert(
            "200".to_owned(),
            done("It happened, or there was nothing to change.", &headers),
        );
    }
    responses.extend(api.problems(&kinds));
    responses
}
