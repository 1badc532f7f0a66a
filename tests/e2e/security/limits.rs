//! Clients that are too many, too slow or too eager, on the real binary.

use std::sync::Mutex;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Answer, Client};
use crate::services::{Role, Service};
use crate::waiting::eventually;

/// How many clients are slow at a time.
const SLOW: usize = 200;

fn post(id: usize, title: &str) -> serde_json::Value {
    json!({"id": format!("p{id}"), "title": title, "content": "c", "author_name": "Ann"})
}

/// A request whose body never ends.
async fn unfinished(service: &Client) -> TcpStream {
    let mut client = TcpStream::connect(service.address()).await.unwrap();
    let head = "POST /post HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    client.write_all(head.as_bytes()).await.unwrap();
    client
}

#[track_caller]
fn assert_problem(answer: &Answer, status: u16, kind: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let urn = format!("urn:tidelog:problem:{kind}");
    assert_eq!(answer.json()["type"], urn);
    let after = answer.headers["retry-after"].to_str().unwrap();
    assert!(after.parse::<u64>().unwrap() >= 1, "{after}");
}

/// What was turned away for `reason`, as the admin listener tells.
async fn turned_away(service: &Service, reason: &str) -> u64 {
    let page = service.admin().get("/metrics").await.body;
    let series = format!("tidelog_http_rejected_total{{service=\"command\",reason=\"{reason}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&series));
    line.unwrap_or_else(|| panic!("no {series}in {page}"))
        .parse()
        .unwrap()
}

#[tokio::test]
async fn what_is_more_than_a_service_handles_is_told_so_at_once_and_health_is_still_told() {
    let settings = [("TIDELOG_MAX_REQUESTS", "2")];
    let service = Service::start_with(Role::Dev, &settings).await;
    let commands = service.commands();
    let held = Mutex::new(Vec::new());
    let refused = eventually("the service to have enough", async || {
        // One of them may itself be turned away, while a whole request is handled.
        let one = unfinished(&commands).await;
        held.lock().unwrap().push(one);
        let answer = commands.post("/post", &post(0, "t")).await;
        match answer.status {
            503 => Ok(answer),
            _ => Err(format!("{answer:?}")),
        }
    });
    assert_problem(&refused.await, 503, "overloaded");
    assert_eq!(service.admin().get("/health/live").await.status, 200);
    assert_eq!(service.admin().get("/health/ready").await.status, 200);
    assert!(turned_away(&service, "requests").await >= 1);
    // The query service has bounds of its own.
    assert_eq!(service.queries().get("/posts").await.status, 200);
    drop(held);
    eventually("the service to have room again", async || {
        let answer = commands.post("/post", &post(1, "t")).await;
        let has_room = answer.status == 201;
        has_room.then_some(()).ok_or(format!("{answer:?}"))
    })
    .await;
}

#[tokio::test]
async fn bodies_that_are_larger_than_there_is_room_for_are_turned_down() {
    let settings = [("TIDELOG_MAX_BODY_BYTES_IN_FLIGHT", "1KiB")];
    let service = Service::start_with(Role::Dev, &settings).await;
    let commands = service.commands();
    let large = commands.post("/post", &post(0, &"x".repeat(2048))).await;
    assert_problem(&large, 503, "overloaded");
    let small = commands.post("/post", &post(0, "x")).await;
    assert_eq!(small.status, 201, "{small:?}");
    assert_eq!(turned_away(&service, "bodies").await, 1);
}

#[tokio::test]
async fn a_client_that_asks_too_often_is_told_when_to_come_back() {
    let settings = [("TIDELOG_RATE_LIMIT", "3/m")];
    let service = Service::start_with(Role::Dev, &settings).await;
    let commands = service.commands();
    for id in 0..3 {
        let answer = commands.post("/post", &post(id, "t")).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let refused = commands.post("/post", &post(3, "t")).await;
    assert_problem(&refused, 429, "rate-limited");
    assert_eq!(turned_away(&service, "rate").await, 1);
    for _ in 0..5 {
        assert_eq!(service.admin().get("/health/live").await.status, 200);
    }
}

#[tokio::test]
async fn clients_that_dawdle_with_their_heads_harm_nobody_and_lose_their_connections() {
    let service = Service::start_with(Role::Dev, &[("TIDELOG_MAX_CONNECTIONS", "256")]).await;
    // A connection that is kept would make room for others.
    let commands = service.commands().shared();
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let mut client = TcpStream::connect(commands.address()).await.unwrap();
        client.write_all(b"POST /post HTTP/1.1\r\n").await.unwrap();
        slow.push(client);
    }
    for id in 0..20 {
        let answer = commands.post("/post", &post(id, "t")).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    for mut client in slow {
        let mut answer = Vec::new();
        // A reset is an end too.
        drop(client.read_to_end(&mut answer).await);
        assert!(answer.is_empty());
    }
    assert_eq!(turned_away(&service, "slow-head").await, SLOW as u64);
}
