//! Which JSON Schemas are entities, which fields they know, and what others are told of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

use serde_json::{Value, json};
use tidelog_domain::testing::{create, given_entity, patch};
use tidelog_domain::{
    Decider, Endpoint, EntityDecider, EntitySchema, EntityView, InvalidSchema, Lifecycle,
    ViewDefinition,
};

/// The entity `thing` of this schema.
fn thing(schema: Value) -> EntitySchema {
    EntitySchema::from_value("thing", schema).unwrap()
}

/// Why `thing` cannot have this schema.
fn invalid(schema: Value) -> InvalidSchema {
    EntitySchema::from_value("thing", schema).unwrap_err()
}

#[track_caller]
fn accepts(schema: &EntitySchema, body: Value) {
    given_entity(schema, [])
        .when(create(body.clone()))
        .then_state(body);
}

#[track_caller]
fn refuses(schema: &EntitySchema, body: Value, fields: &[&str]) {
    given_entity(schema, [])
        .when(create(body))
        .then_invalid(fields);
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
    accepts(&schema, json!({"inner": {"id": "x"}}));
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
        "allOf": [{"properties": {"name": {"type": "string"}}}],
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
    // Only what is really wrong is named: the validator also calls `name` unevaluated here.
    refuses(&schema, json!({"kind": "person", "name": 1}), &["/name"]);
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
            "by_id": {"$ref": "point"},
            "by_anchor": {"$ref": "#size"},
            "by_dynamic_anchor": {"$dynamicRef": "#color"},
            "parent": {"$ref": "#"},
        },
        "$defs": {
            "point": {
                "$id": "point",
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
            "parent": {"parent": {"papa": 1}},
        }),
        &[
            "/by_anchor/h",
            "/by_dynamic_anchor/cmyk",
            "/by_id/x/m",
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

#[test]
fn a_patch_knows_the_same_fields() {
    let schema = thing(json!({
        "allOf": [{"$ref": "#/$defs/base"}],
        "$defs": {"base": {
            "type": "object",
            "properties": {"a": {"type": "object", "properties": {"b": true}}},
        }},
    }));
    let given = || given_entity(&schema, [tidelog_domain::testing::created(json!({}))]);
    given()
        .when(patch(json!({"a": {"b": 1, "c": 1}, "d": null})))
        .then_invalid(&["/a/c", "/d"]);
    given()
        .when(patch(json!({"a": {"b": 1}})))
        .then_state(json!({"a": {"b": 1}}));
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
    let served = |spec: &tidelog_domain::CommandSpec| (spec.endpoint, spec.lifecycle);
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
