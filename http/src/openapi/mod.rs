//! The description of a service: an OpenAPI 3.1 document, and a page that shows it.

mod embed;
mod page;
mod secured;

use serde_json::{Map, Value, json};

use crate::context::{CORRELATION_ID, TRACEPARENT};
use crate::problem::{Problem, ProblemKind};

pub use page::docs_router;
pub use secured::secured;

/// The names below `/` that services need for themselves: no aggregate and no view may be called so.
pub const RESERVED_NAMES: [&str; 9] = [
    "admin",
    "docs",
    "events",
    "health",
    "metrics",
    "openapi",
    "openapi.json",
    // The stream in which the administration keeps its record is called so.
    "tidelog",
    // The WebSocket.
    "ws",
];

/// An OpenAPI 3.1 document in the making.
///
/// ```
/// use serde_json::json;
/// use tidelog_http::{ApiDocument, ProblemKind};
///
/// let mut api = ApiDocument::new("greetings", "Says hello.");
/// let greeting = api.schema("greeting", &json!({"type": "object"}));
/// let mut responses = api.problems(&[ProblemKind::NotFound]);
/// responses.insert(
///     "200".to_owned(),
///     json!({"description": "Hello.", "content": {"application/json": {"schema": greeting}}}),
/// );
/// api.operation("get", "/hello", json!({"operationId": "hello", "responses": responses}));
/// assert_eq!(api.finish()["paths"]["/hello"]["get"]["operationId"], "hello");
/// ```
#[derive(Clone, Debug)]
pub struct ApiDocument {
    info: Value,
    tags: Vec<Value>,
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
    responses: Map<String, Value>,
}

impl ApiDocument {
    /// A document called `title` of a service that does what `description` says.
    #[must_use]
    pub fn new(title: &str, description: &str) -> Self {
        Self {
            info: json!({
                "title": title,
                "description": description,
                "version": env!("CARGO_PKG_VERSION"),
            }),
            tags: Vec::new(),
            paths: Map::new(),
            schemas: Map::from_iter([("Problem".to_owned(), problem_schema())]),
            responses: Map::new(),
        }
    }

    /// Adds a group of operations.
    pub fn tag(&mut self, name: &str, description: &str) {
        self.tags
            .push(json!({"name": name, "description": description}));
    }

    /// Adds the schema `name` (letters, digits, `.`, `_` and `-`), and gives the reference to it.
    ///
    /// What `schema` refers to within itself it refers to in the document too. It replaces an earlier one of its name.
    pub fn schema(&mut self, name: &str, schema: &Value) -> Value {
        self.schemas
            .insert(name.to_owned(), embed::component(schema, name));
        json!({"$ref": embed::place(name)})
    }

    /// Adds the schema `name`, whose references lead to others of this document already, and gives the reference to it.
    pub fn component(&mut self, name: &str, schema: Value) -> Value {
        self.schemas.insert(name.to_owned(), schema);
        json!({"$ref": embed::place(name)})
    }

    /// The responses of an operation that may fail in these ways, by status. Operations share them.
    pub fn problems(&mut self, kinds: &[ProblemKind]) -> Map<String, Value> {
        let mut statuses: Vec<_> = kinds.iter().map(|kind| kind.status()).collect();
        statuses.sort_unstable();
        statuses.dedup();
        let of_status = statuses.into_iter().map(|status| {
            let kinds = kinds.iter().filter(|kind| kind.status() == status);
            let kinds: Vec<ProblemKind> = kinds.copied().collect();
            let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
            let name = names.join(".");
            let reference = json!({"$ref": format!("#/components/responses/{name}")});
            self.responses
                .entry(name)
                .or_insert_with(|| problem_response(&kinds));
            (status.as_str().to_owned(), reference)
        });
        of_status.collect()
    }

    /// Adds what `method` (lower case) does at `path`. The headers that every request may bring and every answer has are
    /// added to it.
    pub fn operation(&mut self, method: &str, path: &str, mut operation: Value) {
        if let Some(operation) = operation.as_object_mut() {
            let parameters = operation
                .entry("parameters")
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(parameters) = parameters {
                parameters.push(json!({"$ref": "#/components/parameters/correlation"}));
                parameters.push(json!({"$ref": "#/components/parameters/trace"}));
            }
        }
        let at = self
            .paths
            .entry(path)
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(methods) = at {
            methods.insert(method.to_owned(), operation);
        }
    }

    /// The document.
    #[must_use]
    pub fn finish(self) -> Value {
        json!({
            "openapi": "3.1.1",
            "info": self.info,
            // Relative to where the document is, wherever the service is mounted.
            "servers": [{"url": "."}],
            "tags": self.tags,
            "paths": self.paths,
            "components": {
                "schemas": self.schemas,
                "responses": self.responses,
                "parameters": {
                    "correlation": parameter(
                        "header",
                        CORRELATION_ID.as_str(),
                        &json!({"type": "string", "minLength": 1, "maxLength": 128}),
                        "Names the conversation; made when it is missing, and echoed in every answer.",
                    ),
                    "trace": parameter(
                        "header",
                        TRACEPARENT.as_str(),
                        &json!({"type": "string", "maxLength": 128}),
                        "The W3C trace context; left out when it is not valid.",
                    ),
                },
            },
        })
    }
}

/// `schema` as it stands under `name` among the schemas of a document: what it refers to within itself it refers to there.
#[must_use]
pub fn embedded_schema(name: &str, schema: &Value) -> Value {
    embed::component(schema, name)
}

/// A parameter that may be left out unless it is part of the path: `place` is `path`, `query` or `header`.
#[must_use]
pub fn parameter(place: &str, name: &str, schema: &Value, description: &str) -> Value {
    json!({
        "name": name,
        "in": place,
        "required": place == "path",
        "schema": schema,
        "description": description,
    })
}

/// `object` with one more keyword, or another value for one that it has. What is no object stays as it is.
#[must_use]
pub fn with(mut object: Value, keyword: &str, value: impl Into<Value>) -> Value {
    if let Value::Object(keywords) = &mut object {
        keywords.insert(keyword.to_owned(), value.into());
    }
    object
}

/// A header of an answer, which is a text.
#[must_use]
pub fn header(description: &str) -> Value {
    json!({"description": description, "schema": {"type": "string"}})
}

/// What `status` is answered with `kinds` of problem.
fn problem_response(kinds: &[ProblemKind]) -> Value {
    let types: Vec<_> = kinds.iter().map(|kind| kind.urn()).collect();
    let described: Vec<_> = kinds
        .iter()
        .map(|kind| format!("`{}`: {}", kind.name(), kind.title()))
        .collect();
    let mut headers = Map::new();
    let mut add = |name: &str, description: &str| {
        headers.insert(name.to_owned(), header(description));
    };
    add(CORRELATION_ID.as_str(), "The conversation.");
    if kinds
        .iter()
        .all(|kind| matches!(kind.status().as_u16(), 429 | 503))
    {
        add("Retry-After", "After how many seconds to ask again.");
    }
    json!({
        "description": format!("{}.", described.join("; ")),
        "headers": headers,
        "content": {Problem::MEDIA_TYPE: {"schema": {
            "$ref": embed::place("Problem"),
            "properties": {"type": {"enum": types}},
        }}},
    })
}

/// The schema of every problem document.
fn problem_schema() -> Value {
    json!({
        "type": "object",
        "description": "A problem document (RFC 9457). Programs go by `type`, people by `detail`.",
        "properties": {
            "type": {"type": "string", "format": "uri", "description": "urn:tidelog:problem:<name>"},
            "title": {"type": "string", "description": "The kind of problem, in words."},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "What happened, to which thing, and what to do."},
            "instance": {"type": "string", "format": "uri", "description": "This one problem."},
            "errors": {
                "type": "array",
                "description": "With `invalid`: each field that is wrong.",
                "items": {
                    "type": "object",
                    "properties": {
                        "field": {"type": "string", "description": "A JSON Pointer; empty for the body itself."},
                        "message": {"type": "string"},
                    },
                    "required": ["field", "message"],
                },
            },
            "code": {"type": "string", "description": "With `rejected`: the domain's own code."},
            "parameter": {"type": "string", "description": "With a problem of a parameter: which."},
        },
        "required": ["type", "title", "status", "detail", "instance"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_of_one_status_are_one_response_that_operations_share() {
        let mut api = ApiDocument::new("a", "b");
        let kinds = [
            ProblemKind::Unavailable,
            ProblemKind::NotFound,
            ProblemKind::Overloaded,
        ];
        let responses = api.problems(&kinds);
        assert_eq!(responses, api.problems(&kinds));
        let statuses: Vec<_> = responses.keys().collect();
        assert_eq!(statuses, ["404", "503"]);
        let document = api.finish();
        let at = |reference: &Value| {
            let pointer = reference["$ref"]
                .as_str()
                .unwrap()
                .strip_prefix('#')
                .unwrap();
            document.pointer(pointer).unwrap().clone()
        };
        let unavailable = at(&responses["503"]);
        assert!(unavailable["headers"]["Retry-After"].is_object());
        let schema = &unavailable["content"]["application/problem+json"]["schema"];
        assert_eq!(
            schema["properties"]["type"]["enum"],
            json!([
                "urn:tidelog:problem:unavailable",
                "urn:tidelog:problem:overloaded"
            ])
        );
        assert_eq!(at(schema)["type"], "object");
        assert!(
            at(&responses["404"])["headers"]
                .get("Retry-After")
                .is_none()
        );
    }

    #[test]
    fn operations_of_one_path_stand_together() {
        let mut api = ApiDocument::new("a", "b");
        for method in ["patch", "delete"] {
            api.operation(method, "/post/{id}", json!({"responses": {}}));
        }
        let document = api.finish();
        let methods: Vec<_> = document["paths"]["/post/{id}"]
            .as_object()
            .unwrap()
            .keys()
            .collect();
        assert_eq!(methods, ["patch", "delete"]);
    }
}
