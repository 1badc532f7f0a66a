use std::net::SocketAddr;

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::app::app;

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

async fn start(router: Router, settings: ServerSettings) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(listener, app(router), settings, None, stop.clone()));
    Running {
        address,
        stop,
        served,
    }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// Everything that the server sends until it closes.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

const GET: &[u8] = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n";
const GET_AND_CLOSE: &[u8] = b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a_request_in_flight_is_answered_after_the_stop() {
    let entered = CancellationToken::new();
    let go_on = CancellationToken::new();
    let (enter, wait) = (entered.clone(), go_on.clone());
    let slow = get(async move || {
        enter.cancel();
        wait.cancelled().await;
        "done"
    });
    let server = start(
        Router::new().route("/slow", slow),
        ServerSettings::default(),
    )
    .await;
    let mut client = server.connect().await;
    client.write_all(GET).await.unwrap();
    entered.cancelled().await;
    server.stop.cancel();
    // The listener is closed before the request is answered.
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    go_on.cancel();
    assert!(answer(&mut client).await.ends_with("done"));
    server.served.await.unwrap();
}

#[tokio::test]
async fn a_request_that_outlives_the_grace_is_cut() {
    let entered = CancellationToken::new();
    let enter = entered.clone();
    let endless = get(async move || {
        enter.cancel();
        std::future::pending::<()>().await;
    });
    let settings = ServerSettings {
        grace_ms: 1,
        ..ServerSettings::default()
    };
    let server = start(Router::new().route("/slow", endless), settings).await;
    let mut client = server.connect().await;
    client.write_all(GET).await.unwrap();
    entered.cancelled().await;
    server.stop.cancel();
    server.served.await.unwrap();
    assert_eq!(answer(&mut client).await, "");
}

#[tokio::test]
async fn a_client_that_is_still_sending_can_read_why_it_is_turned_down() {
    let never = post(async || "read");
    let server = start(
        Router::new().route("/slow", never),
        ServerSettings::default(),
    )
    .await;
    let mut client = server.connect().await;
    let bytes = 4 * 1024 * 1024;
    let head = format!("POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: {bytes}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(&vec![b'x'; bytes]).await.unwrap();
    client.shutdown().await.unwrap();
    assert!(answer(&mut client).await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_connection_that_never_asks_anything_is_closed() {
    let settings = ServerSettings {
        idle_timeout_ms: 1,
        ..ServerSettings::default()
    };
    let server = start(Router::new(), settings).await;
    let mut client = server.connect().await;
    assert_eq!(answer(&mut client).await, "");
}

/// Sends `bytes` again and again until the server has enough of it.
async fn drip(client: &mut TcpStream, bytes: &[u8]) -> String {
    let mut read = Vec::new();
    let (mut from, mut to) = client.split();
    let dripping = async {
        while to.write_all(bytes).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // A server that closes while more is coming resets the connection: that is an end too.
    let reading = async { drop(from.read_to_end(&mut read).await) };
    tokio::join!(dripping, reading);
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn a_head_that_comes_drop_by_drop_is_not_waited_for() {
    let settings = ServerSettings {
        header_timeout_ms: 100,
        idle_timeout_ms: 3_600_000,
        ..ServerSettings::default()
    };
    let server = start(Router::new(), settings).await;
    let mut client = server.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert_eq!(drip(&mut client, b"x: y\r\n").await, "");
}

#[tokio::test]
async fn a_body_that_comes_drop_by_drop_is_not_waited_for() {
    let settings = ServerSettings {
        body_timeout_ms: 100,
        ..ServerSettings::default()
    };
    let reading = post(async |body: axum::body::Body| {
        let read = axum::body::to_bytes(body, usize::MAX).await;
        format!("it ended well: {}", read.is_ok())
    });
    let server = start(Router::new().route("/slow", reading), settings).await;
    let mut client = server.connect().await;
    let head = b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n";
    client.write_all(head).await.unwrap();
    let answer = drip(&mut client, b"x").await;
    assert!(answer.ends_with("it ended well: false"), "{answer}");
}

#[tokio::test]
async fn a_body_that_nobody_reads_holds_no_connection() {
    let ignoring = post(async || "answered");
    let settings = ServerSettings::default();
    let server = start(Router::new().route("/slow", ignoring), settings).await;
    let mut client = server.connect().await;
    let head = b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n";
    client.write_all(head).await.unwrap();
    let answer = drip(&mut client, b"x").await;
    assert!(answer.ends_with("answered"), "{answer}");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_loses_it() {
    let settings = ServerSettings {
        write_timeout_ms: 100,
        ..ServerSettings::default()
    };
    let ended = CancellationToken::new();
    let end = ended.clone();
    let endless = get(async move || {
        // It is dropped with the connection.
        let end = end.drop_guard();
        axum::body::Body::from_stream(futures_util::stream::repeat_with(move || {
            let _ = &end;
            Ok::<_, io::Error>(axum::body::Bytes::from_static(&[b'x'; 64 * 1024]))
        }))
    });
    let server = start(Router::new().route("/slow", endless), settings).await;
    let mut client = server.connect().await;
    client.write_all(GET).await.unwrap();
    ended.cancelled().await;
}

#[tokio::test]
async fn while_places_are_scarce_those_who_ask_nothing_make_room() {
    let settings = ServerSettings {
        max_connections: 4,
        idle_timeout_ms: 3_600_000,
        header_timeout_ms: 3_600_000,
        ..ServerSettings::default()
    };
    let server = start(Router::new().route("/slow", get("fast")), settings).await;
    let mut slow = Vec::new();
    for number in 0..4 {
        let mut client = server.connect().await;
        if number % 2 == 0 {
            client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        }
        slow.push(client);
    }
    let mut client = server.connect().await;
    client
        .write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(answer(&mut client).await.ends_with("fast"));
    drop(slow);
}

/// Settings of which only scarcity ends anything.
fn patient_with_four() -> ServerSettings {
    let hour = 3_600_000;
    ServerSettings {
        max_connections: 4,
        idle_timeout_ms: hour,
        header_timeout_ms: hour,
        body_timeout_ms: hour,
        write_timeout_ms: hour,
        ..ServerSettings::default()
    }
}

#[tokio::test]
async fn while_places_are_scarce_bodies_that_are_waited_for_make_room() {
    let reading = post(async |body: axum::body::Body| {
        let _ = axum::body::to_bytes(body, usize::MAX).await;
    });
    let router = Router::new()
        .route("/slow", get("fast"))
        .route("/form", reading);
    let server = start(router, patient_with_four()).await;
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut client = server.connect().await;
        let head = b"POST /form HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
        client.write_all(head).await.unwrap();
        slow.push(client);
    }
    let mut client = server.connect().await;
    client.write_all(GET_AND_CLOSE).await.unwrap();
    assert!(answer(&mut client).await.ends_with("fast"));
    drop(slow);
}

#[tokio::test]
async fn while_places_are_scarce_who_takes_nothing_makes_room() {
    let large = get(async || vec![b'x'; 8 * 1024 * 1024]);
    let router = Router::new()
        .route("/slow", get("fast"))
        .route("/large", large);
    let server = start(router, patient_with_four()).await;
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut client = server.connect().await;
        let head = b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n";
        client.write_all(&head.repeat(10)).await.unwrap();
        slow.push(client);
    }
    let mut client = server.connect().await;
    client.write_all(GET_AND_CLOSE).await.unwrap();
    assert!(answer(&mut client).await.ends_with("fast"));
    drop(slow);
}

#[tokio::test]
async fn a_request_says_who_sent_it() {
    let who = get(async |peer: axum::Extension<Peer>| peer.0.0.to_string());
    let server = start(Router::new().route("/slow", who), ServerSettings::default()).await;
    let mut client = server.connect().await;
    client.write_all(GET).await.unwrap();
    client.shutdown().await.unwrap();
    let own = client.local_addr().unwrap().to_string();
    assert!(answer(&mut client).await.ends_with(&own));
}

#[tokio::test]
async fn an_address_that_is_too_long_is_turned_down() {
    let server = start(Router::new(), ServerSettings::default()).await;
    let mut client = server.connect().await;
    let head = format!(
        "GET /{} HTTP/1.1\r\nhost: x\r\n\r\n",
        "y".repeat(4 * MAX_HEAD_BYTES)
    );
    client.write_all(head.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let answer = answer(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_turned_down() {
    let server = start(Router::new(), ServerSettings::default()).await;
    let long = format!("x: {}\r\n", "y".repeat(4 * MAX_HEAD_BYTES));
    let many = "x: y\r\n".repeat(200);
    for headers in [long, many] {
        let mut client = server.connect().await;
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let answer = answer(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}

#[tokio::test]
async fn a_head_that_is_a_little_too_large_is_turned_down() {
    let router = Router::new().route("/slow", get("fast"));
    let server = start(router, ServerSettings::default()).await;
    for (bytes, status) in [(60_000, "200"), (66_000, "431")] {
        let mut client = server.connect().await;
        let long = "y".repeat(bytes);
        let head = format!("GET /slow HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let answer = answer(&mut client).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_request_says_once_whom_it_asks() {
    let router = Router::new().route("/slow", get("fast"));
    let server = start(router, ServerSettings::default()).await;
    for (version, hosts, status) in [
        ("1.1", "host: localhost:1\r\n", "200"),
        ("1.1", "host: [::1]:1\r\n", "200"),
        ("1.1", "host: \r\n", "200"),
        ("1.0", "", "200"),
        ("1.1", "", "400"),
        ("1.1", "host: x\r\nhost: x\r\n", "400"),
        ("1.0", "host: x\r\nhost: y\r\n", "400"),
        ("1.1", "host: x@y\r\n", "400"),
        ("1.1", "host: x/y\r\n", "400"),
        ("1.1", "host: x, y\r\n", "400"),
    ] {
        let mut client = server.connect().await;
        let head = format!("GET /slow HTTP/{version}\r\n{hosts}\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let answer = answer(&mut client).await;
        let told = answer.get(9..12);
        assert_eq!(told, Some(status), "{version} {hosts:?}: {answer}");
    }
}

#[tokio::test]
async fn connections_over_the_cap_wait_for_their_turn() {
    let settings = ServerSettings {
        max_connections: 1,
        ..ServerSettings::default()
    };
    let server = start(Router::new().route("/slow", get("fast")), settings).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    first.write_all(GET).await.unwrap();
    let mut begin = [0; 8];
    first.read_exact(&mut begin).await.unwrap();
    second
        .write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let early = tokio::time::timeout(Duration::from_millis(50), second.read(&mut begin)).await;
    assert!(
        early.is_err(),
        "the second was served while the first was open"
    );
    drop(first);
    assert!(answer(&mut second).await.ends_with("fast"));
}
