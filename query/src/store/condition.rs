//! What a database is asked for a query: what it is known to compare as [`matches`](super::matches) does, no more.

use serde_json::{Number, Value};

use super::filter::{Instant, whole_number};
use super::{Direction, Field, Filter, Place, Query, Sort, Test};

/// A query as a database is asked.
#[derive(Debug, PartialEq)]
pub(crate) struct Asked<'q> {
    /// What it is asked for.
    pub(crate) condition: Condition<'q>,
    /// Whether that is just what the query's filter says. Where not, it is met by more than should be found, and
    /// [`matches`](super::matches) looks at what was read.
    pub(crate) exact: bool,
    /// The order that it is asked for; `None` where it cannot sort so, and [`page`](super::page) sorts what was read.
    pub(crate) order: Option<Vec<(Subject<'q>, Direction)>>,
}

/// What a database compares of a document.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Subject<'q> {
    /// The id, with texts.
    Id,
    /// A number of the envelope, with whole numbers.
    Envelope(Number64),
    /// The value at this path of `data`, through objects only.
    Data(&'q [String]),
}

/// A number that every document has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number64 {
    /// Its version.
    Version,
    /// When it was created, in microseconds since 1970.
    CreatedAt,
    /// When it was changed, in microseconds since 1970.
    UpdatedAt,
}

/// What a document must meet.
#[derive(Debug, PartialEq)]
pub(crate) enum Condition<'q> {
    /// Anything does.
    Always,
    /// Nothing does.
    Never,
    /// All of these, of which there are two at least.
    All(Vec<Self>),
    /// One of these, of which there are two at least.
    Any(Vec<Self>),
    /// A field is so.
    Test(Subject<'q>, Ask<'q>),
}

/// How a field must be.
#[derive(Debug, PartialEq)]
pub(crate) enum Ask<'q> {
    /// This scalar.
    Is(Scalar<'q>),
    /// Anything else.
    Not(Scalar<'q>),
    /// One of these, of which there is one at least.
    OneOf(Vec<Scalar<'q>>),
    /// A number or a text that stands so to this one.
    Than(Relation, Scalar<'q>),
    /// A text from the first one on, and below the second, if there is one.
    Between(&'q str, Option<String>),
    /// A text with this one in it, which is not empty.
    Contains(&'q str),
    /// A list with this item.
    HasItem(Scalar<'q>),
    /// Behind this value in the order of all values, that way.
    Behind(Direction, Key<'q>),
    /// A list or an object. (For places in an order alone.)
    Composite,
}

/// How a value stands to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// It is greater.
    Above,
    /// It is greater or equal.
    AtLeast,
    /// It is less.
    Below,
    /// It is less or equal.
    AtMost,
}

/// A place in the order of all values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Key<'q> {
    /// That of a scalar.
    Scalar(Scalar<'q>),
    /// That of the lists and objects, behind all scalars.
    Composite,
}

/// A JSON value that has no parts, and that can be stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scalar<'q> {
    /// Null, or missing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Whole(i64),
    /// A floating-point number: one that is no [`Whole`](Self::Whole) one.
    Float(f64),
    /// A text.
    Text(&'q str),
}

impl<'q> Asked<'q> {
    /// What a database is asked for `query`, tombstones and the limit aside.
    pub(crate) fn of(query: &'q Query) -> Self {
        let mut exact = true;
        let filter = lower(&query.filter, &mut exact);
        let subjects = query.sort.iter().map(|sort| {
            let subject = Subject::of(&sort.field)?;
            Some((subject, sort.direction))
        });
        let order: Option<Vec<_>> = subjects.collect();
        let behind = match (&query.after, &order) {
            (Some(place), Some(order)) => behind(place, order, &query.sort),
            _ => Condition::Always,
        };
        Self {
            condition: all([filter, behind]),
            exact,
            order,
        }
    }
}

impl<'q> Subject<'q> {
    /// `None` for a field that a database cannot name.
    fn of(field: &'q Field) -> Option<Self> {
        Some(match field {
            Field::Id => Self::Id,
            Field::Version => Self::Envelope(Number64::Version),
            Field::CreatedAt => Self::Envelope(Number64::CreatedAt),
            Field::UpdatedAt => Self::Envelope(Number64::UpdatedAt),
            Field::Data(path) => {
                let nameable = !path.is_empty() && path.iter().all(|name| is_plain(name));
                return nameable.then_some(Self::Data(path));
            }
        })
    }
}

/// What is asked for `filter`. `exact` becomes false where that is met by more.
fn lower<'q>(filter: &'q Filter, exact: &mut bool) -> Condition<'q> {
    match filter {
        Filter::All(filters) => all(filters.iter().map(|filter| lower(filter, exact))),
        Filter::Any(filters) => any(filters.iter().map(|filter| lower(filter, exact))),
        Filter::Field(field, test) => {
            let asked = match field {
                Field::Id => Some(on_id(test)),
                Field::Version => Some(on_number(Number64::Version, test, version)),
                Field::CreatedAt => Some(on_number(Number64::CreatedAt, test, Instant::of)),
                Field::UpdatedAt => Some(on_number(Number64::UpdatedAt, test, Instant::of)),
                Field::Data(_) => Subject::of(field).and_then(|subject| on_data(subject, test)),
            };
            asked.unwrap_or_else(|| {
                *exact = false;
                Condition::Always
            })
        }
    }
}

/// A test of the id, which is always a text.
fn on_id(test: &Test) -> Condition<'_> {
    let on = |ask| Condition::Test(Subject::Id, ask);
    match test {
        Test::Is(value) => value
            .as_str()
            .map_or(Condition::Never, |id| on(Ask::Is(Scalar::Text(id)))),
        Test::Not(value) => value
            .as_str()
            .map_or(Condition::Always, |id| on(Ask::Not(Scalar::Text(id)))),
        Test::OneOf(values) => {
            let texts: Vec<_> = values
                .iter()
                .filter_map(Value::as_str)
                .map(Scalar::Text)
                .collect();
            if texts.is_empty() {
                Condition::Never
            } else {
                on(Ask::OneOf(texts))
            }
        }
        Test::Prefix(start) => on(Ask::Between(start, successor(start))),
        Test::ContainsText(part) if part.is_empty() => Condition::Always,
        Test::ContainsText(part) => on(Ask::Contains(part)),
        Test::HasItem(_) => Condition::Never,
        Test::Exists(exists) => always_if(*exists),
        Test::Above(_) | Test::AtLeast(_) | Test::Below(_) | Test::AtMost(_) => {
            let than =
                relation(test).and_then(|(relation, value)| Some((relation, value.as_str()?)));
            than.map_or(Condition::Never, |(relation, id)| {
                on(Ask::Than(relation, Scalar::Text(id)))
            })
        }
    }
}

/// A test of a number of the envelope, which is compared with what `read` makes of a value.
fn on_number(
    number: Number64,
    test: &Test,
    read: fn(&Value) -> Option<Instant>,
) -> Condition<'static> {
    let on = |ask| Condition::Test(Subject::Envelope(number), ask);
    let exact = |value| {
        read(value)
            .filter(|bound| bound.exact)
            .map(|bound| Scalar::Whole(bound.floor))
    };
    match test {
        Test::Is(value) => exact(value).map_or(Condition::Never, |value| on(Ask::Is(value))),
        Test::Not(value) => exact(value).map_or(Condition::Always, |value| on(Ask::Not(value))),
        Test::OneOf(values) => {
            let values: Vec<_> = values.iter().filter_map(exact).collect();
            if values.is_empty() {
                Condition::Never
            } else {
                on(Ask::OneOf(values))
            }
        }
        Test::Prefix(_) | Test::ContainsText(_) | Test::HasItem(_) => Condition::Never,
        Test::Exists(exists) => always_if(*exists),
        Test::Above(_) | Test::AtLeast(_) | Test::Below(_) | Test::AtMost(_) => {
            let than = relation(test).and_then(|(relation, value)| Some((relation, read(value)?)));
            than.map_or(Condition::Never, |(relation, bound)| {
                // Nothing is between a whole number and the next: what is beyond one there is beyond the other.
                let relation = match relation {
                    Relation::AtLeast if !bound.exact => Relation::Above,
                    Relation::Below if !bound.exact => Relation::AtMost,
                    relation => relation,
                };
                on(Ask::Than(relation, Scalar::Whole(bound.floor)))
            })
        }
    }
}

/// A test of a value of `data`; `None` where a database may see it otherwise.
fn on_data<'q>(subject: Subject<'q>, test: &'q Test) -> Option<Condition<'q>> {
    let on = |ask| Some(Condition::Test(subject, ask));
    let value = |value, ask: fn(Scalar<'q>) -> Ask<'q>, nowhere| match Wanted::of(value) {
        Wanted::Scalar(value) => on(ask(value)),
        Wanted::Nowhere => Some(nowhere),
        Wanted::Composite => None,
    };
    match test {
        Test::Is(wanted) => value(wanted, Ask::Is, Condition::Never),
        Test::Not(wanted) => value(wanted, Ask::Not, Condition::Always),
        Test::HasItem(wanted) => value(wanted, Ask::HasItem, Condition::Never),
        Test::OneOf(values) => {
            let mut wanted = Vec::new();
            for value in values {
                match Wanted::of(value) {
                    Wanted::Scalar(value) => wanted.push(value),
                    Wanted::Nowhere => {}
                    Wanted::Composite => return None,
                }
            }
            if wanted.is_empty() {
                return Some(Condition::Never);
            }
            on(Ask::OneOf(wanted))
        }
        Test::Prefix(start) => on(Ask::Between(start, successor(start))),
        Test::ContainsText(part) if part.is_empty() => on(Ask::Between(part, None)),
        Test::ContainsText(part) => on(Ask::Contains(part)),
        Test::Exists(true) => on(Ask::Not(Scalar::Null)),
        Test::Exists(false) => on(Ask::Is(Scalar::Null)),
        Test::Above(_) | Test::AtLeast(_) | Test::Below(_) | Test::AtMost(_) => {
            let (relation, bound) = relation(test)?;
            match Wanted::of(bound) {
                Wanted::Scalar(bound @ (Scalar::Whole(_) | Scalar::Float(_) | Scalar::Text(_))) => {
                    on(Ask::Than(relation, bound))
                }
                // Nothing is beside null, a truth value, a list or an object.
                Wanted::Scalar(_) | Wanted::Composite => Some(Condition::Never),
                // No document has this number, and yet theirs can be above or below it.
                Wanted::Nowhere => None,
            }
        }
    }
}

/// What is behind `place` in the order of `subjects`, and then of ids.
fn behind<'q>(
    place: &'q Place,
    subjects: &[(Subject<'q>, Direction)],
    sort: &'q [Sort],
) -> Condition<'q> {
    let keys = place.keys.iter().zip(sort).zip(subjects);
    let keys: Option<Vec<_>> = keys
        .map(|((value, sort), (subject, direction))| {
            Some((*subject, *direction, key(&sort.field, value)?))
        })
        .collect();
    // Whatever is no value of a field is no place in its order.
    let Some(keys) = keys.filter(|keys| keys.len() == subjects.len()) else {
        return Condition::Never;
    };
    let last = Ask::Than(Relation::Above, Scalar::Text(&place.id));
    let mut behind = Condition::Test(Subject::Id, last);
    for (subject, direction, key) in keys.into_iter().rev() {
        let same = match key {
            Key::Scalar(value) => Ask::Is(value),
            Key::Composite => Ask::Composite,
        };
        let same = all([Condition::Test(subject, same), behind]);
        behind = any([Condition::Test(subject, Ask::Behind(direction, key)), same]);
    }
    behind
}

/// The place that `value` has in the order of `field`.
fn key<'q>(field: &Field, value: &'q Value) -> Option<Key<'q>> {
    let exact = |bound: Option<Instant>| {
        bound
            .filter(|bound| bound.exact)
            .map(|bound| Scalar::Whole(bound.floor))
    };
    match field {
        Field::Id => value.as_str().map(Scalar::Text),
        Field::Version => exact(version(value)),
        Field::CreatedAt | Field::UpdatedAt => exact(Instant::of(value)),
        Field::Data(_) => match Wanted::of(value) {
            Wanted::Scalar(value) => Some(value),
            Wanted::Nowhere => None,
            Wanted::Composite => return Some(Key::Composite),
        },
    }
    .map(Key::Scalar)
}

/// All of `conditions`.
fn all<'q>(conditions: impl IntoIterator<Item = Condition<'q>>) -> Condition<'q> {
    let mut kept = Vec::new();
    // Each is looked at, also behind one that never holds, as looking tells whether it is exact.
    for condition in conditions {
        match condition {
            Condition::Always => {}
            Condition::All(inner) => kept.extend(inner),
            other => kept.push(other),
        }
    }
    if kept.contains(&Condition::Never) {
        return Condition::Never;
    }
    match kept.len() {
        0 => Condition::Always,
        1 => kept.remove(0),
        _ => Condition::All(kept),
    }
}

/// One of `conditions`.
fn any<'q>(conditions: impl IntoIterator<Item = Condition<'q>>) -> Condition<'q> {
    let mut kept = Vec::new();
    for condition in conditions {
        match condition {
            Condition::Never => {}
            Condition::Any(inner) => kept.extend(inner),
            other => kept.push(other),
        }
    }
    if kept.contains(&Condition::Always) {
        return Condition::Always;
    }
    match kept.len() {
        0 => Condition::Never,
        1 => kept.remove(0),
        _ => Condition::Any(kept),
    }
}

const fn always_if<'q>(holds: bool) -> Condition<'q> {
    if holds {
        Condition::Always
    } else {
        Condition::Never
    }
}

/// The relation that a test asks for, and to what.
const fn relation(test: &Test) -> Option<(Relation, &Value)> {
    match test {
        Test::Above(value) => Some((Relation::Above, value)),
        Test::AtLeast(value) => Some((Relation::AtLeast, value)),
        Test::Below(value) => Some((Relation::Below, value)),
        Test::AtMost(value) => Some((Relation::AtMost, value)),
        _ => None,
    }
}

/// What a database may be asked for where a value is wanted.
enum Wanted<'q> {
    /// A scalar that documents can have.
    Scalar(Scalar<'q>),
    /// A number that no document can have.
    Nowhere,
    /// A list or an object, which a database may compare otherwise.
    Composite,
}

impl<'q> Wanted<'q> {
    fn of(value: &'q Value) -> Self {
        Self::Scalar(match value {
            Value::Null => Scalar::Null,
            Value::Bool(value) => Scalar::Bool(*value),
            Value::String(text) => Scalar::Text(text),
            Value::Number(number) => match storable(number) {
                Some(number) => number,
                None => return Self::Nowhere,
            },
            Value::Array(_) | Value::Object(_) => return Self::Composite,
        })
    }
}

/// The value of `number` as it may be stored, if it may.
fn storable(number: &Number) -> Option<Scalar<'static>> {
    let whole = whole_number(number);
    if let Some(whole) = whole.and_then(|whole| i64::try_from(whole).ok()) {
        return Some(Scalar::Whole(whole));
    }
    let float = number.as_f64()?;
    // A whole number may have been rounded on the way.
    let same = whole.is_none() || Number::from_f64(float).as_ref().and_then(whole_number) == whole;
    same.then_some(Scalar::Float(float))
}

/// The whole number at or below a number, for versions.
fn version(value: &Value) -> Option<Instant> {
    let number = value.as_number()?;
    if let Some(whole) = whole_number(number) {
        let beyond = if whole < 0 { i64::MIN } else { i64::MAX };
        return Some(i64::try_from(whole).map_or(
            Instant {
                floor: beyond,
                exact: false,
            },
            |floor| Instant { floor, exact: true },
        ));
    }
    let float = number.as_f64()?.floor();
    let floor = Number::from_f64(float).as_ref().and_then(whole_number);
    let beyond = if float < 0.0 { i64::MIN } else { i64::MAX };
    let floor = floor.and_then(|floor| i64::try_from(floor).ok());
    Some(Instant {
        floor: floor.unwrap_or(beyond),
        exact: false,
    })
}

/// The least text above all that begin with `start`; `None` when there is none.
fn successor(start: &str) -> Option<String> {
    let mut kept: Vec<char> = start.chars().collect();
    while let Some(last) = kept.pop() {
        // Behind the last character before the surrogates, which no text has, is the first one behind them.
        let next = match u32::from(last) {
            0xD7FF => Some('\u{E000}'),
            code => char::from_u32(code.saturating_add(1)),
        };
        if let Some(next) = next {
            kept.push(next);
            return Some(kept.into_iter().collect());
        }
    }
    None
}

/// Whether a field's name can stand in a path of every database as it is.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name
            .chars()
            .any(|c| c.is_control() || matches!(c, '.' | '$' | '"' | '\\'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_is_looked_for_as_it_may_be_stored() {
        let of = |value: Value| storable(value.as_number().unwrap());
        assert_eq!(of(json!(1)), Some(Scalar::Whole(1)));
        assert_eq!(of(json!(1.0)), Some(Scalar::Whole(1)));
        assert_eq!(of(json!(-0.0)), Some(Scalar::Whole(0)));
        assert_eq!(of(json!(0.5)), Some(Scalar::Float(0.5)));
        let odd = (1_i64 << 53) + 1;
        assert_eq!(of(json!(odd)), Some(Scalar::Whole(odd)));
        assert_eq!(of(json!(i64::MAX)), Some(Scalar::Whole(i64::MAX)));
        assert_eq!(
            of(json!(1_u64 << 63)),
            Some(Scalar::Float(9_223_372_036_854_775_808.0))
        );
        assert_eq!(of(json!(u64::MAX)), None);
    }

    #[test]
    fn the_successor_of_a_text_is_above_all_that_begin_with_it() {
        let of = |text: &str| successor(text);
        assert_eq!(of("ab").as_deref(), Some("ac"));
        assert_eq!(of("a\u{10FFFF}").as_deref(), Some("b"));
        assert_eq!(of("\u{D7FF}").as_deref(), Some("\u{E000}"));
        assert_eq!(of("\u{10FFFF}"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn what_a_database_cannot_compare_is_asked_for_more_widely() {
        let field =
            |name: &str, value| Filter::Field(Field::Data(vec![name.to_owned()]), Test::Is(value));
        let query = |filter| Query {
            filter,
            ..Query::default()
        };
        let (plain, odd) = (field("a", json!(1)), field("a.b", json!(1)));
        let narrow = Condition::Test(Subject::Data(&["a".to_owned()]), Ask::Is(Scalar::Whole(1)));
        let of = query(Filter::All(vec![plain.clone(), odd.clone()]));
        let asked = Asked::of(&of);
        assert!(!asked.exact && asked.condition == narrow);
        let of = query(Filter::Any(vec![plain.clone(), odd]));
        let asked = Asked::of(&of);
        assert!(!asked.exact && asked.condition == Condition::Always);
        let of = query(Filter::Any(vec![plain, Filter::default()]));
        let asked = Asked::of(&of);
        assert!(asked.exact && asked.condition == Condition::Always);
        let of = query(Filter::Any(vec![]));
        assert_eq!(Asked::of(&of).condition, Condition::Never);
    }
}
