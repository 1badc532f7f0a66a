//! Commands over several aggregates in the OpenAPI document.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tidelog_domain::MultiStreamDecider;
use tidelog_http::{ApiDocument, ProblemKind, header};

use super::{ANY_COMMAND, idempotency_key, outcome};

/// Adds `command`. `states` has the schema of each aggregate's state after a command.
pub(super) fn describe(
    api: &mut ApiDocument,
    command: &dyn MultiStreamDecider,
    states: &BTreeMap<&str, Value>,
) {
    let name = command.name();
    let of = command.categories().join(", ");
    api.tag(
        name,
        &format!("A command to several aggregates at once: {of}."),
    );
    let anything = Value::Bool(true);
    let data: Vec<&Value> = command
        .categories()
        .iter()
        .map(|category| states.get(category).unwrap_or(&anything))
        .collect();
    let data = json!({"type": "array", "prefixItems": data, "items": false});
    let outcome = outcome(api, &format!("{name}.outcome"), &data);
    let body = api.schema(name, command.schema());
    let mut responses = Map::from_iter([("200".to_owned(), done(&outcome))]);
    let kinds = ANY_COMMAND.into_iter();
    let kinds: Vec<_> = kinds
        .filter(|kind| *kind != ProblemKind::PreconditionFailed)
        .chain([ProblemKind::NotFound, ProblemKind::Deleted])
        .collect();
    responses.extend(api.problems(&kinds));
    let mut operation = Map::new();
    operation.insert("tags".to_owned(), json!([name]));
    operation.insert("operationId".to_owned(), name.into());
    operation.insert("summary".to_owned(), format!("{name} ({of})").into());
    if let Some(description) = command.schema().get("description") {
        operation.insert("description".to_owned(), description.clone());
    }
    operation.insert("parameters".to_owned(), json!([idempotency_key()]));
    operation.insert(
        "requestBody".to_owned(),
        json!({"required": true, "content": {"application/json": {"schema": body}}}),
    );
    operation.insert("responses".to_owned(), Value::Object(responses));
    api.operation("post", &format!("/{name}"), Value::Object(operation));
}

/// The answer to a command that was done.
fn done(outcome: &Value) -> Value {
    json!({
        "description": "It happened to all of them, or there was nothing to change.",
        "headers": {
            "Consistency-Token": header("Brought along by a read, the read sees this write."),
            "X-Correlation-Id": header("The conversation."),
            "Idempotency-Replayed": header("`true` where the command was done before, under the same key."),
        },
        "content": {"application/json": {"schema": outcome}},
    })
}
