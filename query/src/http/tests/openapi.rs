//! The document says what the service does: it is compared with the service itself.

use super::*;
use crate::http::filters::WORDS;
use crate::http::operators::Operator;
use crate::http::query_document;

fn document() -> Value {
    let catalog = Catalog::new(vec![posts(), authors()]).unwrap();
    query_document("blog", &catalog, &QuerySettings::default())
}

/// Every reference within `value`.
fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|inner| references(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| references(inner, found)),
        _ => {}
    }
}

/// The body of `answer` to the operation at `path` fits what the document says of it.
#[track_caller]
fn assert_described(document: &Value, path: &str, answer: &Answer) {
    let response = &document["paths"][path]["get"]["responses"][answer.status.to_string()];
    let response = match response["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap(),
        None => response,
    };
    let media = answer.header("content-type").unwrap();
    let mut whole = document.clone();
    whole["$ref"] = response["content"][media]["schema"]["$ref"].clone();
    let schema = jsonschema::validator_for(&whole).unwrap();
    assert!(schema.is_valid(&answer.body), "{path}: {}", answer.body);
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 20);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn what_is_described_is_what_is_served() {
    let service = Service::new().await;
    service.write("1", "a", "ann").await;
    let document = document();
    let paths: Vec<_> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths,
        [
            "/post/{id}",
            "/posts",
            "/post",
            "/post/{id}/history",
            "/author/{id}",
            "/authors",
            "/author"
        ]
    );
    for path in paths {
        let id = if path.starts_with("/post") {
            "1"
        } else {
            "ann"
        };
        let answer = service.get(&path.replace("{id}", id)).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_described(&document, path, &answer);
    }
    service.delete("1").await;
    let all = service.get("/posts?count=exact&deleted=include").await;
    assert_eq!(all.body["data"][0]["deleted"], json!(true));
    assert_described(&document, "/posts", &all);
    let missing = service.get("/post/2").await;
    assert_eq!(missing.status, 404);
    assert_described(&document, "/post/{id}", &missing);
    let wrong = service.get("/posts?nothing=1").await;
    assert_eq!(wrong.status, 400);
    assert_described(&document, "/posts", &wrong);
}

/// The query parameters of the operation at `path`, and a value that each one takes.
fn parameters(document: &Value, path: &str) -> Vec<(String, String)> {
    let parameters = document["paths"][path]["get"]["parameters"].as_array();
    let parameters = parameters.unwrap().iter().filter(|p| p["in"] == "query");
    let named = parameters.map(|parameter| {
        let name = parameter["name"].as_str().unwrap();
        (name.to_owned(), a_value(name, &parameter["schema"]))
    });
    named.collect()
}

fn a_value(name: &str, schema: &Value) -> String {
    if let Some(value) = schema["enum"].get(0) {
        return value.as_str().unwrap().to_owned();
    }
    let types = schema["type"].to_string();
    match types.trim_matches('"') {
        "array" if name == "fields" => schema["items"]["examples"].as_array().unwrap()[1..]
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect::<Vec<_>>()
            .join(","),
        "array" => a_value(name, &schema["items"]),
        "string" if schema["format"] == "date-time" => "2026-01-31T12:00:00Z".to_owned(),
        "boolean" => "true".to_owned(),
        "string" => "x".to_owned(),
        _ => "1".to_owned(),
    }
}

#[tokio::test]
async fn each_parameter_that_is_described_is_one_that_the_service_knows() {
    let service = Service::new().await;
    service.write("1", "a", "ann").await;
    let document = document();
    for (path, uri) in [
        ("/posts", "/posts"),
        ("/post", "/post"),
        ("/post/{id}", "/post/1"),
        ("/post/{id}/history", "/post/1/history"),
    ] {
        for (name, value) in parameters(&document, path) {
            if name == "after" {
                continue;
            }
            let answer = service.get(&format!("{uri}?{name}={value}")).await;
            // The first match may be none; but it was looked for.
            let may_be_none = path == "/post" || name == "at";
            let found = answer.status == 200 || may_be_none && answer.status == 404;
            assert!(found, "{name}: {}", answer.body);
        }
    }
}

#[test]
fn each_operator_of_each_field_is_described_and_each_word() {
    let document = document();
    let names = |path| -> Vec<String> {
        let parameters = parameters(&document, path).into_iter();
        parameters.map(|(name, _)| name).collect()
    };
    let each = |name: &str, operators: &str| -> Vec<String> {
        let written = operators.split(' ').map(|operator| match operator {
            "eq" => name.to_owned(),
            operator => format!("{name}[{operator}]"),
        });
        written.collect()
    };
    let text = "eq ne in gt gte lt lte prefix contains exists";
    let number = "eq ne in gt gte lt lte exists";
    let mut expected = [
        each("id", text),
        each("version", number),
        each("created_at", number),
        each("updated_at", number),
        each("title", text),
        each("author", text),
        each("stars", number),
        each("public", "eq ne in exists"),
        each("rating", number),
        each("address", "exists"),
        each("tags", "contains exists"),
        each("address.city", text),
    ]
    .concat();
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    expected.extend(words(&["match", "sort", "fields", "deleted"]));
    assert_eq!(names("/post"), expected);
    expected.extend(words(&["limit", "after", "count"]));
    assert_eq!(names("/posts"), expected);
    let of_one = ["fields", "deleted", "version", "at"];
    assert_eq!(names("/post/{id}"), of_one);
    assert_eq!(names("/post/{id}/history"), ["limit", "after"]);
    // Documents that are made from several streams have no past of their own.
    assert_eq!(names("/author/{id}"), of_one[..2]);
}

#[test]
fn what_can_be_told_live_is_described_so() {
    let document = document();
    for (path, is_live) in [("/post/{id}", true), ("/posts", true), ("/post", false)] {
        let get = &document["paths"][path]["get"];
        let described = &get["responses"]["200"]["content"]["text/event-stream"];
        assert_eq!(described.is_object(), is_live, "{path}");
        let parameters = get["parameters"].as_array().unwrap().iter();
        let resumed = parameters.filter(|one| one["name"] == "Last-Event-ID");
        assert_eq!(resumed.count(), usize::from(is_live), "{path}");
    }
}

/// The guide has an example of each operator and each word of the language.
#[test]
fn the_guide_shows_each_operator_and_each_word() {
    let guide = include_str!("../../../../docs/query.md");
    let has_line = |name: &str, example: &str| {
        let named = format!("`{name}`");
        let mut lines = guide.lines().filter(|line| line.starts_with('|'));
        lines.any(|line| line.contains(&named) && line.contains(example))
    };
    for operator in Operator::ALL {
        let example = format!("[{}]=", operator.name());
        assert!(has_line(operator.name(), &example), "{}", operator.name());
    }
    for word in WORDS {
        let example = format!("{word}=");
        assert!(
            guide
                .lines()
                .any(|line| line.starts_with(&format!("| `{word}")) && line.contains(&example)),
            "{word}"
        );
    }
}
