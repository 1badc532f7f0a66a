//! Filters, as a database is asked.

use serde_json::{Number, Value};

use super::{Ask, Condition, Number64, Relation, Scalar, Subject, all, any};
use crate::store::filter::{Instant, whole_number};
use crate::store::{Field, Filter, Test};

/// What is asked for `filter`. `exact` becomes false where that is met by more.
pub(super) fn lower<'q>(filter: &'q Filter, exact: &mut bool) -> Condition<'q> {
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
pub(super) enum Wanted<'q> {
    /// A scalar that documents can have.
    Scalar(Scalar<'q>),
    /// A number that no document can have.
    Nowhere,
    /// A list or an object, which a database may compare otherwise.
    Composite,
}

impl<'q> Wanted<'q> {
    pub(super) fn of(value: &'q Value) -> Self {
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
pub(super) fn version(value: &Value) -> Option<Instant> {
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
}
