//! What a client asks for, checked against the view's schema: fields and operators are allowed one by one, values are typed.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;
use tidelog_domain::ViewDefinition;
use tidelog_http::Problem;

use super::parameters::Parameter;
use super::shape::{NoScalar, Scalar};
use super::{QuerySettings, cursor};
use crate::store::{Field, Filter, Query};

/// The words that are no fields. A field of such a name is reached by `name[eq]=`.
///
/// All words of the query language are kept free, so that a later one never changes what a URL means.
pub(super) const WORDS: [&str; 7] = [
    "match", "sort", "limit", "after", "fields", "count", "deleted",
];

/// How deep a field may be nested.
const MAX_PATH: usize = 16;

/// The fields of every document, whatever its view.
const ENVELOPE: [(&str, Field); 4] = [
    ("id", Field::Id),
    ("version", Field::Version),
    ("created_at", Field::CreatedAt),
    ("updated_at", Field::UpdatedAt),
];

/// The query for a page of `view`: filters, `limit`, `after`.
///
/// # Errors
///
/// A problem that names the parameter that does not fit.
pub(super) fn page(
    view: &dyn ViewDefinition,
    parameters: &[Parameter],
    settings: &QuerySettings,
) -> Result<Query, Problem> {
    let mut query = Query {
        limit: settings.default_limit,
        ..Query::default()
    };
    for parameter in parameters {
        match word(parameter) {
            Some("limit") => query.limit = limit(parameter, settings.max_limit)?,
            Some("after") => query.after = Some(after(parameter)?),
            Some(_) => return Err(parameter.unknown("it is not supported by this version.")),
            None => add_filter(&mut query, view, parameter)?,
        }
    }
    Ok(query)
}

/// The query for the first document of `view` that fits: filters alone.
///
/// # Errors
///
/// A problem that names the parameter that does not fit.
pub(super) fn first(view: &dyn ViewDefinition, parameters: &[Parameter]) -> Result<Query, Problem> {
    let mut query = Query {
        limit: 1,
        ..Query::default()
    };
    for parameter in parameters {
        if word(parameter).is_some() {
            let advice = format!("ask for /{} to get a list.", view.plural());
            return Err(parameter.unknown(&advice));
        }
        add_filter(&mut query, view, parameter)?;
    }
    Ok(query)
}

/// The word of the query language that the parameter is, if it is no field.
fn word(parameter: &Parameter) -> Option<&str> {
    let name = parameter.name.as_str();
    (parameter.operator.is_none() && WORDS.contains(&name)).then_some(name)
}

fn limit(parameter: &Parameter, max: usize) -> Result<usize, Problem> {
    let limit = digits(&parameter.value).and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.filter(|limit| (1..=max).contains(limit));
    limit.ok_or_else(|| parameter.malformed(&format!("a whole number from 1 to {max}")))
}

/// The number that `text` writes in digits alone, without the sign that Rust would allow.
fn digits(text: &str) -> Option<u64> {
    let all_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| text.parse().ok()).flatten()
}

fn after(parameter: &Parameter) -> Result<String, Problem> {
    let wanted = "what an earlier page gave as `next`, unchanged";
    cursor::decode(&parameter.value).ok_or_else(|| parameter.malformed(wanted))
}

/// Adds a condition. Two on the same field by equality would contradict or repeat each other.
fn add_filter(
    query: &mut Query,
    view: &dyn ViewDefinition,
    parameter: &Parameter,
) -> Result<(), Problem> {
    let filter = filter(view, parameter)?;
    if query
        .filters
        .iter()
        .any(|other| other.field == filter.field)
    {
        return Err(parameter.repeated());
    }
    query.filters.push(filter);
    Ok(())
}

/// One condition.
fn filter(view: &dyn ViewDefinition, parameter: &Parameter) -> Result<Filter, Problem> {
    match parameter.operator.as_deref() {
        None | Some("eq") => {}
        Some(_) => {
            return Err(parameter.unknown("there is no such operator; only `eq` is supported."));
        }
    }
    if let Some((_, field)) = ENVELOPE.iter().find(|(name, _)| *name == parameter.name) {
        return Ok(Filter {
            value: envelope_value(field, parameter)?,
            field: field.clone(),
        });
    }
    let path: Vec<&str> = parameter.name.split('.').collect();
    let scalar = if path.len() > MAX_PATH {
        Err(NoScalar::Unknown)
    } else {
        Scalar::of(view.schema(), &path)
    };
    let scalar = scalar.map_err(|why| not_a_field(view, parameter, why))?;
    Ok(Filter {
        value: scalar
            .value(&parameter.value)
            .map_err(|wanted| parameter.malformed(&wanted))?,
        field: Field::Data(path.into_iter().map(str::to_owned).collect()),
    })
}

/// The value of a field that every document has.
fn envelope_value(field: &Field, parameter: &Parameter) -> Result<Value, Problem> {
    let text = &parameter.value;
    match field {
        Field::Version => digits(text)
            .map(Value::from)
            .ok_or_else(|| parameter.malformed("a whole number")),
        Field::CreatedAt | Field::UpdatedAt => {
            let time = DateTime::parse_from_rfc3339(text).map_err(|_| {
                parameter.malformed("a time as in 2026-01-31T12:00:00Z (RFC 3339; write + as %2B)")
            })?;
            // As exact as it was written: a time between two microseconds is nobody's.
            let time = time.with_timezone(&Utc);
            Ok(Value::from(
                time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
            ))
        }
        Field::Id | Field::Data(_) => Ok(Value::from(text.as_str())),
    }
}

fn not_a_field(view: &dyn ViewDefinition, parameter: &Parameter, why: NoScalar) -> Problem {
    let view = view.name();
    match why {
        NoScalar::Unknown => parameter.unknown(&format!("the view {view} has no such field.")),
        NoScalar::FreeForm => parameter.unknown(&format!(
            "the schema of the view {view} does not say what the field holds, so it cannot be compared."
        )),
        NoScalar::Composite => parameter.unknown(
            "the field holds an object or a list; only texts, numbers, truth values and null can be compared.",
        ),
        NoScalar::Ambiguous => parameter.unknown(
            "the field may hold a text or something else, so it is not clear what the value would mean.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};
    use tidelog_domain::{DecodeError, EventFilter, Folding, Keys, RecordedEvent};
    use tidelog_http::ProblemKind;

    use super::super::parameters::parse;
    use super::*;

    struct Posts(Value, EventFilter);

    impl ViewDefinition for Posts {
        fn name(&self) -> &str {
            "post"
        }
        fn plural(&self) -> &str {
            "posts"
        }
        fn schema(&self) -> &Value {
            &self.0
        }
        fn fingerprint(&self) -> String {
            String::new()
        }
        fn filter(&self) -> &EventFilter {
            &self.1
        }
        fn folding(&self) -> Folding {
            Folding::FullState
        }
        fn keys(&self, _: &RecordedEvent) -> Result<Keys, DecodeError> {
            Ok(Keys::new())
        }
        fn project(
            &self,
            _: Option<Map<String, Value>>,
            _: &str,
            _: &RecordedEvent,
        ) -> Result<Option<Map<String, Value>>, DecodeError> {
            Ok(None)
        }
    }

    fn posts() -> Posts {
        let schema = json!({"properties": {
            "title": {"type": "string"},
            "limit": {"type": "integer"},
            "author": {"properties": {"name": {"type": "string"}}},
        }});
        Posts(schema, EventFilter::Category("post".into()))
    }

    fn page_of(query: &str) -> Result<Query, Problem> {
        page(
            &posts(),
            &parse(Some(query)).unwrap(),
            &QuerySettings::default(),
        )
    }

    fn data(path: &[&str]) -> Field {
        Field::Data(path.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn parameters_become_typed_filters() {
        let query = page_of(
            "title=a&author.name[eq]=ann&limit[eq]=3&limit=7&id=x&version=2&created_at=2026-01-31T13:00:00%2B01:00",
        )
        .unwrap();
        let filters = [
            (data(&["title"]), json!("a")),
            (data(&["author", "name"]), json!("ann")),
            (data(&["limit"]), json!(3)),
            (Field::Id, json!("x")),
            (Field::Version, json!(2)),
            (Field::CreatedAt, json!("2026-01-31T12:00:00Z")),
        ];
        assert_eq!(
            query,
            Query {
                filters: filters.map(|(field, value)| Filter { field, value }).into(),
                after: None,
                limit: 7,
                deleted: false,
            }
        );
        assert_eq!(page_of("").unwrap().limit, 20);
        assert_eq!(page_of("limit=200").unwrap().limit, 200);
        let after = page_of(&format!("after={}", cursor::encode("x")))
            .unwrap()
            .after;
        assert_eq!(after.as_deref(), Some("x"));
    }

    #[test]
    fn what_is_not_known_is_named_and_refused() {
        for query in [
            "title[$ne]=x",
            "title[ne]=x",
            "title[]=x",
            "$where=1",
            "title.$ne=x",
            "data.title=x",
            "author=ann",
            "nothing=1",
            "sort=title",
            "fields=id",
            "match=any",
            "count=exact",
            "deleted=include",
            "limit[gt]=1",
            "=x",
        ] {
            let problem = page_of(query).unwrap_err();
            assert_eq!(problem.kind(), ProblemKind::UnknownParameter, "{query}");
        }
        let deep = vec!["author"; MAX_PATH + 1].join(".");
        assert!(page_of(&format!("{deep}=1")).is_err());
    }

    #[test]
    fn a_value_that_does_not_fit_is_malformed() {
        for query in [
            "title=a&title[eq]=a",
            "limit=0",
            "limit=201",
            "limit=x",
            "limit=-1",
            "limit=%2B1",
            "limit=99999999999999999999",
            "limit=",
            "version=%2B1",
            "after=x",
            "limit[eq]=x",
            "version=x",
            "version=1.5",
            "created_at=yesterday",
            "created_at=2026-01-31",
        ] {
            let problem = page_of(query).unwrap_err();
            assert_eq!(problem.kind(), ProblemKind::MalformedRequest, "{query}");
        }
    }

    #[test]
    fn the_first_match_takes_filters_alone() {
        let first = |query| first(&posts(), &parse(Some(query)).unwrap());
        assert_eq!(first("title=a").unwrap().limit, 1);
        assert!(first("limit=2").is_err());
        assert!(first("after=x").is_err());
    }
}
