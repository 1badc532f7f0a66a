//! Clients that are too many, too slow or too eager, on the real binary.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Answer, Client, must};
use crate::services::{Role, Service};
use crate::waiting::eventually;

/// How many clients are slow at a time.
const SLOW: usize = 200;

fn post(id: usize, title: &str) -> serde_json::Value {
    json!({"id": format!("p{id}"), "title": title, "content": "c", "author_name": "Ann"})
}

/// A post to which the service gives an id.
fn anonymous() -> serde_json::Value {
    json!({"title": "t", "content": "c", "author_name": "Ann"})
}

/// A request whose body never ends.
async fn unfinished(service: &Client) -> TcpStream {
    let mut client = TcpStream::connect(service.address()).await.unwrap();
    let head = "POST /post HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
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

/// What the command service turned away for `reason`, as the admin listener tells.
async fn turned_away(service: &Service, reason: &str) -> u64 {
    turned_away_by(service, "command", reason).await
}

async fn turned_away_by(service: &Service, name: &str, reason: &str) -> u64 {
    let page = service.admin().get("/metrics").await.body;
    let series = format!("tidelog_http_rejected_total{{service=\"{name}\",reason=\"{reason}\"}} ");
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
    let refused = eventually("the service to have enough", async || {
        let posts = (0..32).map(|_| {
            let commands = commands.clone();
            async move { commands.post("/post", &anonymous()).await }
        });
        let mut answers = join_all(posts).await.into_iter();
        let refused = answers.find(|answer| answer.status == 503);
        refused.ok_or_else(|| "all were let in".to_owned())
    });
    assert_problem(&refused.await, 503, "overloaded");
    assert_eq!(service.admin().get("/health/live").await.status, 200);
    assert_eq!(service.admin().get("/health/ready").await.status, 200);
    assert!(turned_away(&service, "requests").await >= 1);
    // The query service has bounds of its own.
    assert_eq!(service.queries().get("/posts").await.status, 200);
    eventually("the service to have room again", async || {
        let answer = commands.post("/post", &post(1, "t")).await;
        let has_room = answer.status == 201;
        has_room.then_some(()).ok_or(format!("{answer:?}"))
    })
    .await;
}

#[tokio::test]
async fn bodies_that_never_end_keep_no_others_out() {
    let settings = [("TIDELOG_MAX_REQUESTS", "16")];
    let service = Service::start_with(Role::Dev, &settings).await;
    let commands = service.commands();
    let mut slow = Vec::new();
    for id in 0..20 {
        for _ in 0..3 {
            slow.push(unfinished(&commands).await);
        }
        let answer = commands.post("/post", &post(id, "t")).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
}

#[tokio::test]
async fn forms_that_never_end_keep_no_probe_out() {
    let service = Service::start_with(Role::Dev, &[("TIDELOG_MAX_CONNECTIONS", "16")]).await;
    let admin = service.admin();
    let head = "POST /admin/sign-in HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                content-length: 100\r\n\r\nt";
    let mut slow = Vec::new();
    for _ in 0..16 {
        let mut client = TcpStream::connect(admin.address()).await.unwrap();
        client.write_all(head.as_bytes()).await.unwrap();
        slow.push(client);
    }
    assert_eq!(admin.get("/health/live").await.status, 200);
    assert!(turned_away_by(&service, "admin", "slow-body").await >= 1);
}

#[tokio::test]
async fn a_page_that_took_the_name_of_a_listener_gets_nothing_done() {
    let service = Service::start_with(Role::Dev, &[]).await;
    let evil = ("host", "evil.example:4000");
    for client in [service.commands(), service.queries()] {
        for path in ["/posts", "/openapi.json"] {
            let request = client.request(Method::GET, path).header(evil.0, evil.1);
            let problem = must(request).await.problem(403, "forbidden");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("evil.example"), "{detail}");
        }
    }
    let commands = service.commands();
    let send = |headers: &[(&str, &str)]| {
        let mut request = commands.request(Method::POST, "/post").json(&anonymous());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        must(request)
    };
    for headers in [
        &[evil][..],
        &[evil, ("origin", "http://evil.example:4000")],
        &[("origin", "http://evil.example")],
    ] {
        send(headers).await.problem(403, "forbidden");
    }
    assert_eq!(send(&[]).await.status, 201);
    let own = format!("http://{}", commands.address());
    assert_eq!(send(&[("origin", &own)]).await.status, 201);
    // Where somebody is told that nobody signs in, any name will do.
    let told = [("TIDELOG_INSECURE_NO_AUTH", "true")];
    let told = Service::start_with(Role::Dev, &told).await;
    let queries = told.queries();
    let request = queries
        .request(Method::GET, "/posts")
        .header(evil.0, evil.1);
    assert_eq!(must(request).await.status, 200);
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
