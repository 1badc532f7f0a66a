//! What a filter means: the one definition, which the memory adapter runs, databases are checked against, and what they
//! cannot compare is left to.

use chrono::DateTime;
use serde_json::{Number, Value};

use super::{Document, Field, Filter};

/// Whether `document` meets `filter`.
#[must_use]
pub fn matches(document: &Document, filter: &Filter) -> bool {
    let wanted = &filter.value;
    match &filter.field {
        Field::Id => wanted.as_str() == Some(&document.id),
        Field::Version => whole(wanted) == Some(document.version.number().into()),
        Field::CreatedAt => instant(wanted) == Some(document.created_at.timestamp_micros()),
        Field::UpdatedAt => instant(wanted) == Some(document.updated_at.timestamp_micros()),
        Field::Data(path) => match path.split_first() {
            None => matches!(wanted, Value::Object(map) if same_map(map, &document.data)),
            Some((first, rest)) => {
                let found = rest
                    .iter()
                    .try_fold(document.data.get(first), |value, name| {
                        Some(value?.as_object()?.get(name))
                    });
                same(found.flatten().unwrap_or(&Value::Null), wanted)
            }
        },
    }
}

/// Whether two JSON values are the same: numbers by value, the fields of objects in any order.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => same_map(a, b),
        (a, b) => a == b,
    }
}

/// Whether two objects have the same fields with the same values.
fn same_map(a: &serde_json::Map<String, Value>, b: &serde_json::Map<String, Value>) -> bool {
    a.len() == b.len()
        && a.iter()
            .all(|(name, value)| b.get(name).is_some_and(|other| same(value, other)))
}

/// Whether two numbers have the same value, exactly: 2^53 + 1 is not the floating-point number next to it.
fn same_number(a: &Number, b: &Number) -> bool {
    match (whole_number(a), whole_number(b)) {
        (None, None) => a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}

/// The whole number that `value` is.
pub(super) fn whole(value: &Value) -> Option<i128> {
    value.as_number().and_then(whole_number)
}

/// `number` as a whole number, if it is one of at most 127 bits (every whole number that is not floating-point is).
pub(super) fn whole_number(number: &Number) -> Option<i128> {
    if let Some(number) = number.as_i64() {
        return Some(number.into());
    }
    if let Some(number) = number.as_u64() {
        return Some(number.into());
    }
    let float = number.as_f64().filter(|float| float.fract() == 0.0)?;
    // By way of its digits, all of which are printed: a cast would round or saturate.
    format!("{float:.0}").parse().ok()
}

/// The microsecond since 1970 that an RFC 3339 text names; `None` when it is none, or between two of them.
pub(super) fn instant(value: &Value) -> Option<i64> {
    let time = DateTime::parse_from_rfc3339(value.as_str()?).ok()?;
    (time.timestamp_subsec_nanos() % 1_000 == 0).then(|| time.timestamp_micros())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use tidelog_domain::Version;

    use super::*;

    fn document() -> Document {
        let Value::Object(data) = json!({
            "title": "Tides", "stars": 1, "half": 0.5, "tags": ["a", "b"], "none": null, "big": 9_007_199_254_740_993_i64,
            "at": {"lat": 1, "lon": 2}, "list": [{"x": 1}], "a.b": 1, "yes": true, "empty": ""
        }) else {
            unreachable!()
        };
        Document {
            id: "p1".to_owned(),
            data,
            version: Version::new(3),
            created_at: "2026-01-02T03:04:05.000006Z".parse().unwrap(),
            updated_at: "2026-01-02T03:04:05.000007Z".parse().unwrap(),
            deleted: false,
            applied: BTreeMap::new(),
            revision: 1,
        }
    }

    fn data(path: &[&str], value: Value) -> bool {
        let path = path.iter().map(|name| (*name).to_owned()).collect();
        let filter = Filter {
            field: Field::Data(path),
            value,
        };
        matches(&document(), &filter)
    }

    #[test]
    fn values_are_compared_by_type_and_value() {
        assert!(data(&["title"], json!("Tides")));
        assert!(!data(&["title"], json!("tides")));
        assert!(data(&["stars"], json!(1)) && data(&["stars"], json!(1.0)));
        assert!(!data(&["stars"], json!(true)) && !data(&["stars"], json!("1")));
        assert!(data(&["half"], json!(0.5)) && !data(&["half"], json!(0)));
        assert!(data(&["yes"], json!(true)) && !data(&["yes"], json!(1)));
        assert!(data(&["big"], json!(9_007_199_254_740_993_i64)));
        assert!(!data(&["big"], json!(9_007_199_254_740_992.0)));
    }

    #[test]
    fn what_is_missing_is_null() {
        for path in [
            &["none"][..],
            &["nowhere"],
            &["title", "x"],
            &["list", "x"],
            &["list", "0"],
        ] {
            assert!(data(path, Value::Null), "{path:?}");
        }
        assert!(!data(&["empty"], Value::Null));
        assert!(!data(&["at"], Value::Null));
    }

    #[test]
    fn lists_and_objects_equal_only_the_same() {
        assert!(data(&["tags"], json!(["a", "b"])));
        assert!(!data(&["tags"], json!(["b", "a"])) && !data(&["tags"], json!("a")));
        assert!(data(&["at"], json!({"lon": 2.0, "lat": 1})));
        assert!(!data(&["at"], json!({"lat": 1})));
        assert!(data(&["at", "lat"], json!(1)) && data(&["a.b"], json!(1)));
        assert!(data(&[], Value::Object(document().data)) && !data(&[], json!({})));
    }

    #[test]
    fn the_envelope_is_compared_too() {
        let fits = |field, value| matches(&document(), &Filter { field, value });
        assert!(fits(Field::Id, json!("p1")) && !fits(Field::Id, Value::Null));
        assert!(fits(Field::Version, json!(3.0)) && !fits(Field::Version, json!("3")));
        assert!(fits(
            Field::CreatedAt,
            json!("2026-01-02T04:04:05.000006+01:00")
        ));
        assert!(!fits(
            Field::CreatedAt,
            json!("2026-01-02T03:04:05.000006001Z")
        ));
        assert!(fits(
            Field::UpdatedAt,
            json!("2026-01-02T03:04:05.000007000Z")
        ));
        assert!(!fits(Field::UpdatedAt, json!(7)) && !fits(Field::UpdatedAt, json!("x")));
    }
}
