//! One tenant tries to reach what is another's, over a socket.

use serde_json::json;

use super::kit::{Signed, create};
use crate::services::{Backends, Role};

/// What stands in everything that is the victim's.
const SECRET: &str = "only-acme-may-read-this";

const TENANCY: (&str, &str) = ("TIDELOG_AUTH_TENANT_CLAIM", "tenant");

async fn tries(signed: &Signed) {
    let mut acme = signed.of(&json!({"tenant": "acme", "sub": "ann"})).await;
    let made = acme.command("1", create("p1", SECRET)).await;
    assert_eq!(made["status"], 201, "{made}");
    let token = made["headers"]["consistency-token"].clone();
    acme.say(&json!({"id": "1", "subscribe": "/posts", "headers": {"consistency-token": token}}))
        .await;
    assert_eq!(acme.hear_of("1").await["status"], 200);
    let page = acme.hear_of("1").await;
    assert!(page.to_string().contains(SECRET));
    let place = page["after"].as_str().unwrap();

    let mut beta = signed
        .of(&json!({"tenant": "beta", "sub": "mallory"}))
        .await;
    let page = beta.subscribe("1", "/posts", None).await;
    assert_eq!(page["data"]["data"], json!([]));
    for path in [
        "/post/p1",
        "/post/acme:p1",
        "/post/acme%E2%90%9Fp1",
        "/acme:post/p1",
        "/post?tenant=acme",
    ] {
        beta.say(&json!({"id": "2", "subscribe": path})).await;
        let status = beta.hear_of("2").await["status"].as_u64().unwrap();
        assert!([400, 404, 406].contains(&status), "{path}: {status}");
    }
    // The place of another's query is no way into it.
    beta.say(&json!({"id": "3", "subscribe": "/posts", "after": place}))
        .await;
    let answer = beta.hear_of("3").await;
    if answer["status"] == 200 {
        let begins = beta.hear_of("3").await;
        assert!(!begins.to_string().contains(SECRET), "{begins}");
    }
    beta.say(&json!({"id": "4", "subscribe": "/posts", "headers": {"consistency-token": token}}))
        .await;
    assert_eq!(beta.hear_of("4").await["status"], 400);
    for headers in [
        json!({"tenant": "acme"}),
        json!({"authorization": "Bearer x"}),
        json!({"x-forwarded-for": "1"}),
    ] {
        let patch = json!({"method": "PATCH", "path": "/post/p1", "headers": headers, "body": {"title": "mine"}});
        assert_eq!(beta.command("5", patch).await["status"], 400);
    }
    let patch = json!({"method": "PATCH", "path": "/post/p1", "body": {"title": "mine"}});
    assert_eq!(beta.command("5", patch.clone()).await["status"], 404);
    // What is changed for one is told to that one, and nothing to the other.
    assert_eq!(acme.command("2", patch).await["status"], 200);
    assert_eq!(acme.hear_of("1").await["data"]["data"]["title"], "mine");
    assert_eq!(beta.command("6", create("p1", "Bea")).await["status"], 201);
    let told = beta.hear_of("1").await;
    assert_eq!(told["data"]["data"]["author_name"], "Bea", "{told}");
}

#[tokio::test]
async fn one_tenant_does_not_take_the_sockets_of_all() {
    let signed = Signed::start(Role::Dev, &[TENANCY]).await;
    let open = async |tenant: &str| {
        let token = signed.key.token(&json!({"tenant": tenant}));
        signed
            .open(&[("authorization", &format!("Bearer {token}"))])
            .await
    };
    let mut sockets = Vec::new();
    let refused = loop {
        match open("acme").await {
            Ok(socket) => sockets.push(socket),
            Err(status) => break status,
        }
    };
    assert_eq!((sockets.len(), refused), (250, 429));
    let Ok(mut other) = open("beta").await else {
        panic!("no socket for another");
    };
    assert_eq!(other.command("1", create("p", "Bea")).await["status"], 201);
    // What they have goes on.
    let last = sockets.last_mut().expect("a socket");
    assert_eq!(last.command("1", create("p", "Ann")).await["status"], 201);
}

#[tokio::test]
async fn no_message_leads_to_what_is_another_tenants() {
    tries(&Signed::start(Role::Dev, &[TENANCY]).await).await;
    let backends = Backends::fresh().await;
    let mut settings = backends.settings().to_vec();
    settings.push(TENANCY);
    tries(&Signed::start(Role::All, &settings).await).await;
}
