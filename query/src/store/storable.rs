//! What every read store can keep exactly, so that a view means the same in all of them.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::{Document, DocumentWrite, ReadError};

/// How deep the data of a document may be nested: `data` itself is the first level. MongoDB allows 100 in all.
pub const MAX_DATA_DEPTH: usize = 64;

/// Whether every store can keep the documents of `writes` as they are: what [`ReadStore::write`](super::ReadStore::write) asks first.
///
/// # Errors
///
/// [`ReadError::Unwritable`] with the reason: a number above `i64::MAX`, a NUL in the name of a field, nested deeper than
/// [`MAX_DATA_DEPTH`]. (A text may hold a NUL.)
pub fn check(writes: &[DocumentWrite]) -> Result<(), ReadError> {
    writes
        .iter()
        .try_for_each(|write| check_one(write.document()))
}

fn check_one(document: &Document) -> Result<(), ReadError> {
    let reason = if i64::try_from(document.version.number()).is_err() {
        Some("its version is above 2^63 - 1")
    } else if document
        .applied
        .values()
        .any(|position| i64::try_from(position.number()).is_err())
    {
        Some("a position is above 2^63 - 1")
    } else {
        flaw_of_map(&document.data, MAX_DATA_DEPTH)
    };
    match reason {
        None => Ok(()),
        Some(reason) => Err(unwritable(document, reason)),
    }
}

/// That `document` can never be stored, because of `reason`.
pub(crate) fn unwritable(document: &Document, reason: impl Into<String>) -> ReadError {
    ReadError::Unwritable {
        id: document.id.clone(),
        reason: reason.into(),
    }
}

/// What keeps an object from being stored, if `depth` levels are left.
fn flaw_of_map(map: &Map<String, Value>, depth: usize) -> Option<&'static str> {
    let Some(below) = depth.checked_sub(1) else {
        return Some("it is nested too deeply");
    };
    map.iter().find_map(|(name, value)| {
        if name.contains('\0') {
            Some("the name of a field has a NUL in it")
        } else {
            flaw_of(value, below)
        }
    })
}

/// What keeps a value from being stored, if `depth` levels are left.
fn flaw_of(value: &Value, depth: usize) -> Option<&'static str> {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => None,
        Value::Number(number) if number.is_u64() && !number.is_i64() => {
            Some("a whole number is above 2^63 - 1")
        }
        Value::Number(_) => None,
        Value::Array(items) => match depth.checked_sub(1) {
            None => Some("it is nested too deeply"),
            Some(below) => items.iter().find_map(|item| flaw_of(item, below)),
        },
        Value::Object(map) => flaw_of_map(map, depth),
    }
}

/// `time` with what a store keeps of it: whole microseconds.
pub(crate) fn stored_time(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(time.timestamp_micros()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nested(levels: usize) -> Map<String, Value> {
        (1..levels).fold(Map::new(), |inner, _| {
            Map::from_iter([("x".to_owned(), Value::Object(inner))])
        })
    }

    #[test]
    fn the_deepest_data_allowed_is_stored_and_one_level_more_is_not() {
        assert_eq!(flaw_of_map(&nested(MAX_DATA_DEPTH), MAX_DATA_DEPTH), None);
        assert!(flaw_of_map(&nested(MAX_DATA_DEPTH + 1), MAX_DATA_DEPTH).is_some());
        let lists = (2..MAX_DATA_DEPTH).fold(json!([]), |inner, _| json!([inner]));
        assert_eq!(flaw_of(&lists, MAX_DATA_DEPTH - 1), None);
        assert!(flaw_of(&json!([lists]), MAX_DATA_DEPTH - 1).is_some());
    }

    #[test]
    fn numbers_and_names_that_some_store_would_change_are_refused() {
        assert_eq!(
            flaw_of(&json!([i64::MAX, i64::MIN, 1e300, "a\0b"]), 8),
            None
        );
        assert!(flaw_of(&json!({"a": [u64::MAX]}), 8).is_some());
        assert!(flaw_of(&json!([{"a\0b": 1}]), 8).is_some());
    }
}
