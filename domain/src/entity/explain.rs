//! Says to a person what a validator found.

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use serde_json::Value;

use super::outline::{MAX_FIELD_ERRORS, pointer_to};
use crate::decider::FieldError;

/// The most values that a message lists.
const MAX_VALUES_LISTED: usize = 12;

/// The most characters of a schema's value in a message.
const MAX_VALUE_CHARS: usize = 80;

/// What is wrong with a body, one line a finding, at most [`MAX_FIELD_ERRORS`] of them.
///
/// The messages say what would be right, in the words of the schema; they never repeat what the body has.
pub(super) fn explain(errors: &[ValidationError<'_>]) -> Vec<FieldError> {
    let mut explained = Vec::new();
    explain_into(&mut explained, errors);
    explained
}

fn explain_into(explained: &mut Vec<FieldError>, errors: &[ValidationError<'_>]) {
    // Where a part of the schema fails, the fields that it knows count as unevaluated: not worth saying.
    let leftover =
        |error: &ValidationError<'_>| matches!(error.kind(), Kind::UnevaluatedProperties { .. });
    let only_leftovers = errors.iter().all(leftover);
    for error in errors
        .iter()
        .filter(|error| only_leftovers || !leftover(error))
    {
        explain_one(explained, error);
    }
}

/// One finding can be about several fields.
fn explain_one(explained: &mut Vec<FieldError>, error: &ValidationError<'_>) {
    let place = error.instance_path().as_str();
    let mut say = |field: String, message: String| {
        let said = FieldError { field, message };
        if explained.len() < MAX_FIELD_ERRORS && !explained.contains(&said) {
            explained.push(said);
        }
    };
    match error.kind() {
        Kind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            say(pointer_to(place, name), "is required".to_owned());
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            for name in unexpected {
                say(pointer_to(place, name), "is not allowed here".to_owned());
            }
        }
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => match meant(context, place) {
            Some(errors) => explain_into(explained, errors),
            None => say(place.to_owned(), message(error.kind())),
        },
        kind => say(place.to_owned(), message(kind)),
    }
}

/// What is wrong by the one form that can have been meant: the others want another type, or another constant in some
/// field.
fn meant<'e>(
    forms: &'e [Vec<ValidationError<'static>>],
    place: &str,
) -> Option<&'e [ValidationError<'static>]> {
    let other = |error: &ValidationError<'_>| match error.kind() {
        Kind::Type { .. } => error.instance_path().as_str() == place,
        Kind::Constant { .. } => true,
        _ => false,
    };
    let mut candidates = forms.iter().filter(|errors| !errors.iter().any(other));
    let first = candidates.next()?;
    candidates.next().is_none().then_some(first)
}

/// What would be right.
fn message(kind: &Kind) -> String {
    match kind {
        Kind::Type { kind } => format!("must be {}", types(kind)),
        Kind::Enum { options } => format!("must be {}", one_of(options)),
        Kind::Constant { expected_value } => format!("must be {}", shortened(expected_value)),
        Kind::Format { format } => format!("must be {}", format_name(format)),
        Kind::Pattern { pattern } => format!("must match the pattern {pattern}"),
        Kind::MinLength { limit } => format!("must have at least {}", count(*limit, "character")),
        Kind::MaxLength { limit } => format!("must have at most {}", count(*limit, "character")),
        Kind::MinItems { limit } => format!("must have at least {}", count(*limit, "item")),
        Kind::MaxItems { limit } => format!("must have at most {}", count(*limit, "item")),
        Kind::MinProperties { limit } => format!("must have at least {}", count(*limit, "field")),
        Kind::MaxProperties { limit } => format!("must have at most {}", count(*limit, "field")),
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("must be greater than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::UniqueItems => "must not have the same item twice".to_owned(),
        Kind::Contains => "must have the items that the schema asks for".to_owned(),
        Kind::AdditionalItems { .. } | Kind::UnevaluatedItems { .. } => {
            "must not have more items than the schema allows".to_owned()
        }
        Kind::AnyOf { context } => format!("must fit at least one of {} forms", context.len()),
        Kind::OneOfNotValid { context } => format!("must fit one of {} forms", context.len()),
        Kind::OneOfMultipleValid { .. } => {
            "must fit just one of the schema's forms, and fits several".to_owned()
        }
        Kind::PropertyNames { error } => {
            format!(
                "has a field whose name is wrong: it {}",
                message(error.kind())
            )
        }
        Kind::FalseSchema => "is not allowed here".to_owned(),
        Kind::Not { .. } => "must not be of the form that the schema rules out".to_owned(),
        _ => format!("must fit the schema's \"{}\"", kind.keyword()),
    }
}

/// `a text`, `a number or null`.
fn types(kind: &TypeKind) -> String {
    let names: Vec<_> = match kind {
        TypeKind::Single(one) => vec![type_name(one.as_str())],
        TypeKind::Multiple(many) => many.iter().map(|one| type_name(one.as_str())).collect(),
    };
    names.join(" or ")
}

/// What a type is called in a sentence.
fn type_name(name: &str) -> &str {
    match name {
        "null" => "null",
        "boolean" => "true or false",
        "integer" => "an integer",
        "number" => "a number",
        "string" => "a string",
        "array" => "a list",
        "object" => "an object",
        other => other,
    }
}

/// What a text in a format is called, with an example where its form is not common knowledge.
fn format_name(format: &str) -> String {
    match format {
        "date-time" => "a date and time with an offset, such as 2030-01-31T12:00:00Z".to_owned(),
        "date" => "a date, such as 2030-01-31".to_owned(),
        "time" => "a time with an offset, such as 12:00:00Z".to_owned(),
        "duration" => "a duration, such as P1DT12H".to_owned(),
        "email" => "an e-mail address".to_owned(),
        "uuid" => "a UUID, such as 01890a5d-ac96-774b-bcce-b302099a8057".to_owned(),
        "uri" => "a URI, such as https://example.com/".to_owned(),
        other => format!("in the format \"{other}\""),
    }
}

/// The values of an `enum`.
fn one_of(options: &Value) -> String {
    let Some(options) = options.as_array() else {
        return shortened(options);
    };
    let mut listed: Vec<_> = options
        .iter()
        .take(MAX_VALUES_LISTED)
        .map(shortened)
        .collect();
    if options.len() > MAX_VALUES_LISTED {
        listed.push("…".to_owned());
    }
    format!("one of {}", listed.join(", "))
}

/// A value of the schema, as JSON, cut where it is long.
fn shortened(value: &Value) -> String {
    let json = value.to_string();
    match json.char_indices().nth(MAX_VALUE_CHARS) {
        Some((end, _)) => format!("{}…", json.get(..end).unwrap_or_default()),
        None => json,
    }
}

/// `1 item`, `2 items`.
fn count(limit: u64, what: &str) -> String {
    let plural = if limit == 1 { "" } else { "s" };
    format!("{limit} {what}{plural}")
}
