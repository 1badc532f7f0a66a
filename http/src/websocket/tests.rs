//! Sockets on a listener of [`serve`], over TCP, before services that are a few routes.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use futures_util::{SinkExt, StreamExt, stream};
use serde_json::{Value, json};
use tidelog_domain::Tenant;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::*;
use crate::app::app;
use crate::caller::SignedIn;
use crate::roles::{Operation, Rules};
use crate::server::{ServerSettings, serve};

/// How much of an endless live query comes at once: so much that the systems' buffers take a few.
const ENDLESS_BYTES: usize = 1024 * 1024;

/// What has not come by then will not. It is generous, because it only matters when a test fails.
const BOUND: Duration = Duration::from_secs(60);

/// What the routes of the tests and the tests tell each other.
#[derive(Clone, Default)]
struct Shared {
    /// Commands that wait go on.
    go_on: Arc<Notify>,
    /// So many began.
    began: Arc<AtomicUsize>,
    /// So many pieces were asked of endless streams.
    polled: Arc<AtomicUsize>,
    /// So many live queries are open.
    open: Arc<AtomicUsize>,
    /// Endless streams begin.
    flows: CancellationToken,
}

/// A live query is open while this lives.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn live(pieces: impl futures_util::Stream<Item = String> + Send + 'static) -> Response {
    let body = Body::from_stream(pieces.map(|piece| Ok::<_, Infallible>(Bytes::from(piece))));
    let sse = HeaderValue::from_static("text/event-stream");
    ([(header::CONTENT_TYPE, sse)], body).into_response()
}

fn queries(shared: &Shared) -> Router {
    let (counted, endless) = (shared.clone(), shared.clone());
    let posts = async move |caller: Caller, headers: HeaderMap| {
        counted.open.fetch_add(1, Ordering::SeqCst);
        let open = Open(counted.open.clone());
        let after = headers
            .get("last-event-id")
            .map(|id| id.to_str().unwrap().to_owned());
        let page = json!({"who": caller.principal(), "after": after});
        let first = format!("retry: 1000\n\nid: a.1\nevent: page\ndata: {page}\n\nid: a.2\n\n");
        let rest = stream::once(async move {
            let _open = open;
            std::future::pending::<String>().await
        });
        live(stream::iter([first]).chain(rest))
    };
    let endless = async move || {
        let (polled, flows) = (endless.polled.clone(), endless.flows.clone());
        let first = stream::once(async move {
            flows.cancelled().await;
            String::new()
        });
        live(first.chain(stream::repeat_with(move || {
            polled.fetch_add(1, Ordering::SeqCst);
            format!(
                "id: x\nevent: changed\ndata: \"{}\"\n\n",
                "x".repeat(ENDLESS_BYTES)
            )
        })))
    };
    let short = async || live(stream::iter(["event: state\ndata: 1\n\n".to_owned()]));
    app(Router::new()
        .route("/posts", get(posts))
        .route("/endless", get(endless))
        .route("/short", get(short))
        .route("/plain", get(async || "{}")))
}

fn commands(shared: &Shared) -> Router {
    let waits = shared.clone();
    let slow = async move || {
        waits.began.fetch_add(1, Ordering::SeqCst);
        waits.go_on.notified().await;
        "\"done\""
    };
    let echo = async |headers: HeaderMap, caller: Caller, request: Request| {
        let peer = request.extensions().get::<Peer>().is_some();
        let body = axum::body::to_bytes(request.into_body(), 1 << 20).await;
        let key = headers
            .get("idempotency-key")
            .map(|key| key.to_str().unwrap().to_owned());
        let body = String::from_utf8(body.unwrap().to_vec()).unwrap();
        let said = json!({"who": caller.principal(), "key": key, "body": body, "peer": peer});
        (
            StatusCode::CREATED,
            [(header::ETAG, "\"1\""), (header::SERVER, "hidden")],
            said.to_string(),
        )
    };
    app(Router::new()
        .route("/slow", post(slow))
        .route("/echo", post(echo))
        .route(
            "/broken",
            post(async || -> String { unreachable!("it panics") }),
        ))
}

struct Site {
    address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<()>,
    shared: Shared,
}

async fn start(settings: SocketSettings, expires_at: Option<SystemTime>) -> Site {
    start_on(settings, expires_at, ServerSettings::default()).await
}

async fn start_on(
    settings: SocketSettings,
    expires_at: Option<SystemTime>,
    server: ServerSettings,
) -> Site {
    let (shared, stop) = (Shared::default(), CancellationToken::new());
    let services = SocketServices {
        commands: commands(&shared),
        queries: queries(&shared),
    };
    let origins = CorsOrigins::parse("https://shop.example").unwrap();
    let router = app(socket_router(services, settings, origins, stop.clone()));
    let signed_in = from_fn_with_state(expires_at, signed_in);
    let router = router.layer(signed_in).layer(from_fn(offered_token));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(serve(listener, router, server, None, stop.clone()));
    Site {
        address,
        stop,
        served,
        shared,
    }
}

/// In the place of a sign-in: whoever brings a token is called so, of the tenant that stands before a slash.
async fn signed_in(
    State(expires_at): State<Option<SystemTime>>,
    mut request: Request,
    next: Next,
) -> Response {
    let token = request.headers().get(header::AUTHORIZATION).cloned();
    let Some(token) = token else {
        return Problem::new(ProblemKind::Unauthenticated, "no token").into_response();
    };
    let none: [(Operation<'_>, Vec<&str>); 0] = [];
    let token = token.to_str().unwrap().trim_start_matches("Bearer ");
    let tenant = token.split_once('/').map(|(tenant, _)| tenant);
    let who = SignedIn {
        principal: token.into(),
        tenant: tenant.map(|name| Tenant::new(name).unwrap()),
        roles: [].into(),
        expires_at: expires_at.unwrap_or(SystemTime::now() + Duration::from_secs(3600)),
    };
    let caller = Caller::signed_in(who, Rules::declared(none).into());
    request.extensions_mut().insert(caller);
    next.run(request).await
}

struct Client(WebSocketStream<TcpStream>);

impl Site {
    async fn handshake(&self, headers: &[(&str, &str)]) -> Result<Client, tungstenite::Error> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let mut request = format!("ws://{}/ws", self.address)
            .into_client_request()
            .unwrap();
        for (name, value) in headers {
            let name = header::HeaderName::from_bytes(name.as_bytes()).unwrap();
            request
                .headers_mut()
                .insert(name, HeaderValue::from_str(value).unwrap());
        }
        let (socket, _) = client_async(request, stream).await?;
        Ok(Client(socket))
    }

    async fn client(&self) -> Client {
        self.handshake(&[("authorization", "Bearer ann")])
            .await
            .unwrap()
    }
}

impl Client {
    async fn say(&mut self, message: &Value) {
        self.0
            .send(Message::text(message.to_string()))
            .await
            .unwrap();
    }

    async fn raw(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }

    /// The next message of any kind, which must come.
    async fn next(&mut self) -> Message {
        let next = tokio::time::timeout(BOUND, self.0.next()).await;
        next.expect("a message in time").unwrap().unwrap()
    }

    /// The next message that is a text.
    async fn hear(&mut self) -> Value {
        loop {
            match self.next().await {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) => {}
                other => unreachable!("{other:?}"),
            }
        }
    }

    /// The code with which the server closes, whatever it says before.
    async fn closed(&mut self) -> u16 {
        let code = async {
            loop {
                if let Message::Close(frame) = self.next().await {
                    return frame.unwrap().code.into();
                }
            }
        };
        let code = tokio::time::timeout(BOUND, code).await;
        code.expect("it is closed in time")
    }

    async fn subscribe(&mut self, id: &str, path: &str) {
        self.say(&json!({"id": id, "subscribe": path})).await;
        let answer = self.hear().await;
        assert_eq!(
            (&answer["id"], &answer["status"]),
            (&json!(id), &json!(200)),
            "{answer}"
        );
    }
}

/// Waits for what must come.
async fn until_so(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn command(id: &str, path: &str) -> Value {
    json!({"id": id, "command": {"method": "POST", "path": path, "headers": {"idempotency-key": "k"}, "body": {"a": 1}}})
}

#[tokio::test]
async fn who_is_not_signed_in_gets_no_socket() {
    let site = start(SocketSettings::default(), None).await;
    let refused = |error: tungstenite::Error| match error {
        tungstenite::Error::Http(response) => response.status().as_u16(),
        other => unreachable!("{other}"),
    };
    assert_eq!(site.handshake(&[]).await.err().map(refused), Some(401));
    let evil = [
        ("authorization", "Bearer ann"),
        ("origin", "https://evil.example"),
    ];
    assert_eq!(site.handshake(&evil).await.err().map(refused), Some(403));
    let shop = [
        ("sec-websocket-protocol", "tidelog.v1, bearer.bea"),
        ("origin", "https://shop.example"),
    ];
    let mut page = site.handshake(&shop).await.unwrap();
    page.say(&command("1", "/echo")).await;
    assert_eq!(page.hear().await["body"]["who"], "bea");
}

#[tokio::test]
async fn commands_are_answered_as_over_http() {
    let site = start(SocketSettings::default(), None).await;
    let mut client = site.client().await;
    client.say(&command("1", "/echo")).await;
    let answer = client.hear().await;
    assert_eq!(
        (&answer["id"], &answer["status"]),
        (&json!("1"), &json!(201))
    );
    let body = json!({"who": "ann", "key": "k", "body": "{\"a\":1}", "peer": true});
    assert_eq!(answer["body"], body);
    assert_eq!(answer["headers"]["etag"], "\"1\"");
    assert!(answer["headers"]["x-correlation-id"].is_string());
    assert_eq!(answer["headers"]["server"], Value::Null);
    for (path, status, problem) in [("/nowhere", 404, "not-found"), ("/broken", 500, "internal")] {
        client.say(&command("2", path)).await;
        let answer = client.hear().await;
        assert_eq!(answer["status"], status, "{answer}");
        assert_eq!(
            answer["body"]["type"],
            format!("urn:tidelog:problem:{problem}")
        );
    }
    client
        .say(&json!({"id": "3", "command": {"method": "PATCH", "path": "/echo"}}))
        .await;
    assert_eq!(client.hear().await["headers"]["allow"], "POST");
}

#[tokio::test]
async fn several_live_queries_are_told_side_by_side_until_they_are_ended() {
    let site = start(SocketSettings::default(), None).await;
    let mut client = site.client().await;
    client.subscribe("1", "/posts").await;
    let page = client.hear().await;
    assert_eq!(
        page,
        json!({"id": "1", "event": "page", "after": "a.1", "data": {"who": "ann", "after": null}})
    );
    assert_eq!(
        client.hear().await,
        json!({"id": "1", "event": "beat", "after": "a.2"})
    );
    client
        .say(&json!({"id": "2", "subscribe": "/posts", "after": "a.7"}))
        .await;
    assert_eq!(client.hear().await["status"], 200);
    assert_eq!(client.hear().await["data"]["after"], "a.7");
    client.hear().await;
    // An id is one's own as long as it lasts.
    client.say(&json!({"id": "2", "subscribe": "/posts"})).await;
    assert_eq!(client.hear().await["status"], 400);
    client.say(&json!({"id": "1", "unsubscribe": true})).await;
    assert_eq!(
        client.hear().await,
        json!({"id": "1", "ended": "unsubscribed"})
    );
    until_so(|| site.shared.open.load(Ordering::SeqCst) == 1).await;
    client.subscribe("1", "/short").await;
    assert_eq!(
        client.hear().await,
        json!({"id": "1", "event": "state", "data": 1})
    );
    assert_eq!(client.hear().await, json!({"id": "1", "ended": "over"}));
    drop(client);
    until_so(|| site.shared.open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn what_cannot_be_subscribed_to_is_said_to_be() {
    let site = start(
        SocketSettings {
            max_subscriptions: 1,
            ..SocketSettings::default()
        },
        None,
    )
    .await;
    let mut client = site.client().await;
    for (path, status) in [("/nowhere", 404), ("/plain", 406)] {
        client.say(&json!({"id": "1", "subscribe": path})).await;
        let answer = client.hear().await;
        assert_eq!(
            (&answer["id"], &answer["status"]),
            (&json!("1"), &json!(status))
        );
    }
    client.subscribe("1", "/posts").await;
    client.hear().await;
    client.hear().await;
    client.say(&json!({"id": "2", "subscribe": "/posts"})).await;
    let answer = client.hear().await;
    assert_eq!(
        (&answer["status"], &answer["headers"]["retry-after"]),
        (&json!(503), &json!("1"))
    );
}

#[tokio::test]
async fn nobody_can_name_the_subscription_of_another_socket() {
    let site = start(SocketSettings::default(), None).await;
    let (mut mine, mut theirs) = (site.client().await, site.client().await);
    mine.subscribe("1", "/posts").await;
    theirs.say(&json!({"id": "1", "unsubscribe": true})).await;
    assert_eq!(theirs.hear().await["status"], 404);
    assert_eq!(site.shared.open.load(Ordering::SeqCst), 1);
    theirs.subscribe("1", "/posts").await;
    theirs.say(&json!({"id": "1", "unsubscribe": true})).await;
    while theirs.hear().await["ended"] != "unsubscribed" {}
    assert_eq!(mine.hear().await["event"], "page");
    assert_eq!(site.shared.open.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_and_the_socket_goes_on() {
    let site = start(SocketSettings::default(), None).await;
    let mut client = site.client().await;
    client.raw(Message::text("{")).await;
    let answer = client.hear().await;
    assert_eq!(
        (&answer["status"], &answer["id"]),
        (&json!(400), &Value::Null)
    );
    client.say(&json!({"id": "7", "sing": true})).await;
    let answer = client.hear().await;
    assert_eq!(
        (&answer["status"], &answer["id"]),
        (&json!(400), &json!("7"))
    );
    client.say(&json!({"ping": {"at": 1}})).await;
    assert_eq!(client.hear().await, json!({"pong": {"at": 1}}));
    client.raw(Message::Ping("mine".into())).await;
    let Message::Pong(pong) = client.0.next().await.unwrap().unwrap() else {
        unreachable!("a pong")
    };
    assert_eq!(pong, "mine");
}

#[tokio::test]
async fn what_is_no_message_ends_the_socket_with_a_code() {
    let site = start(
        SocketSettings {
            max_message_bytes: 1024,
            ..SocketSettings::default()
        },
        None,
    )
    .await;
    let not_utf8 = Frame::message(vec![0xff, 0xfe], OpCode::Data(Data::Text), true);
    let reserved = Frame::message(vec![1], OpCode::Data(Data::Reserved(3)), true);
    for (message, code) in [
        (Message::text("x".repeat(1025)), 1009),
        (Message::text("x".repeat(4 * 1024 * 1024)), 1009),
        (Message::binary(vec![1]), 1003),
        (Message::Frame(not_utf8), 1007),
        (Message::Frame(reserved), 1002),
    ] {
        let mut client = site.client().await;
        let shown = format!("{message:?}");
        // The server may close before all of it is sent.
        let _ = client.0.send(message).await;
        assert_eq!(
            client.closed().await,
            code,
            "{}",
            &shown[..shown.len().min(80)]
        );
    }
    let mut client = site.client().await;
    client.say(&json!({"ping": "x".repeat(900)})).await;
    client.hear().await;
}

#[tokio::test]
async fn a_silent_client_is_asked_and_then_closed() {
    let settings = SocketSettings {
        ping_every_ms: 20,
        idle_timeout_ms: 200,
        ..SocketSettings::default()
    };
    let site = start(settings, None).await;
    // Whoever answers pings, as every library does, stays.
    let mut lively = site.client().await;
    let mut pings = 0;
    while pings < 20 {
        pings += usize::from(lively.0.next().await.unwrap().unwrap().is_ping());
    }
    let stream = TcpStream::connect(site.address).await.unwrap();
    let mut silent = by_hand(stream).await;
    let mut said = Vec::new();
    let ended = tokio::time::timeout(BOUND, silent.read_to_end(&mut said)).await;
    ended.expect("it is closed").unwrap();
    assert!(said.starts_with(&[0x89, 0]), "a ping");
    let code = 4408_u16.to_be_bytes();
    assert!(said.windows(2).any(|two| two == code), "{said:?}");
}

/// A socket without anything that answers pings.
async fn by_hand(mut stream: TcpStream) -> TcpStream {
    let asked = "GET /ws HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ann\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(asked.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    stream
}

#[tokio::test]
async fn a_token_that_counts_no_more_ends_the_socket_once_commands_are_answered() {
    let end = SystemTime::now() + Duration::from_millis(300);
    let site = start(SocketSettings::default(), Some(end)).await;
    let mut client = site.client().await;
    client.say(&command("1", "/slow")).await;
    until_so(|| site.shared.began.load(Ordering::SeqCst) == 1).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    client.say(&command("2", "/slow")).await;
    site.shared.go_on.notify_one();
    assert_eq!(client.hear().await["body"], "done");
    assert_eq!(client.closed().await, 4401);
    assert_eq!(
        site.shared.began.load(Ordering::SeqCst),
        1,
        "nothing begins after the end"
    );
}

#[tokio::test]
async fn a_stop_answers_what_is_under_way_and_says_good_bye() {
    let site = start(SocketSettings::default(), None).await;
    let mut client = site.client().await;
    client.subscribe("1", "/posts").await;
    client.say(&command("2", "/slow")).await;
    until_so(|| site.shared.began.load(Ordering::SeqCst) == 1).await;
    site.stop.cancel();
    while client.hear().await != json!({"id": "1", "ended": "over"}) {}
    site.shared.go_on.notify_one();
    assert_eq!(client.hear().await["body"], "done");
    assert_eq!(client.closed().await, 1001);
    assert!(client.0.next().await.is_none());
    site.served.await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_listen_holds_up_no_stop() {
    let site = start(SocketSettings::default(), None).await;
    let mut deaf = by_hand(TcpStream::connect(site.address).await.unwrap()).await;
    site.stop.cancel();
    let grace = Duration::from_millis(ServerSettings::default().grace_ms);
    let ended = tokio::time::timeout(grace / 2, site.served).await;
    ended.expect("long before the grace is over").unwrap();
    let mut said = Vec::new();
    deaf.read_to_end(&mut said).await.unwrap();
    assert!(said.windows(2).any(|two| two == 1001_u16.to_be_bytes()));
}

#[tokio::test]
async fn a_stop_cuts_what_does_not_end() {
    let server = ServerSettings {
        grace_ms: 50,
        ..ServerSettings::default()
    };
    let site = start_on(SocketSettings::default(), None, server).await;
    let mut client = site.client().await;
    client.say(&command("2", "/slow")).await;
    until_so(|| site.shared.began.load(Ordering::SeqCst) == 1).await;
    site.stop.cancel();
    site.served.await.unwrap();
    while let Some(Ok(_)) = client.0.next().await {}
}

#[tokio::test]
async fn no_more_is_read_than_is_handled_at_a_time() {
    let site = start(
        SocketSettings {
            max_commands: 2,
            ..SocketSettings::default()
        },
        None,
    )
    .await;
    let mut client = site.client().await;
    for id in 0..5 {
        client.say(&command(&id.to_string(), "/slow")).await;
    }
    let mut answered = 0;
    while answered < 5 {
        let most = (answered + 2).min(5);
        until_so(|| site.shared.began.load(Ordering::SeqCst) >= most).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(site.shared.began.load(Ordering::SeqCst), most);
        site.shared.go_on.notify_one();
        assert_eq!(client.hear().await["status"], 200);
        answered += 1;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_told_no_more_and_then_given_up() {
    let server = ServerSettings {
        write_timeout_ms: 500,
        ..ServerSettings::default()
    };
    let settings = SocketSettings {
        max_queued: 2,
        ..SocketSettings::default()
    };
    let site = start_on(settings, None, server).await;
    let mut deaf = site.client().await;
    for id in 0..60 {
        deaf.subscribe(&id.to_string(), "/endless").await;
    }
    // From now on it does not read.
    site.shared.flows.cancel();
    let mut other = site.client().await;
    other.subscribe("1", "/posts").await;
    // As much as the systems' buffers and the queue take, and then nothing.
    let mut polled = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = site.shared.polled.load(Ordering::SeqCst);
        if now == polled && now > 0 {
            break;
        }
        polled = now;
    }
    assert!(polled < 40, "{polled} pieces, of 60 live queries");
    other.say(&json!({"ping": 1})).await;
    while other.hear().await != json!({"pong": 1}) {}
    // It loses its connection, whatever it reads afterwards.
    let mut ended = false;
    tokio::time::sleep(Duration::from_secs(2)).await;
    while !ended {
        ended = !matches!(deaf.0.next().await, Some(Ok(_)));
    }
}

/// How much a network takes that takes next to nothing.
const NARROW_BYTES: usize = 1024;

/// A socket over a network that takes next to nothing until its client reads.
struct Narrow {
    client: WebSocketStream<DuplexStream>,
    shared: Shared,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

async fn narrow(settings: SocketSettings) -> Narrow {
    let (shared, stop) = (Shared::default(), CancellationToken::new());
    let services = SocketServices {
        commands: commands(&shared),
        queries: queries(&shared),
    };
    let asking = Asking {
        caller: Caller::anybody(),
        shown: None,
        peer: None,
    };
    let (here, there) = tokio::io::duplex(NARROW_BYTES);
    let stopped = stop.clone();
    let served = tokio::spawn(async move {
        let session = Session::new(&services, settings, asking);
        session.run(there, &stopped).await;
    });
    let client = WebSocketStream::from_raw_socket(here, Role::Client, None).await;
    Narrow {
        client,
        shared,
        stop,
        served,
    }
}

impl Narrow {
    async fn say(&mut self, message: &Value) {
        let message = Message::text(message.to_string());
        self.client.send(message).await.unwrap();
    }

    /// The next message that is no ping.
    async fn next(&mut self) -> Message {
        loop {
            let message = tokio::time::timeout(BOUND, self.client.next()).await;
            match message.expect("a message in time").unwrap().unwrap() {
                Message::Ping(_) => {}
                message => return message,
            }
        }
    }

    async fn hear(&mut self) -> Value {
        serde_json::from_str(self.next().await.to_text().unwrap()).unwrap()
    }
}

#[tokio::test]
async fn an_answer_that_waits_for_bytes_comes_before_the_close() {
    let mut socket = narrow(SocketSettings {
        max_queued_bytes: 1,
        ..SocketSettings::default()
    })
    .await;
    // The first is being written, and the second waits for its bytes.
    for id in ["1", "2"] {
        let mut command = command(id, "/echo");
        command["command"]["body"] = json!("x".repeat(4 * NARROW_BYTES));
        socket.say(&command).await;
    }
    // Nothing tells that it waits.
    tokio::time::sleep(Duration::from_millis(200)).await;
    socket.stop.cancel();
    let mut answered = HashSet::new();
    for _ in 0..2 {
        let answer = socket.hear().await;
        assert_eq!(answer["status"], 201, "{answer}");
        answered.insert(answer["id"].to_string());
    }
    assert_eq!(answered.len(), 2);
    assert!(socket.next().await.is_close());
    socket.served.await.unwrap();
}

#[tokio::test]
async fn what_waits_for_a_client_has_few_bytes_however_many_messages_may_wait() {
    let mut socket = narrow(SocketSettings {
        max_queued_bytes: ENDLESS_BYTES / 2,
        ..SocketSettings::default()
    })
    .await;
    for id in 0..40 {
        let subscribe = json!({"id": id.to_string(), "subscribe": "/endless"});
        socket.say(&subscribe).await;
        assert_eq!(socket.hear().await["status"], 200);
    }
    let shared = socket.shared.clone();
    let polled = || shared.polled.load(Ordering::SeqCst);
    shared.flows.cancel();
    // One is being written, and one waits.
    until_so(|| polled() >= 2).await;
    // All of them go on as it reads, and so do answers, and there are never more.
    socket.say(&json!({"ping": 1})).await;
    let (mut heard, mut told, mut is_answered) = (0, HashSet::new(), false);
    while told.len() < 40 || !is_answered {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(polled() <= heard + 2, "{} after {heard}", polled());
        let message = socket.hear().await;
        is_answered |= message == json!({"pong": 1});
        if let Some(id) = message["id"].as_str() {
            heard += 1;
            told.insert(id.to_owned());
        }
    }
    drop(socket.client);
    socket.served.await.unwrap();
}

#[tokio::test]
async fn a_client_that_reads_slowly_and_steadily_is_told_on() {
    let settings = SocketSettings {
        write_timeout_ms: 3_000,
        ..SocketSettings::default()
    };
    let site = start(settings, None).await;
    let mut socket = site.client().await;
    socket.subscribe("1", "/endless").await;
    site.shared.flows.cancel();
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(3 * settings.write_timeout_ms) {
        assert_eq!(socket.hear().await["event"], "changed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn what_begins_nothing_is_read_at_a_pace() {
    let site = start(SocketSettings::default(), None).await;
    let mut socket = site.client().await;
    let begun = tokio::time::Instant::now();
    for round in 0..10 {
        for _ in 0..10 {
            socket.say(&json!({"ping": round})).await;
            socket.say(&json!({"id": "x", "unsubscribe": true})).await;
            socket.say(&json!({"nothing": 1})).await;
        }
        for _ in 0..30 {
            socket.hear().await;
        }
    }
    assert!(begun.elapsed() >= Duration::from_millis(1_900));
}

#[tokio::test]
async fn one_tenant_or_one_who_signs_in_has_a_quarter_of_the_sockets() {
    let settings = SocketSettings {
        max_sockets: 8,
        ..SocketSettings::default()
    };
    let site = start(settings, None).await;
    let open = async |who: &str| {
        let token = format!("Bearer {who}");
        site.handshake(&[("authorization", &token)]).await
    };
    for ([one, two], other) in [
        (["acme/ann", "acme/bob"], "beta/ann"),
        (["ann", "ann"], "bob"),
    ] {
        let (first, second) = (open(one).await.unwrap(), open(two).await.unwrap());
        for third in [one, two] {
            let Some(tungstenite::Error::Http(refused)) = open(third).await.err() else {
                unreachable!("a third socket of {third}");
            };
            assert_eq!(refused.status(), 429, "{third}");
            assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
            let problem: Value = serde_json::from_slice(refused.body().as_ref().unwrap()).unwrap();
            assert_eq!(problem["type"], "urn:tidelog:problem:rate-limited");
            assert!(problem["detail"].as_str().unwrap().contains("2 WebSockets"));
        }
        open(other).await.unwrap();
        // Its share is its own again when one is closed.
        drop(second);
        let closed = async {
            while open(two).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(BOUND, closed).await.unwrap();
        drop(first);
    }
}

#[tokio::test]
async fn a_socket_keeps_its_place_among_the_connections_and_among_the_sockets() {
    let settings = SocketSettings {
        max_sockets: 1,
        ..SocketSettings::default()
    };
    let server = ServerSettings {
        max_connections: 2,
        ..ServerSettings::default()
    };
    let site = start_on(settings, None, server).await;
    let first = site.client().await;
    let token = [("authorization", "Bearer ann")];
    match site.handshake(&token).await.err() {
        Some(tungstenite::Error::Http(response)) => assert_eq!(response.status(), 503),
        other => unreachable!("{other:?}"),
    }
    // One place is the socket's: of two more connections only one is served.
    let mut second = TcpStream::connect(site.address).await.unwrap();
    let asked = b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n";
    second.write_all(asked).await.unwrap();
    second.read_u8().await.unwrap();
    let mut third = TcpStream::connect(site.address).await.unwrap();
    third.write_all(asked).await.unwrap();
    let waits = tokio::time::timeout(Duration::from_millis(200), third.read_u8()).await;
    assert!(waits.is_err());
    drop(first);
    third.read_u8().await.unwrap();
    drop((second, third));
    loop {
        if site.handshake(&token).await.is_ok() {
            return;
        }
    }
}
