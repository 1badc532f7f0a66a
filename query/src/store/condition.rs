//! What a database is asked for a query: what it is known to compare as [`matches`](super::matches) does, no more.

mod lower;

use serde_json::Value;

use self::lower::{Wanted, lower, version};
use super::filter::Instant;
use super::{Direction, Field, Place, Query, Sort};

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
    /// Where the first field of that order begins, if it does not at its beginning: what `condition` says as well, and more of, in a form
    /// that some databases cannot go by.
    #[cfg_attr(not(feature = "sqlite"), allow(dead_code, reason = "MongoDB can"))]
    pub(crate) from: Option<(Subject<'q>, Direction, Key<'q>)>,
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
        let first = query.after.as_ref().and_then(|place| place.keys.first());
        let first = first.zip(query.sort.first());
        let from = first.and_then(|(value, sort)| {
            let (subject, direction) = *order.as_ref()?.first()?;
            Some((subject, direction, key(&sort.field, value)?))
        });
        Self {
            condition: all([filter, behind]),
            exact,
            order,
            from,
        }
    }
}

impl<'q> Subject<'q> {
    /// `None` for a field that a database cannot name.
    pub(crate) fn of(field: &'q Field) -> Option<Self> {
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
    use crate::store::{Filter, Test};

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
