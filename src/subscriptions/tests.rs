//! The subscriptions as the admin listener has them.

use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::settings::Settings;
use crate::{App, Running};

/// The demo's two views, in memory, once both are there.
async fn running() -> Running {
    let running = App::new("blog").mount(Settings::in_memory()).await.unwrap();
    let all = running.subscriptions().unwrap();
    loop {
        let listed = all.list().await;
        if listed.iter().all(|own| own.partitions.len() == 16) {
            return running;
        }
        tokio::task::yield_now().await;
    }
}

async fn ask(running: &Running, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let mut request = Request::builder().method(method).uri(path);
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let request = request.body(body).unwrap();
    let answer = running.admin_router().oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn what_is_listed_is_what_the_library_lists() {
    let running = running().await;
    let (status, body) = ask(&running, "GET", "/admin/api/subscriptions", None).await;
    assert_eq!(status, 200);
    let names: Vec<_> = body["data"].as_array().unwrap().iter().collect();
    let names: Vec<_> = names
        .iter()
        .map(|own| own["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["post", "customer"]);
    let read: Vec<crate::SubscriptionEntry> = serde_json::from_value(body["data"].clone()).unwrap();
    assert!(
        read.iter()
            .all(|own| !own.is_stalled() && own.lag_events() == 0)
    );
    assert!(running.stop().await);
}

#[tokio::test]
async fn a_pause_is_made_and_ended_by_name() {
    let running = running().await;
    let all = running.subscriptions().unwrap();
    let body = json!({"reason": "a move"});
    let pause = "/admin/api/subscriptions/post/pause";
    assert_eq!(ask(&running, "POST", pause, Some(&body)).await.0, 200);
    let reasons = async || {
        let listed = all.list().await;
        let post = listed.iter().find(|own| own.name == "post").unwrap();
        let reasons = post.partitions.iter().map(|own| own.reason.clone());
        reasons.collect::<Vec<_>>()
    };
    assert_eq!(reasons().await, vec![Some("a move".to_owned()); 16]);
    let resume = "/admin/api/subscriptions/post/resume";
    assert_eq!(ask(&running, "POST", resume, None).await.0, 200);
    assert_eq!(reasons().await, vec![None; 16]);
    assert!(running.stop().await);
}

#[tokio::test]
async fn what_is_asked_wrongly_is_a_problem_document() {
    let running = running().await;
    let retry = "/admin/api/parked/post/retry";
    let skip = "/admin/api/parked/post/skip";
    let pause = "/admin/api/subscriptions/post/pause";
    let both = json!({"sequence": "1", "all": true});
    let long = json!({"reason": "x".repeat(1_001)});
    let cases: &[(&str, &str, Option<Value>, u16, &str)] = &[
        (
            "GET",
            "/admin/api/parked?suscription=post",
            None,
            400,
            "unknown-parameter",
        ),
        (
            "GET",
            "/admin/api/parked?subscription=nothing",
            None,
            404,
            "not-found",
        ),
        (
            "GET",
            "/admin/api/parked/post?sequence=1",
            None,
            404,
            "not-found",
        ),
        (
            "GET",
            "/admin/api/parked/post?sequence=1&payload=yes",
            None,
            400,
            "malformed-request",
        ),
        (
            "GET",
            "/admin/api/subscriptions?x=1",
            None,
            400,
            "unknown-parameter",
        ),
        (
            "POST",
            "/admin/api/subscriptions",
            None,
            405,
            "method-not-allowed",
        ),
        (
            "POST",
            "/admin/api/subscriptions/nothing/pause",
            None,
            404,
            "not-found",
        ),
        ("POST", pause, Some(json!({"raeson": "x"})), 422, "invalid"),
        ("POST", pause, Some(long), 422, "invalid"),
        ("POST", retry, None, 422, "invalid"),
        ("POST", retry, Some(json!({})), 422, "invalid"),
        ("POST", retry, Some(both), 422, "invalid"),
        (
            "POST",
            retry,
            Some(json!({"sequence": "1"})),
            404,
            "not-found",
        ),
        (
            "POST",
            skip,
            Some(json!({"sequence": "1", "reason": ""})),
            422,
            "invalid",
        ),
    ];
    for (method, path, body, status, kind) in cases {
        let (answered, problem) = ask(&running, method, path, body.as_ref()).await;
        let kind = format!("urn:tidelog:problem:{kind}");
        assert_eq!(
            (answered, &problem["type"]),
            (*status, &json!(kind)),
            "{path}: {problem}"
        );
    }
    assert!(running.stop().await);
}
