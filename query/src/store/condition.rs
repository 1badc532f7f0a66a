//! What a database is asked for a filter: what it is known to compare as [`matches`](super::matches) does, no more.

use serde_json::{Number, Value};

use super::filter::{instant, whole, whole_number};
use super::{Field, Filter};

/// What a database is asked for a filter.
#[derive(Debug, PartialEq)]
pub(crate) enum Condition<'a> {
    /// Nothing can meet it.
    Never,
    /// The id is this one.
    Id(&'a str),
    /// The version is this one.
    Version(i64),
    /// Created at this microsecond since 1970.
    CreatedAt(i64),
    /// Updated at this microsecond since 1970.
    UpdatedAt(i64),
    /// The value at this path, through objects, is the scalar.
    Data(&'a [String], Scalar<'a>),
    /// A database may compare it otherwise (lists, objects, unusual names): [`matches`](super::matches) looks at what was read.
    AfterReading,
}

/// A JSON value that has no parts.
#[derive(Debug, PartialEq)]
pub(crate) enum Scalar<'a> {
    /// Null, or missing.
    Null,
    /// True or false.
    Bool(bool),
    /// A number, in each of the two forms in which it can be stored. At least one is there.
    Number {
        /// As a whole number.
        whole: Option<i64>,
        /// As a floating-point number.
        float: Option<f64>,
    },
    /// A text.
    Text(&'a str),
}

impl<'a> Condition<'a> {
    /// What a database is asked for `filter`.
    pub(crate) fn of(filter: &'a Filter) -> Self {
        let value = &filter.value;
        match &filter.field {
            Field::Id => value.as_str().map_or(Self::Never, Self::Id),
            Field::Version => whole(value)
                .and_then(|number| i64::try_from(number).ok())
                .map_or(Self::Never, Self::Version),
            Field::CreatedAt => instant(value).map_or(Self::Never, Self::CreatedAt),
            Field::UpdatedAt => instant(value).map_or(Self::Never, Self::UpdatedAt),
            Field::Data(path) => {
                if path.is_empty() || !path.iter().all(|name| is_plain(name)) {
                    return Self::AfterReading;
                }
                match value {
                    Value::Null => Self::Data(path, Scalar::Null),
                    Value::Bool(value) => Self::Data(path, Scalar::Bool(*value)),
                    Value::String(text) => Self::Data(path, Scalar::Text(text)),
                    Value::Number(number) => match forms(number) {
                        (None, None) => Self::Never,
                        (whole, float) => Self::Data(path, Scalar::Number { whole, float }),
                    },
                    Value::Array(_) | Value::Object(_) => Self::AfterReading,
                }
            }
        }
    }
}

/// Whether a field's name can stand in a path of every database as it is.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name
            .chars()
            .any(|c| c.is_control() || matches!(c, '.' | '$' | '"' | '\\'))
}

/// The two forms in which the value of `number` may be stored.
fn forms(number: &Number) -> (Option<i64>, Option<f64>) {
    let whole = whole_number(number);
    let float = number.as_f64().filter(|float| {
        // A whole number may have been rounded on the way.
        whole.is_none() || Number::from_f64(*float).as_ref().and_then(whole_number) == whole
    });
    (whole.and_then(|whole| i64::try_from(whole).ok()), float)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_is_looked_for_in_each_form_that_it_can_have() {
        let of = |value: Value| forms(value.as_number().unwrap());
        assert_eq!(of(json!(1)), (Some(1), Some(1.0)));
        assert_eq!(of(json!(-0.0)), (Some(0), Some(0.0)));
        assert_eq!(of(json!(0.5)), (None, Some(0.5)));
        let odd = (1_i64 << 53) + 1;
        assert_eq!(of(json!(odd)), (Some(odd), None));
        assert_eq!(of(json!(i64::MAX)), (Some(i64::MAX), None));
        assert_eq!(
            of(json!(1_u64 << 63)),
            (None, Some(9_223_372_036_854_775_808.0))
        );
        assert_eq!(of(json!(u64::MAX)), (None, None));
    }
}
