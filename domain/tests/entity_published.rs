//! What others are told of an entity: the schemas of its commands and its view, the view's fingerprint.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

use serde_json::{Value, json};
use tidelog_domain::{
    CommandSpec, Decider, Endpoint, EntityDecider, EntitySchema, EntityView, Lifecycle,
    ViewDefinition,
};

/// The entity `thing` of this schema.
fn thing(schema: Value) -> EntitySchema {
    EntitySchema::from_value("thing", schema).unwrap()
}

#[test]
fn the_commands_are_published_with_their_schemas() {
    let schema = thing(json!({
        "title": "Thing",
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "kind": {"enum": ["a", "b"], "default": "a"},
            "at": {"$ref": "#/$defs/place"},
        },
        "required": ["name"],
        "$defs": {"place": {
            "type": "object",
            "properties": {"x": {"type": "number"}},
            "required": ["x"],
        }},
    }));
    let decider = EntityDecider::new(schema.clone());
    let [create, patch, delete] = decider.commands() else {
        panic!("{:?}", decider.commands());
    };
    let served = |spec: &CommandSpec| (spec.endpoint, spec.lifecycle);
    assert_eq!(served(create), (Endpoint::Post, Lifecycle::Missing));
    assert_eq!(served(patch), (Endpoint::Patch, Lifecycle::Live));
    assert_eq!(served(delete), (Endpoint::Delete, Lifecycle::Live));

    let mut written = schema.schema().clone();
    written["unevaluatedProperties"] = json!(false);
    assert_eq!(create.schema, written);
    assert_eq!(
        patch.schema,
        json!({
            "title": "Thing",
            "type": "object",
            "properties": {
                "name": {"type": ["string", "null"], "minLength": 1},
                "kind": {"enum": ["a", "b", null]},
                "at": {
                    "type": ["object", "null"],
                    "properties": {"x": {"type": ["number", "null"]}},
                    "additionalProperties": false,
                },
            },
            "additionalProperties": false,
        })
    );
}

#[test]
fn the_view_is_published_with_plain_types_and_the_fields_of_the_server() {
    let schema = thing(json!({
        "title": "Thing",
        "allOf": [{"$ref": "#/$defs/base"}],
        "properties": {
            "at": {"anyOf": [{"$ref": "#/$defs/place"}, {"type": "null"}]},
            "days": {"type": "array", "items": {"type": "string", "format": "date"}},
        },
        "$defs": {
            "base": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
            "place": {"type": "object", "properties": {"x": {"type": "number", "default": 1}}},
        },
    }));
    let view = EntityView::new(schema);
    assert_eq!((view.name(), view.plural()), ("thing", "things"));
    assert_eq!(
        *view.schema(),
        json!({
            "title": "Thing",
            "type": "object",
            "properties": {
                "id": {"type": "string"},
                "at": {
                    "type": ["object", "null"],
                    "properties": {"x": {"type": "number"}},
                },
                "days": {"type": "array", "items": {"type": "string", "format": "date"}},
                "name": {"type": "string"},
                "created_at": {"type": "string", "format": "date-time"},
                "updated_at": {"type": "string", "format": "date-time"},
                "version": {"type": "integer", "minimum": 1},
            },
            "required": ["id", "created_at", "updated_at", "version"],
        })
    );
}

#[test]
fn a_recursive_view_is_published_to_a_bounded_depth() {
    let schema = thing(json!({
        "type": "object",
        "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}},
    }));
    let view = EntityView::new(schema);
    let size = view.schema().to_string().len();
    assert!(size < 100_000, "{size}");
    let decider = EntityDecider::new(thing(json!({
        "type": "object",
        "properties": {"next": {"$ref": "#"}},
    })));
    assert!(decider.commands()[1].schema.to_string().len() < 10_000);
}

#[test]
fn the_fingerprint_changes_with_the_meaning_of_the_schema_alone() {
    let of = |schema: Value| EntityView::new(thing(schema)).fingerprint();
    let base = of(json!({"type": "object", "properties": {"a": {"type": "string"}, "b": true}}));
    let same = [
        json!({"properties": {"b": true, "a": {"type": "string"}}, "type": "object"}),
        json!({
            "title": "T", "description": "D", "$comment": "C",
            "type": "object",
            "properties": {"a": {"type": "string", "title": "A", "examples": ["x"]}, "b": true},
        }),
    ];
    for schema in same {
        assert_eq!(of(schema), base);
    }
    let others = [
        json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": true}}),
        json!({"type": "object", "properties": {"a": {"type": "string"}}}),
        json!({"type": "object", "properties": {"a": {"type": "string"}, "b": true, "title": true}}),
        json!({"type": "object", "properties": {"a": {"type": "string", "enum": ["x"]}, "b": true}}),
    ];
    for schema in others {
        assert_ne!(of(schema.clone()), base, "{schema}");
    }
    let named = EntitySchema::from_value("other", json!({"type": "object"})).unwrap();
    assert_ne!(
        EntityView::new(named).fingerprint(),
        of(json!({"type": "object"}))
    );
}
