//! A WebSocket over which a client speaks to both services of a process: live queries and commands, side by side.
//!
//! A socket multiplexes the contract of HTTP. What a client says is run as a request against the process's own routers, with the caller
//! that the handshake found and the address that it came from: so whatever holds over HTTP (tenants, roles, limits, idempotency, problem
//! documents) holds here, and there is nothing of its own to secure. `docs/websocket.md` has the messages.
//!
//! One task serves a socket: that of its connection, whose place it keeps.
//!
//! 1. *Handshake.* The sign-in, as for any request; then the origin, and what RFC 6455 asks for. Nothing is upgraded before all of it.
//! 2. *Reading.* A message is read only when there is room for its answer in the queue, no other answer waits for its bytes, and fewer than
//!    [`SocketSettings::max_commands`] are being handled. Else the client waits, by TCP's own means.
//! 3. *Handling.* A command and a subscription are a task each. What a command is answered with is taken from its task when there is room in
//!    the queue. Subscriptions poll their bodies in turns: a turn ends when what came is in the queue, so that one of them at most has
//!    something that the queue has no room for. Of the others the query service holds back, as it does for a slow reader of server-sent
//!    events.
//! 4. *Writing.* One message after the other. A client that does not take them is given up, by the pace of the connection
//!    ([`ServerSettings`](crate::ServerSettings)).
//! 5. *End.* On the stop, when the token counts no more, after silence, and after a message that is none: nothing more is read, the
//!    subscriptions end, the commands that are being handled are answered, and a close with a code says why.
//!
//! | it dies | then |
//! |---|---|
//! | the client, or its network | its connection ends, by an error, the pace or silence; its tasks are dropped with it. A command may have been committed: the key tells, as over HTTP |
//! | the task of a command or a subscription | its client is told that it failed; all others go on |
//! | the process | the client comes back elsewhere, with the id of the last event of each subscription |
//!
//! An id is a client's own, and known to its socket alone: there is no way to name another's.

mod answer;
mod end;
mod events;
mod handshake;
mod message;
mod pace;
mod queue;
mod session;
mod subscription;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderValue, Uri};
use axum::response::Response;
use axum::routing::get;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use metrics::Counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

pub use handshake::offered_token;
pub use message::{CommandMessage, SocketMessage};

use crate::caller::Caller;
use crate::cors::CorsOrigins;
use crate::limits::{Client, Share, Shares};
use crate::problem::{Problem, ProblemKind};
use crate::query::no_query;
use crate::rejected::rejected;
use crate::server::{Peer, Upgraded};
use session::{Asking, RETRY_AFTER, Session};

/// Where the messages of sockets go.
#[derive(Clone, Debug)]
pub struct SocketServices {
    /// What takes commands, as a whole service.
    pub commands: Router,
    /// What answers live queries, as a whole service.
    pub queries: Router,
}

/// The bounds of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketSettings {
    /// The most sockets at a time; a further one is turned down with 503. A tenant may have a quarter of them, and so may each who signs in where
    /// there are no tenants; a further one of theirs is turned down with 429. 1,000 unless said otherwise.
    pub max_sockets: usize,
    /// The most subscriptions of a socket; a further one is turned down with 503. 64 unless said otherwise.
    pub max_subscriptions: usize,
    /// The most commands of a socket that are handled at a time: until one is answered, nothing more is read. 32 unless said otherwise.
    pub max_commands: usize,
    /// The most bytes of a message of the client; a larger one ends the socket with 1009. 1 MiB, as the body of a request may have, and 64 KiB for
    /// what is around it, unless said otherwise.
    pub max_message_bytes: usize,
    /// The most messages of the server that wait for being written; beyond, subscriptions and reading wait. 16 unless said otherwise.
    pub max_queued: usize,
    /// The most bytes that these messages have together; one that is larger by itself waits until no other does. Beyond, subscriptions and reading
    /// wait. 1 MiB unless said otherwise.
    pub max_queued_bytes: usize,
    /// After how much time a client is asked for a sign of life, in milliseconds; 20 s unless said otherwise.
    pub ping_every_ms: u64,
    /// After how much silence, in milliseconds, a socket is ended, though it was asked; 60 s unless said otherwise. A message must come whole
    /// within it.
    pub idle_timeout_ms: u64,
    /// The longest time for one message to be taken, in milliseconds, however steadily; 5 min unless said otherwise.
    pub write_timeout_ms: u64,
    /// How long commands that are being handled may go on when the socket ends, in milliseconds; 10 s unless said otherwise. (The client has a
    /// second then to say good-bye.)
    pub close_timeout_ms: u64,
}

impl Default for SocketSettings {
    fn default() -> Self {
        Self {
            max_sockets: 1_000,
            max_subscriptions: 64,
            max_commands: 32,
            max_message_bytes: (1024 + 64) * 1024,
            max_queued: 16,
            max_queued_bytes: 1024 * 1024,
            ping_every_ms: 20_000,
            idle_timeout_ms: 60_000,
            write_timeout_ms: 300_000,
            close_timeout_ms: 10_000,
        }
    }
}

/// Among the extensions of a message's request: what its client has shown in the header `Authorization`, for a service elsewhere that asks for it
/// again. It is a secret.
#[derive(Clone)]
#[cfg_attr(
    not(feature = "forward"),
    allow(dead_code, reason = "only who passes on needs it")
)]
pub(crate) struct Shown(pub(crate) HeaderValue);

/// Serves sockets at `GET /ws`, to pages of `origins` and to whatever is no page, until `stop` is cancelled.
///
/// It is behind a sign-in ([`signed_in`](crate::signed_in), before which stands [`offered_token`]) or open to all
/// ([`open_to_all`](crate::open_to_all)). On a listener of [`serve`](crate::serve) a socket is bounded like every connection of it; elsewhere it
/// is served by a task of its own.
pub fn socket_router(
    services: SocketServices,
    settings: SocketSettings,
    origins: CorsOrigins,
    stop: CancellationToken,
) -> Router {
    let sockets = Sockets {
        services,
        settings,
        origins,
        stop,
        places: Arc::new(Semaphore::new(settings.max_sockets)),
        shares: Shares::new(settings.max_sockets.div_ceil(4)),
        too_many: rejected("socket", "sockets"),
        too_many_of_one: rejected("socket", "share"),
    };
    Router::new()
        .route("/ws", get(open))
        .with_state(Arc::new(sockets))
}

/// What all sockets share.
struct Sockets {
    services: SocketServices,
    settings: SocketSettings,
    origins: CorsOrigins,
    stop: CancellationToken,
    places: Arc<Semaphore>,
    /// Of one tenant; of one who signs in, where there are none.
    shares: Shares<Client>,
    too_many: Counter,
    too_many_of_one: Counter,
}

impl Sockets {
    /// A place for a socket of `caller`.
    fn place(&self, caller: &Caller) -> Result<(OwnedSemaphorePermit, Share<Client>), Problem> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.too_many.increment(1);
            let most = self.settings.max_sockets;
            let what = format!("There are {most} WebSockets, and there may be no more. Ask again.");
            return Err(Problem::new(ProblemKind::Overloaded, what).retry_after(RETRY_AFTER));
        };
        let Some(share) = self.shares.take(Client::known(caller).as_ref()) else {
            self.too_many_of_one.increment(1);
            let most = self.shares.most();
            let what = format!(
                "Your tenant has {most} WebSockets here, or you have where there are no tenants, and may have no more. Close one of them first: a socket has room for many live queries."
            );
            return Err(Problem::new(ProblemKind::RateLimited, what).retry_after(RETRY_AFTER));
        };
        Ok((place, share))
    }
}

/// Opens a socket.
async fn open(
    State(sockets): State<Arc<Sockets>>,
    caller: Caller,
    uri: Uri,
    request: Request,
) -> Result<Response, Problem> {
    // A token there would be in every log on the way.
    no_query(&uri)?;
    let (mut parts, _) = request.into_parts();
    let response = handshake::accept(&parts.headers, &sockets.origins)?;
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or_else(|| {
        let what = "This connection cannot become a WebSocket: ask by HTTP/1.1, and past proxies that do not pass it on.";
        Problem::new(ProblemKind::MalformedRequest, what)
    })?;
    let place = sockets.place(&caller)?;
    let peer = parts.extensions.get::<Peer>().copied();
    let elsewhere = ConnectInfo::from_request_parts(&mut parts, &()).await.ok();
    let shown = parts.headers.get(AUTHORIZATION).cloned();
    let asking = Asking {
        caller,
        shown: shown.map(Shown),
        peer: peer.or(elsewhere.map(|ConnectInfo(address)| Peer(address))),
    };
    let here = parts.extensions.remove::<Upgraded>();
    let rest = async move {
        let _place = place;
        match upgrade.await {
            Ok(io) => {
                let session = Session::new(&sockets.services, sockets.settings, asking);
                session.run(TokioIo::new(io), &sockets.stop).await;
            }
            Err(error) => tracing::debug!(%error, "a connection did not become a WebSocket"),
        }
    };
    match here {
        Some(here) => here.go_on(rest),
        None => drop(tokio::spawn(rest)),
    }
    Ok(response)
}
