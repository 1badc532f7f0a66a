//! Where a page ended: opaque to clients; to us the last document's place in the order of the page.
//!
//! Two forms: `1:<id>` in the order of ids; `2:["<mark>", <keys…>, "<id>"]` in any other one, whose mark is a hash of the view and the
//! order. A client can write one by itself: what is in it is checked as any value of a client is.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use serde_json::{Value, json};
use twox_hash::XxHash64;

use crate::store::{Field, Place, Sort};

const BY_ID: &str = "1:";
const SORTED: &str = "2:";

/// The most bytes that a cursor may have, encoded: it has to fit into a URL.
const MAX_BYTES: usize = 8_192;

/// The order of a page, as far as a cursor belongs to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order<'a> {
    /// The view's name.
    pub(super) view: &'a str,
    /// What is sorted by, before the id.
    pub(super) sort: &'a [Sort],
}

/// Why a cursor cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadCursor {
    /// It is none of ours.
    Malformed,
    /// It is of another order, or another view.
    OtherOrder,
}

impl Order<'_> {
    /// The cursor of `place`; `None` when it would be too long.
    pub(super) fn encode(self, place: &Place) -> Option<String> {
        let text = if self.sort.is_empty() {
            format!("{BY_ID}{}", place.id)
        } else {
            let mut parts = vec![json!(self.mark())];
            parts.extend(place.keys.iter().cloned());
            parts.push(json!(place.id));
            format!("{SORTED}{}", Value::from(parts))
        };
        let cursor = URL_SAFE_NO_PAD.encode(text);
        (cursor.len() <= MAX_BYTES).then_some(cursor)
    }

    /// The place that a cursor stands for.
    pub(super) fn decode(self, cursor: &str) -> Result<Place, BadCursor> {
        let text = Some(cursor).filter(|cursor| cursor.len() <= MAX_BYTES);
        let bytes = text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or(BadCursor::Malformed)?;
        if let Some(id) = text.strip_prefix(BY_ID) {
            let by_id = self.sort.is_empty();
            return if by_id {
                Ok(Place::behind(id))
            } else {
                Err(BadCursor::OtherOrder)
            };
        }
        let parts = text.strip_prefix(SORTED).ok_or(BadCursor::Malformed)?;
        let parts: Vec<Value> = serde_json::from_str(parts).map_err(|_| BadCursor::Malformed)?;
        let [mark, keys @ .., Value::String(id)] = parts.as_slice() else {
            return Err(BadCursor::Malformed);
        };
        if self.sort.is_empty() || mark.as_str() != Some(&self.mark()) {
            return Err(BadCursor::OtherOrder);
        }
        let fits = keys.len() == self.sort.len()
            && keys
                .iter()
                .zip(self.sort)
                .all(|(key, sort)| is_key(&sort.field, key));
        if !fits {
            return Err(BadCursor::Malformed);
        }
        Ok(Place {
            keys: keys.to_vec(),
            id: id.clone(),
        })
    }

    fn mark(self) -> String {
        let text = format!("{} {:?}", self.view, self.sort);
        format!("{:016x}", XxHash64::oneshot(0, text.as_bytes()))
    }
}

/// Whether `value` can be the value of a field that is sorted by.
fn is_key(field: &Field, value: &Value) -> bool {
    match field {
        Field::Id => value.is_string(),
        Field::Version => value.is_u64(),
        Field::CreatedAt | Field::UpdatedAt => {
            let text = value.as_str();
            text.is_some_and(|text| DateTime::parse_from_rfc3339(text).is_ok())
        }
        Field::Data(_) => match value {
            Value::Array(items) => items.is_empty(),
            value => !value.is_object(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Direction;

    fn by(names: &[&str]) -> Vec<Sort> {
        let sort = |name: &&str| Sort {
            field: match *name {
                "version" => Field::Version,
                "created_at" => Field::CreatedAt,
                name => Field::Data(vec![name.to_owned()]),
            },
            direction: Direction::Descending,
        };
        names.iter().map(sort).collect()
    }

    const BY_ID_ALONE: Order<'_> = Order {
        view: "post",
        sort: &[],
    };

    #[test]
    fn a_cursor_by_id_reads_back_and_anything_else_does_not() {
        for id in ["a", "", "Köln & more", &"x".repeat(1024)] {
            let place = Place::behind(id);
            let cursor = BY_ID_ALONE.encode(&place).unwrap();
            assert_eq!(BY_ID_ALONE.decode(&cursor), Ok(place));
        }
        for text in ["", "a", "!!", "MTph=", &"A".repeat(10_000)] {
            assert_eq!(
                BY_ID_ALONE.decode(text),
                Err(BadCursor::Malformed),
                "{text}"
            );
        }
    }

    #[test]
    fn a_cursor_of_another_order_is_told_apart() {
        let (one, other) = (by(&["title"]), by(&["version"]));
        let of = |view, sort| Order { view, sort };
        let place = Place {
            keys: vec![json!("a\0\"b")],
            id: "p1".to_owned(),
        };
        let cursor = of("post", &one).encode(&place).unwrap();
        assert_eq!(of("post", &one).decode(&cursor), Ok(place));
        for order in [of("post", &other), of("author", &one), BY_ID_ALONE] {
            assert_eq!(order.decode(&cursor), Err(BadCursor::OtherOrder));
        }
        let by_id = BY_ID_ALONE.encode(&Place::behind("p1")).unwrap();
        assert_eq!(of("post", &one).decode(&by_id), Err(BadCursor::OtherOrder));
    }

    #[test]
    fn what_a_client_puts_into_a_cursor_is_checked() {
        let sort = by(&["title", "version", "created_at"]);
        let order = Order {
            view: "post",
            sort: &sort,
        };
        let decode = |keys: Value| {
            let mut parts = vec![json!(order.mark())];
            parts.extend(keys.as_array().unwrap().iter().cloned());
            order.decode(&URL_SAFE_NO_PAD.encode(format!("{SORTED}{}", Value::from(parts))))
        };
        let time = "2026-01-31T12:00:00.000000Z";
        assert!(decode(json!(["a", 1, time, "p1"])).is_ok());
        assert!(decode(json!([[], 1, time, "p1"])).is_ok());
        for wrong in [
            json!([{"$gt": ""}, 1, time, "p1"]),
            json!([[1], 1, time, "p1"]),
            json!(["a", "1", time, "p1"]),
            json!(["a", 1, "today", "p1"]),
            json!(["a", 1, time, {"$ne": ""}]),
            json!(["a", 1, time]),
            json!(["a", 1, time, "x", "p1"]),
        ] {
            assert_eq!(decode(wrong.clone()), Err(BadCursor::Malformed), "{wrong}");
        }
    }

    #[test]
    fn a_place_that_fits_into_no_url_has_no_cursor() {
        let sort = by(&["title"]);
        let order = Order {
            view: "post",
            sort: &sort,
        };
        let place = |length| Place {
            keys: vec![json!("x".repeat(length))],
            id: "p1".to_owned(),
        };
        assert!(order.encode(&place(4_000)).is_some());
        assert!(order.encode(&place(8_000)).is_none());
    }
}
