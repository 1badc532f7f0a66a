//! JSON Merge Patch, RFC 7396.

use serde_json::{Map, Value};

/// Applies `patch` to `target` as RFC 7396 says: objects are merged, `null` removes, anything else replaces.
///
/// The fields that stay keep their order; new ones come last. It recurses as deep as the patch is nested, which
/// [`check`](crate::json::check) bounds.
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        merge_object(target, patch);
    }
}

/// Applies the patch of an object to an object.
pub(crate) fn merge_object(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        if value.is_null() {
            // `remove` would put the last field into the gap.
            target.shift_remove(name);
        } else if let Some(field) = target.get_mut(name) {
            merge_patch(field, value);
        } else {
            // Also what is new is merged, into nothing: its nulls do not become fields.
            let mut field = Value::Null;
            merge_patch(&mut field, value);
            target.insert(name.clone(), field);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn merged(mut target: Value, patch: &Value) -> Value {
        merge_patch(&mut target, patch);
        target
    }

    #[test]
    fn the_examples_of_the_rfc_hold() {
        let examples = json!([
            [{"a":"b"}, {"a":"c"}, {"a":"c"}],
            [{"a":"b"}, {"b":"c"}, {"a":"b", "b":"c"}],
            [{"a":"b"}, {"a":null}, {}],
            [{"a":"b", "b":"c"}, {"a":null}, {"b":"c"}],
            [{"a":["b"]}, {"a":"c"}, {"a":"c"}],
            [{"a":"c"}, {"a":["b"]}, {"a":["b"]}],
            [{"a":{"b":"c"}}, {"a":{"b":"d", "c":null}}, {"a":{"b":"d"}}],
            [{"a":[{"b":"c"}]}, {"a":[1]}, {"a":[1]}],
            [["a","b"], ["c","d"], ["c","d"]],
            [{"a":"b"}, ["c"], ["c"]],
            [{"a":"foo"}, null, null],
            [{"a":"foo"}, "bar", "bar"],
            [{"e":null}, {"a":1}, {"e":null, "a":1}],
            [[1,2], {"a":"b", "c":null}, {"a":"b"}],
            [{}, {"a":{"bb":{"ccc":null}}}, {"a":{"bb":{}}}],
        ]);
        for example in examples.as_array().unwrap() {
            let [target, patch, result] = [0, 1, 2].map(|i| &example[i]);
            assert_eq!(
                &merged(target.clone(), patch),
                result,
                "{target} with {patch}"
            );
        }
    }

    #[test]
    fn fields_keep_their_order() {
        let patch = json!({"a": null, "d": 4, "c": 3});
        let target = merged(json!({"a": 1, "b": 2, "c": 0}), &patch);
        assert_eq!(target.to_string(), r#"{"b":2,"c":3,"d":4}"#);
    }

    /// Any JSON value, with field names that often meet.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3_i64).prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::hash_map("[a-d]", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    /// Whether a patch removes anything.
    fn has_null_field(value: &Value) -> bool {
        value
            .as_object()
            .is_some_and(|fields| fields.values().any(|v| v.is_null() || has_null_field(v)))
    }

    proptest! {
        #[test]
        fn applying_a_patch_again_changes_nothing(target in any_json(), patch in any_json()) {
            let once = merged(target, &patch);
            prop_assert_eq!(merged(once.clone(), &patch), once);
        }

        #[test]
        fn the_empty_patch_changes_no_object(target in any_json()) {
            prop_assume!(target.is_object());
            prop_assert_eq!(merged(target.clone(), &json!({})), target);
        }

        #[test]
        fn a_patch_of_nothing_but_values_is_what_it_makes_of_nothing(patch in any_json()) {
            prop_assume!(!has_null_field(&patch));
            prop_assert_eq!(merged(Value::Null, &patch), patch);
        }

        #[test]
        fn what_a_patch_does_not_name_stays(target in any_json(), patch in any_json()) {
            let (Value::Object(before), Value::Object(named)) = (&target, &patch) else {
                return Ok(());
            };
            let after = merged(target.clone(), &patch);
            for (name, value) in before.iter().filter(|(name, _)| !named.contains_key(*name)) {
                prop_assert_eq!(after.get(name), Some(value));
            }
        }
    }
}
