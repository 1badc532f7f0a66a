//! The feed in the service's OpenAPI document.

use serde_json::{Map, Value, json};
use tidelog_http::{ApiDocument, ProblemKind, header, parameter, with};

use super::{DEFAULT_LIMIT, MAX_LIMIT};

/// Adds `GET /events`.
pub(in crate::http) fn describe(api: &mut ApiDocument) {
    api.tag("events", "The log, for programs that follow its events.");
    let event = api.schema("Event", &event_schema());
    let page = json!({
        "type": "object",
        "properties": {
            "data": {"type": "array", "items": event, "description": "In the order of commits, none missing."},
            "next": {"type": "string", "description": "The cursor for `after`. It is there on an empty page too."},
        },
        "required": ["data", "next"],
    });
    let page = api.component("EventPage", page);
    let mut responses = Map::from_iter([(
        "200".to_owned(),
        json!({
            "description": "A page. An empty one: nothing more is there yet; ask again.",
            "headers": {"X-Correlation-Id": header("The conversation.")},
            "content": {"application/json": {"schema": page}},
        }),
    )]);
    responses.extend(api.problems(&[
        ProblemKind::MalformedRequest,
        ProblemKind::UnknownParameter,
        ProblemKind::NotAcceptable,
        ProblemKind::HistoryChanged,
        ProblemKind::Internal,
        ProblemKind::Unavailable,
    ]));
    let operation = json!({
        "tags": ["events"],
        "operationId": "events",
        "summary": "a page of a partition's events",
        "description": "Each partition is read by itself. A 410 says that the log was restored or replaced: read it from the \
                        beginning.",
        "parameters": parameters(),
        "responses": responses,
    });
    api.operation("get", "/events", operation);
    describe_heads(api);
}

/// Adds `GET /events/heads`.
fn describe_heads(api: &mut ApiDocument) {
    let heads = json!({
        "type": "object",
        "properties": {
            "app": {"type": "string", "description": "Whose log it is."},
            "history": {"type": "string", "description": "Another one says that the log was restored or replaced."},
            "heads": {
                "type": "array",
                "items": {"type": "string", "pattern": "^[0-9]+$"},
                "description": "The last position of each partition, by its number; 0 where it has no event.",
            },
        },
        "required": ["app", "history", "heads"],
    });
    let heads = api.component("EventHeads", heads);
    let mut responses = Map::from_iter([(
        "200".to_owned(),
        json!({
            "description": "Where the log ends.",
            "headers": {"X-Correlation-Id": header("The conversation.")},
            "content": {"application/json": {"schema": {
                "type": "object", "properties": {"data": heads}, "required": ["data"],
            }}},
        }),
    )]);
    responses.extend(api.problems(&[
        ProblemKind::UnknownParameter,
        ProblemKind::NotAcceptable,
        ProblemKind::Internal,
        ProblemKind::Unavailable,
    ]));
    let operation = json!({
        "tags": ["events"],
        "operationId": "eventHeads",
        "summary": "where the log ends",
        "description": "How many partitions there are, and whether there is anything new in them.",
        "responses": responses,
    });
    api.operation("get", "/events/heads", operation);
}

fn parameters() -> Vec<Value> {
    let limit =
        json!({"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT});
    let partition = parameter(
        "query",
        "partition",
        &json!({"type": "integer", "minimum": 0}),
        "Which part of the log, from 0.",
    );
    vec![
        with(partition, "required", true),
        parameter(
            "query",
            "after",
            &json!({"type": "string"}),
            "What an earlier page of the partition gave as `next`; left out, the page is the first.",
        ),
        parameter(
            "query",
            "limit",
            &limit,
            "The most events; fewer come where they are large.",
        ),
    ]
}

/// A CloudEvent as [`tidelog_eventbus::wire`] writes it.
fn event_schema() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let decimal = |description: &str| json!({"type": "string", "pattern": "^[0-9]+$", "description": description});
    json!({
        "type": "object",
        "description": "A CloudEvent 1.0 in JSON.",
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string", "format": "uuid"},
            "source": text("/<app>/<aggregate>"),
            "type": text("The event's stored name."),
            "subject": text("The stream, <aggregate>/<id>."),
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"const": "application/json"},
            "partition": {"type": "integer", "minimum": 0},
            "position": decimal("Where it is in its partition: dense, from 1."),
            "streamversion": decimal("The aggregate's version after it."),
            "schemaversion": decimal("The version of the shape of `data`."),
            "correlationid": text("The conversation."),
            "causationid": text("The command that caused it."),
            "actor": text("Who asked."),
            "tenant": text("For whom."),
            "traceparent": text("The W3C trace context."),
            "keyid": text("The key that the payload is encrypted with."),
            "metadata": text("The metadata's exact JSON, where the attributes do not say all of it."),
            "data": {"description": "What happened, byte for byte as it was recorded."},
        },
        "required": [
            "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "partition", "position",
            "streamversion", "schemaversion", "data",
        ],
    })
}
