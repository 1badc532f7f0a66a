//! What a JSON Schema means, apart from what it says to people.

use serde_json::Value;

/// The schema without what is only for people, its keywords sorted: it changes only when the schema changes its meaning.
pub(crate) fn meaning(schema: &Value) -> Value {
    let Value::Object(keywords) = schema else {
        return schema.clone();
    };
    let mut kept: Vec<(String, Value)> = keywords
        .iter()
        .filter(|(keyword, _)| !is_remark(keyword))
        .map(|(keyword, value)| (keyword.clone(), meaning_of_value(keyword, value)))
        .collect();
    kept.sort_by(|a, b| a.0.cmp(&b.0));
    Value::Object(kept.into_iter().collect())
}

/// The value of a keyword, where schemas are in it without what is only for people.
fn meaning_of_value(keyword: &str, value: &Value) -> Value {
    match (keyword, value) {
        ("enum" | "const" | "required" | "type" | "dependentRequired", _) => value.clone(),
        (
            "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas",
            Value::Object(schemas),
        ) => {
            let mut schemas: Vec<_> = schemas
                .iter()
                .map(|(name, schema)| (name.clone(), meaning(schema)))
                .collect();
            schemas.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(schemas.into_iter().collect())
        }
        (_, Value::Array(schemas)) => schemas.iter().map(meaning).collect(),
        (_, schema) => meaning(schema),
    }
}

/// Whether a keyword changes nothing of what is stored: what only people read, by what is searched, and what a field is that a body leaves out. (The
/// default of a Rust type may be another one each time that it is asked for, as the time is.)
fn is_remark(keyword: &str) -> bool {
    matches!(
        keyword,
        "title"
            | "description"
            | "examples"
            | "$comment"
            | "deprecated"
            | "default"
            | "x-tidelog-indexes"
            | "x-tidelog-roles"
    )
}
