//! How SQLite orders the JSON texts of scalars: as [`page`](crate::store::page) does, for it is the same function.

use std::cmp::Ordering;

use serde_json::Value;

use crate::store::filter::order;

/// What statements call it.
pub(super) const NAME: &str = "tidelog_json";

/// The order of two values by their JSON. It never fails: SQLite could not be told.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    // Most texts have nothing that is escaped, and whole numbers of the usual size are read fast.
    if let (Some(a), Some(b)) = (plain_text(a), plain_text(b)) {
        return a.cmp(b);
    }
    if let (Ok(a), Ok(b)) = (a.parse::<i64>(), b.parse::<i64>()) {
        return a.cmp(&b);
    }
    order(&scalar(a), &scalar(b))
}

/// What is between the quotes of a text that is written as it is.
fn plain_text(json: &str) -> Option<&str> {
    let text = json.strip_prefix('"')?.strip_suffix('"')?;
    (!text.contains('\\')).then_some(text)
}

/// The scalar; of a list or an object only that it is one.
fn scalar(json: &str) -> Value {
    let composite = || Value::Array(Vec::new());
    if json.starts_with(['[', '{']) {
        return composite();
    }
    serde_json::from_str(json).unwrap_or_else(|_| composite())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_orders_texts_of_json_as_values_are_ordered() {
        let values = [
            json!(null),
            json!(-1.5),
            json!(-1),
            json!(0),
            json!(0.5),
            json!(1),
            json!((1_i64 << 53) + 1),
            json!(i64::MAX),
            json!(9_223_372_036_854_775_808.0),
            json!(1e300),
            json!(""),
            json!("\0"),
            json!("\"a"),
            json!("1"),
            json!("a"),
            json!("a\0"),
            json!("a\\"),
            json!("b"),
            json!("é"),
            json!("😀"),
            json!(false),
            json!(true),
            json!([1]),
        ];
        for (m, a) in values.iter().enumerate() {
            for (n, b) in values.iter().enumerate() {
                assert_eq!(
                    compare(&a.to_string(), &b.to_string()),
                    m.cmp(&n),
                    "{a} {b}"
                );
                assert_eq!(order(a, b), m.cmp(&n), "{a} {b}");
            }
        }
        assert_eq!(compare("1", "1.0"), Ordering::Equal);
        assert_eq!(compare("0", "-0.0"), Ordering::Equal);
        assert_eq!(compare("[1]", "{\"a\":2}"), Ordering::Equal);
    }
}
