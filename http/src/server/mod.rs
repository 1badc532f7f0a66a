//! The accept loop of every listener: bounded in connections and time, and gracefully stopped.

mod connections;
mod lingering;
mod paced;
mod requests;
mod tls;
mod upgraded;

use std::convert::Infallible as Never;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::UPGRADE;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::Counter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::kept::Kept;
use crate::rejected::rejected;
use connections::{Activity, Connections, Phase};
use lingering::Lingering;
use paced::Paced;
pub use requests::Peer;
use requests::Timed;
pub use tls::{Tls, TlsError};
pub(crate) use upgraded::Upgraded;

/// How long the loop waits after the system refused a connection (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The most bytes that the head of a request may have, its address included; hyper allows 100 headers in it. More is answered with 431,
/// or 414 where the address alone is too long.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The bounds of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// What the listener's connections are counted as: `command`, `query` or `admin`.
    pub service: &'static str,
    /// The most connections at a time; further ones wait in the system's backlog. While more than three quarters of the places are taken,
    /// those without a request are closed after a second, and a head may take two, as may 16 KiB of a body or an answer. 4,096 unless said
    /// otherwise.
    pub max_connections: usize,
    /// The longest time from the first byte of a request to the end of its head, in milliseconds, and that of a TLS handshake; 10 s unless
    /// said otherwise.
    pub header_timeout_ms: u64,
    /// How long a connection is kept that has no request, in milliseconds; 30 s unless said otherwise.
    pub idle_timeout_ms: u64,
    /// The longest time for the body of a request from when it is first waited for, in milliseconds, whatever reads it; 60 s unless said
    /// otherwise. (JSON has a shorter one: [`BodyLimits`](crate::BodyLimits).)
    pub body_timeout_ms: u64,
    /// How long a client may take for 16 KiB of an answer, or for all that there is to send, in milliseconds; 30 s unless said otherwise.
    pub write_timeout_ms: u64,
    /// How long requests in flight may go on after the stop, in milliseconds; 10 s unless said otherwise.
    pub grace_ms: u64,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            service: "other",
            max_connections: 4096,
            header_timeout_ms: 10_000,
            idle_timeout_ms: 30_000,
            body_timeout_ms: 60_000,
            write_timeout_ms: 30_000,
            grace_ms: 10_000,
        }
    }
}

/// Serves `router` on `listener` until `shutdown` is cancelled; with `tls`, by HTTPS alone.
///
/// Then it stops accepting, finishes the requests that are in flight, and returns once they are answered or
/// [`ServerSettings::grace_ms`] has passed. Other connections are closed at once.
///
/// A client that is slow in sending a head or a body, or in reading an answer, loses its connection (see [`ServerSettings`]). Each
/// request has its [`Peer`] among its extensions. A connection that goes on as a WebSocket keeps its place, is paced like any other, and
/// has the grace to say good-bye.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: ServerSettings,
    tls: Option<Tls>,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    // Ends what has not finished when the grace is over, also when the future of this function is dropped.
    let cut = CancellationToken::new();
    let _cut_on_drop = cut.clone().drop_guard();
    let site = Arc::new(Site::new(router, settings, tls, shutdown));
    tokio::select! {
        () = site.take(&listener, &connections, &cut) => {}
        never = site.connections.clone().watch() => match never {},
    }
    drop(listener);
    connections.close();
    let grace = Duration::from_millis(settings.grace_ms);
    if tokio::time::timeout(grace, connections.wait())
        .await
        .is_err()
    {
        let left = connections.len();
        tracing::warn!(
            left,
            "connections were cut: their requests took too long to finish"
        );
        cut.cancel();
        connections.wait().await;
    }
}

/// What the connections of a listener share.
struct Site {
    router: Router,
    settings: ServerSettings,
    tls: Option<Tls>,
    shutdown: CancellationToken,
    connections: Connections,
    slow_reader: Counter,
    no_handshake: Counter,
}

/// The next connection, once there is room for it; `None` after the stop.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let next = async {
        let place = Arc::clone(room).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => return Some((stream, peer, place)),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        accepted = next => accepted,
    }
}

/// Whether the client gave up before it was accepted: nothing is wrong with the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

impl Site {
    fn new(
        router: Router,
        settings: ServerSettings,
        tls: Option<Tls>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            router,
            settings,
            tls,
            shutdown,
            connections: Connections::new(settings),
            slow_reader: rejected(settings.service, "slow-reader"),
            no_handshake: rejected(settings.service, "handshake"),
        }
    }

    /// Takes connections until the stop.
    async fn take(
        self: &Arc<Self>,
        listener: &TcpListener,
        tasks: &TaskTracker,
        cut: &CancellationToken,
    ) {
        let room = Arc::new(Semaphore::new(self.settings.max_connections));
        while let Some((stream, peer, place)) = accept(listener, &room, &self.shutdown).await {
            let (site, cut) = (Arc::clone(self), cut.clone());
            tasks.spawn(async move {
                let first = match site.tls {
                    Some(_) => Phase::Head,
                    None => Phase::Idle,
                };
                let counted = site.connections.count(first);
                tokio::select! {
                    () = site.connection(stream, peer, &counted.activity) => {}
                    () = counted.activity.cut.cancelled() => {}
                    () = cut.cancelled() => {}
                }
                drop(place);
            });
        }
    }

    /// Serves one connection until its client, an error or the stop ends it.
    async fn connection(&self, stream: TcpStream, peer: SocketAddr, activity: &Arc<Activity>) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "the connection is gone already");
            return;
        }
        let patience = Duration::from_millis(self.settings.write_timeout_ms);
        let (activity, slow) = (Arc::clone(activity), self.slow_reader.clone());
        let stream = Paced::new(stream, Arc::clone(&activity), patience, slow);
        let Some(tls) = &self.tls else {
            return self.speak(stream, peer, activity).await;
        };
        let handshake = tls.acceptor().accept(stream);
        match self.shutdown.run_until_cancelled(handshake).await {
            Some(Ok(stream)) => {
                activity.idle();
                self.speak(stream, peer, activity).await;
            }
            Some(Err(error)) => {
                self.no_handshake.increment(1);
                // A client that does not speak TLS, or that does not trust us.
                tracing::debug!(%error, %peer, "a TLS handshake failed");
            }
            None => {}
        }
    }

    /// Speaks HTTP.
    async fn speak<S>(&self, stream: S, peer: SocketAddr, activity: Arc<Activity>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let settings = self.settings;
        let body_timeout = Duration::from_millis(settings.body_timeout_ms);
        let upgraded = Upgraded::default();
        let service = service_fn(|request: Request<Incoming>| {
            let busy = activity.busy();
            let mut request =
                request.map(|body| Timed::new(body, body_timeout, Arc::clone(&activity)));
            request.extensions_mut().insert(Peer(peer));
            if request.headers().contains_key(UPGRADE) {
                request.extensions_mut().insert(upgraded.clone());
            }
            let refused = requests::refused(&request, MAX_HEAD_BYTES);
            let answer = self.router.clone().oneshot(request);
            async {
                let answer = match refused {
                    Some(refused) => refused,
                    None => answer.await?,
                };
                Ok::<_, Never>(answer.map(|body| Kept::new(body, busy)))
            }
        });
        // The connections are watched by what they do; this is the most that it comes to.
        let head = settings
            .idle_timeout_ms
            .saturating_add(settings.header_timeout_ms);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_millis(head))
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(Lingering::new(stream)), service)
            .with_upgrades();
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            // A client that went away, or that does not speak HTTP: its own business.
            tracing::debug!(%error, "a connection ended");
        } else if let Some(rest) = upgraded.take() {
            let _busy = activity.busy();
            rest.await;
        }
    }
}

#[cfg(test)]
mod tests;
