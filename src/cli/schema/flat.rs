//! Schemas without documents in them: many tools know no address but that of the file.

use serde_json::Value;

/// `schema`, which is at `place` in its document. What has an address (`$id`) of its own in it loses that, and what leads there or from there leads
/// to where it is.
pub(super) fn flattened(mut schema: Value, place: &str) -> Value {
    flatten(&mut schema, place, None);
    schema
}

/// What is around a schema that has an address.
#[derive(Clone, Copy)]
struct Around<'a> {
    id: &'a str,
    place: &'a str,
}

fn flatten(schema: &mut Value, place: &str, around: Option<Around<'_>>) {
    match schema {
        Value::Object(keywords) => {
            let id = keywords.get("$id").and_then(Value::as_str);
            let id = id.map(|id| id.trim_end_matches('#').to_owned());
            if id.is_some() {
                keywords.shift_remove("$id");
                keywords.shift_remove("$schema");
            }
            let around = id.as_deref().map(|id| Around { id, place }).or(around);
            for (keyword, value) in keywords {
                match (value.as_str().filter(|_| keyword == "$ref"), around) {
                    (Some(to), Some(around)) => {
                        let fragment = to.strip_prefix(around.id).unwrap_or(to);
                        if fragment.is_empty() || fragment.starts_with('#') {
                            let pointer = fragment.trim_start_matches('#');
                            *value = Value::from(format!("{}{pointer}", around.place));
                        }
                    }
                    (Some(_), None) => {}
                    (None, _) => flatten(value, &format!("{place}/{}", token(keyword)), around),
                }
            }
        }
        Value::Array(schemas) => {
            for (index, one) in schemas.iter_mut().enumerate() {
                flatten(one, &format!("{place}/{index}"), around);
            }
        }
        _ => {}
    }
}

/// Says of lists in `schema` what draft 7 has words for, which is what AsyncAPI reads: there a later draft's `items` would count for all of them.
pub(super) fn in_draft_7(schema: &mut Value) {
    match schema {
        Value::Object(keywords) => {
            if keywords.get("prefixItems").is_some_and(Value::is_array) {
                let rest = keywords.shift_remove("items");
                let first = keywords.shift_remove("prefixItems");
                keywords.extend(first.map(|first| ("items".to_owned(), first)));
                keywords.extend(rest.map(|rest| ("additionalItems".to_owned(), rest)));
            }
            keywords.values_mut().for_each(in_draft_7);
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(in_draft_7),
        _ => {}
    }
}

/// A key as a part of a JSON Pointer in a URL's fragment.
fn token(key: &str) -> String {
    let escaped = key.replace('~', "~0").replace('/', "~1");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~$".contains(&byte);
    escaped
        .bytes()
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_items_of_a_list_are_said_as_draft_7_says_them() {
        let mut schema =
            json!({"properties": {"a": {"prefixItems": [{"type": "string"}], "items": false}}});
        in_draft_7(&mut schema);
        let expected =
            json!({"properties": {"a": {"items": [{"type": "string"}], "additionalItems": false}}});
        assert_eq!(schema, expected);
    }

    #[test]
    fn references_in_a_part_with_an_address_lead_to_where_the_part_is() {
        let schema = json!({"properties": {
            "a b": {
                "$id": "urn:x",
                "$schema": "s",
                "$defs": {"t": {"type": "string"}},
                "items": [{"$ref": "#/$defs/t"}, {"$ref": "urn:x"}, {"$ref": "urn:x#/$defs/t"}, {"$ref": "other#/a"}],
            },
            "out": {"$ref": "#/components/schemas/e/$defs/u"},
        }});
        let place = "#/components/schemas/e";
        let inner = format!("{place}/properties/a%20b");
        let expected = json!({"properties": {
            "a b": {
                "$defs": {"t": {"type": "string"}},
                "items": [
                    {"$ref": format!("{inner}/$defs/t")}, {"$ref": inner}, {"$ref": format!("{inner}/$defs/t")}, {"$ref": "other#/a"},
                ],
            },
            "out": {"$ref": "#/components/schemas/e/$defs/u"},
        }});
        assert_eq!(flattened(schema, place), expected);
    }
}
