//! What one tenant does, another neither sees nor disturbs.

use tidelog_domain::{StreamId, Tenant};
use tidelog_eventbus::StreamReader;
use tidelog_http::Caller;

use super::*;

impl Api {
    /// Sends a request of `tenant`, by whoever `principal` is.
    async fn send_as(
        &self,
        (tenant, principal): (&str, &str),
        (method, path): (&str, &str),
        headers: &[&str],
        body: &Value,
    ) -> Answer {
        let tenant = Tenant::new(tenant).unwrap();
        let caller = Caller::in_process(Some(tenant), Some(principal));
        let app = self.app.clone().layer(axum::Extension(caller));
        let api = Self {
            app,
            ..self.clone()
        };
        let headers: Vec<&str> = headers.iter().copied().chain([JSON]).collect();
        api.send_with(method, path, &headers, body.to_string())
            .await
    }
}

const ACME: (&str, &str) = ("acme", "ann");
const BETA: (&str, &str) = ("beta", "bob");

fn post_called(id: &str) -> Value {
    let mut body = a_post();
    body["id"] = json!(id);
    body
}

#[tokio::test]
async fn two_tenants_have_each_an_aggregate_of_the_same_id() {
    let api = Api::new().await;
    for who in [ACME, BETA] {
        let made = api
            .send_as(who, ("POST", "/post"), &[], &post_called("1"))
            .await;
        assert_eq!(made.status, 201, "{}", made.body);
        assert_eq!(made.body["data"]["id"], "1");
    }
    let body = json!({"title": "b"});
    let changed = api
        .send_as(ACME, ("PATCH", "/post/1"), &["if-match: \"1\""], &body)
        .await;
    assert_eq!(changed.body["data"]["version"], 2);
    let other = api
        .send_as(BETA, ("PATCH", "/post/1"), &["if-match: \"2\""], &body)
        .await;
    other.problem(412, "precondition-failed");
    let gone = api
        .send_as(ACME, ("DELETE", "/post/1"), &[], &Value::Null)
        .await;
    assert_eq!(gone.status, 200);
    let other = api.send_as(BETA, ("PATCH", "/post/1"), &[], &body).await;
    assert_eq!(other.status, 200);
    // Nor is there one for those who are of no tenant.
    api.send("PATCH", "/post/1", &body)
        .await
        .problem(404, "not-found");

    let stream = StreamId::parse("acme:post/1").unwrap();
    let events = api
        .store
        .read_stream(&stream, tidelog_domain::Version::NONE, 9);
    let events = events.await.unwrap();
    assert_eq!(events.len(), 3);
    let metadata = events[1].metadata().unwrap();
    assert_eq!(metadata.tenant.as_deref(), Some("acme"));
    assert_eq!(metadata.actor.as_deref(), Some("ann"));
}

#[tokio::test]
async fn an_id_that_names_another_tenants_stream_is_no_id() {
    let api = Api::new().await;
    api.send_as(ACME, ("POST", "/post"), &[], &post_called("1"))
        .await;
    for path in [
        "/post/acme:1",
        "/post/acme%3Apost%2F1",
        "/acme:post/1",
        "/post/acme%E2%90%9F1",
    ] {
        let answer = api
            .send_as(BETA, ("PATCH", path), &[], &json!({"title": "b"}))
            .await;
        assert!(
            [400, 404].contains(&answer.status),
            "{path}: {}",
            answer.status
        );
    }
    for body in [post_called("acme:1"), post_called("acme:post/1")] {
        let answer = api.send_as(BETA, ("POST", "/post"), &[], &body).await;
        answer.problem(400, "malformed-request");
    }
    // No field of a body names a tenant.
    let mut body = post_called("1");
    body["tenant"] = json!("acme");
    let answer = api.send_as(BETA, ("POST", "/post"), &[], &body).await;
    answer.problem(422, "invalid");
}

#[tokio::test]
async fn a_key_counts_within_its_tenant_and_its_principal() {
    let api = Api::new().await;
    let headers = ["idempotency-key: \"k\""];
    let mut ids = Vec::new();
    for who in [ACME, BETA, ("acme", "carl")] {
        let made = api
            .send_as(who, ("POST", "/post"), &headers, &a_post())
            .await;
        assert_eq!(made.status, 201, "{}", made.body);
        assert!(!made.headers.contains_key("idempotency-replayed"));
        ids.push(made.body["data"]["id"].clone());
    }
    let again = api
        .send_as(ACME, ("POST", "/post"), &headers, &a_post())
        .await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.body["data"]["id"], ids[0]);
    assert!(ids[0] != ids[1] && ids[0] != ids[2]);
}

#[tokio::test]
async fn a_token_names_the_tenant_whose_write_it_is() {
    let api = Api::new().await;
    let token = async |who| {
        let made = api.send_as(who, ("POST", "/post"), &[], &a_post()).await;
        let token: tidelog_domain::ConsistencyToken =
            made.header("consistency-token").parse().unwrap();
        token
    };
    let acme = Tenant::new("acme").unwrap();
    assert!(token(ACME).await.is_of(Some(&acme)));
    assert!(!token(BETA).await.is_of(Some(&acme)));
}
