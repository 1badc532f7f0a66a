//! The document says what the service does: it is compared with the service itself.

use super::*;
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
    let missing = service.get("/post/2").await;
    assert_eq!(missing.status, 404);
    assert_described(&document, "/post/{id}", &missing);
    let wrong = service.get("/posts?nothing=1").await;
    assert_eq!(wrong.status, 400);
    assert_described(&document, "/posts", &wrong);
}

#[tokio::test]
async fn each_parameter_that_is_described_is_one_that_the_service_knows() {
    let service = Service::new().await;
    service.write("1", "a", "ann").await;
    let document = document();
    let parameters = document["paths"]["/posts"]["get"]["parameters"].as_array();
    let parameters = parameters.unwrap().iter().filter(|p| p["in"] == "query");
    let mut names = Vec::new();
    for parameter in parameters {
        let name = parameter["name"].as_str().unwrap();
        let types = &parameter["schema"]["type"];
        let value = match types.as_str().unwrap_or_default() {
            "string" if parameter["schema"]["format"] == "date-time" => "2026-01-31T12:00:00Z",
            "string" if name == "after" => "",
            "string" => "x",
            "boolean" => "true",
            _ => "1",
        };
        names.push(name);
        if value.is_empty() {
            continue;
        }
        let answer = service.get(&format!("/posts?{name}={value}")).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
    }
    assert_eq!(
        names,
        [
            "id",
            "version",
            "created_at",
            "updated_at",
            "title",
            "author",
            "stars",
            "public",
            "rating",
            "address.city",
            "limit",
            "after"
        ]
    );
}
