//! What is different between two JSON values. Pure.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// How deep it is looked into values: what is below is compared as a whole.
const MAX_DEPTH: usize = 64;

/// How many changes are told: the rest is counted.
pub(crate) const MAX_CHANGES: usize = 500;

/// What differs at one place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// The place, as a JSON Pointer (RFC 6901); empty for the value itself.
    pub(crate) path: String,
    /// What was there; missing where nothing was.
    #[serde(default, deserialize_with = "there")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<Value>,
    /// What is there now; missing where nothing is.
    #[serde(default, deserialize_with = "there")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<Value>,
}

/// A value that is there, even if it is `null`.
fn there<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// The changes from `before` to `after`, by their places, and how many there are beyond [`MAX_CHANGES`].
///
/// Members of objects are compared by name, those of lists by their index.
pub(crate) fn difference(before: &Value, after: &Value) -> (Vec<Change>, usize) {
    let mut found = Found::default();
    found.compare(&mut String::new(), Some(before), Some(after), 0);
    (found.changes, found.more)
}

#[derive(Default)]
struct Found {
    changes: Vec<Change>,
    more: usize,
}

impl Found {
    fn compare(
        &mut self,
        path: &mut String,
        before: Option<&Value>,
        after: Option<&Value>,
        depth: usize,
    ) {
        match (before, after) {
            (Some(Value::Object(before)), Some(Value::Object(after))) if depth < MAX_DEPTH => {
                let new = after.keys().filter(|name| !before.contains_key(*name));
                for name in before.keys().chain(new) {
                    let place = name.replace('~', "~0").replace('/', "~1");
                    self.below(path, &place, before.get(name), after.get(name), depth);
                }
            }
            (Some(Value::Array(before)), Some(Value::Array(after))) if depth < MAX_DEPTH => {
                for index in 0..before.len().max(after.len()) {
                    let (before, after) = (before.get(index), after.get(index));
                    self.below(path, &index.to_string(), before, after, depth);
                }
            }
            _ if before == after => {}
            _ if self.changes.len() >= MAX_CHANGES => self.more += 1,
            _ => self.changes.push(Change {
                path: path.clone(),
                before: before.cloned(),
                after: after.cloned(),
            }),
        }
    }

    fn below(
        &mut self,
        path: &mut String,
        place: &str,
        before: Option<&Value>,
        after: Option<&Value>,
        depth: usize,
    ) {
        let length = path.len();
        path.push('/');
        path.push_str(place);
        self.compare(path, before, after, depth + 1);
        path.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The changes as texts: `path: before > after`, with `-` for nothing.
    fn changes(before: &Value, after: &Value) -> Vec<String> {
        let text = |value: &Option<Value>| value.as_ref().map_or("-".to_owned(), Value::to_string);
        let (changes, more) = difference(before, after);
        assert_eq!(more, 0);
        let all = changes.iter();
        all.map(|own| format!("{}: {} > {}", own.path, text(&own.before), text(&own.after)))
            .collect()
    }

    #[test]
    fn each_place_that_differs_is_told_with_what_was_and_is_there() {
        let before = json!({"title": "A", "author": {"name": "Ann", "age": 7}, "gone": 1, "same": [1, {"a": 2}]});
        let after = json!({"title": "B", "author": {"name": "Ann", "age": null}, "same": [1, {"a": 2}], "new": []});
        let expected = [
            "/title: \"A\" > \"B\"",
            "/author/age: 7 > null",
            "/gone: 1 > -",
            "/new: - > []",
        ];
        assert_eq!(changes(&before, &after), expected);
        assert!(changes(&before, &before).is_empty());
    }

    #[test]
    fn lists_are_compared_by_index() {
        let changes = changes(
            &json!(["a", "b", {"c": 1}]),
            &json!(["b", "b", {"c": 2}, "d"]),
        );
        let expected = ["/0: \"a\" > \"b\"", "/2/c: 1 > 2", "/3: - > \"d\""];
        assert_eq!(changes, expected);
    }

    #[test]
    fn what_is_of_another_kind_is_one_change() {
        assert_eq!(
            changes(&json!({"a": {"b": 1}}), &json!({"a": [1]})),
            ["/a: {\"b\":1} > [1]"]
        );
        assert_eq!(changes(&json!(1), &json!("1")), [": 1 > \"1\""]);
    }

    #[test]
    fn a_place_is_a_json_pointer() {
        let (before, after) = (json!({"a/b": {"~": 1}}), json!({"a/b": {"~": 2}}));
        let (found, _) = difference(&before, &after);
        assert_eq!(found[0].path, "/a~1b/~0");
        assert_eq!(before.pointer(&found[0].path), Some(&json!(1)));
    }

    #[test]
    fn too_many_changes_are_counted_and_too_deep_ones_compared_as_a_whole() {
        let list = |number: i32| Value::Array(vec![json!(number); MAX_CHANGES + 7]);
        let (found, more) = difference(&list(1), &list(2));
        assert_eq!((found.len(), more), (MAX_CHANGES, 7));
        let deep = |number: i32| (0..200).fold(json!(number), |inner, _| json!([inner]));
        let (found, _) = difference(&deep(1), &deep(2));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "/0".repeat(MAX_DEPTH));
    }

    #[test]
    fn what_was_null_and_what_was_not_there_are_told_apart_by_programs() {
        let (found, _) = difference(&json!({"a": null}), &json!({"a": 1, "b": null}));
        let text = serde_json::to_string(&found).unwrap();
        assert_eq!(
            text,
            r#"[{"path":"/a","before":null,"after":1},{"path":"/b","after":null}]"#
        );
        let read: Vec<Change> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, found);
    }
}
