//! What a query means: the one definition, which the memory adapter runs, databases are checked against, and what they cannot
//! compare is left to.

use std::borrow::Borrow;
use std::cmp::Ordering;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Number, Value, json};

use super::{Direction, Document, Field, Filter, Place, Query, Sort, Test};

/// Whether `document` meets `filter`.
#[must_use]
pub fn matches(document: &Document, filter: &Filter) -> bool {
    match filter {
        Filter::All(filters) => filters.iter().all(|filter| matches(document, filter)),
        Filter::Any(filters) => filters.iter().any(|filter| matches(document, filter)),
        Filter::Field(field, test) => match field {
            Field::Id => passes(&Subject::Text(&document.id), test),
            Field::Version => passes(&Subject::Number(document.version.number().into()), test),
            Field::CreatedAt => passes(&Subject::time(document.created_at), test),
            Field::UpdatedAt => passes(&Subject::time(document.updated_at), test),
            Field::Data(path) if path.is_empty() => passes(&Subject::Whole(&document.data), test),
            Field::Data(path) => passes(&Subject::Value(value_at(document, path)), test),
        },
    }
}

/// Whether a document of this id may meet `filter`, whatever else it has.
pub(crate) fn may_match(id: &str, filter: &Filter) -> bool {
    match filter {
        Filter::All(filters) => filters.iter().all(|filter| may_match(id, filter)),
        Filter::Any(filters) => filters.iter().any(|filter| may_match(id, filter)),
        Filter::Field(Field::Id, test) => passes(&Subject::Text(id), test),
        Filter::Field(..) => true,
    }
}

/// The documents that `query` finds among `documents`, in its order: what every store answers.
///
/// It holds no more than about twice as many of them at a time as `query` allows.
#[must_use]
pub fn page<D: Borrow<Document>>(documents: impl IntoIterator<Item = D>, query: &Query) -> Vec<D> {
    let mut page: Vec<(Place, D)> = Vec::new();
    let mut bytes = 0;
    let cut = |page: &mut Vec<(Place, D)>| {
        page.sort_by(|(a, _), (b, _)| order_of_places(a, b, &query.sort));
        let (mut count, mut bytes) = (0, 0);
        for (_, document) in page.iter().take(query.limit) {
            if !query.has_room(bytes) {
                break;
            }
            bytes += query.weight(document.borrow());
            count += 1;
        }
        page.truncate(count);
        bytes
    };
    for found in documents {
        let document = found.borrow();
        if document.deleted && !query.deleted || !matches(document, &query.filter) {
            continue;
        }
        let place = place_of(document, &query.sort);
        let after = query.after.as_ref();
        if after.is_none_or(|after| order_of_places(&place, after, &query.sort).is_gt()) {
            bytes += query.weight(document);
            page.push((place, found));
        }
        if page.len() / 2 > query.limit || !query.has_room(bytes / 2) {
            bytes = cut(&mut page);
        }
    }
    cut(&mut page);
    page.into_iter().map(|(_, document)| document).collect()
}

/// The place of `document` in this order: where a page ends whose last document it is.
#[must_use]
pub fn place_of(document: &Document, sort: &[Sort]) -> Place {
    let time = |time: DateTime<Utc>| json!(time.to_rfc3339_opts(SecondsFormat::Micros, true));
    let key = |sort: &Sort| match &sort.field {
        Field::Id => json!(document.id),
        Field::Version => json!(document.version.number()),
        Field::CreatedAt => time(document.created_at),
        Field::UpdatedAt => time(document.updated_at),
        Field::Data(path) => match value_at(document, path) {
            Value::Array(_) | Value::Object(_) => json!([]),
            scalar => scalar.clone(),
        },
    };
    Place {
        keys: sort.iter().map(key).collect(),
        id: document.id.clone(),
    }
}

/// Which of two places comes first.
fn order_of_places(a: &Place, b: &Place, sort: &[Sort]) -> Ordering {
    let keys = a.keys.iter().zip(&b.keys).zip(sort);
    let orders = keys.map(|((a, b), sort)| match sort.direction {
        Direction::Ascending => order(a, b),
        Direction::Descending => order(b, a),
    });
    orders
        .fold(Ordering::Equal, Ordering::then)
        .then(a.id.cmp(&b.id))
}

/// Which of two values comes first: nothing, numbers, texts, truth values, and then all that has parts, without an order.
pub(super) fn order(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Null => 0,
        Value::Number(_) => 1,
        Value::String(_) => 2,
        Value::Bool(_) => 3,
        Value::Array(_) | Value::Object(_) => 4,
    };
    within_kind(a, b).unwrap_or_else(|| rank(a).cmp(&rank(b)))
}

/// The order of two values of one kind that has an order.
fn within_kind(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => Some(order_of_numbers(a, b)),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// What is tested.
enum Subject<'a> {
    /// A value of `data`.
    Value(&'a Value),
    /// `data` itself.
    Whole(&'a Map<String, Value>),
    /// The id.
    Text(&'a str),
    /// The version.
    Number(Number),
    /// A time, in microseconds since 1970.
    Time(i64),
}

impl Subject<'_> {
    const fn time(time: DateTime<Utc>) -> Self {
        Self::Time(time.timestamp_micros())
    }

    /// Whether it equals `wanted`.
    fn is(&self, wanted: &Value) -> bool {
        match self {
            Self::Value(value) => same(value, wanted),
            Self::Whole(map) => matches!(wanted, Value::Object(wanted) if same_map(map, wanted)),
            Self::Text(_) | Self::Number(_) | Self::Time(_) => {
                self.order(wanted) == Some(Ordering::Equal)
            }
        }
    }

    /// How it compares to `bound`, if the two can be compared.
    fn order(&self, bound: &Value) -> Option<Ordering> {
        match (self, bound) {
            (_, Value::Bool(_)) | (Self::Whole(_), _) => None,
            (Self::Value(value), bound) => within_kind(value, bound),
            (Self::Text(text), Value::String(bound)) => Some((*text).cmp(bound)),
            (Self::Number(number), Value::Number(bound)) => Some(order_of_numbers(number, bound)),
            (Self::Time(time), bound) => {
                let bound = Instant::of(bound)?;
                let beside = if bound.exact {
                    Ordering::Equal
                } else {
                    Ordering::Less
                };
                Some(time.cmp(&bound.floor).then(beside))
            }
            _ => None,
        }
    }

    const fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Value(Value::String(text)) => Some(text.as_str()),
            _ => None,
        }
    }
}

/// Whether `subject` passes `test`.
fn passes(subject: &Subject<'_>, test: &Test) -> bool {
    match test {
        Test::Is(value) => subject.is(value),
        Test::Not(value) => !subject.is(value),
        Test::OneOf(values) => values.iter().any(|value| subject.is(value)),
        Test::Above(bound) => subject.order(bound).is_some_and(Ordering::is_gt),
        Test::AtLeast(bound) => subject.order(bound).is_some_and(Ordering::is_ge),
        Test::Below(bound) => subject.order(bound).is_some_and(Ordering::is_lt),
        Test::AtMost(bound) => subject.order(bound).is_some_and(Ordering::is_le),
        Test::Prefix(start) => subject.text().is_some_and(|text| text.starts_with(start)),
        Test::ContainsText(part) => subject.text().is_some_and(|text| text.contains(part)),
        Test::HasItem(wanted) => match subject {
            Subject::Value(Value::Array(items)) => items.iter().any(|item| same(item, wanted)),
            _ => false,
        },
        Test::Exists(exists) => *exists != subject.is(&Value::Null),
    }
}

/// What `document` has at `path`, through objects only; missing is null.
fn value_at<'d>(document: &'d Document, path: &[String]) -> &'d Value {
    const NOTHING: &Value = &Value::Null;
    let Some((first, rest)) = path.split_first() else {
        return NOTHING;
    };
    let found = rest
        .iter()
        .try_fold(document.data.get(first), |value, name| {
            Some(value?.as_object()?.get(name))
        });
    found.flatten().unwrap_or(NOTHING)
}

/// Whether two JSON values are the same: numbers by value, the fields of objects in any order.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => order_of_numbers(a, b).is_eq(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => same_map(a, b),
        (a, b) => a == b,
    }
}

/// Whether two objects have the same fields with the same values.
fn same_map(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.len() == b.len()
        && a.iter()
            .all(|(name, value)| b.get(name).is_some_and(|other| same(value, other)))
}

/// The order of two numbers by value, exactly: 2^53 + 1 is above the floating-point number next to it.
fn order_of_numbers(a: &Number, b: &Number) -> Ordering {
    match (whole_number(a), whole_number(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        // One of them has a fraction, and so is below 2^53, or is beyond 2^127: rounding the other one changes no order.
        _ => a
            .as_f64()
            .partial_cmp(&b.as_f64())
            .unwrap_or(Ordering::Equal),
    }
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

/// The instant that an RFC 3339 text names, beside the microseconds that stores keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instant {
    /// The last microsecond since 1970 that is not after it.
    pub(super) floor: i64,
    /// Whether it is that microsecond, and not one of the nanoseconds up to the next.
    pub(super) exact: bool,
}

impl Instant {
    /// What `value` names, if it is such a text.
    pub(super) fn of(value: &Value) -> Option<Self> {
        let time = DateTime::parse_from_rfc3339(value.as_str()?).ok()?;
        Some(Self {
            floor: time.timestamp_micros(),
            exact: time.timestamp_subsec_nanos() % 1_000 == 0,
        })
    }
}

#[cfg(test)]
mod tests;
