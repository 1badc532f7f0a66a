//! Whatever a client writes is understood as something of the view's, or refused: for tests with random requests, and for fuzzing.

use serde_json::Value;
use tidelog_domain::ViewDefinition;

use super::language::{Posts, posts};
use crate::http::{QuerySettings, asked, next};
use crate::store::condition::Asked;
use crate::store::{Field, Filter, page};

/// How many filters of one request there may be.
const MAX_FILTERS: usize = 32;

/// Checks what becomes of a URL's query, whatever is in it, and says whether it was understood: it is refused with a
/// problem that a client can act on, or asks only for fields that the schema of the view names, within all bounds.
///
/// # Panics
///
/// When it does not.
pub fn a_request_is_understood_or_refused(text: &str) -> bool {
    let view = Posts::new();
    let asked = match asked(&view, text, &QuerySettings::default()) {
        Ok(asked) => asked,
        Err(problem) => {
            let shown = format!("{problem:?}");
            assert!(shown.len() < 4_096, "{shown}");
            return false;
        }
    };
    let query = asked.query;
    assert!((1..=200).contains(&query.limit));
    assert!(query.sort.len() <= 4);
    let mut fields: Vec<&Field> = query.sort.iter().map(|sort| &sort.field).collect();
    assert!(collect(&query.filter, &mut fields) <= MAX_FILTERS * 2);
    for field in fields {
        assert!(is_known(view.schema(), field), "{field:?}");
    }
    // It can be asked, and be answered: with what a store says, and with the cursor of the next page.
    let lowered = Asked::of(&query);
    assert!(lowered.exact && lowered.order.is_some(), "{query:?}");
    let found = page(posts(), &query);
    if let Some(last) = found.last() {
        let cursor = next(&view, &query, last).unwrap();
        assert!(!cursor.is_empty());
    }
    true
}

/// The fields that a filter tests, and how many tests there are.
fn collect<'f>(filter: &'f Filter, fields: &mut Vec<&'f Field>) -> usize {
    match filter {
        Filter::All(filters) | Filter::Any(filters) => {
            let counts = filters.iter().map(|filter| collect(filter, fields));
            counts.sum()
        }
        Filter::Field(field, _) => {
            fields.push(field);
            1
        }
    }
}

/// Whether each name on the way to a field is one of the schema's own.
fn is_known(schema: &Value, field: &Field) -> bool {
    let Field::Data(path) = field else {
        return true;
    };
    let end = path.iter().try_fold(schema, |place, name| {
        place.get("properties")?.as_object()?.get(name)
    });
    !path.is_empty() && end.is_some()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any, prop, prop_oneof};
    use proptest::test_runner::{Config, TestRunner};

    use super::*;

    /// Pieces of requests: those of the language, and those that attack one.
    fn piece() -> impl Strategy<Value = String> {
        let known = prop::sample::select(vec![
            "title",
            "rating",
            "likes",
            "published",
            "tags",
            "author.name",
            "author",
            "id",
            "created_at",
            "version",
            "match",
            "sort",
            "limit",
            "after",
            "fields",
            "count",
            "deleted",
            "[eq]",
            "[ne]",
            "[in]",
            "[gt]",
            "[lte]",
            "[prefix]",
            "[contains]",
            "[exists]",
            "=",
            "=",
            "=",
            "&",
            "&",
            "&",
            ",",
            "-",
            "any",
            "exact",
            "include",
            "true",
            "null",
            "5",
            "1.5",
            "a",
            "2026-01-31T12:00:00Z",
            "MTph",
            "Mjpb",
        ]);
        let evil = prop::sample::select(vec![
            "$where",
            "[$ne]",
            ".$",
            "__proto__",
            "constructor",
            "%00",
            "%",
            "%ff",
            "+",
            "%22",
            "\"",
            "'",
            ";",
            "--",
            "[",
            "]",
            "[]",
            ".",
            "..",
            "data",
            "{\"$gt\":\"\"}",
            ".*",
            "(a+)+$",
            "é",
            "\u{202e}",
            "99999999999999999999999",
            "-0",
            "1e999",
            "NaN",
        ]);
        prop_oneof![
            8 => known.prop_map(str::to_owned),
            2 => evil.prop_map(str::to_owned),
            1 => any::<String>(),
        ]
    }

    #[test]
    fn any_request_is_understood_or_refused() {
        let config = Config {
            cases: 10_000,
            failure_persistence: None,
            ..Config::default()
        };
        let understood = std::cell::Cell::new(0);
        TestRunner::new(config)
            .run(&vec(piece(), 0..12), |pieces| {
                let is_understood = a_request_is_understood_or_refused(&pieces.concat());
                understood.set(understood.get() + u32::from(is_understood));
                Ok(())
            })
            .unwrap();
        // Some of them are, or nothing was tried.
        assert!(understood.get() > 100, "{}", understood.get());
    }

    #[test]
    fn each_filter_that_makes_sense_is_understood() {
        for text in [
            "title[prefix]=a&sort=-rating,title&limit=3",
            "match=any&tags[contains]=a&author.name[in]=a,b&created_at[gt]=2026-01-31T12:00:00Z",
        ] {
            assert!(a_request_is_understood_or_refused(text), "{text}");
        }
        assert!(!a_request_is_understood_or_refused("title[$where]=1"));
    }
}
