//! The accept loop of every listener: bounded in connections and time, and gracefully stopped.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::lingering::Lingering;

/// How long the loop waits after the system refused a connection (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The most bytes that the head of a request may have; hyper allows 100 headers in it. More is answered with 431.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The bounds of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// The most connections at a time; further ones wait in the system's backlog. 4,096 unless said otherwise.
    pub max_connections: usize,
    /// The longest time to read the head of a request, and so how long an idle connection is kept, in milliseconds;
    /// 30 s unless said otherwise.
    pub header_timeout_ms: u64,
    /// How long requests in flight may go on after the stop, in milliseconds; 10 s unless said otherwise.
    pub grace_ms: u64,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            header_timeout_ms: 30_000,
            grace_ms: 10_000,
        }
    }
}

/// Serves `router` on `listener` until `shutdown` is cancelled.
///
/// Then it stops accepting, finishes the requests that are in flight, and returns once they are answered or
/// [`ServerSettings::grace_ms`] has passed. Other connections are closed at once.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: ServerSettings,
    shutdown: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(settings.max_connections));
    let connections = TaskTracker::new();
    // Ends what has not finished when the grace is over, also when the future of this function is dropped.
    let cut = CancellationToken::new();
    let _cut_on_drop = cut.clone().drop_guard();
    while let Some((stream, place)) = accept(&listener, &room, &shutdown).await {
        let connection = connection(stream, router.clone(), settings, shutdown.clone());
        let cut = cut.clone();
        connections.spawn(async move {
            tokio::select! {
                () = connection => {}
                () = cut.cancelled() => {}
            }
            drop(place);
        });
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

/// The next connection, once there is room for it; `None` after the stop.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let next = async {
        let place = Arc::clone(room).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, place)),
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

/// Serves one connection until its client, an error or the stop ends it.
async fn connection(
    stream: TcpStream,
    router: Router,
    settings: ServerSettings,
    shutdown: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the connection is gone already");
        return;
    }
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(settings.header_timeout_ms))
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(Lingering::new(stream)), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // A client that went away, or that does not speak HTTP: its own business.
        tracing::debug!(%error, "a connection ended");
    }
}

#[cfg(test)]
mod tests {
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
        let served = tokio::spawn(serve(listener, app(router), settings, stop.clone()));
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
    async fn a_connection_that_sends_no_head_is_closed() {
        let settings = ServerSettings {
            header_timeout_ms: 1,
            ..ServerSettings::default()
        };
        let server = start(Router::new(), settings).await;
        let mut client = server.connect().await;
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
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
}
