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

mod bounds;
mod ending;
mod talking;

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
