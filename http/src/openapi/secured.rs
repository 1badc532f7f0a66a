//! Who may do what, in the description of a service.

use serde_json::{Map, Value, json};

use super::problem_response;
use crate::problem::ProblemKind;
use crate::roles::{Operation, Rules};

/// What the way to sign in is called in a document.
const SCHEME: &str = "token";

/// `document` with how a caller signs in, the answers 401 and 403, and the roles that `rules` ask for. `of` says what an operation is, by its
/// first tag and its id.
#[must_use]
pub fn secured<'a>(
    document: Value,
    rules: &Rules,
    of: impl for<'d> Fn(&'d str, &'d str) -> Operation<'d> + 'a,
) -> Value {
    let mut document = document;
    let components = document.pointer_mut("/components");
    if let Some(Value::Object(components)) = components {
        let scheme = json!({
            "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "A token of the issuer that the operator trusts, for this service.",
        });
        components.insert("securitySchemes".to_owned(), json!({SCHEME: scheme}));
        if let Some(Value::Object(responses)) = components.get_mut("responses") {
            for kind in [ProblemKind::Unauthenticated, ProblemKind::Forbidden] {
                responses.insert(kind.name().to_owned(), problem_response(&[kind]));
            }
        }
    }
    let paths = document
        .pointer_mut("/paths")
        .and_then(Value::as_object_mut);
    let methods = paths.into_iter().flat_map(Map::values_mut);
    for operation in methods
        .filter_map(Value::as_object_mut)
        .flat_map(Map::values_mut)
    {
        secure(operation, rules, &of);
    }
    if let Value::Object(document) = &mut document {
        document.insert("security".to_owned(), json!([{SCHEME: []}]));
    }
    document
}

/// Adds to one operation what it needs.
fn secure(
    operation: &mut Value,
    rules: &Rules,
    of: impl for<'d> Fn(&'d str, &'d str) -> Operation<'d>,
) {
    let tag = operation.pointer("/tags/0").and_then(Value::as_str);
    let id = operation.get("operationId").and_then(Value::as_str);
    let (Some(tag), Some(id)) = (tag, id) else {
        return;
    };
    let needed = rules.needed(&of(tag, id));
    let (sentence, roles) = match &needed {
        Some(roles) if roles.is_empty() => (None, None),
        Some(roles) => (
            Some(format!("Needs one of the roles {}.", roles.join(", "))),
            Some(json!(roles)),
        ),
        None => (
            Some("For nobody, until a rule says for whom.".to_owned()),
            None,
        ),
    };
    let Value::Object(operation) = operation else {
        return;
    };
    if let Some(sentence) = sentence {
        let before = operation.get("description").and_then(Value::as_str);
        let text = before.map_or(sentence.clone(), |before| format!("{before}\n\n{sentence}"));
        operation.insert("description".to_owned(), text.into());
    }
    operation.extend(roles.map(|roles| ("x-tidelog-roles".to_owned(), roles)));
    if let Some(Value::Object(responses)) = operation.get_mut("responses") {
        for kind in [ProblemKind::Unauthenticated, ProblemKind::Forbidden] {
            let reference = json!({"$ref": format!("#/components/responses/{}", kind.name())});
            responses.entry(kind.status().as_str()).or_insert(reference);
        }
    }
}
