//! Attempts to reach a database with more than a value: each is refused or finds nothing, and no book is changed by it.

use url::form_urlencoded::{Serializer, byte_serialize};

use super::targets::{Target, ids, targets};
use crate::view::View;

/// What an attacker writes: operators, regular expressions, code, prototypes, quotes, NULs, unicode that looks like something else.
const ATTEMPTS: [&str; 70] = [
    "$where",
    "$ne",
    "$gt",
    "$expr",
    "$regex",
    "$function",
    "$accumulator",
    "$jsonSchema",
    "$literal",
    "$$ROOT",
    "$$NOW",
    "{\"$gt\":\"\"}",
    "{\"$ne\":null}",
    "{$where:'sleep(5000)'}",
    "[$ne]",
    "[\"a\",\"b\"]",
    "{\"$regex\":\".*\"}",
    "function(){while(1);}",
    "';sleep(5000);'",
    "this.title==this.title",
    ".*",
    "^.*$",
    "(a+)+$",
    "/.*/i",
    "%",
    "_",
    "*",
    "GLOB *",
    "' OR 1=1 --",
    "' OR '1'='1",
    "\" OR \"\"=\"",
    "'; DROP TABLE view_book_v1; --",
    "\"; DROP TABLE \"view_book_v1\"; --",
    "x' UNION SELECT data FROM read_states --",
    "1; PRAGMA writable_schema=1",
    "') OR json_valid(data) OR ('",
    "$.\"title\"') IS NOT NULL --",
    "COLLATE NOCASE",
    "?1",
    ":id",
    "@x",
    "`id`",
    "\\",
    "\\'",
    "\\\"",
    "\\u0027",
    "\0",
    "title\0",
    "\0' OR 1=1",
    "a\r\nSet-Cookie: x=1",
    "\n",
    "\u{1b}[31m",
    "__proto__",
    "constructor.prototype",
    "__proto__.title",
    "data.$**",
    "data.title",
    "_id",
    "deleted",
    "applied.0",
    "revision",
    "a.0",
    "tags.0",
    "tags.$[]",
    "\u{202e}eltit",
    "ｔｉｔｌｅ",
    "t\u{456}tle",
    "title\u{200b}",
    "e\u{301}",
    "\u{feff}",
];

/// The operators that take any text.
const TEXT_OPERATORS: [&str; 9] = [
    "eq", "in", "gt", "gte", "lt", "lte", "prefix", "contains", "ne",
];

fn encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

fn query(name: &str, value: &str) -> String {
    Serializer::new(String::new())
        .append_pair(name, value)
        .finish()
}

/// The books as the database has them, before and after `attempts` are made on each site.
async fn changes_nothing(attempts: impl AsyncFn(&Target)) {
    for target in targets().await {
        let view = View::of(&target.site, target.backends.as_ref()).await;
        let before = view.documents("book").await;
        assert_eq!(before.len(), 7);
        attempts(target).await;
        assert_eq!(view.documents("book").await, before);
    }
}

/// Overlong texts of the same kind.
fn overlong() -> [String; 3] {
    [
        "$ne.".repeat(2_000),
        "'\"".repeat(3_000),
        "a.".repeat(3_000),
    ]
}

#[tokio::test]
async fn no_name_of_a_field_or_an_operator_is_more_than_a_name() {
    changes_nothing(async |target| {
        let long = overlong();
        for attempt in ATTEMPTS.into_iter().chain(long.iter().map(String::as_str)) {
            for name in [
                attempt.to_owned(),
                format!("{attempt}[ne]"),
                format!("title[{attempt}]"),
                format!("title.{attempt}"),
                format!("author.{attempt}"),
                format!("author.{attempt}.name[exists]"),
            ] {
                let path = format!("/books?{}", query(&name, "true"));
                let answer = target.queries().get(&path).await;
                assert_eq!(answer.status, 400, "{name}: {answer:?}");
                let problem = answer.json();
                let named = problem["parameter"].as_str().unwrap_or_default();
                let start: String = name.chars().take(64).collect();
                assert_eq!(named, start, "{problem}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn no_value_is_more_than_a_value() {
    changes_nothing(async |target| {
        let all = ids(&target.queries().get("/books").await);
        let long = overlong();
        for attempt in ATTEMPTS.into_iter().chain(long.iter().map(String::as_str)) {
            for field in ["title", "subtitle", "author.name", "id"] {
                for operator in TEXT_OPERATORS {
                    let value = match operator {
                        "in" => format!("\"{}\"", attempt.replace('"', "\"\"")),
                        _ => attempt.to_owned(),
                    };
                    let path = format!("/books?{}", query(&format!("{field}[{operator}]"), &value));
                    let found = ids(&target.queries().get(&path).await);
                    let expected = all.iter().filter(|id| fits(id, field, operator, attempt));
                    assert_eq!(found, expected.cloned().collect::<Vec<_>>(), "{path}");
                }
            }
            for typed in ["pages", "rating", "in_print", "version", "created_at"] {
                let path = format!("/books?{}", query(typed, attempt));
                let problem = target
                    .queries()
                    .get(&path)
                    .await
                    .problem(400, "malformed-request");
                assert_eq!(problem["parameter"], typed, "{problem}");
            }
            let items = format!("/books?{}", query("tags[contains]", attempt));
            let expected: &[&str] = match attempt {
                ".*" | "$ne" => &["b5"],
                _ => &[],
            };
            assert_eq!(
                ids(&target.queries().get(&items).await),
                expected,
                "{items}"
            );
        }
    })
    .await;
}

/// What a book's field is to a value, in words of this test's own.
fn fits(id: &str, field: &str, operator: &str, value: &str) -> bool {
    let text = match (field, id) {
        ("id", id) => Some(id),
        ("title", "b1") => Some("Tides"),
        ("title", "b2") => Some("tides, again"),
        ("title", "b3") => Some("Ebb"),
        ("title", "b4") => Some("Éclair"),
        ("title", "b5") => Some("100% \".*\""),
        ("title", "b6") => Some("O'Neill"),
        ("subtitle", "b2") => Some("low"),
        ("author.name", "b1") => Some("Ann"),
        ("author.name", "b2") => Some("Bob"),
        ("author.name", "b4") => Some("Ann Lee"),
        _ => None,
    };
    match operator {
        "ne" => text != Some(value),
        "eq" | "in" => text == Some(value),
        "gt" => text.is_some_and(|text| text > value),
        "gte" => text.is_some_and(|text| text >= value),
        "lt" => text.is_some_and(|text| text < value),
        "lte" => text.is_some_and(|text| text <= value),
        "prefix" => text.is_some_and(|text| text.starts_with(value)),
        "contains" => text.is_some_and(|text| text.contains(value)),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn no_word_of_the_language_takes_anything_else() {
    changes_nothing(async |target| {
        for attempt in ATTEMPTS {
            for word in [
                "sort", "fields", "limit", "count", "match", "after", "deleted",
            ] {
                // What is shown of all documents may be chosen, and `deleted` is.
                if word == "fields" && attempt == "deleted" {
                    continue;
                }
                for value in [
                    attempt.to_owned(),
                    format!("title,{attempt}"),
                    format!("-{attempt}"),
                ] {
                    if word == "fields" && value == "title,deleted" {
                        continue;
                    }
                    let path = format!("/books?{}", query(word, &value));
                    let answer = target.queries().get(&path).await;
                    assert_eq!(answer.status, 400, "{path}: {answer:?}");
                    assert_eq!(answer.json()["parameter"], word, "{answer:?}");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn no_cursor_that_a_client_makes_is_more_than_a_place() {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    changes_nothing(async |target| {
        let real = target
            .queries()
            .get("/books?sort=title&limit=1")
            .await
            .json();
        let real = URL_SAFE_NO_PAD
            .decode(real["next"].as_str().unwrap())
            .unwrap();
        let real = String::from_utf8(real).unwrap();
        let parts: Vec<serde_json::Value> = serde_json::from_str(&real[2..]).unwrap();
        let mark = parts[0].clone();
        let ask = async |order: &str, text: String| {
            let cursor = URL_SAFE_NO_PAD.encode(text);
            target
                .queries()
                .get(&format!("/books?{order}after={cursor}"))
                .await
        };
        for attempt in ATTEMPTS {
            // As an id it is a place, before or behind each book; nothing else is found by it.
            let found = ids(&ask("", format!("1:{attempt}")).await);
            let behind = (1..7)
                .map(|n| format!("b{n}"))
                .filter(|id| id.as_str() > attempt);
            assert_eq!(found, behind.collect::<Vec<_>>(), "{attempt}");
            let keyed = serde_json::json!([mark, attempt, "b9"]);
            ask("sort=title&", format!("2:{keyed}")).await.data(200);
            for wrong in [
                serde_json::json!([mark, {attempt: ""}, "b9"]),
                serde_json::json!([mark, [attempt], "b9"]),
                serde_json::json!([mark, "a", {attempt: 1}]),
                serde_json::json!([attempt, "a", "b9"]),
                serde_json::json!({attempt: "a"}),
            ] {
                let answer = ask("sort=title&", format!("2:{wrong}")).await;
                answer.problem(400, "malformed-request");
            }
            let path = format!("/books?after={}", encoded(attempt));
            target
                .queries()
                .get(&path)
                .await
                .problem(400, "malformed-request");
        }
    })
    .await;
}

#[tokio::test]
async fn no_id_in_a_path_is_more_than_an_id() {
    changes_nothing(async |target| {
        for attempt in ATTEMPTS {
            let id: String = attempt.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let answer = target.queries().get(&format!("/book/{id}")).await;
            assert!(
                matches!(answer.status, 400 | 404),
                "{attempt:?}: {answer:?}"
            );
            let name = if answer.status == 400 {
                "malformed-request"
            } else {
                "not-found"
            };
            answer.problem(answer.status, name);
        }
    })
    .await;
}
