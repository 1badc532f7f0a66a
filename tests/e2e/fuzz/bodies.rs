//! The bodies of commands.

use serde_json::Value;
use tidelog::axum::http::Method;
use tidelog_domain::json::{MAX_DEPTH, check, merge_patch};

use super::fuzz;
use super::inputs::Target;
use super::requests::{Part, Site, request};

const BODIES: Target = Target {
    name: "bodies",
    examples: &[
        r#"{"title":"A","stars":5,"weight":0.25,"published":true,"tags":["x","y"],"author":{"name":"Ann","year":1999}}"#,
        r#"{"title":"\u00e9\ud834\udd1e\n","stars":-9223372036854775808,"weight":1e300,"published":false,"tags":[]}"#,
        r#"{"stars":1}"#,
        r#"{"author":{"name":"Bob","year":null}}"#,
        r#"{"author":null,"tags":[]}"#,
    ],
    near: &[
        DEEP[0],
        DEEP[1],
        "{\"title\":",
        "{\"title\":\"A\",\"title\":\"B\"}",
        "{\"stars\":9223372036854775808}",
        "{\"weight\":1e400}",
        "{\"author\":{}}",
        "[]",
        "null",
        "\"a\"",
        "{\"title\":\"\\ud834\"}",
    ],
    words: &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\u0000",
        "\\ud834",
        "\\",
        "null",
        "true",
        "\"title\":",
        "\"stars\":",
        "\"weight\":",
        "\"author\":",
        "\"id\":",
        "\"name\":",
        "\"tags\":",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
        "-9223372036854775809",
        "1e400",
        "0.1e-400",
        "\u{feff}",
        "\"__proto__\":",
    ],
};

/// A body that is nested as deep as it may be, and one that is nested a little deeper.
const DEEP: [&str; 2] = [
    r#"{"tags":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}"#,
    r#"{"tags":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}"#,
];

/// How deep a value is nested.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Whether a field that was removed is still there, or a null is there that was to remove one.
fn has_null(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields
            .values()
            .any(|field| field.is_null() || has_null(field)),
        _ => false,
    }
}

/// The guard and the parser agree, what is understood reads back as it was, and a patch does what RFC 7396 says.
fn json_is_read_as_it_was_written(bytes: &[u8]) {
    let guarded = check(bytes, MAX_DEPTH);
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    match guarded {
        Ok(()) => assert!(depth(&value) <= MAX_DEPTH),
        Err(_) => return,
    }
    let written = serde_json::to_vec(&value).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), value);
    assert_eq!(check(&written, MAX_DEPTH), Ok(()));
    let mut once = Value::Null;
    merge_patch(&mut once, &value);
    assert!(!value.is_object() || !has_null(&once), "{once}");
    let mut twice = once.clone();
    merge_patch(&mut twice, &value);
    assert_eq!(once, twice, "a patch changes nothing the second time");
}

#[test]
fn bodies() {
    let (mut site, mut tried) = (Site::new(), 0_u64);
    fuzz(&BODIES, move |bytes| {
        json_is_read_as_it_was_written(bytes);
        tried += 1;
        // What no parser takes needs no whole program to say so, each time.
        if tried % 8 != 1 && serde_json::from_slice::<Value>(bytes).is_err() {
            return false;
        }
        let text = String::from_utf8_lossy(bytes);
        let kinds = [
            (Method::PATCH, "/note/a", "application/merge-patch+json"),
            (Method::POST, "/note", "application/json"),
        ];
        let mut understood = false;
        for (method, path, kind) in kinds {
            let request = request(&method, path, &[("content-type", kind)], &text);
            understood |= request.is_some_and(|request| site.ask(Part::Commands, request));
        }
        understood
    });
}
