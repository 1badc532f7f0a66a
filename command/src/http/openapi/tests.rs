//! The document says what the service does: it is compared with the service itself.

use std::collections::BTreeSet;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request};
use tidelog_domain::{EntityDecider, EntitySchema, TypedDecider};
use tidelog_eventbus::{CommitSignal, LogReader};
use tower::ServiceExt;

use super::*;
use crate::appender::AppenderSettings;
use crate::fixtures::{Account, PARTITIONS, a_post, post};
use crate::handling::CommandService;
use crate::http::{CommandSettings, command_router, route};
use crate::store::InMemoryEventStore;

/// An entity whose schema refers to itself in the ways that schemas do.
fn order() -> Arc<dyn Decider> {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "to": {"$ref": "#/$defs/Address"},
            "lines": {"type": "array", "items": {"$ref": "#line"}},
        },
        "required": ["to"],
        "$defs": {
            "Address": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            "Line": {"$anchor": "line", "type": "object", "properties": {"count": {"type": "integer", "minimum": 1}}},
        },
    });
    Arc::new(EntityDecider::new(
        EntitySchema::from_value("order", schema).unwrap(),
    ))
}

fn deciders() -> Vec<Arc<dyn Decider>> {
    vec![
        post(),
        order(),
        Arc::new(TypedDecider::<Account>::new().unwrap()),
    ]
}

async fn service() -> Arc<CommandService> {
    let store = Arc::new(InMemoryEventStore::new(PARTITIONS));
    let identity = store.identity().await.unwrap();
    let signal = CommitSignal::new(PARTITIONS);
    let settings = AppenderSettings::default();
    Arc::new(CommandService::new(deciders(), store, identity, signal, settings).unwrap())
}

fn document() -> Value {
    command_document("shop", &deciders(), &[]).finish()
}

/// Method, path and operation of each.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter();
        methods.map(|(method, operation)| (method.to_uppercase(), path.clone(), operation))
    });
    operations.collect()
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

/// Whether `value` fits the schema at `schema` of the document.
fn fits(document: &Value, schema: &Value, value: &Value) -> bool {
    let mut whole = document.clone();
    whole["$ref"] = schema["$ref"].clone();
    jsonschema::validator_for(&whole).unwrap().is_valid(value)
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 50);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn what_is_described_is_what_is_served() {
    let document = document();
    let service = service().await;
    let mut described = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(described.insert(id.to_owned()), "{id} is there twice");
        if path.starts_with("/events") {
            continue;
        }
        let path = path.replace("{id}", "x");
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let Ok(call) = route::resolve(service.definitions(), &method, &segments, None) else {
            unreachable!("{method} {path} is not served");
        };
        assert_eq!(format!("{}.{}", call.category, call.spec.name), id);
    }
    let mut served = BTreeSet::from(["events", "eventHeads"].map(str::to_owned));
    for decider in deciders() {
        let names = decider.commands().iter();
        served.extend(names.map(|spec| format!("{}.{}", decider.category(), spec.name)));
    }
    assert_eq!(described, served);
}

/// Sends `body`, and gives the status and the answer.
async fn send(app: &Router, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()));
    let response = app.clone().oneshot(request.unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn a_body_that_the_service_takes_fits_its_schema_and_one_that_it_refuses_does_not() {
    let document = document();
    let app = tidelog_http::open_to_all(tidelog_http::app(command_router(
        service().await,
        CommandSettings::default(),
    )));
    let mut whole = a_post();
    whole["id"] = json!("1");
    let order = json!({"id": "1", "to": {"city": "Ulm"}, "lines": [{"count": 2}]});
    for (method, path, at, body, taken) in [
        ("post", "/post", "/post", whole, true),
        ("post", "/post", "/post", json!({"title": "a"}), false),
        (
            "post",
            "/post",
            "/post",
            json!({"id": "2", "title": "a", "content": "c", "author_name": "", }),
            false,
        ),
        (
            "post",
            "/post",
            "/post",
            json!({"title": "a", "content": "c", "author_name": "x", "y": 1}),
            false,
        ),
        (
            "patch",
            "/post/1",
            "/post/{id}",
            json!({"title": "b"}),
            true,
        ),
        ("patch", "/post/1", "/post/{id}", json!({"title": 7}), false),
        ("patch", "/post/1", "/post/{id}", json!({"y": 7}), false),
        ("post", "/order", "/order", order, true),
        ("post", "/order", "/order", json!({"to": {}}), false),
        (
            "post",
            "/order",
            "/order",
            json!({"to": {"city": "Ulm"}, "lines": [{"count": 0}]}),
            false,
        ),
        (
            "patch",
            "/order/1",
            "/order/{id}",
            json!({"lines": null}),
            true,
        ),
        (
            "post",
            "/account/open",
            "/account/open",
            json!({"id": "1"}),
            true,
        ),
        (
            "post",
            "/account/1/deposit",
            "/account/{id}/deposit",
            json!({"cents": 5}),
            true,
        ),
    ] {
        let operation = &document["paths"][at][method];
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(
            fits(&document, schema, &body),
            taken,
            "{method} {at} {body}"
        );
        let (status, answer) = send(&app, &method.to_uppercase(), path, &body).await;
        let expected = match (taken, at.contains("{id}")) {
            (true, true) => 200,
            (true, false) => 201,
            (false, _) => 422,
        };
        assert_eq!(status, expected, "{answer}");
        let response = &operation["responses"][status.to_string()];
        let response = match response["$ref"].as_str() {
            Some(reference) => document.pointer(&reference[1..]).unwrap(),
            None => response,
        };
        let media = if taken {
            "application/json"
        } else {
            "application/problem+json"
        };
        let schema = &response["content"][media]["schema"];
        assert!(fits(&document, schema, &answer), "{answer}");
    }
}

#[test]
fn a_command_says_all_that_may_go_wrong_with_it() {
    let document = document();
    let statuses = |path: &str, method: &str| {
        let responses = document["paths"][path][method]["responses"].as_object();
        responses.unwrap().keys().cloned().collect::<Vec<_>>()
    };
    let common = [
        "400", "406", "409", "412", "413", "415", "422", "429", "500", "503", "504",
    ];
    for status in common {
        assert!(
            statuses("/post", "post").contains(&status.to_owned()),
            "{status}"
        );
        assert!(
            statuses("/post/{id}", "patch").contains(&status.to_owned()),
            "{status}"
        );
    }
    for status in ["404", "410"] {
        assert!(statuses("/post/{id}", "delete").contains(&status.to_owned()));
        assert!(!statuses("/post", "post").contains(&status.to_owned()));
    }
    assert!(statuses("/events", "get").contains(&"410".to_owned()));
    let created = &document["paths"]["/post"]["post"]["responses"]["201"]["headers"];
    for header in ["ETag", "Consistency-Token", "Location", "X-Correlation-Id"] {
        assert!(created[header].is_object(), "{header}");
    }
    let deletion = &document["paths"]["/post/{id}"]["delete"];
    assert!(deletion.get("requestBody").is_none());
}
