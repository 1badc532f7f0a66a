//! The routes that a program declares, in an OpenAPI document.

use std::collections::BTreeMap;

use axum::http::Method;
use serde_json::{Map, Value, json};
use tidelog_http::{ApiDocument, Operation, ProblemKind, header, parameter};

use super::MessageRoute;
use crate::App;
use crate::subjects::{DeclaredSubject, is_nothing, plain};

/// What the tag of routes begins with, before the subject, as in rules: no aggregate is called so.
pub(crate) const TAG: &str = "route/";

/// What may go wrong with a request to any route.
const ANY_ROUTE: [ProblemKind; 9] = [
    ProblemKind::MalformedRequest,
    ProblemKind::NotAcceptable,
    ProblemKind::TooLarge,
    ProblemKind::UnsupportedMediaType,
    ProblemKind::RateLimited,
    ProblemKind::Internal,
    ProblemKind::Overloaded,
    ProblemKind::Unavailable,
    ProblemKind::InDoubt,
];

/// Adds the routes of `app`, each with what the program says of its subject. (There is no word in OpenAPI for a route of the method CONNECT.)
pub(crate) fn describe(api: &mut ApiDocument, app: &App) {
    let mut routes: BTreeMap<String, u32> = BTreeMap::new();
    let has_word = |route: &&MessageRoute| route.method != Method::CONNECT;
    for route in app.message_routes().iter().filter(has_word) {
        let Some(channel) = route.channel() else {
            continue;
        };
        let method = route.method.as_str().to_lowercase();
        let tag = Operation::Route(&route.name).to_string();
        if !routes.contains_key(&tag) {
            let what = format!("Requests that become messages on {}.", route.name);
            api.tag(&tag, &what);
            routes.insert(tag.clone(), 0);
        }
        let mut id = format!("route.{channel}.{method}");
        let number = routes.entry(id.clone()).or_default();
        *number += 1;
        if *number > 1 {
            id = format!("{id}.{number}");
        }
        let declared = app.declared_subject(channel.as_str());
        let prefix = format!("route.{}", plain(channel.as_str()));
        let (does, becomes) = match route.is_sent {
            true => ("send", "sent on it, and its reply is the answer"),
            false => ("emit", "emitted on it, to be handled later"),
        };
        let mut operation = json!({
            "tags": [tag],
            "operationId": id,
            "summary": format!("{does} on {channel}"),
            "description": format!("The request is {becomes}. The parameters of the query go along."),
            "parameters": parameters(&route.path),
        });
        let responses = responses(api, route, &prefix, declared);
        if let Value::Object(operation) = &mut operation {
            let body = body(api, route, &prefix, declared);
            operation.extend(body.map(|body| ("requestBody".to_owned(), body)));
            operation.insert("responses".to_owned(), Value::Object(responses));
        }
        api.operation(&method, &route.path, operation);
    }
}

fn parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|segment| {
        let name = segment.strip_prefix('{')?;
        name.strip_suffix('}')
    });
    let text = json!({"type": "string"});
    let in_path = names.map(|name| parameter("path", name, &text, "It goes along as a parameter."));
    let key = parameter(
        "header",
        "Idempotency-Key",
        &text,
        "One string in double quotes, new for each new request. The message has the same id each time that the key is sent; what is done when it \
         comes again is up to its handler.",
    );
    in_path.chain([key]).collect()
}

/// The body; `None` where none is meant. Who says nothing of it takes any JSON, and `null` for none.
fn body(
    api: &mut ApiDocument,
    route: &MessageRoute,
    prefix: &str,
    declared: Option<&DeclaredSubject>,
) -> Option<Value> {
    let declared = declared.and_then(|subject| body_schema(&subject.message));
    let (schema, is_required) = match declared {
        Some((schema, _)) if is_nothing(&schema) => return None,
        Some((schema, is_required)) => {
            let name = format!("{prefix}.body");
            (api.schema(&name, &schema), is_required)
        }
        None if route.method.is_safe() => return None,
        None => (json!({}), false),
    };
    Some(json!({
        "description": format!("At most {} bytes.", route.max_bytes),
        "required": is_required,
        "content": {"application/json": {"schema": schema}},
    }))
}

/// What the schema of a [`RouteRequest`](super::RouteRequest) says of its body, and whether there must be one; `None` where that is any JSON.
fn body_schema(request: &Value) -> Option<(Value, bool)> {
    let mut body = request.pointer("/properties/body")?.as_object()?.clone();
    body.shift_remove("description");
    if body.is_empty() {
        return None;
    }
    let definitions = used(&Value::Object(body.clone()), request.get("$defs"));
    if !definitions.is_empty() {
        body.insert("$defs".to_owned(), Value::Object(definitions));
    }
    let required = request.get("required").and_then(Value::as_array);
    let is_required = required.is_some_and(|names| names.iter().any(|name| name == "body"));
    Some((Value::Object(body), is_required))
}

/// Those of `definitions` that `schema` leads to.
fn used(schema: &Value, definitions: Option<&Value>) -> Map<String, Value> {
    let all = definitions.and_then(Value::as_object);
    let mut names = Vec::new();
    lead_to(schema, &mut names);
    let mut used = Map::new();
    while let Some(name) = names.pop() {
        let definition = all.and_then(|all| all.get(&name));
        if let Some(definition) = definition.filter(|_| !used.contains_key(&name)) {
            lead_to(definition, &mut names);
            used.insert(name, definition.clone());
        }
    }
    used
}

/// Notes the names of the definitions that `schema` leads to.
fn lead_to(schema: &Value, names: &mut Vec<String>) {
    match schema {
        Value::Object(keywords) => {
            let to = keywords.get("$ref").and_then(Value::as_str);
            let name = to.and_then(|to| to.strip_prefix("#/$defs/"));
            names.extend(name.map(str::to_owned));
            keywords.values().for_each(|inner| lead_to(inner, names));
        }
        Value::Array(schemas) => schemas.iter().for_each(|inner| lead_to(inner, names)),
        _ => {}
    }
}

fn responses(
    api: &mut ApiDocument,
    route: &MessageRoute,
    prefix: &str,
    declared: Option<&DeclaredSubject>,
) -> Map<String, Value> {
    let mut kinds = ANY_ROUTE.to_vec();
    let (status, what, schema) = match (route.is_sent, declared) {
        (true, declared) => {
            kinds.extend([ProblemKind::Rejected, ProblemKind::RequestInProgress]);
            let name = format!("{prefix}.reply");
            let schema = declared.map(|subject| api.schema(&name, &subject.reply));
            ("200", "The reply.", schema.unwrap_or_else(|| json!({})))
        }
        (false, _) => {
            let id = json!({"type": "string", "description": "The message's."});
            let data = json!({"type": "object", "properties": {"id": id}, "required": ["id"]});
            let schema =
                json!({"type": "object", "properties": {"data": data}, "required": ["data"]});
            ("202", "The message bus has the message.", schema)
        }
    };
    let done = json!({
        "description": what,
        "headers": {"X-Correlation-Id": header("The conversation.")},
        "content": {"application/json": {"schema": schema}},
    });
    let mut responses = Map::from_iter([(status.to_owned(), done)]);
    responses.extend(api.problems(&kinds));
    responses
}
