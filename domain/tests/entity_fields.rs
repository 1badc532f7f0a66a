//! Which fields an entity knows: unknown ones are refused, however its JSON Schema is put together.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

use serde_json::{Value, json};
use tidelog_domain::testing::{create, created, given_entity_of, patch};
use tidelog_domain::{Decider, EntityDecider, EntitySchema};

/// The entity `thing` of this schema.
fn thing(schema: Value) -> EntitySchema {
    EntitySchema::from_value("thing", schema).unwrap()
}

#[track_caller]
fn accepts(schema: &EntitySchema, body: Value) {
    given_entity_of(schema, [])
        .when(create(body.clone()))
        .then_state(body);
}

#[track_caller]
fn refuses(schema: &EntitySchema, body: Value, fields: &[&str]) {
    given_entity_of(schema, [])
        .when(create(body))
        .then_invalid(fields);
}

#[test]
fn an_unknown_field_is_refused_at_the_top_and_within() {
    let inner = json!({"type": "object", "properties": {"b": true}});
    let schema = thing(json!({
        "type": "object",
        "properties": {"a": inner, "list": {"type": "array", "items": inner}},
    }));
    accepts(&schema, json!({"a": {"b": 1}, "list": [{"b": 1}]}));
    refuses(
        &schema,
        json!({"x": 1, "a": {"b": 1, "y": 1}, "list": [{}, {"z/~": 1}]}),
        &["/x", "/a/y", "/list/1/z~1~0"],
    );
}

#[test]
fn a_schema_that_says_so_itself_takes_other_fields() {
    let open = thing(json!({
        "type": "object",
        "properties": {
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "any": {"type": "object", "properties": {"a": true}, "unevaluatedProperties": true},
            "free": {"type": "object"},
        },
        "additionalProperties": true,
    }));
    accepts(
        &open,
        json!({"x": 1, "labels": {"l": "m"}, "any": {"a": 1, "b": 2}, "free": {"c": {"d": 3}}}),
    );
    refuses(&open, json!({"labels": {"l": 1}}), &["/labels/l"]);
    refuses(
        &open,
        json!({"id": "x", "version": 1}),
        &["/id", "/version"],
    );

    let closed = thing(json!({
        "type": "object",
        "properties": {"a": true},
        "additionalProperties": false,
    }));
    refuses(&closed, json!({"a": 1, "b": 1}), &["/b"]);
}

#[test]
fn names_by_pattern_are_known_beside_those_that_are_declared() {
    let schema = thing(json!({
        "type": "object",
        "properties": {"a": true},
        "patternProperties": {"^x_": {"type": "integer"}},
    }));
    accepts(&schema, json!({"a": "b", "x_1": 1}));
    refuses(&schema, json!({"x_1": "one"}), &["/x_1"]);
    refuses(&schema, json!({"y_1": 1}), &["/y_1"]);
}

#[test]
fn a_combined_schema_knows_the_fields_of_all_its_parts() {
    let schema = thing(json!({
        "type": "object",
        "properties": {"own": true},
        "allOf": [{"$ref": "#/$defs/base"}, {"properties": {"more": true}}],
        "anyOf": [{"properties": {"either": true}}, {"properties": {"or": true}}],
        "dependentSchemas": {"more": {"properties": {"then_this": true}}},
        "$defs": {"base": {
            "properties": {"name": {"type": "string", "minLength": 1}},
            "required": ["name"],
        }},
    }));
    accepts(
        &schema,
        json!({"own": 1, "name": "n", "more": 1, "either": 1, "or": 1, "then_this": 1}),
    );
    refuses(&schema, json!({"name": "n", "other": 1}), &["/other"]);
    // A part that fails does not make its fields unknown.
    refuses(&schema, json!({"name": "", "own": 1}), &["/name"]);
    refuses(&schema, json!({"own": 1}), &["/name"]);
}

#[test]
fn parts_that_speak_of_the_same_object_add_up() {
    let schema = thing(json!({
        "type": "object",
        "properties": {
            "kind": {"enum": ["person", "company"]},
            "address": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
        "if": {"properties": {"kind": {"const": "company"}}, "required": ["kind"]},
        "then": {"properties": {"address": {
            "properties": {"box": {"type": "integer"}},
            "required": ["box"],
        }}},
    }));
    accepts(
        &schema,
        json!({"kind": "company", "address": {"city": "x", "box": 1}}),
    );
    accepts(&schema, json!({"kind": "person", "address": {"city": "x"}}));
    refuses(
        &schema,
        json!({"kind": "company", "address": {"city": "x"}}),
        &["/address/box"],
    );
    refuses(
        &schema,
        json!({"kind": "person", "address": {"city": "x", "street": "y"}}),
        &["/address/street"],
    );
}

#[test]
fn what_the_schema_itself_says_of_unevaluated_fields_holds() {
    let schema = thing(json!({
        "type": "object",
        "properties": {"kind": {"enum": ["person", "company"]}},
        "allOf": [{"properties": {"name": {"type": "string"}, "nick": true}}],
        "if": {"properties": {"kind": {"const": "company"}}, "required": ["kind"]},
        "then": {"properties": {"vat": true}},
        "unevaluatedProperties": false,
    }));
    accepts(&schema, json!({"kind": "company", "name": "x", "vat": 1}));
    refuses(
        &schema,
        json!({"kind": "person", "name": "x", "vat": 1}),
        &["/vat"],
    );
    // Only what is really wrong is named: the validator also calls `name` and `nick` unevaluated here.
    let errors = given_entity_of(&schema, [])
        .when(create(json!({"kind": "person", "name": 1, "nick": "x"})))
        .then_invalid(&["/name"]);
    assert_eq!(errors.len(), 1, "{errors:?}");
}

#[test]
fn an_optional_object_in_the_way_that_rust_writes_it_is_known() {
    let schema = thing(json!({
        "type": "object",
        "properties": {"address": {"anyOf": [{"$ref": "#/$defs/Address"}, {"type": "null"}]}},
        "$defs": {"Address": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        }},
    }));
    accepts(&schema, json!({"address": {"city": "x"}}));
    accepts(&schema, json!({"address": null}));
    refuses(
        &schema,
        json!({"address": {"city": "x", "zip": 1}}),
        &["/address/zip"],
    );
    refuses(&schema, json!({"address": {"city": 1}}), &["/address/city"]);
    refuses(&schema, json!({"address": {}}), &["/address/city"]);
    refuses(&schema, json!({"address": 1}), &["/address"]);
}

#[test]
fn of_several_forms_the_one_that_is_meant_is_spoken_of() {
    let form = |kind: &str, field: &str| {
        json!({
            "properties": {"kind": {"const": kind}, field: {"type": "integer"}},
            "required": ["kind", field],
        })
    };
    let schema = thing(json!({
        "type": "object",
        "oneOf": [form("circle", "radius"), form("square", "side")],
    }));
    accepts(&schema, json!({"kind": "circle", "radius": 1}));
    refuses(
        &schema,
        json!({"kind": "circle", "radius": "1"}),
        &["/radius"],
    );
    refuses(&schema, json!({"kind": "square"}), &["/side"]);
    refuses(&schema, json!({"kind": "line"}), &[""]);
}

#[test]
fn a_recursive_schema_is_closed_at_every_depth() {
    let node = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
        },
        "required": ["name"],
    });
    let schema = thing(json!({
        "type": "object",
        "properties": {"tree": {"$ref": "#/$defs/node"}},
        "$defs": {"node": node},
    }));
    let tree = |inner: Value| json!({"tree": {"name": "a", "children": [{"name": "b", "children": [inner]}]}});
    accepts(&schema, tree(json!({"name": "c"})));
    refuses(
        &schema,
        tree(json!({"name": "c", "nam": "d"})),
        &["/tree/children/0/children/0/nam"],
    );
    refuses(
        &schema,
        tree(json!({})),
        &["/tree/children/0/children/0/name"],
    );
}

#[test]
fn references_by_id_by_anchor_and_to_the_schema_itself_are_followed() {
    let schema = thing(json!({
        "$id": "https://example.com/thing",
        "type": "object",
        "properties": {
            "by_id": {"$ref": "shapes/point"},
            "by_anchor": {"$ref": "#size"},
            "by_dynamic_anchor": {"$dynamicRef": "#color"},
            "inline": {
                "$id": "shapes/line",
                "$ref": "#/$defs/end",
                "$defs": {"end": {"type": "object", "properties": {"y": true}}},
            },
            "parent": {"$ref": "#"},
        },
        "$defs": {
            "point": {
                "$id": "shapes/point",
                "type": "object",
                "properties": {"x": {"$ref": "#/$defs/number"}},
                "$defs": {"number": {"type": "object", "properties": {"n": {"type": "integer"}}}},
            },
            "size": {"$anchor": "size", "type": "object", "properties": {"w": true}},
            "color": {"$dynamicAnchor": "color", "type": "object", "properties": {"rgb": true}},
        },
    }));
    accepts(
        &schema,
        json!({"by_id": {"x": {"n": 1}}, "parent": {"by_anchor": {"w": 1}}}),
    );
    refuses(
        &schema,
        json!({
            "by_id": {"x": {"m": 1}},
            "by_anchor": {"h": 1},
            "by_dynamic_anchor": {"cmyk": 1},
            "inline": {"z": 1},
            "parent": {"parent": {"papa": 1}},
        }),
        &[
            "/by_anchor/h",
            "/by_dynamic_anchor/cmyk",
            "/by_id/x/m",
            "/inline/z",
            "/parent/parent/papa",
        ],
    );
}

#[test]
fn references_that_go_in_circles_come_to_an_end() {
    let circle = json!({
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/a"}},
        "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"anyOf": [{"$ref": "#/$defs/a"}, true]}},
    });
    let schema = thing(circle);
    accepts(&schema, json!({"a": {"x": 1}}));
}

#[test]
fn a_patch_is_checked_without_the_state_also_where_the_schema_closes_an_object_itself() {
    let closed =
        json!({"type": "object", "properties": {"a": true}, "additionalProperties": false});
    let decider = EntityDecider::new(thing(closed));
    assert!(decider.check(&patch(json!({"a": 1}))).is_ok());
    assert!(decider.check(&patch(json!({"b": 1}))).is_err());
}

#[test]
fn a_patch_knows_the_same_fields() {
    let schema = thing(json!({
        "allOf": [{"$ref": "#/$defs/base"}],
        "$defs": {"base": {
            "type": "object",
            "properties": {"a": {"type": "object", "properties": {"b": true}}},
        }},
    }));
    let given = || given_entity_of(&schema, [created(json!({}))]);
    given()
        .when(patch(json!({"a": {"b": 1, "c": 1}, "d": null})))
        .then_invalid(&["/a/c", "/d"]);
    given()
        .when(patch(json!({"a": {"b": 1}})))
        .then_state(json!({"a": {"b": 1}}));
}
