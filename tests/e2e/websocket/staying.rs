//! How long a socket stays, and what it costs meanwhile.

use serde_json::json;
use tidelog_test_support::{Signal, resident_kib};

use super::kit::{Socket, create, everywhere};
use crate::services::{Role, Service};
use crate::waiting::eventually;

/// The most that a client who does not read may cost, in KiB: what the queue of its socket, the systems' buffers and the live queries hold.
const MAX_GROWTH_KIB: u64 = 256 * 1024;

#[tokio::test]
async fn a_stop_says_good_bye_and_is_not_held_up() {
    everywhere(async |service| {
        let mut socket = Socket::of(service).await;
        socket.subscribe("1", "/posts", None).await;
        assert_eq!(
            service.stop(Signal::Term).await,
            Some(0),
            "{}",
            service.process().output()
        );
        assert_eq!(socket.closed().await, 1001);
    })
    .await;
}

#[tokio::test]
async fn who_goes_without_a_word_leaves_nothing_behind() {
    let service = Service::start_with(Role::Dev, &[]).await;
    let gauge = async |name: &str| {
        let page = service.admin().get("/metrics").await.body;
        let line = page
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        line.map(|line| line.rsplit_once(' ').unwrap().1.to_owned())
    };
    let mut sockets = Vec::new();
    for _ in 0..5 {
        let mut socket = Socket::of(&service).await;
        socket.subscribe("1", "/posts", None).await;
        socket.subscribe("2", "/posts?author_name=Ann", None).await;
        sockets.push(socket);
    }
    assert_eq!(gauge("tidelog_http_sockets").await.as_deref(), Some("5"));
    assert_eq!(
        gauge("tidelog_http_socket_subscriptions").await.as_deref(),
        Some("10")
    );
    drop(sockets);
    eventually("nothing to be left", async || {
        let left = (
            gauge("tidelog_http_sockets").await,
            gauge("tidelog_http_socket_subscriptions").await,
        );
        match (left.0.as_deref(), left.1.as_deref()) {
            (Some("0"), Some("0")) => Ok(()),
            _ => Err(format!("{left:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_read_costs_little_and_stops_nobody() {
    let service = Service::start_with(Role::Dev, &[]).await;
    let content = "x".repeat(20_000);
    let mut socket = Socket::of(&service).await;
    for id in 0..20 {
        let mut command = create(&format!("p{id}"), "Ann");
        command["body"]["content"] = json!(content);
        assert_eq!(socket.command("c", command).await["status"], 201);
    }
    let before = resident_kib(service.process().id());
    let mut deaf = Socket::of(&service).await;
    for id in 0..60 {
        let subscribe = json!({"id": id.to_string(), "subscribe": "/posts"});
        deaf.say(&subscribe).await;
    }
    // All that it subscribes to changes, many times over: a gigabyte, were it kept.
    socket.subscribe("1", "/posts?fields=title", None).await;
    for round in 0..40 {
        for id in 0..20 {
            let title = format!("round {round} of {id}");
            let patch = json!({"method": "PATCH", "path": format!("/post/p{id}"), "body": {"title": title}});
            socket.say(&json!({"id": "c", "command": patch})).await;
            // Its answer, and whatever is told meanwhile.
            while socket.hear().await["id"] != "c" {}
        }
    }
    let mut last = json!(null);
    socket.say(&json!({"id": "c", "command": {"method": "PATCH", "path": "/post/p0", "body": {"title": "the last"}}})).await;
    while last != "the last" {
        last = socket.hear_of("1").await["data"]["data"]["title"].clone();
    }
    let grown = resident_kib(service.process().id()).saturating_sub(before);
    assert!(grown < MAX_GROWTH_KIB, "{grown} KiB more");
    // What is not for HTTP's clients to wait for either.
    service.queries().get("/posts?limit=1").await.data(200);
    drop(deaf);
}
