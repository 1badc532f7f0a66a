//! What a client is answered through a gateway is what the command service answers, header by header.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use tidelog_test_support::{Issuer, SigningKey};

use super::{gateway, post, worker};
use crate::client::{Answer, Client, must};
use crate::log::read;
use crate::services::{Backends, Role, Service, of_tenants};
use crate::websocket::kit::{Socket, create};

/// A request, with `ID` for what is told from the other way's.
type Asked = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    String,
);

const JSON: (&str, &str) = ("content-type", "application/json");

/// One request after the other, each of which finds what those before it made.
fn conversation() -> Vec<Asked> {
    let created = post("ID").to_string();
    let large =
        json!({"id": "ID-2", "title": "a", "content": "x".repeat(900_000), "author_name": "Ann"});
    let patch = json!({"title": "B"}).to_string();
    let bare: &[(&str, &str)] = &[JSON];
    let keyed: &[(&str, &str)] = &[JSON, ("idempotency-key", "\"ID-key\"")];
    vec![
        ("POST", "/post", keyed, created.clone()),
        ("POST", "/post", keyed, created.clone()),
        ("POST", "/post", keyed, format!("{created}\n")),
        ("POST", "/post", bare, created),
        ("POST", "/post", bare, large.to_string()),
        ("POST", "/post", bare, "x".repeat(1_100_000)),
        ("POST", "/post", bare, "{\"title\": 7}".to_owned()),
        ("POST", "/post", bare, "null".to_owned()),
        ("POST", "/post", bare, "{".to_owned()),
        (
            "POST",
            "/post",
            &[("content-type", "text/plain")],
            "a".to_owned(),
        ),
        (
            "POST",
            "/post",
            &[JSON, ("accept", "text/html")],
            "{}".to_owned(),
        ),
        ("POST", "/post?a=1", bare, "{}".to_owned()),
        ("POST", "/nothing", bare, "{}".to_owned()),
        (
            "PATCH",
            "/post/ID",
            &[JSON, ("if-match", "\"1\"")],
            patch.clone(),
        ),
        (
            "PATCH",
            "/post/ID",
            &[JSON, ("if-match", "\"1\"")],
            patch.clone(),
        ),
        ("PATCH", "/post/ID", bare, patch.clone()),
        ("PATCH", "/post/nobody", bare, patch.clone()),
        ("GET", "/post/ID", &[], String::new()),
        ("OPTIONS", "/post/ID", &[], String::new()),
        ("PUT", "/post/ID", bare, patch.clone()),
        ("DELETE", "/post/ID", &[], String::new()),
        ("PATCH", "/post/ID", bare, patch),
        ("GET", "/docs", &[], String::new()),
    ]
}

/// What a client can tell an answer by. Tokens and ids are the log's, and differ from write to write.
fn told(answer: &Answer, id: &str) -> (u16, BTreeSet<(String, String)>, String) {
    let varies = ["date", "x-correlation-id", "consistency-token"];
    let headers = answer.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).replace(id, "ID");
        let shown = match varies.contains(&name.as_str()) {
            true => "some".to_owned(),
            false => value,
        };
        (name.as_str().to_owned(), shown)
    });
    let body = match serde_json::from_str::<Value>(&answer.body) {
        Ok(mut body) => {
            if body.get("instance").is_some() {
                body["instance"] = json!("some");
            }
            body.to_string()
        }
        Err(_) => answer.body.clone(),
    };
    // The length of a body goes by that of what was replaced.
    let headers = headers.filter(|(name, _)| name != "content-length");
    (answer.status, headers.collect(), body.replace(id, "ID"))
}

async fn ask(client: &Client, (method, path, headers, body): &Asked, id: &str) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let mut request = client.request(method, &path.replace("ID", id));
    for (name, value) in *headers {
        request = request.header(*name, value.replace("ID", id));
    }
    must(request.body(body.replace("ID", id))).await
}

on_each_bus!(each_answer_is_the_same_as_the_command_services_own);

async fn each_answer_is_the_same_as_the_command_services_own(backends: &Backends) {
    let worker = worker(backends, "post").await;
    let gateway = gateway(backends, &[]).await;
    let (direct, through) = (worker.commands(), gateway.commands());
    for asked in conversation() {
        let own = ask(&direct, &asked, "direct").await;
        let passed = ask(&through, &asked, "passed").await;
        assert_eq!(told(&passed, "passed"), told(&own, "direct"), "{asked:?}");
    }
    // The log is not read here, and its description does not say so.
    through.get("/events").await.problem(404, "not-found");
    let described = through.get("/openapi.json").await.json();
    assert!(described["paths"]["/post"]["post"].is_object());
    assert!(described["paths"]["/events"].is_null());
    let read = read(&backends.database_url).await;
    assert_eq!(read.len(), 6, "a creation, a patch and a deletion each way");
}

#[tokio::test]
async fn who_asks_is_found_out_by_the_gateway_and_believed_as_far_as_the_workers_settings_go() {
    let key = SigningKey::new("one");
    let issuer = Issuer::start(&[&key]).await;
    let jwks = issuer.jwks_url();
    let [jwks, issuer_name, audience, claim] = of_tenants(&jwks);
    let roles = ("TIDELOG_ROLES", "post/create=author");
    let sign_in = [jwks, issuer_name, audience, claim, roles];
    let backends = Backends::for_a_gateway().await;
    let mut settings = backends.settings().to_vec();
    settings.push(("TIDELOG_AGGREGATES", "*"));
    settings.extend(sign_in);
    let worker = Service::start_with(Role::Command, &settings).await;
    let signed = gateway(&backends, &sign_in).await;
    let create = async |gateway: &Service, token: Option<&str>| {
        let request = gateway.commands().request(Method::POST, "/post");
        let request = request.json(&post("1"));
        must(match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
        .await
    };
    create(&signed, None).await.problem(401, "unauthenticated");
    let author = |tenant: &str| key.token(&json!({"tenant": tenant, "roles": ["author"]}));
    let reader = key.token(&json!({"tenant": "acme", "roles": ["reader"]}));
    create(&signed, Some(&reader))
        .await
        .problem(403, "forbidden");
    // Each tenant has its own.
    for tenant in ["acme", "beta"] {
        create(&signed, Some(&author(tenant))).await.data(201);
    }
    create(&signed, Some(&author("acme")))
        .await
        .problem(409, "already-exists");
    let rows = read(&backends.database_url).await;
    assert_eq!(rows.len(), 2);
    // A gateway at which nobody signs in is no way in.
    let open = gateway(&backends, &[]).await;
    create(&open, None).await.problem(500, "internal");
    // Nor is one whose rules let more people in.
    let lax: Vec<_> = sign_in
        .iter()
        .filter(|(name, _)| *name != "TIDELOG_ROLES")
        .copied()
        .collect();
    let lax = gateway(&backends, &lax).await;
    create(&lax, Some(&reader)).await.problem(403, "forbidden");
    assert_eq!(read(&backends.database_url).await.len(), 2);
    drop(worker);
}

#[tokio::test]
async fn a_socket_at_a_gateway_shows_its_token_to_the_query_service_too() {
    let key = SigningKey::new("one");
    let issuer = Issuer::start(&[&key]).await;
    let jwks = issuer.jwks_url();
    let sign_in = of_tenants(&jwks);
    let backends = Backends::for_a_gateway().await;
    let (_all, signed) = Service::gateway(&backends, &sign_in).await;
    let open = async |tenant: &str| {
        let token = format!("Bearer {}", key.token(&json!({"tenant": tenant})));
        let headers = [("authorization", token.as_str())];
        Socket::open(signed.commands().address(), "/ws", &headers).await
    };
    let opened = Socket::open(signed.commands().address(), "/ws", &[]).await;
    assert_eq!(opened.err(), Some(401));
    let (Ok(mut acme), Ok(mut beta)) = (open("acme").await, open("beta").await) else {
        panic!("no socket");
    };
    acme.subscribe("l", "/posts", None).await;
    let made = beta.command("1", create("b", "Bob")).await;
    assert_eq!(made["status"], 201, "{made}");
    let made = acme.command("1", create("a", "Ann")).await;
    assert_eq!(made["status"], 201, "{made}");
    // Only its own.
    let told = acme.hear_of("l").await;
    assert!(
        told.to_string().contains("Ann") && !told.to_string().contains("Bob"),
        "{told}"
    );
    let none = gateway(&backends, &[]).await;
    let mut socket = Socket::of(&none).await;
    socket.say(&json!({"id": "l", "subscribe": "/posts"})).await;
    let answer = socket.hear_of("l").await;
    assert_eq!(answer["status"], 404, "{answer}");
    assert!(answer.to_string().contains("query_url"), "{answer}");
}
