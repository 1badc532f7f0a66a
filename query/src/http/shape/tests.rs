//! What a schema says of its fields.

use super::*;

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "title": {"type": "string", "maxLength": 200},
            "likes": {"type": "integer"},
            "rating": {"type": ["number", "null"]},
            "published": {"type": "boolean"},
            "subtitle": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "status": {"enum": ["draft", "public"]},
            "level": {"const": 3},
            "address": {"$ref": "#/$defs/Address"},
            "owner": {"anyOf": [{"$ref": "#/$defs/Owner"}, {"type": "null"}]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "tag_or_tags": {"type": ["string", "array"]},
            "code": {"type": ["string", "integer"]},
            "anything": {},
            "whatever": true,
            "elsewhere": {"$ref": "https://example.com/x"},
            "loop": {"$ref": "#/properties/loop"},
            "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
            "open": {"type": "object", "additionalProperties": true},
            "bounded": {"allOf": [{"type": "integer"}, {"minimum": 3}]}
        },
        "$defs": {
            "Address": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "zip": {"$ref": "#/$defs/Zip"}}
            },
            "Zip": {"type": "integer"},
            "Owner": {"properties": {"name": {"type": "string"}}}
        }
    })
}

fn of(path: &str) -> Result<Scalar, NoScalar> {
    Shape::of(&schema(), &path.split('.').collect::<Vec<_>>())?.scalar()
}

fn value(path: &str, text: &str) -> Result<Value, String> {
    of(path).unwrap().value(text)
}

#[test]
fn a_value_is_typed_by_its_field() {
    for (path, text, expected) in [
        ("title", "5", json!("5")),
        ("title", "null", json!("null")),
        ("title", "", json!("")),
        ("likes", "5", json!(5)),
        ("likes", "-5", json!(-5)),
        ("likes", "5.0", json!(5.0)),
        ("rating", "4.5", json!(4.5)),
        ("rating", "null", Value::Null),
        ("published", "true", json!(true)),
        ("published", "false", json!(false)),
        ("subtitle", "x", json!("x")),
        ("status", "draft", json!("draft")),
        ("level", "3", json!(3)),
        ("address.city", "Köln", json!("Köln")),
        ("address.zip", "50667", json!(50667)),
        ("owner.name", "ann", json!("ann")),
        ("tag_or_tags", "a", json!("a")),
        ("counts.2024-01", "7", json!(7)),
        ("bounded", "4", json!(4)),
    ] {
        assert_eq!(value(path, text), Ok(expected), "{path}={text}");
    }
}

#[test]
fn the_fields_that_can_be_filtered_by_are_listed_with_what_they_hold() {
    let listed = filterable(&schema(), 200);
    let names: Vec<_> = listed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "title",
            "likes",
            "rating",
            "published",
            "subtitle",
            "status",
            "level",
            "address",
            "tags",
            "tag_or_tags",
            "code",
            "counts",
            "open",
            "bounded",
            "address.city",
            "address.zip",
            "owner.name",
        ]
    );
    let schema_of = |n: usize| listed[n].1.scalar().unwrap().schema();
    assert_eq!(schema_of(2), json!({"type": ["null", "number"]}));
    assert_eq!(schema_of(0), json!({"type": "string"}));
    assert_eq!(filterable(&schema(), 3).len(), 3);
}

#[test]
fn a_list_says_what_its_items_are_and_has_no_order() {
    let of = |path| Shape::of(&schema(), &[path]).unwrap();
    for path in ["tags", "tag_or_tags"] {
        let item = of(path).item();
        // A list whose items the schema does not type has none that a client could name.
        assert_eq!(item.is_some(), path == "tags", "{path}");
        assert!(!of(path).has_order(), "{path}");
    }
    assert!(of("title").has_order() && of("rating").has_order());
    assert!(!of("address").has_order() && of("title").item().is_none());
}

#[test]
fn a_bound_is_a_number_or_a_text() {
    let bound = |path, text| of(path).unwrap().bound(text);
    assert_eq!(bound("rating", "4"), Ok(json!(4)));
    assert_eq!(bound("title", "4"), Ok(json!("4")));
    assert_eq!(bound("rating", "null"), Err("a number".to_owned()));
    assert_eq!(bound("likes", "true"), Err("a whole number".to_owned()));
}

#[test]
fn a_value_of_another_type_is_refused_with_what_would_be_right() {
    for (path, text, wanted) in [
        ("likes", "x", "a whole number"),
        ("likes", "5.5", "a whole number"),
        ("likes", "", "a whole number"),
        ("likes", " 5", "a whole number"),
        ("likes", "null", "a whole number"),
        ("rating", "NaN", "a number, or null"),
        ("rating", "1e999", "a number, or null"),
        ("published", "False", "true or false"),
        ("published", "1", "true or false"),
    ] {
        assert_eq!(value(path, text), Err(wanted.to_owned()), "{path}={text}");
    }
}

#[test]
fn a_field_that_the_schema_does_not_type_is_no_filter() {
    for (path, why) in [
        ("nothing", NoScalar::Unknown),
        ("address.street", NoScalar::Unknown),
        ("title.x", NoScalar::Unknown),
        ("", NoScalar::Unknown),
        ("__proto__", NoScalar::Unknown),
        ("counts.$where", NoScalar::FreeForm),
        ("counts.a\0b", NoScalar::FreeForm),
        ("anything", NoScalar::FreeForm),
        ("anything.x", NoScalar::FreeForm),
        ("whatever", NoScalar::FreeForm),
        ("elsewhere", NoScalar::FreeForm),
        ("loop", NoScalar::FreeForm),
        ("open.x", NoScalar::FreeForm),
        ("tags", NoScalar::Composite),
        ("address", NoScalar::Composite),
        ("code", NoScalar::Ambiguous),
    ] {
        assert_eq!(of(path), Err(why), "{path:?}");
    }
    assert_eq!(Shape::of(&json!(true), &["x"]), Err(NoScalar::FreeForm));
}
