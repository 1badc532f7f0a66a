//! Who gets a socket: before the upgrade, and for how long.

use serde_json::json;

use super::kit::{Signed, Socket, create};
use crate::services::{Backends, Role, Service};

const RULES: (&str, &str) = ("TIDELOG_ROLES", "post/delete=editor, view/customer=clerk");

#[tokio::test]
async fn nothing_is_upgraded_before_it_is_known_who_asks() {
    let signed = Signed::start(Role::Dev, &[RULES]).await;
    let evil = SigningKeys::evil();
    let good = signed.key.token(&json!({}));
    let bearer = format!("Bearer {good}");
    for (headers, status) in [
        (vec![], 401),
        (vec![("authorization", "Bearer x")], 401),
        (vec![("authorization", evil.as_str())], 401),
        (
            vec![("sec-websocket-protocol", "tidelog.v1, bearer.x")],
            401,
        ),
        (
            vec![
                ("authorization", &bearer),
                (
                    "sec-websocket-protocol",
                    &format!("tidelog.v1, bearer.{good}"),
                ),
            ],
            401,
        ),
        (
            vec![
                ("authorization", &bearer),
                ("sec-websocket-protocol", "other"),
            ],
            400,
        ),
        (
            vec![
                ("authorization", &bearer),
                ("origin", "https://evil.example"),
            ],
            403,
        ),
        (vec![("cookie", &bearer)], 401),
    ] {
        let refused = signed.open(&headers).await.err();
        assert_eq!(refused, Some(status), "{headers:?}");
    }
    let address = signed.service.commands();
    for path in [
        format!("/ws?access_token={good}"),
        format!("/ws?token={good}"),
    ] {
        let refused = Socket::open(address.address(), &path, &[]).await.err();
        assert_eq!(refused, Some(401));
        let refused = Socket::open(address.address(), &path, &[("authorization", &bearer)]).await;
        assert_eq!(refused.err(), Some(400));
    }
    // And not over what is no handshake.
    let plain = address
        .request(reqwest::Method::GET, "/ws")
        .bearer_auth(&good);
    crate::client::must(plain)
        .await
        .problem(400, "malformed-request");
    let mut by_header = signed.of(&json!({})).await;
    assert_eq!(
        by_header.command("1", create("a", "Ann")).await["status"],
        201
    );
    let offered = format!("tidelog.v1, bearer.{good}");
    let mut by_protocol = signed
        .open(&[("sec-websocket-protocol", &offered)])
        .await
        .ok()
        .unwrap();
    assert_eq!(
        by_protocol.command("1", create("b", "Ann")).await["status"],
        201
    );
    let output = signed.service.process().output();
    assert!(!output.contains(&good), "a token is in the log");
}

/// Keys that nobody knows.
struct SigningKeys;

impl SigningKeys {
    /// The header with a token that is signed by another.
    fn evil() -> String {
        let key = tidelog_test_support::SigningKey::new("one");
        format!("Bearer {}", key.token(&json!({})))
    }
}

#[tokio::test]
async fn pages_of_the_origins_in_the_settings_get_a_socket_and_no_others() {
    let origins = ("TIDELOG_CORS_ORIGINS", "https://shop.example");
    let service = Service::start_with(Role::Dev, &[origins]).await;
    let address = service.commands();
    let open = async |origin: &str| {
        let opened = Socket::open(address.address(), "/ws", &[("origin", origin)]).await;
        opened.err()
    };
    assert_eq!(open("https://shop.example").await, None);
    let own = format!("http://{}", address.address());
    for origin in ["https://evil.example", "null", "http://shop.example", &own] {
        assert_eq!(open(origin).await, Some(403), "{origin}");
    }
    // Without any in the settings, no page at all: also not where nobody signs in.
    let service = Service::start_with(Role::Dev, &[]).await;
    let address = service.commands();
    let opened = Socket::open(address.address(), "/ws", &[("origin", "http://localhost")]).await;
    assert_eq!(opened.err(), Some(403));
}

#[tokio::test]
async fn roles_hold_for_each_message() {
    let backends = Backends::fresh().await;
    let mut settings = backends.settings().to_vec();
    settings.push(RULES);
    let signed = Signed::start(Role::All, &settings).await;
    let mut ann = signed.of(&json!({"sub": "ann"})).await;
    assert_eq!(ann.command("1", create("a", "Ann")).await["status"], 201);
    let delete = json!({"method": "DELETE", "path": "/post/a"});
    let refused = ann.command("2", delete.clone()).await;
    assert_eq!(
        (&refused["status"], &refused["body"]["type"]),
        (&json!(403), &json!("urn:tidelog:problem:forbidden"))
    );
    ann.say(&json!({"id": "3", "subscribe": "/customers"}))
        .await;
    assert_eq!(ann.hear_of("3").await["status"], 403);
    let mut editor = signed
        .of(&json!({"sub": "ed", "roles": ["editor", "clerk"]}))
        .await;
    editor.subscribe("3", "/customers", None).await;
    assert_eq!(editor.command("2", delete).await["status"], 200);
}

#[tokio::test]
async fn a_socket_ends_when_its_token_counts_no_more() {
    let signed = Signed::start(Role::Dev, &[]).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let end = now.unwrap().as_secs() + 3;
    let mut socket = signed.of(&json!({"exp": end})).await;
    socket.subscribe("1", "/posts", None).await;
    let mut stays = signed.of(&json!({})).await;
    stays.subscribe("1", "/posts", None).await;
    assert_eq!(socket.closed().await, 4401);
    assert_eq!(stays.command("2", create("a", "Ann")).await["status"], 201);
}

#[tokio::test]
async fn a_role_that_does_not_answer_queries_has_no_socket() {
    let backends = Backends::fresh().await;
    let service = Service::start(Role::Command, &backends).await;
    let opened = Socket::open(service.commands().address(), "/ws", &[]).await;
    assert_eq!(opened.err(), Some(404));
}
