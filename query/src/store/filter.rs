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

/// The documents that `query` finds among `documents`, in its order: what every store answers.
///
/// It holds no more than twice as many of them at a time as `query` allows.
#[must_use]
pub fn page<D: Borrow<Document>>(documents: impl IntoIterator<Item = D>, query: &Query) -> Vec<D> {
    let mut page: Vec<(Place, D)> = Vec::new();
    let cut = |page: &mut Vec<(Place, D)>| {
        page.sort_by(|(a, _), (b, _)| order_of_places(a, b, &query.sort));
        page.truncate(query.limit);
    };
    for found in documents {
        let document = found.borrow();
        if document.deleted && !query.deleted || !matches(document, &query.filter) {
            continue;
        }
        let place = place_of(document, &query.sort);
        let after = query.after.as_ref();
        if after.is_none_or(|after| order_of_places(&place, after, &query.sort).is_gt()) {
            page.push((place, found));
        }
        if page.len() / 2 > query.limit {
            cut(&mut page);
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
        matches(
            &document(),
            &Filter::Field(Field::Data(path), Test::Is(value)),
        )
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
        let fits = |field, value| matches(&document(), &Filter::Field(field, Test::Is(value)));
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

    fn passes(path: &[&str], test: Test) -> bool {
        let path = path.iter().map(|name| (*name).to_owned()).collect();
        matches(&document(), &Filter::Field(Field::Data(path), test))
    }

    #[test]
    fn ranges_are_among_values_of_one_kind() {
        assert!(passes(&["half"], Test::Above(json!(0))));
        assert!(
            passes(&["half"], Test::AtLeast(json!(0.5)))
                && !passes(&["half"], Test::Above(json!(0.5)))
        );
        assert!(passes(
            &["big"],
            Test::Above(json!(9_007_199_254_740_992.0))
        ));
        assert!(
            passes(&["title"], Test::Below(json!("a")))
                && !passes(&["title"], Test::Below(json!("T")))
        );
        for bound in [json!(null), json!(false), json!("a"), json!([]), json!({})] {
            for test in [Test::Above, Test::AtLeast, Test::Below, Test::AtMost] {
                assert!(!passes(&["stars"], test(bound.clone())), "{bound}");
                assert!(!passes(&["none"], test(bound.clone())), "{bound}");
            }
        }
    }

    #[test]
    fn parts_and_items_are_exact() {
        assert!(passes(&["title"], Test::Prefix("Ti".to_owned())));
        assert!(!passes(&["title"], Test::Prefix("ti".to_owned())));
        assert!(passes(&["empty"], Test::Prefix(String::new())));
        assert!(!passes(&["none"], Test::Prefix(String::new())));
        assert!(passes(&["title"], Test::ContainsText("ide".to_owned())));
        assert!(!passes(&["tags"], Test::ContainsText("a".to_owned())));
        assert!(passes(&["tags"], Test::HasItem(json!("b"))));
        assert!(passes(&["list"], Test::HasItem(json!({"x": 1.0}))));
        assert!(!passes(&["title"], Test::HasItem(json!("Tides"))));
        assert!(passes(
            &["stars"],
            Test::OneOf(vec![json!("1"), json!(1.0)])
        ));
        assert!(!passes(&["stars"], Test::OneOf(vec![])));
        assert!(
            passes(&["nowhere"], Test::Not(json!(1))) && !passes(&["none"], Test::Not(Value::Null))
        );
        assert!(passes(&["empty"], Test::Exists(true)) && passes(&["none"], Test::Exists(false)));
    }

    #[test]
    fn all_of_nothing_holds_and_one_of_nothing_does_not() {
        let holds = || Filter::is(Field::Version, json!(3));
        let fails = || Filter::is(Field::Version, json!(4));
        let fits = |filter| matches(&document(), &filter);
        assert!(fits(Filter::All(vec![])) && !fits(Filter::Any(vec![])));
        assert!(!fits(Filter::All(vec![holds(), fails()])));
        assert!(fits(Filter::Any(vec![fails(), Filter::All(vec![holds()])])));
    }

    #[test]
    fn a_page_has_its_order_its_beginning_and_its_length() {
        let of = |id: &str, key: Value, deleted: bool| Document {
            id: id.to_owned(),
            data: Map::from_iter([("k".to_owned(), key)]),
            deleted,
            ..document()
        };
        let documents = [
            of("a", json!("x"), false),
            of("b", json!(2), false),
            of("c", json!(true), false),
            of("d", json!(null), false),
            of("e", json!(2.0), false),
            of("f", json!(1), true),
            of("g", json!([1]), false),
        ];
        let mut query = Query {
            sort: vec![Sort {
                field: Field::Data(vec!["k".to_owned()]),
                direction: Direction::Ascending,
            }],
            limit: 3,
            ..Query::default()
        };
        let ids = |query: &Query| -> String {
            page(&documents, query)
                .iter()
                .map(|d| d.id.as_str())
                .collect()
        };
        assert_eq!(ids(&query), "dbe");
        query.after = Some(place_of(&documents[1], &query.sort));
        assert_eq!(ids(&query), "eac");
        query.after = Some(place_of(&documents[6], &query.sort));
        assert_eq!(ids(&query), "");
        query.sort[0].direction = Direction::Descending;
        query.limit = 10;
        query.deleted = true;
        assert_eq!(ids(&query), "cabefd");
        query.limit = 0;
        assert_eq!(ids(&query), "");
    }
}
