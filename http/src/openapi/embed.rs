//! Puts a JSON Schema into a document of which it becomes a part: its references then lead to where it is.

use serde_json::{Map, Value};

/// Keywords whose values are data: what looks like a reference there is none.
const DATA: [&str; 7] = [
    "const",
    "default",
    "dependentRequired",
    "enum",
    "examples",
    "required",
    "type",
];

/// Keywords whose values are schemas by name.
const NAMED: [&str; 5] = [
    "$defs",
    "definitions",
    "dependentSchemas",
    "patternProperties",
    "properties",
];

/// Where the component `name` is.
pub(super) fn place(name: &str) -> String {
    format!("#/components/schemas/{name}")
}

/// `schema` as the component `name`.
///
/// Its address (`$id`) is dropped, as the document's counts, and so are anchors, because two components could use the
/// same. A part with an address of its own stays as it is: it is a document within the document.
pub(super) fn component(schema: &Value, name: &str) -> Value {
    let moved = Moved {
        root: schema,
        id: schema.get("$id").and_then(Value::as_str),
        place: place(name),
    };
    moved.schema(schema, true)
}

/// A schema that is on its way to its place.
struct Moved<'s> {
    root: &'s Value,
    id: Option<&'s str>,
    place: String,
}

impl Moved<'_> {
    fn schema(&self, schema: &Value, is_root: bool) -> Value {
        let Value::Object(keywords) = schema else {
            return schema.clone();
        };
        if !is_root && keywords.contains_key("$id") {
            return schema.clone();
        }
        let mut moved = Map::new();
        for (keyword, value) in keywords {
            let (keyword, value) = match (keyword.as_str(), value) {
                ("$schema" | "$id" | "$anchor" | "$dynamicAnchor", Value::String(_)) => continue,
                ("$ref" | "$dynamicRef", Value::String(reference)) => {
                    ("$ref", self.reference(reference).into())
                }
                (word, value) => (word, self.value_of(word, value)),
            };
            moved.insert(keyword.to_owned(), value);
        }
        Value::Object(moved)
    }

    fn value_of(&self, keyword: &str, value: &Value) -> Value {
        match value {
            _ if DATA.contains(&keyword) => value.clone(),
            Value::Object(schemas) if NAMED.contains(&keyword) => schemas
                .iter()
                .map(|(name, schema)| (name.clone(), self.schema(schema, false)))
                .collect(),
            Value::Array(schemas) => schemas
                .iter()
                .map(|schema| self.schema(schema, false))
                .collect(),
            schema => self.schema(schema, false),
        }
    }

    /// Where `reference` leads now. One that leads out of the schema stays.
    fn reference(&self, reference: &str) -> String {
        let own = self.id.map(|id| id.trim_end_matches('#'));
        let own = own.filter(|id| !id.is_empty());
        let local = own.and_then(|id| reference.strip_prefix(id));
        let local = match local.unwrap_or(reference) {
            "" => Some(""),
            text => text.strip_prefix('#'),
        };
        let pointer = match local {
            None => return reference.to_owned(),
            Some(pointer) if pointer.is_empty() || pointer.starts_with('/') => {
                Some(pointer.to_owned())
            }
            Some(anchor) => anchored(self.root, anchor),
        };
        pointer.map_or_else(
            || reference.to_owned(),
            |pointer| format!("{}{pointer}", self.place),
        )
    }
}

/// The pointer to the part of `schema` that is called `anchor`.
fn anchored(schema: &Value, anchor: &str) -> Option<String> {
    let below = |step: &str, inner: &Value| {
        let step = step.replace('~', "~0").replace('/', "~1");
        anchored(inner, anchor).map(|pointer| format!("/{step}{pointer}"))
    };
    match schema {
        Value::Object(keywords) => {
            let named = ["$anchor", "$dynamicAnchor"]
                .iter()
                .any(|word| keywords.get(*word).and_then(Value::as_str) == Some(anchor));
            if named {
                return Some(String::new());
            }
            keywords.iter().find_map(|(word, inner)| below(word, inner))
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, inner)| below(&index.to_string(), inner)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_lead_to_where_the_schema_is() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": "https://example.org/post",
            "properties": {
                "a": {"$ref": "#/$defs/A"},
                "self": {"$ref": "#"},
                "full": {"$ref": "https://example.org/post#/$defs/A"},
                "named": {"$ref": "#a"},
                "elsewhere": {"$ref": "https://example.org/other"},
                "$ref": {"const": {"$ref": "#/$defs/A"}},
            },
            "anyOf": [{"$ref": "#/$defs/A"}, true],
            "$defs": {"A": {"$anchor": "a", "type": "string"}},
        });
        let place = "#/components/schemas/post";
        assert_eq!(
            component(&schema, "post"),
            json!({
                "properties": {
                    "a": {"$ref": format!("{place}/$defs/A")},
                    "self": {"$ref": place},
                    "full": {"$ref": format!("{place}/$defs/A")},
                    "named": {"$ref": format!("{place}/$defs/A")},
                    "elsewhere": {"$ref": "https://example.org/other"},
                    "$ref": {"const": {"$ref": "#/$defs/A"}},
                },
                "anyOf": [{"$ref": format!("{place}/$defs/A")}, true],
                "$defs": {"A": {"type": "string"}},
            })
        );
    }

    #[test]
    fn a_part_with_an_address_of_its_own_stays_as_it_is() {
        let schema = json!({"$defs": {"x": {"$id": "x", "items": {"$ref": "#/$defs/y"}}}});
        assert_eq!(component(&schema, "post"), schema);
    }
}
