//! Which JSON Schemas are entities, and what is said of those that are not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

use serde_json::{Value, json};
use tidelog_domain::testing::{create, given_entity_of};
use tidelog_domain::{EntitySchema, EntityView, InvalidSchema, ViewDefinition};

/// The entity `thing` of this schema.
fn thing(schema: Value) -> EntitySchema {
    EntitySchema::from_value("thing", schema).unwrap()
}

/// Why `thing` cannot have this schema.
fn invalid(schema: Value) -> InvalidSchema {
    EntitySchema::from_value("thing", schema).unwrap_err()
}

/// Expects an error whose message has `words` in it.
#[track_caller]
fn says(error: &InvalidSchema, words: &str) {
    let message = error.to_string();
    assert!(message.contains(words), "{words:?} is not in {message:?}");
}

#[test]
fn a_name_that_is_no_category_is_refused() {
    for name in ["", "Post", "1post", "po st", "post.x", &"x".repeat(65)] {
        let schema = json!({"type": "object"});
        let error = EntitySchema::from_value(name, schema).unwrap_err();
        assert!(matches!(error, InvalidSchema::Name { .. }), "{error:?}");
        says(&error, "use a lower-case letter");
    }
}

#[test]
fn a_text_that_is_not_json_is_refused() {
    let error = EntitySchema::parse("thing", "{").unwrap_err();
    assert!(matches!(error, InvalidSchema::NotJson(_)), "{error:?}");
}

#[test]
fn a_schema_of_anything_but_objects_is_refused() {
    for schema in [
        json!(true),
        json!({}),
        json!({"type": "string"}),
        json!({"type": ["array", "null"]}),
        json!({"$ref": "#/$defs/text", "$defs": {"text": {"type": "string"}}}),
        json!({"type": "array", "items": {"type": "object", "properties": {"a": true}}}),
    ] {
        let error = invalid(schema.clone());
        assert!(
            matches!(error, InvalidSchema::NotAnObject),
            "{schema}: {error:?}"
        );
        says(&error, "write \"type\": \"object\"");
    }
}

#[test]
fn only_draft_2020_12_is_taken() {
    for dialect in [
        json!("http://json-schema.org/draft-07/schema#"),
        json!("https://json-schema.org/draft/2019-09/schema"),
        json!("https://example.com/mine"),
        json!(7),
    ] {
        let error = invalid(json!({"$schema": dialect, "type": "object"}));
        assert!(matches!(error, InvalidSchema::Dialect { .. }), "{error:?}");
        says(&error, "https://json-schema.org/draft/2020-12/schema");
        says(&error, &dialect.to_string());
    }
    thing(json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"}));
    thing(json!({"$schema": "https://json-schema.org/draft/2020-12/schema#", "type": "object"}));
}

#[test]
fn a_field_that_the_server_sets_is_refused_wherever_it_is_declared() {
    for (field, schema) in [
        ("id", json!({"type": "object", "properties": {"id": true}})),
        (
            "version",
            json!({"type": "object", "required": ["version"]}),
        ),
        (
            "created_at",
            json!({"type": "object", "allOf": [{"properties": {"created_at": true}}]}),
        ),
        (
            "updated_at",
            json!({"$ref": "#/$defs/it", "$defs": {"it": {"properties": {"updated_at": true}}}}),
        ),
        (
            "deleted",
            json!({"type": "object", "if": true, "then": {"required": ["deleted"]}}),
        ),
    ] {
        let error = invalid(schema);
        assert!(
            matches!(error, InvalidSchema::ServerSet { .. }),
            "{error:?}"
        );
        says(&error, &format!("{field:?} is set by the server"));
    }
    // Within the entity the names are free.
    let inner = json!({"type": "object", "properties": {"id": {"type": "string"}}});
    let schema = thing(json!({"type": "object", "properties": {"inner": inner}}));
    let body = json!({"inner": {"id": "x"}});
    given_entity_of(&schema, [])
        .when(create(body.clone()))
        .then_state(body);
}

#[test]
fn a_field_whose_name_cannot_be_stored_is_refused() {
    for name in ["", "$set", "a.b", "a\0b"] {
        let top = json!({"type": "object", "properties": {name: true}});
        let inner = json!({"type": "object", "properties": {"list": {"items": top}}});
        for schema in [top, inner] {
            let error = invalid(schema);
            assert!(
                matches!(error, InvalidSchema::FieldName { .. }),
                "{error:?}"
            );
            says(&error, &format!("{name:?}"));
        }
    }
}

#[test]
fn a_schema_that_breaks_the_rules_of_its_draft_is_refused() {
    let malformed = json!({"type": "object", "properties": {"a": {"type": "text"}}});
    let error = invalid(malformed);
    assert!(
        matches!(error, InvalidSchema::Malformed { .. }),
        "{error:?}"
    );
    says(&error, "/properties/a/type");
    let pattern = json!({"type": "object", "properties": {"a": {"pattern": "("}}});
    let error = invalid(pattern);
    assert!(
        matches!(error, InvalidSchema::Malformed { .. }),
        "{error:?}"
    );
}

#[test]
fn nothing_is_fetched() {
    for (schema, uri) in [
        (
            json!({"type": "object", "properties": {"a": {"$ref": "https://example.com/a.json"}}}),
            "https://example.com/a.json",
        ),
        (
            json!({"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}),
            "file:///etc/passwd",
        ),
        (
            json!({"type": "object", "properties": {"a": {"$ref": "a.json"}}}),
            "a.json",
        ),
        (
            json!({"$id": "https://example.com/thing", "type": "object", "allOf": [{"$ref": "a"}]}),
            "https://example.com/a",
        ),
    ] {
        let error = invalid(schema);
        assert!(
            matches!(error, InvalidSchema::RemoteReference { .. }),
            "{error:?}"
        );
        says(&error, uri);
        says(&error, "nothing is fetched");
    }
}

#[test]
fn a_reference_to_nowhere_is_refused() {
    let error = invalid(json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}}));
    assert!(
        matches!(error, InvalidSchema::BrokenReference { .. }),
        "{error:?}"
    );
    says(&error, "/$defs/a");
}

#[test]
fn a_default_fits_its_field() {
    let with = |default: Value| {
        let field = json!({"type": "string", "maxLength": 3, "default": default});
        json!({"type": "object", "properties": {"a": field}, "required": ["a", "b"]})
    };
    thing(with(json!("abc")));
    for default in [json!("abcd"), json!(1)] {
        let error = invalid(with(default));
        assert!(matches!(error, InvalidSchema::Default { .. }), "{error:?}");
        says(&error, "\"a\"");
    }
}

#[test]
fn the_list_is_the_name_and_an_s_unless_the_schema_says_otherwise() {
    assert_eq!(thing(json!({"type": "object"})).plural(), "things");
    let named = |plural: Value| json!({"type": "object", "x-tidelog-plural": plural});
    assert_eq!(thing(named(json!("all-things"))).plural(), "all-things");
    for plural in [json!("thing"), json!("Things"), json!(""), json!(1)] {
        let error = invalid(named(plural));
        assert!(matches!(error, InvalidSchema::Plural { .. }), "{error:?}");
    }
    let view = || EntityView::new(thing(json!({"type": "object"})));
    assert_eq!(view().with_plural("stuff").unwrap().plural(), "stuff");
    assert!(view().with_plural("thing").is_err());
}

#[test]
fn a_schema_of_too_many_places_is_refused_in_time() {
    // After each `a` or `b` the schema knows which of the last 14 were an `a`: in 2^14 combinations.
    let state = |n: usize| json!({"$ref": format!("#/$defs/{n}")});
    let mut states = serde_json::Map::new();
    let first = json!({"properties": {"a": {"anyOf": [state(0), state(1)]}, "b": state(0)}});
    states.insert("0".to_owned(), first);
    for n in 1..15 {
        let next = json!({"properties": {"a": state(n + 1), "b": state(n + 1)}});
        states.insert(n.to_string(), next);
    }
    states.insert("15".to_owned(), json!({"type": "object"}));
    let error = invalid(json!({"type": "object", "allOf": [state(0)], "$defs": states}));
    assert!(matches!(error, InvalidSchema::TooLarge), "{error:?}");
}
