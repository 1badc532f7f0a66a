//! A client of `/ws`, and where it is tried.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tidelog_test_support::{AUDIENCE, ISSUER, Issuer, SigningKey};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::services::{Backends, Role, Service};
use crate::waiting::BOUND;

/// A WebSocket to a service.
pub(crate) struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// Opens one at `address`, with these headers; the status where there is none.
    pub(crate) async fn open(
        address: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, u16> {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let request = format!("ws://{address}{path}");
        let mut request = request.into_client_request().expect("an address");
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            let value = HeaderValue::from_str(value).expect("a value");
            request.headers_mut().insert(name, value);
        }
        match client_async(request, stream).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(other) => panic!("{other}"),
        }
    }

    /// One at the service, where nobody signs in.
    pub(crate) async fn of(service: &Service) -> Self {
        let socket = Self::open(service.commands().address(), "/ws", &[]).await;
        socket.unwrap_or_else(|status| panic!("no socket: {status}"))
    }

    pub(crate) async fn say(&mut self, message: &Value) {
        let said = self.0.send(Message::text(message.to_string())).await;
        said.expect("the socket is open");
    }

    /// The next message of any kind; `None` at the end.
    async fn next(&mut self) -> Option<Message> {
        let next = timeout(BOUND, self.0.next()).await;
        next.expect("a message in time").and_then(Result::ok)
    }

    /// The next message that says something of a subscription or an answer.
    pub(super) async fn hear(&mut self) -> Value {
        loop {
            match self.next().await {
                Some(Message::Text(text)) => {
                    let message: Value = serde_json::from_str(&text).expect("JSON");
                    if message["event"] != "beat" {
                        return message;
                    }
                }
                Some(Message::Ping(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next message of `id`; those of others are passed over.
    pub(crate) async fn hear_of(&mut self, id: &str) -> Value {
        loop {
            let message = self.hear().await;
            if message["id"] == id {
                return message;
            }
        }
    }

    /// The code with which the service closes.
    pub(super) async fn closed(&mut self) -> u16 {
        loop {
            match self.next().await {
                Some(Message::Close(Some(frame))) => return frame.code.into(),
                Some(_) => {}
                None => panic!("it ended without a code"),
            }
        }
    }

    /// What a command is answered with; events that come before are passed over.
    pub(crate) async fn command(&mut self, id: &str, command: Value) -> Value {
        self.say(&json!({"id": id, "command": command})).await;
        self.hear_of(id).await
    }

    /// Subscribes, and gives what there is at first.
    pub(crate) async fn subscribe(&mut self, id: &str, path: &str, after: Option<&str>) -> Value {
        let mut message = json!({"id": id, "subscribe": path});
        if let Some(after) = after {
            message["after"] = json!(after);
        }
        let deadline = Instant::now() + BOUND;
        loop {
            self.say(&message).await;
            let answer = self.hear_of(id).await;
            // Right after the start of a service its views are not built yet.
            if answer["status"] == 503 && Instant::now() < deadline {
                continue;
            }
            assert_eq!(answer["status"], 200, "{answer}");
            break;
        }
        self.hear_of(id).await
    }
}

/// A post, as a body.
pub(super) fn post(id: &str, author: &str) -> Value {
    json!({"id": id, "title": "one", "content": "", "author_name": author})
}

/// The command that creates it.
pub(crate) fn create(id: &str, author: &str) -> Value {
    json!({"method": "POST", "path": "/post", "body": post(id, author)})
}

/// Runs a case on one SQLite file, on servers, and through a gateway to these.
pub(super) async fn everywhere(case: impl AsyncFn(&mut Service)) {
    case(&mut Service::start_with(Role::Dev, &[]).await).await;
    let backends = Backends::fresh().await;
    case(&mut Service::start(Role::All, &backends).await).await;
    let backends = Backends::for_a_gateway().await;
    let (_worker, mut gateway) = Service::gateway(&backends, &[]).await;
    case(&mut gateway).await;
}

/// A service whose callers sign in.
pub(super) struct Signed {
    pub(super) service: Service,
    pub(super) key: SigningKey,
    _issuer: Issuer,
}

impl Signed {
    pub(super) async fn start(role: Role, more: &[(&str, &str)]) -> Self {
        let key = SigningKey::new("one");
        let issuer = Issuer::start(&[&key]).await;
        let url = issuer.jwks_url();
        let mut settings = vec![
            ("TIDELOG_AUTH_JWKS", &*url),
            ("TIDELOG_AUTH_ISSUER", ISSUER),
            ("TIDELOG_AUTH_AUDIENCE", AUDIENCE),
        ];
        settings.extend(more);
        Self {
            service: Service::start_with(role, &settings).await,
            key,
            _issuer: issuer,
        }
    }

    /// A socket with these headers; the status where there is none.
    pub(super) async fn open(&self, headers: &[(&str, &str)]) -> Result<Socket, u16> {
        Socket::open(self.service.commands().address(), "/ws", headers).await
    }

    /// A socket of whoever these claims say.
    pub(super) async fn of(&self, claims: &Value) -> Socket {
        let token = format!("Bearer {}", self.key.token(claims));
        let socket = self.open(&[("authorization", &token)]).await;
        socket.unwrap_or_else(|status| panic!("no socket: {status}"))
    }
}
