//! The query service as an OpenAPI document.

use serde_json::{Map, Value, json};
use tidelog_domain::ViewDefinition;
use tidelog_http::{ApiDocument, ProblemKind, header, parameter, with};

use super::QuerySettings;
use super::filters::{MAX_SORTS, WORDS};
use super::operators::{ENVELOPE, MAX_VALUES, Operator, Target};
use super::representation::DELETED;
use super::selection::MAX_FIELDS;
use super::shape::filterable;
use crate::catalog::Catalog;
use crate::store::Field;

/// The most fields of a view that are listed.
const MAX_LISTED_FIELDS: usize = 200;

/// The most filters of a view that are listed. The service knows more of them, by the same rules.
const MAX_LISTED_FILTERS: usize = 1_000;

/// What may go wrong with any read.
const ANY_READ: [ProblemKind; 8] = [
    ProblemKind::MalformedRequest,
    ProblemKind::UnknownParameter,
    ProblemKind::NotAcceptable,
    ProblemKind::RateLimited,
    ProblemKind::Internal,
    ProblemKind::Unavailable,
    ProblemKind::Overloaded,
    ProblemKind::NotYetProjected,
];

/// The query service of the program `app` with the views of `catalog`: an OpenAPI 3.1 document, made from the schemas of
/// the views.
pub fn query_document(app: &str, catalog: &Catalog, settings: &QuerySettings) -> Value {
    let mut api = ApiDocument::new(
        &format!("{app}: queries"),
        "Reads only. Views follow the log; a read that brings the Consistency-Token of a write waits until it sees it.",
    );
    for view in catalog.iter() {
        describe(&mut api, view.as_ref(), settings);
    }
    api.finish()
}

/// Adds a view: one document, a page of them, and the first that fits.
fn describe(api: &mut ApiDocument, view: &dyn ViewDefinition, settings: &QuerySettings) {
    let (name, plural) = (view.name(), view.plural());
    api.tag(name, &format!("The view {name}."));
    let document = document(api, view);
    let one = json!({"type": "object", "properties": {"data": document}, "required": ["data"]});
    let one = api.component(&format!("{name}.one"), one);
    let page = json!({
        "type": "object",
        "properties": {
            "data": {"type": "array", "items": document},
            "next": {"type": ["string", "null"], "description": "The cursor for `after`; null on the last page."},
            "count": {"type": "integer", "minimum": 0, "description": "With `count=exact`: how many there are on all pages."},
        },
        "required": ["data", "next"],
    });
    let page = api.component(&format!("{name}.page"), page);
    let id = parameter(
        "path",
        "id",
        &json!({"type": "string"}),
        "The document's id.",
    );
    let fields = fields(view);
    let shown = shown(&fields);
    let found = [filters(&fields), ordering(&fields), shown.clone()].concat();
    let described = [
        (
            "get",
            format!("/{name}/{{id}}"),
            "one document",
            [vec![id], shown].concat(),
            &one,
        ),
        (
            "list",
            format!("/{plural}"),
            "a page of documents",
            [found.clone(), paging(settings)].concat(),
            &page,
        ),
        (
            "first",
            format!("/{name}"),
            "the first document that fits",
            found,
            &one,
        ),
    ];
    for (word, path, summary, mut parameters, body) in described {
        parameters.extend(freshness(settings));
        let is_one = word != "list";
        if is_one {
            parameters.push(parameter(
                "header",
                "If-None-Match",
                &json!({"type": "string"}),
                "An ETag that the client has: 304 where it still holds.",
            ));
        }
        let mut responses = responses(api, body, is_one);
        if word != "first" {
            parameters.push(parameter(
                "header",
                "Last-Event-ID",
                &json!({"type": "string"}),
                "With `Accept: text/event-stream`: the id of the last event that the client has, to go on from.",
            ));
            tell_live(&mut responses);
        }
        if word == "get" && view.category().is_some() {
            parameters.extend(then());
        }
        let operation = json!({
            "tags": [name],
            "operationId": format!("{name}.{word}"),
            "summary": summary,
            "parameters": parameters,
            "responses": responses,
        });
        api.operation("get", &path, operation);
    }
    if view.category().is_some() {
        history(api, name, settings);
    }
}

/// Adds that an operation also tells what there is, and then what changes, as server-sent events.
fn tell_live(responses: &mut Map<String, Value>) {
    let events = json!({"schema": {
        "type": "string",
        "description": "Server-sent events: `state` or `page` with what there is, then `changed` and `removed`; `reset` where it begins anew, \
                        `dropped` with the `reason` why it ends.",
    }});
    if let Some(content) = responses
        .get_mut("200")
        .and_then(|ok| ok.get_mut("content"))
    {
        *content = with(content.take(), super::live::MEDIA_TYPE, events);
    }
}

/// When one document was as it is shown.
fn then() -> [Value; 2] {
    let version = json!({"type": "integer", "minimum": 1});
    let time = json!({"type": "string", "format": "date-time"});
    [
        parameter(
            "query",
            "version",
            &version,
            "As it was right after the event that made this version; read from the log.",
        ),
        parameter(
            "query",
            "at",
            &time,
            "As it was at this time, by the log's clock; read from the log. Not together with `version`.",
        ),
    ]
}

/// Adds the events of a document's stream.
fn history(api: &mut ApiDocument, name: &str, settings: &QuerySettings) {
    let event = json!({
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "type": {"type": "string"},
            "version": {"type": "integer", "minimum": 1, "description": "The document's version after it."},
            "schema_version": {"type": "integer", "minimum": 1, "description": "The version of the shape of `data`."},
            "recorded_at": {"type": "string", "format": "date-time"},
            "data": {"description": "The event, in the shape that this program writes today."},
            "metadata": {
                "type": "object",
                "properties": {
                    "correlation_id": {"type": "string"},
                    "causation_id": {"type": ["string", "null"]},
                    "actor": {"type": ["string", "null"]},
                },
                "required": ["correlation_id", "causation_id", "actor"],
            },
            "unreadable": {"const": true, "description": "This program cannot bring it to today's shape: it is as it was stored."},
        },
        "required": ["id", "type", "version", "schema_version", "recorded_at", "data", "metadata"],
    });
    let event = api.component("history.event", event);
    let page = json!({
        "type": "object",
        "properties": {
            "data": {"type": "array", "items": event},
            "next": {"type": ["string", "null"], "description": "The cursor for `after`; null on the last page."},
        },
        "required": ["data", "next"],
    });
    let page = api.component("history.page", page);
    let text = json!({"type": "string"});
    let limit = json!({
        "type": "integer",
        "minimum": 1,
        "maximum": settings.max_limit,
        "default": settings.default_limit,
    });
    let parameters = [
        parameter("path", "id", &text, "The document's id."),
        parameter(
            "query",
            "limit",
            &limit,
            "The most events; large ones come fewer at a time.",
        ),
        parameter(
            "query",
            "after",
            &text,
            "What an earlier page gave as `next`.",
        ),
    ];
    let ok = json!({
        "description": "What happened, oldest first.",
        "headers": {"X-Correlation-Id": header("The conversation.")},
        "content": {"application/json": {"schema": page}},
    });
    let mut responses = Map::from_iter([("200".to_owned(), ok)]);
    responses.extend(api.problems(&[
        ProblemKind::MalformedRequest,
        ProblemKind::UnknownParameter,
        ProblemKind::NotFound,
        ProblemKind::NotAcceptable,
        ProblemKind::RateLimited,
        ProblemKind::Internal,
        ProblemKind::Unavailable,
        ProblemKind::Overloaded,
    ]));
    let operation = json!({
        "tags": [name],
        "operationId": format!("{name}.history"),
        "summary": "the events that made the document, read from the log",
        "parameters": parameters,
        "responses": responses,
    });
    api.operation("get", &format!("/{name}/{{id}}/history"), operation);
}

/// A document as clients see it: the view's own fields, and what every document has.
fn document(api: &mut ApiDocument, view: &dyn ViewDefinition) -> Value {
    let name = format!("{}.document", view.name());
    let time = json!({"type": "string", "format": "date-time"});
    let fields = json!({
        "id": {"type": "string"},
        "created_at": time,
        "updated_at": time,
        "version": {"type": "integer", "minimum": 1},
    });
    let deleted =
        json!({"type": "boolean", "description": "With `deleted=include`: whether it is."});
    let shown = with(fields.clone(), DELETED, deleted);
    let envelope = json!({
        "type": "object",
        "properties": shown,
        "required": ["id", "created_at", "updated_at", "version"],
    });
    // The view's own fields are what `own` says; what it calls as the envelope does is not shown.
    match view.schema() {
        Value::Object(own) if closed(own) => {
            let mut own = own.clone();
            if let (Some(Value::Object(properties)), Value::Object(more)) =
                (own.get_mut("properties"), &shown)
            {
                properties.extend(more.clone());
            }
            api.schema(&name, &Value::Object(own))
        }
        Value::Object(_) => {
            let own = api.schema(&format!("{}.fields", view.name()), view.schema());
            api.component(&name, json!({"allOf": [envelope, own]}))
        }
        _ => api.component(&name, envelope),
    }
}

/// Whether a schema refuses fields that it does not name, and so has to name those of every document.
fn closed(schema: &Map<String, Value>) -> bool {
    ["additionalProperties", "unevaluatedProperties"]
        .iter()
        .any(|word| {
            schema
                .get(*word)
                .is_some_and(|more| more != &Value::Bool(true))
        })
}

/// The fields of the documents, by their dotted names.
fn fields(view: &dyn ViewDefinition) -> Vec<(String, Target)> {
    let envelope = ENVELOPE.iter();
    let envelope = envelope.map(|(name, field)| ((*name).to_owned(), Target::envelope(field)));
    let own = filterable(view.schema(), MAX_LISTED_FIELDS);
    let own = own
        .into_iter()
        .filter(|(name, _)| ENVELOPE.iter().all(|(known, _)| known != name))
        .map(|(name, shape)| {
            let field = Field::Data(name.split('.').map(str::to_owned).collect());
            (name, Target { field, shape })
        });
    envelope.chain(own).collect()
}

/// A filter for each operator that a field takes.
fn filters(fields: &[(String, Target)]) -> Vec<Value> {
    let filters = fields.iter().flat_map(|(name, target)| {
        let taken = Operator::ALL.into_iter();
        let taken = taken.filter(|operator| target.takes(*operator));
        taken.map(|operator| filter(name, target, operator))
    });
    filters.take(MAX_LISTED_FILTERS).collect()
}

fn filter(name: &str, target: &Target, operator: Operator) -> Value {
    let is_word = WORDS.contains(&name);
    let written = match operator {
        Operator::Eq if !is_word => name.to_owned(),
        operator => format!("{name}[{}]", operator.name()),
    };
    let value = match target.shape.scalar() {
        _ if target.is_time() => json!({"type": "string", "format": "date-time"}),
        Ok(scalar) => scalar.schema(),
        Err(_) => json!({}),
    };
    let text = json!({"type": "string"});
    match operator {
        Operator::Eq => parameter("query", &written, &value, "It is this."),
        Operator::Ne => parameter("query", &written, &value, "It is not this, or is missing."),
        Operator::In => listed(
            &written,
            &json!({"type": "array", "items": value, "minItems": 1, "maxItems": MAX_VALUES}),
            "It is one of these. A value with a comma in it stands in double quotes.",
        ),
        Operator::Gt => parameter("query", &written, &value, "It is greater."),
        Operator::Gte => parameter("query", &written, &value, "It is greater or equal."),
        Operator::Lt => parameter("query", &written, &value, "It is less."),
        Operator::Lte => parameter("query", &written, &value, "It is less or equal."),
        Operator::Prefix => parameter("query", &written, &text, "It begins with this."),
        Operator::Contains => match target.shape.item() {
            Some(item) => parameter("query", &written, &item.schema(), "It has this item."),
            None => parameter("query", &written, &text, "It has this text in it."),
        },
        Operator::Exists => {
            let truth = json!({"type": "boolean"});
            parameter(
                "query",
                &written,
                &truth,
                "Whether it is there, and not null.",
            )
        }
    }
}

/// A parameter whose value is a list with commas.
fn listed(name: &str, schema: &Value, description: &str) -> Value {
    let parameter = parameter("query", name, schema, description);
    with(
        with(parameter, "style", json!("form")),
        "explode",
        json!(false),
    )
}

/// How filters are joined, and in which order documents come.
fn ordering(fields: &[(String, Target)]) -> Vec<Value> {
    let sortable = fields.iter().filter(|(_, target)| target.shape.has_order());
    let names: Vec<String> = sortable
        .flat_map(|(name, _)| [name.clone(), format!("-{name}")])
        .collect();
    let by = json!({
        "type": "array",
        "items": {"type": "string", "enum": names},
        "minItems": 1,
        "maxItems": MAX_SORTS,
        "uniqueItems": true,
    });
    let joined = json!({"type": "string", "enum": ["all", "any"], "default": "all"});
    vec![
        parameter(
            "query",
            "match",
            &joined,
            "Whether all filters must hold, or one.",
        ),
        listed(
            "sort",
            &by,
            "The order; `-` before a field that descends. What is equal in all of them comes by id.",
        ),
    ]
}

/// What is shown.
fn shown(fields: &[(String, Target)]) -> Vec<Value> {
    let names = fields.iter().map(|(name, _)| name.as_str());
    let names: Vec<&str> = names.chain([DELETED]).collect();
    let chosen = json!({
        "type": "array",
        "items": {"type": "string", "examples": names},
        "minItems": 1,
        "maxItems": MAX_FIELDS,
    });
    let deleted = json!({"type": "string", "enum": ["include"]});
    vec![
        listed(
            "fields",
            &chosen,
            "Only these fields, and the id: what is not chosen is left out also where the document's schema requires it.",
        ),
        parameter(
            "query",
            DELETED,
            &deleted,
            "Deleted documents too, as they last were.",
        ),
    ]
}

fn paging(settings: &QuerySettings) -> Vec<Value> {
    let limit = json!({
        "type": "integer",
        "minimum": 1,
        "maximum": settings.max_limit,
        "default": settings.default_limit,
    });
    let cursor = json!({"type": "string"});
    let count = json!({"type": "string", "enum": ["exact"]});
    vec![
        parameter("query", "limit", &limit, "The most documents."),
        parameter(
            "query",
            "after",
            &cursor,
            "What an earlier page in the same order gave as `next`.",
        ),
        parameter(
            "query",
            "count",
            &count,
            "Says how many there are on all pages.",
        ),
    ]
}

/// How fresh a read has to be.
fn freshness(settings: &QuerySettings) -> [Value; 2] {
    let (default, max) = (settings.default_wait.as_secs(), settings.max_wait.as_secs());
    let text = json!({"type": "string"});
    [
        parameter(
            "header",
            "Consistency-Token",
            &text,
            "What a write answered: the read waits until it sees that write.",
        ),
        parameter(
            "header",
            "Prefer",
            &text,
            &format!(
                "`wait=<seconds>`: how long it waits; {default} unless said, at most {max}, 0 not at all."
            ),
        ),
    ]
}

fn responses(api: &mut ApiDocument, body: &Value, is_one: bool) -> Map<String, Value> {
    let mut headers = json!({
        "Projection-Lag": header("How many events the view is behind the log, where it is known."),
        "Preference-Applied": header("How `Prefer` was met."),
        "X-Correlation-Id": header("The conversation."),
    });
    let mut kinds = ANY_READ.to_vec();
    if is_one {
        let etag = header("\"<version>.<representation>\": for If-None-Match and If-Match.");
        headers = with(headers, "ETag", etag);
        kinds.push(ProblemKind::NotFound);
    }
    let ok = json!({
        "description": "What there is.",
        "headers": headers,
        "content": {"application/json": {"schema": body}},
    });
    let mut responses = Map::from_iter([("200".to_owned(), ok)]);
    if is_one {
        let unchanged = json!({"description": "The client has it.", "headers": headers});
        responses.insert("304".to_owned(), unchanged);
    }
    responses.extend(api.problems(&kinds));
    responses
}
