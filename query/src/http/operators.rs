//! The operators of filters, and which of them a field takes: fields and operators are allowed one by one, values are typed by
//! the view's schema.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;
use tidelog_domain::ViewDefinition;
use tidelog_http::Problem;

use super::parameters::Parameter;
use super::shape::{Kind, NoScalar, Scalar, Shape};
use crate::store::{Field, Filter, Test};

/// How deep a field may be nested.
const MAX_PATH: usize = 16;

/// The most values of one `in`.
pub(super) const MAX_VALUES: usize = 100;

/// The fields of every document, whatever its view.
pub(super) const ENVELOPE: [(&str, Field); 4] = [
    ("id", Field::Id),
    ("version", Field::Version),
    ("created_at", Field::CreatedAt),
    ("updated_at", Field::UpdatedAt),
];

/// What a filter asks of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Eq,
    Ne,
    In,
    Gt,
    Gte,
    Lt,
    Lte,
    Prefix,
    Contains,
    Exists,
}

impl Operator {
    /// All, in the order in which they are listed.
    pub(super) const ALL: [Self; 10] = [
        Self::Eq,
        Self::Ne,
        Self::In,
        Self::Gt,
        Self::Gte,
        Self::Lt,
        Self::Lte,
        Self::Prefix,
        Self::Contains,
        Self::Exists,
    ];

    /// What stands in brackets.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Eq => "eq",
            Self::Ne => "ne",
            Self::In => "in",
            Self::Gt => "gt",
            Self::Gte => "gte",
            Self::Lt => "lt",
            Self::Lte => "lte",
            Self::Prefix => "prefix",
            Self::Contains => "contains",
            Self::Exists => "exists",
        }
    }
}

/// A field of a view, and what it holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    pub(super) field: Field,
    pub(super) shape: Shape,
}

impl Target {
    /// The field called `name`.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(super) fn of(view: &dyn ViewDefinition, name: &str) -> Result<Self, NoScalar> {
        if let Some((_, field)) = ENVELOPE.iter().find(|(known, _)| *known == name) {
            return Ok(Self::envelope(field));
        }
        let path: Vec<&str> = name.split('.').collect();
        if path.len() > MAX_PATH {
            return Err(NoScalar::Unknown);
        }
        Ok(Self {
            shape: Shape::of(view.schema(), &path)?,
            field: Field::Data(path.into_iter().map(str::to_owned).collect()),
        })
    }

    /// A field that every document has.
    pub(super) fn envelope(field: &Field) -> Self {
        Self {
            field: field.clone(),
            shape: Shape::one(match field {
                Field::Version => Kind::Integer,
                _ => Kind::String,
            }),
        }
    }

    /// Whether it is a time of the envelope, and so an instant, and no text.
    pub(super) const fn is_time(&self) -> bool {
        matches!(self.field, Field::CreatedAt | Field::UpdatedAt)
    }

    /// Whether it takes an operator.
    pub(super) fn takes(&self, operator: Operator) -> bool {
        let scalar = self.shape.scalar();
        let has = |kind| scalar.as_ref().is_ok_and(|scalar| scalar.has(kind));
        let number = has(Kind::Integer) || has(Kind::Number);
        match operator {
            Operator::Exists => true,
            Operator::Eq | Operator::Ne => scalar.is_ok(),
            Operator::In => number || has(Kind::String) || has(Kind::Boolean),
            Operator::Gt | Operator::Gte | Operator::Lt | Operator::Lte => {
                number || has(Kind::String)
            }
            Operator::Prefix => has(Kind::String) && !self.is_time(),
            Operator::Contains => {
                (has(Kind::String) && !self.is_time()) || self.shape.item().is_some()
            }
        }
    }

    /// The filter that a parameter with this operator stands for.
    pub(super) fn filter(
        &self,
        operator: Operator,
        parameter: &Parameter,
    ) -> Result<Filter, Problem> {
        let test = match operator {
            Operator::Eq => Test::Is(self.value(parameter, &parameter.value)?),
            Operator::Ne => Test::Not(self.value(parameter, &parameter.value)?),
            Operator::In => Test::OneOf(self.values(parameter)?),
            Operator::Gt => Test::Above(self.bound(parameter)?),
            Operator::Gte => Test::AtLeast(self.bound(parameter)?),
            Operator::Lt => Test::Below(self.bound(parameter)?),
            Operator::Lte => Test::AtMost(self.bound(parameter)?),
            Operator::Prefix => Test::Prefix(parameter.value.clone()),
            Operator::Contains => return self.contains(parameter),
            Operator::Exists => match parameter.value.as_str() {
                "true" => Test::Exists(true),
                "false" => Test::Exists(false),
                _ => return Err(parameter.malformed("true or false")),
            },
        };
        Ok(Filter::Field(self.field.clone(), test))
    }

    /// A text in a text, or an item of a list; in a field that may hold both, either.
    fn contains(&self, parameter: &Parameter) -> Result<Filter, Problem> {
        let is_text = self
            .shape
            .scalar()
            .is_ok_and(|scalar| scalar.has(Kind::String));
        let text = is_text.then(|| Ok(Test::ContainsText(parameter.value.clone())));
        let item = self.shape.item().map(|item| {
            let value = item.value(&parameter.value);
            value
                .map(Test::HasItem)
                .map_err(|wanted| parameter.malformed(&wanted))
        });
        let tests: Result<Vec<Test>, Problem> = text.into_iter().chain(item).collect();
        let mut filters = tests?
            .into_iter()
            .map(|test| Filter::Field(self.field.clone(), test));
        Ok(match (filters.next(), filters.next()) {
            (Some(one), None) => one,
            (one, other) => Filter::Any(one.into_iter().chain(other).collect()),
        })
    }

    fn values(&self, parameter: &Parameter) -> Result<Vec<Value>, Problem> {
        let texts = list(&parameter.value).ok_or_else(|| {
            parameter.malformed(
                "values with commas between them; one with a comma in it, or a quote at its start, in double quotes, and in \
                 those a quote doubled",
            )
        })?;
        if texts.len() > MAX_VALUES {
            return Err(parameter.malformed(&format!("a list of at most {MAX_VALUES} values")));
        }
        texts
            .iter()
            .map(|text| self.value(parameter, text))
            .collect()
    }

    fn bound(&self, parameter: &Parameter) -> Result<Value, Problem> {
        self.typed(parameter, &parameter.value, Scalar::bound)
    }

    fn value(&self, parameter: &Parameter, text: &str) -> Result<Value, Problem> {
        self.typed(parameter, text, Scalar::value)
    }

    /// The value that `text` stands for, as `read` reads it where it is no number or time of the envelope.
    fn typed(
        &self,
        parameter: &Parameter,
        text: &str,
        read: fn(&Scalar, &str) -> Result<Value, String>,
    ) -> Result<Value, Problem> {
        match &self.field {
            Field::Version => digits(text)
                .map(Value::from)
                .ok_or_else(|| parameter.malformed("a whole number")),
            Field::CreatedAt | Field::UpdatedAt => {
                // As exact as it was written: a time between two microseconds is nobody's.
                let time = time(parameter, text)?;
                Ok(Value::from(
                    time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
                ))
            }
            Field::Id | Field::Data(_) => {
                let scalar = self
                    .shape
                    .scalar()
                    .map_err(|_| self.no_such_operator(parameter))?;
                read(&scalar, text).map_err(|wanted| parameter.malformed(&wanted))
            }
        }
    }

    /// The problem that the field does not take the operator of `parameter`, and which ones it does.
    pub(super) fn no_such_operator(&self, parameter: &Parameter) -> Problem {
        let taken = Operator::ALL
            .into_iter()
            .filter(|operator| self.takes(*operator));
        let taken: Vec<_> = taken
            .map(|operator| format!("`{}`", operator.name()))
            .collect();
        let taken = taken.join(", ");
        let why = match self.shape.scalar() {
            Err(NoScalar::Composite) => "the field holds a list or an object, and ",
            Err(_) => {
                "the field may hold a text or something else, so it is not clear what a value would mean, and "
            }
            Ok(_) => "",
        };
        parameter.unknown(&format!("{why}the field takes {taken}."))
    }
}

/// The filter that a parameter stands for, with its field and operator.
pub(super) fn filter(
    view: &dyn ViewDefinition,
    parameter: &Parameter,
) -> Result<(Field, Operator, Filter), Problem> {
    let target =
        Target::of(view, &parameter.name).map_err(|why| not_a_field(view, parameter, why))?;
    let written = parameter.operator.as_deref().unwrap_or("eq");
    let operator = Operator::ALL
        .into_iter()
        .find(|operator| operator.name() == written);
    let operator = operator
        .filter(|operator| target.takes(*operator))
        .ok_or_else(|| target.no_such_operator(parameter))?;
    let filter = target.filter(operator, parameter)?;
    Ok((target.field, operator, filter))
}

/// The time that `text` writes.
pub(super) fn time(parameter: &Parameter, text: &str) -> Result<DateTime<Utc>, Problem> {
    let time = DateTime::parse_from_rfc3339(text).map_err(|_| {
        parameter.malformed("a time as in 2026-01-31T12:00:00Z (RFC 3339; write + as %2B)")
    })?;
    Ok(time.to_utc())
}

/// The number that `text` writes in digits alone, without the sign that Rust would allow.
pub(super) fn digits(text: &str) -> Option<u64> {
    let all_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| text.parse().ok()).flatten()
}

/// The texts that `text` lists, with commas between them; one in double quotes may have commas in it, and quotes doubled.
pub(super) fn list(text: &str) -> Option<Vec<String>> {
    let mut listed = Vec::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        let Some(quoted) = text.strip_prefix('"') else {
            let (value, left) = text
                .split_once(',')
                .map_or((text, None), |(a, b)| (a, Some(b)));
            listed.push(value.to_owned());
            rest = left;
            continue;
        };
        let mut value = String::new();
        let mut left = quoted;
        loop {
            let (before, behind) = left.split_once('"')?;
            value.push_str(before);
            match behind.strip_prefix('"') {
                Some(more) => {
                    value.push('"');
                    left = more;
                }
                None => {
                    left = behind;
                    break;
                }
            }
        }
        listed.push(value);
        rest = if left.is_empty() {
            None
        } else {
            Some(left.strip_prefix(',')?)
        };
    }
    Some(listed)
}

fn not_a_field(view: &dyn ViewDefinition, parameter: &Parameter, why: NoScalar) -> Problem {
    parameter.unknown(&no_field(view, why))
}

/// Why a view has no such field, for people.
pub(super) fn no_field(view: &dyn ViewDefinition, why: NoScalar) -> String {
    let view = view.name();
    match why {
        NoScalar::FreeForm => format!(
            "the schema of the view {view} does not say what the field holds, so it cannot be compared."
        ),
        NoScalar::Unknown | NoScalar::Composite | NoScalar::Ambiguous => {
            format!("the view {view} has no such field.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_taken_apart_at_its_commas() {
        let list = |text| list(text).map(|texts| texts.join("|"));
        for (text, expected) in [
            ("a", "a"),
            ("a,b", "a|b"),
            ("", ""),
            (",", "|"),
            ("a,,b", "a||b"),
            ("\"a,b\",c", "a,b|c"),
            ("\"a\"\"b\"", "a\"b"),
            ("\"\"", ""),
            ("\"\",x", "|x"),
            ("a\"b", "a\"b"),
            (" a , b", " a | b"),
        ] {
            assert_eq!(list(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["\"", "\"a", "\"a\"b", "\"a\" ,b", "a,\"", "\"\"\""] {
            assert_eq!(list(text), None, "{text}");
        }
    }
}
