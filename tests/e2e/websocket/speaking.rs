//! What is said over a socket: commands and live queries, side by side.

use serde_json::{Value, json};

use super::kit::{Socket, create, everywhere, post};

#[tokio::test]
async fn commands_are_answered_as_they_are_over_http() {
    everywhere(async |service| {
        let mut socket = Socket::of(service).await;
        let keyed = json!({"method": "POST", "path": "/post", "headers": {"Idempotency-Key": "\"k-1\""}, "body": post("a", "Ann")});
        let made = socket.command("1", keyed.clone()).await;
        assert_eq!((&made["status"], &made["body"]["data"]["version"]), (&json!(201), &json!(1)), "{made}");
        assert_eq!(made["headers"]["etag"], "\"1\"");
        let token = made["headers"]["consistency-token"].as_str().unwrap();
        let read = service.queries().get_after("/post/a", token).await;
        assert_eq!(read.data(200)["author_name"], "Ann");
        let again = socket.command("1", keyed.clone()).await;
        assert_eq!(again["headers"]["idempotency-replayed"], "true", "{again}");
        assert_eq!(again["body"], made["body"]);
        // The same request over HTTP is the same request.
        let over_http = service.commands().request(reqwest::Method::POST, "/post");
        let over_http = over_http.header("idempotency-key", "\"k-1\"").json(&post("a", "Ann"));
        let over_http = crate::client::must(over_http).await;
        assert_eq!(over_http.data(201), made["body"]["data"]);
        assert_eq!(over_http.header("idempotency-replayed"), "true");
        let mut other = keyed;
        other["body"]["title"] = json!("another");
        for (command, status, problem) in [
            (other, 422, "idempotency-key-reused"),
            (json!({"method": "POST", "path": "/post", "body": {"title": 1}}), 422, "invalid"),
            (json!({"method": "POST", "path": "/post", "body": post("a", "Ann")}), 409, "already-exists"),
            (json!({"method": "PATCH", "path": "/post/a", "headers": {"If-Match": "\"7\""}, "body": {"title": "x"}}), 412, "precondition-failed"),
            (json!({"method": "PATCH", "path": "/post/never", "body": {"title": "x"}}), 404, "not-found"),
            (json!({"method": "POST", "path": "/nothing", "body": {}}), 404, "not-found"),
            (json!({"method": "POST", "path": "/ws", "body": {}}), 404, "not-found"),
            (json!({"method": "GET", "path": "/events"}), 400, "malformed-request"),
        ] {
            let shown = command.to_string();
            let answer = socket.command("2", command).await;
            assert_eq!(answer["status"], status, "{shown}: {answer}");
            assert_eq!(answer["body"]["type"], format!("urn:tidelog:problem:{problem}"), "{answer}");
        }
        socket.say(&json!({"ping": 7})).await;
        assert_eq!(socket.hear().await, json!({"pong": 7}));
    })
    .await;
}

#[tokio::test]
async fn several_live_queries_are_told_as_commands_change_what_they_ask_for() {
    everywhere(async |service| {
        let (mut socket, mut other) = (Socket::of(service).await, Socket::of(service).await);
        let made = socket.command("c", create("a", "Ann")).await;
        let token = made["headers"]["consistency-token"].as_str().unwrap();
        service
            .queries()
            .get_after("/post/a", token)
            .await
            .data(200);
        let page = socket
            .subscribe("list", "/posts?author_name=Ann", None)
            .await;
        assert_eq!(
            (&page["event"], &page["data"]["data"][0]["id"]),
            (&json!("page"), &json!("a"))
        );
        let state = socket.subscribe("one", "/post/a?fields=title", None).await;
        assert_eq!(state["event"], "state", "{state}");
        let empty = other
            .subscribe("list", "/posts?author_name=Bea", None)
            .await;
        assert_eq!(empty["data"]["data"], json!([]));

        let patch = json!({"method": "PATCH", "path": "/post/a", "body": {"title": "two"}});
        socket.say(&json!({"id": "c", "command": patch})).await;
        let mut heard = Vec::new();
        for _ in 0..3 {
            heard.push(socket.hear().await);
        }
        heard.sort_by_key(|message| message["id"].as_str().unwrap().to_owned());
        assert_eq!(heard[0]["status"], 200, "{heard:?}");
        for changed in &heard[1..] {
            assert_eq!(
                (&changed["event"], &changed["data"]["data"]["title"]),
                (&json!("changed"), &json!("two"))
            );
        }
        // Nobody else's id, and nobody else's events.
        other.say(&json!({"id": "one", "unsubscribe": true})).await;
        assert_eq!(other.hear().await["status"], 404);
        socket.say(&json!({"id": "one", "unsubscribe": true})).await;
        assert_eq!(
            socket.hear().await,
            json!({"id": "one", "ended": "unsubscribed"})
        );
        let patch = json!({"method": "PATCH", "path": "/post/a", "body": {"author_name": "Bea"}});
        assert_eq!(socket.command("c", patch).await["status"], 200);
        let removed = socket.hear_of("list").await;
        assert_eq!(
            (&removed["event"], &removed["data"]),
            (&json!("removed"), &json!({"id": "a"}))
        );
        assert_eq!(other.hear().await["event"], "changed");
        for (path, status) in [
            ("/nothings", 404),
            ("/posts?nothing=1", 400),
            ("/post/never", 404),
            ("/post/a/history", 406),
        ] {
            socket.say(&json!({"id": "x", "subscribe": path})).await;
            assert_eq!(socket.hear_of("x").await["status"], status, "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_goes_on_from_the_last_event_that_it_has() {
    everywhere(async |service| {
        let mut socket = Socket::of(service).await;
        let mut last = json!(null);
        for id in ["a", "b"] {
            let made = socket.command("c", create(id, "Ann")).await;
            let token = made["headers"]["consistency-token"].as_str().unwrap();
            service.queries().get_after(&format!("/post/{id}"), token).await.data(200);
        }
        socket.subscribe("1", "/posts", None).await;
        let patch = |id: &str, title: &str| json!({"method": "PATCH", "path": format!("/post/{id}"), "body": {"title": title}});
        socket.say(&json!({"id": "c", "command": patch("a", "two")})).await;
        while last == Value::Null {
            last = socket.hear().await["after"].clone();
        }
        drop(socket);
        let written = service.commands().patch("/post/b", &json!({"title": "two"})).await;
        written.data(200);
        service.restart().await;
        let mut socket = Socket::of(service).await;
        let told = socket.subscribe("1", "/posts", last.as_str()).await;
        assert_eq!((&told["event"], &told["data"]["data"]["id"]), (&json!("changed"), &json!("b")), "{told}");
        socket.say(&json!({"id": "2", "subscribe": "/posts", "after": "nonsense"})).await;
        assert_eq!(socket.hear_of("2").await["status"], 400);
    })
    .await;
}
