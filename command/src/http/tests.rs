//! The command service as a client sees it: each success, and each line of the error table that concerns writes.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Request, header};
use serde_json::{Value, json};
use tower::ServiceExt;

use tidelog_eventbus::messaging::{Messaging, RunningWorker};

use super::*;
use crate::appender::AppenderSettings;
use crate::fixtures::*;
use crate::gateway::{DEFAULT_TIMEOUT, Trust, command_worker};
use crate::store::AppendError;

#[path = "tests/idempotency.rs"]
mod idempotency;
#[path = "tests/tenants.rs"]
mod tenants;

#[derive(Clone)]
struct Api {
    store: Arc<WatchedStore>,
    service: Arc<CommandService>,
    app: Router,
    /// What runs the commands, where they come through a gateway.
    _worker: Option<Arc<RunningWorker>>,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Api {
    async fn new() -> Self {
        Self::with(AppenderSettings::default(), CommandSettings::default()).await
    }

    async fn with(appender: AppenderSettings, settings: CommandSettings) -> Self {
        let store = WatchedStore::new();
        let service = service_on(Arc::clone(&store) as _, appender).await;
        Self::of(store, service, settings).await
    }

    /// Of `service`, directly or through a gateway and a worker, as the module is called.
    async fn of(
        store: Arc<WatchedStore>,
        service: Arc<CommandService>,
        settings: CommandSettings,
    ) -> Self {
        let direct = command_router(Arc::clone(&service), settings.clone());
        let (router, worker) = if module_path!().contains("through_a_gateway") {
            let messaging = Messaging::in_process("app");
            let names = service.deciders().map(|own| own.category());
            let behind = tidelog_http::app(direct);
            let worker = command_worker(&messaging, &behind, names, &Trust::default()).unwrap();
            let worker = Arc::new(worker.start().await.unwrap());
            let workers = Workers::new(&messaging, DEFAULT_TIMEOUT);
            let definitions = service.definitions().clone();
            (gateway_router(definitions, workers, settings), Some(worker))
        } else {
            (direct, None)
        };
        Self {
            store,
            service,
            app: tidelog_http::open_to_all(tidelog_http::app(router)),
            _worker: worker,
        }
    }

    /// Sends a request with headers, written `name: value`.
    async fn send_with(
        &self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for line in headers {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        let request = request.body(body.into()).unwrap();
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap(),
        }
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.send_with(method, path, &[JSON], body.to_string())
            .await
    }

    async fn created(&self, id: &str) {
        let mut body = a_post();
        body["id"] = json!(id);
        assert_eq!(self.send("POST", "/post", &body).await.status, 201);
    }
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// Checks that this is the problem `name` of `status`, whole, and gives its detail.
    fn problem(&self, status: u16, name: &str) -> &str {
        let body = &self.body;
        assert_eq!(self.status, status, "{body}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(
            body["type"],
            format!("urn:tidelog:problem:{name}"),
            "{body}"
        );
        assert_eq!(body["status"], status);
        assert!(body["title"].is_string() && body["instance"].is_string());
        assert!(self.headers.contains_key("x-correlation-id"));
        if [429, 503].contains(&status) {
            assert!(self.header("retry-after").parse::<u64>().unwrap() > 0);
        }
        let detail = body["detail"].as_str().unwrap();
        assert!(!detail.is_empty());
        detail
    }
}

const JSON: &str = "content-type: application/json";

#[tokio::test]
async fn a_path_may_be_percent_encoded() {
    let api = Api::new().await;
    let mut body = a_post();
    body["id"] = json!("p");
    let created = api.send("POST", "/p%6fs%74", &body).await;
    assert_eq!(
        (created.status, &created.body["data"]["id"]),
        (201, &json!("p"))
    );
    let patched = api
        .send("PATCH", "/%70ost/%70", &json!({"title": "b"}))
        .await;
    assert_eq!((patched.status, patched.header("etag")), (200, "\"2\""));
}

#[tokio::test]
async fn a_post_is_created_patched_and_deleted() {
    let api = Api::new().await;
    let created = api.send("POST", "/post", &a_post()).await;
    let id = created.body["data"]["id"].as_str().unwrap().to_owned();
    assert_eq!(Uuid::try_parse(&id).unwrap().get_version_num(), 7);
    assert_eq!(created.status, 201);
    assert_eq!(created.header("location"), format!("/post/{id}"));
    assert_eq!(created.header("etag"), "\"1\"");
    // The id and the version come first, the state as it was sent.
    assert_eq!(
        created.body.to_string(),
        format!(
            r#"{{"data":{{"id":"{id}","version":1,"title":"a","content":"c","author_name":"ann"}}}}"#
        )
    );
    let path = format!("/post/{id}");
    let patched = api.send("PATCH", &path, &json!({"title": "b"})).await;
    assert_eq!((patched.status, patched.header("etag")), (200, "\"2\""));
    assert_eq!(patched.body["data"]["title"], "b");
    assert_eq!(patched.body["data"]["content"], "c");
    assert!(!patched.headers.contains_key("location"));
    let deleted = api.send_with("DELETE", &path, &[], Body::empty()).await;
    assert_eq!((deleted.status, deleted.header("etag")), (200, "\"3\""));
    assert_eq!(deleted.body["data"]["version"], 3);
    assert_eq!(api.store.events(&path[1..]).await.len(), 3);
}

#[tokio::test]
async fn a_write_hands_out_a_token_that_names_its_position() {
    let api = Api::new().await;
    api.created("1").await;
    let patched = api.send("PATCH", "/post/1", &json!({"title": "b"})).await;
    let same = api.send("PATCH", "/post/1", &json!({"title": "b"})).await;
    let token = patched.header("consistency-token");
    let event = &api.store.events("post/1").await[1];
    let token: tidelog_domain::ConsistencyToken = token.parse().unwrap();
    assert_eq!(token.positions, [(event.partition, event.position)]);
    assert_eq!(same.header("consistency-token"), token.to_string());
    assert_eq!((same.status, same.header("etag")), (200, "\"2\""));
}

#[tokio::test]
async fn who_asked_and_why_is_recorded_with_the_event() {
    let api = Api::new().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [
        JSON,
        "x-correlation-id: mine",
        &format!("traceparent: {trace}"),
    ];
    let body = json!({"id": "1", "title": "a", "content": "c", "author_name": "ann"});
    let created = api
        .send_with("POST", "/post", &headers, body.to_string())
        .await;
    assert_eq!(created.header("x-correlation-id"), "mine");
    let metadata = api.store.events("post/1").await[0].metadata().unwrap();
    assert_eq!(metadata.correlation_id, "mine");
    assert_eq!(metadata.traceparent.as_deref(), Some(trace));
    assert!(metadata.causation_id.is_some());
}

#[tokio::test]
async fn a_location_leads_to_the_query_service_where_that_is_known() {
    let settings = CommandSettings {
        query_url: Some("https://read.example/".to_owned()),
        ..CommandSettings::default()
    };
    let api = Api::with(AppenderSettings::default(), settings).await;
    let created = api
        .send(
            "POST",
            "/post",
            &json!({"id": "x", "title": "a", "content": "c", "author_name": "ann"}),
        )
        .await;
    assert_eq!(created.header("location"), "https://read.example/post/x");
    let read = api.send_with("GET", "/post/x", &[], Body::empty()).await;
    assert!(
        read.problem(405, "method-not-allowed")
            .contains("https://read.example/")
    );
}

#[tokio::test]
async fn a_business_command_is_a_path_of_its_own() {
    let api = Api::new().await;
    let opened = api
        .send("POST", "/account/open", &json!({"id": "ann"}))
        .await;
    assert_eq!(
        (opened.status, opened.header("location")),
        (201, "/account/ann")
    );
    let moved = api
        .send("POST", "/account/ann/deposit", &json!({"cents": 5}))
        .await;
    assert_eq!(moved.status, 200);
    assert_eq!(
        moved.body["data"],
        json!({"id": "ann", "version": 2, "cents": 5})
    );
    // A command that takes nothing needs no body.
    let anonymous = api
        .send_with("POST", "/account/open", &[], Body::empty())
        .await;
    assert_eq!(anonymous.status, 201);
    let rejected = api
        .send("POST", "/account/ann/withdraw", &json!({"cents": 6}))
        .await;
    assert_eq!(
        rejected.problem(422, "rejected"),
        "There is not enough in the account."
    );
    assert_eq!(rejected.body["code"], "insufficient-funds");
}

/// Requests that must be turned down, each with the problem.
async fn refused(
    api: &Api,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
    is: (u16, &str),
) {
    let before = api.store.size().await;
    let answer = api.send_with(method, path, headers, body.to_owned()).await;
    answer.problem(is.0, is.1);
    assert_eq!(api.store.size().await, before, "{method} {path} wrote");
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_a_malformed_request() {
    let api = Api::new().await;
    let malformed = (400, "malformed-request");
    let nested = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let nested = format!(r#"{{"title": {nested}}}"#);
    for body in [
        "{",
        "",
        "title=a",
        r#"{"title": 9223372036854775808}"#,
        &nested,
    ] {
        refused(&api, "POST", "/post", &[JSON], body, malformed).await;
    }
}

#[tokio::test]
async fn a_body_of_another_type_is_not_supported() {
    let api = Api::new().await;
    api.created("1").await;
    let unsupported = (415, "unsupported-media-type");
    let body = a_post().to_string();
    for headers in [
        &[][..],
        &["content-type: text/plain"],
        &["content-type: application/merge-patch+json"],
    ] {
        refused(&api, "POST", "/post", headers, &body, unsupported).await;
    }
    let answer = api
        .send_with("PATCH", "/post/1", &["content-type: text/plain"], "{}")
        .await;
    assert_eq!(
        answer.header("accept"),
        "application/merge-patch+json, application/json"
    );
    let merge = ["content-type: application/merge-patch+json"];
    let patched = api
        .send_with("PATCH", "/post/1", &merge, r#"{"title":"b"}"#)
        .await;
    assert_eq!(patched.status, 200);
}

#[tokio::test]
async fn a_body_that_does_not_fit_the_schema_is_invalid_field_by_field() {
    let api = Api::new().await;
    api.created("1").await;
    let mut unknown = a_post();
    unknown["colour"] = json!("red");
    let mut long = a_post();
    long["title"] = json!("x".repeat(201));
    for (method, path, body, field) in [
        ("POST", "/post", &unknown, "/colour"),
        ("POST", "/post", &long, "/title"),
        (
            "POST",
            "/post",
            &json!({"title": "a", "content": "c"}),
            "/author_name",
        ),
        (
            "PATCH",
            "/post/1",
            &json!({"title": "x".repeat(201)}),
            "/title",
        ),
        ("PATCH", "/post/1", &json!({"colour": "red"}), "/colour"),
        ("PATCH", "/post/1", &json!({"id": "2"}), "/id"),
        ("PATCH", "/post/1", &json!({"version": 7}), "/version"),
        ("DELETE", "/post/1", &json!({"why": "because"}), ""),
    ] {
        let answer = api.send(method, path, body).await;
        answer.problem(422, "invalid");
        let errors = answer.body["errors"].as_array().unwrap();
        assert!(
            errors.iter().any(|error| error["field"] == field),
            "{path} {body}: {errors:?}"
        );
        assert!(errors.iter().all(|error| error["message"].is_string()));
    }
    assert_eq!(api.store.size().await, 1);
}

#[tokio::test]
async fn a_bad_id_is_a_malformed_request_wherever_it_stands() {
    let api = Api::new().await;
    let malformed = (400, "malformed-request");
    let huge = format!("/post/{}", "x".repeat(10_240));
    for path in [
        "/post/a'b",
        "/post/a%22b",
        "/post/a%00b",
        "/post/%ff",
        "/post/a%2Fb",
        "/post/a%20b",
        "/post/%zz",
        "/post/..%2f",
        "/post/%E2%82%AC",
        &huge,
    ] {
        refused(&api, "PATCH", path, &[JSON], r#"{"title":"b"}"#, malformed).await;
        refused(&api, "DELETE", path, &[], "", malformed).await;
    }
    let huge = "x".repeat(10_240);
    for id in [
        json!("a'b"),
        json!("a\0b"),
        json!(""),
        json!(".."),
        json!(huge),
        json!(7),
        json!(null),
    ] {
        let mut body = a_post();
        body["id"] = id;
        refused(&api, "POST", "/post", &[JSON], &body.to_string(), malformed).await;
    }
    refused(
        &api,
        "POST",
        "/account/a'b/deposit",
        &[JSON],
        r#"{"cents":1}"#,
        malformed,
    )
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let api = Api::new().await;
    let not_found = (404, "not-found");
    for (method, path) in [
        ("PATCH", "/post/1"),
        ("POST", "/nothing"),
        ("GET", "/nothing/1"),
        ("POST", "/nothing/1/do"),
        ("POST", "/account/1/deposit"),
        ("POST", "/account/1/steal"),
        ("POST", "/account/close"),
        ("POST", "/account"),
        ("POST", "/post/1/publish"),
        ("POST", "/"),
        ("POST", "/post/1/2/3"),
    ] {
        let body = r#"{"title":"b","cents":1}"#;
        let body = if path == "/post/1" {
            r#"{"title":"b"}"#
        } else {
            body
        };
        refused(&api, method, path, &[JSON], body, not_found).await;
    }
    refused(&api, "DELETE", "/post/1", &[], "", not_found).await;
    let answer = api.send("PATCH", "/post/1", &json!({"title": "b"})).await;
    assert!(
        answer
            .problem(404, "not-found")
            .contains("post with the id 1")
    );
}

#[tokio::test]
async fn a_method_that_is_not_served_is_said_with_those_that_are() {
    let api = Api::new().await;
    for (method, path, allow) in [
        ("GET", "/post", "POST"),
        ("PUT", "/post/1", "PATCH, DELETE"),
        ("POST", "/post/1", "PATCH, DELETE"),
        ("GET", "/post/1", "PATCH, DELETE"),
        ("DELETE", "/account/open", "POST"),
        ("GET", "/account/1/deposit", "POST"),
    ] {
        let answer = api.send_with(method, path, &[], Body::empty()).await;
        answer.problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
    }
}

#[tokio::test]
async fn a_parameter_is_unknown_and_an_answer_must_be_acceptable() {
    let api = Api::new().await;
    let body = a_post().to_string();
    refused(
        &api,
        "POST",
        "/post?dry=1",
        &[JSON],
        &body,
        (400, "unknown-parameter"),
    )
    .await;
    let html = [JSON, "accept: text/html"];
    refused(&api, "POST", "/post", &html, &body, (406, "not-acceptable")).await;
}

#[tokio::test]
async fn a_deleted_aggregate_is_gone_and_its_id_is_taken() {
    let api = Api::new().await;
    api.created("1").await;
    let mut again = a_post();
    again["id"] = json!("1");
    let again = again.to_string();
    let taken = (409, "already-exists");
    let unmatched = (412, "precondition-failed");
    let none_match = [JSON, "if-none-match: *"];
    refused(&api, "POST", "/post", &[JSON], &again, taken).await;
    refused(&api, "POST", "/post", &none_match, &again, unmatched).await;
    assert_eq!(
        api.send_with("DELETE", "/post/1", &[], Body::empty())
            .await
            .status,
        200
    );
    refused(&api, "POST", "/post", &[JSON], &again, taken).await;
    refused(&api, "POST", "/post", &none_match, &again, unmatched).await;
    refused(
        &api,
        "PATCH",
        "/post/1",
        &[JSON],
        r#"{"title":"b"}"#,
        (410, "deleted"),
    )
    .await;
    refused(&api, "DELETE", "/post/1", &[], "", (410, "deleted")).await;
    let fresh = api
        .send_with("POST", "/post", &none_match, a_post().to_string())
        .await;
    assert_eq!(fresh.status, 201);
}

#[tokio::test]
async fn a_command_happens_at_the_version_that_it_names_or_not_at_all() {
    let api = Api::new().await;
    api.created("1").await;
    let patch = async |tag: &str, title: &str| {
        let body = json!({"title": title}).to_string();
        api.send_with(
            "PATCH",
            "/post/1",
            &[JSON, &format!("if-match: {tag}")],
            body,
        )
        .await
    };
    assert_eq!(patch("\"1\"", "b").await.status, 200);
    assert_eq!(patch("\"2.f00\"", "c").await.status, 200);
    assert_eq!(patch("*", "d").await.status, 200);
    assert_eq!(patch("\"1\", \"4\"", "e").await.status, 200);
    let size = api.store.size().await;
    for tag in ["\"4\"", "\"6\"", "W/\"5\"", "\"x\""] {
        let answer = patch(tag, "f").await;
        assert!(
            answer.problem(412, "precondition-failed").contains("\"5\""),
            "{tag}"
        );
        assert_eq!(answer.header("etag"), "\"5\"");
    }
    for tag in ["5", "\"5", "", "5,"] {
        patch(tag, "f").await.problem(400, "malformed-request");
    }
    let stale = api
        .send_with("DELETE", "/post/1", &["if-match: \"4\""], Body::empty())
        .await;
    stale.problem(412, "precondition-failed");
    assert_eq!(api.store.size().await, size);
}

#[tokio::test]
async fn what_is_too_large_is_said_before_it_is_written() {
    let api = Api::new().await;
    let large = (413, "too-large");
    let body = |bytes: usize| {
        let mut body = a_post();
        body["content"] = json!("x".repeat(bytes));
        body.to_string()
    };
    refused(&api, "POST", "/post", &[JSON], &body(2 << 20), large).await;
    let declared = [JSON, "content-length: 2097152"];
    refused(&api, "POST", "/post", &declared, "", large).await;
    // The body may have 1 MiB, but an event 512 KiB.
    refused(&api, "POST", "/post", &[JSON], &body(600_000), large).await;
    assert_eq!(
        api.send_with("POST", "/post", &[JSON], body(500_000))
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn an_aggregate_that_keeps_changing_is_a_conflict() {
    let api = Api::new().await;
    api.created("1").await;
    let stream = StreamId::parse("post/1").unwrap();
    api.store
        .inject((0..20).map(|n| Fault::Rival(retitled(&n.to_string()), stream.clone())));
    let answer = api
        .send("PATCH", "/post/1", &json!({"title": "mine"}))
        .await;
    assert!(
        answer
            .problem(409, "conflict")
            .contains("post with the id 1")
    );
}

#[tokio::test]
async fn what_the_store_cannot_do_is_said_without_its_internals() {
    let api = Api::new().await;
    api.created("1").await;
    const SECRET: &str = "mysql://root:hunter2@db:3306";
    for (fault, status, name) in [
        (AppendError::Unavailable as fn(_) -> _, 503, "unavailable"),
        (AppendError::InDoubt, 504, "in-doubt"),
        (|_| AppendError::Diverged, 503, "unavailable"),
        (
            |_| AppendError::Corrupt {
                what: SECRET.to_owned(),
            },
            500,
            "internal",
        ),
        (
            |_| AppendError::Unwritable {
                reason: SECRET.to_owned(),
            },
            500,
            "internal",
        ),
    ]
        as [(
            fn(Box<dyn std::error::Error + Send + Sync>) -> AppendError,
            u16,
            &str,
        ); 5]
    {
        api.store
            .inject([Fault::Append(Box::new(move || fault(SECRET.into())))]);
        let answer = api.send("PATCH", "/post/1", &json!({"title": "b"})).await;
        answer.problem(status, name);
        assert!(!answer.body.to_string().contains("hunter2"));
        assert_eq!(
            answer.headers.contains_key(header::RETRY_AFTER),
            status == 503
        );
    }
    assert_eq!(api.store.size().await, 1);
}

#[tokio::test]
async fn a_defect_of_an_aggregate_is_internal_and_tells_nothing() {
    let api = Api::new().await;
    api.send("POST", "/account/open", &json!({"id": "1"})).await;
    let answer = api.send("POST", "/account/1/break", &json!({})).await;
    answer.problem(500, "internal");
    assert!(
        !answer.body.to_string().contains("aggregate"),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn a_service_with_too_much_to_do_says_so_at_once() {
    let settings = AppenderSettings {
        queue_max_bytes: 10,
        ..AppenderSettings::default()
    };
    let api = Api::with(settings, CommandSettings::default()).await;
    let answer = api.send("POST", "/post", &a_post()).await;
    answer.problem(503, "overloaded");
    api.service.close(std::time::Duration::ZERO).await;
    let stopping = Api::new().await;
    stopping
        .service
        .close(std::time::Duration::from_secs(60))
        .await;
    let answer = stopping.send("POST", "/post", &a_post()).await;
    answer.problem(503, "unavailable");
    assert_eq!(stopping.store.size().await, 0);
}
