//! The query service as an OpenAPI document.

use serde_json::{Map, Value, json};
use tidelog_domain::ViewDefinition;
use tidelog_http::{ApiDocument, ProblemKind, header, parameter, with};

use super::QuerySettings;
use super::filters::WORDS;
use super::shape::filterable;
use crate::catalog::Catalog;

/// The most fields of a view that are listed as filters.
const MAX_FILTERS: usize = 200;

/// What may go wrong with any read.
const ANY_READ: [ProblemKind; 6] = [
    ProblemKind::MalformedRequest,
    ProblemKind::UnknownParameter,
    ProblemKind::NotAcceptable,
    ProblemKind::Internal,
    ProblemKind::Unavailable,
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
    let filters = filters(view);
    let described = [
        (
            "get",
            format!("/{name}/{{id}}"),
            "one document",
            vec![id],
            &one,
        ),
        (
            "list",
            format!("/{plural}"),
            "a page of documents",
            [filters.clone(), paging(settings)].concat(),
            &page,
        ),
        (
            "first",
            format!("/{name}"),
            "the first document that fits",
            filters,
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
        let operation = json!({
            "tags": [name],
            "operationId": format!("{name}.{word}"),
            "summary": summary,
            "parameters": parameters,
            "responses": responses(api, body, is_one),
        });
        api.operation("get", &path, operation);
    }
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
    let envelope = json!({
        "type": "object",
        "properties": fields,
        "required": ["id", "created_at", "updated_at", "version"],
    });
    // The view's own fields are what `own` says; what it calls as the envelope does is not shown.
    match view.schema() {
        Value::Object(own) if closed(own) => {
            let mut own = own.clone();
            if let (Some(Value::Object(properties)), Value::Object(more)) =
                (own.get_mut("properties"), &fields)
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

/// The fields by which can be filtered.
fn filters(view: &dyn ViewDefinition) -> Vec<Value> {
    let text = json!({"type": "string"});
    let time = json!({"type": "string", "format": "date-time"});
    let envelope = [
        ("id".to_owned(), text),
        ("version".to_owned(), json!({"type": "integer"})),
        ("created_at".to_owned(), time.clone()),
        ("updated_at".to_owned(), time),
    ];
    let own = filterable(view.schema(), MAX_FILTERS);
    let own = own
        .into_iter()
        .map(|(name, scalar)| (name, scalar.schema()))
        .filter(|(name, _)| envelope.iter().all(|(known, _)| known != name))
        .collect::<Vec<_>>();
    envelope
        .iter()
        .cloned()
        .chain(own)
        .map(|(name, schema)| {
            let is_word = WORDS.contains(&name.as_str());
            let written = if is_word { format!("{name}[eq]") } else { name };
            parameter(
                "query",
                &written,
                &schema,
                "Only documents with this value.",
            )
        })
        .collect()
}

fn paging(settings: &QuerySettings) -> Vec<Value> {
    let limit = json!({
        "type": "integer",
        "minimum": 1,
        "maximum": settings.max_limit,
        "default": settings.default_limit,
    });
    let cursor = json!({"type": "string"});
    vec![
        parameter("query", "limit", &limit, "The most documents."),
        parameter(
            "query",
            "after",
            &cursor,
            "What an earlier page gave as `next`.",
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
