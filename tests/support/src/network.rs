//! Ports, and a network that fails on request.

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::net::TcpListener as StdTcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use url::Url;

/// The first of the ports that servers get. They lie below the range from which the kernel takes the ports of outgoing
/// connections: a client that tries to reach a server that is down can neither take its port nor reach itself.
const FIRST_PORT: u16 = 15_000;

/// How many there are.
const PORTS: u16 = 17_000;

/// A port of 127.0.0.1 that nothing listens on, and that no other call in this process returns. Panics when all are
/// taken.
#[must_use]
pub fn free_port() -> u16 {
    // Processes begin at different places, so that they rarely meet.
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let random = RandomState::new().build_hasher().finish() % u64::from(PORTS);
        AtomicU16::new(u16::try_from(random).unwrap_or_default())
    });
    (0..PORTS)
        .map(|_| FIRST_PORT + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS)
        .find(|port| StdTcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap_or_else(|| panic!("no port from {FIRST_PORT} on is free"))
}

/// The state of a proxy's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    Delay(Duration),
    Stall,
    HalfClosed,
    Cut,
}

/// A TCP proxy on 127.0.0.1 between clients and one server, whose network works until it is told otherwise.
///
/// It lives on the runtime of the test that started it; dropped, it closes its port and its connections.
#[derive(Debug)]
pub struct TcpProxy {
    port: u16,
    network: Arc<Network>,
    acceptor: JoinHandle<()>,
}

#[derive(Debug)]
struct Network {
    server_port: AtomicU16,
    mode: watch::Sender<Mode>,
    /// How often connections were cut, so that none misses a cut that is over when it looks.
    cuts: watch::Sender<u64>,
    ambush: Mutex<Option<Ambush>>,
}

/// What becomes of the next client bytes that hold `pattern`.
#[derive(Debug)]
struct Ambush {
    pattern: Vec<u8>,
    trap: Trap,
    sprung: oneshot::Sender<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trap {
    /// They reach the server; its answer reaches nobody.
    LoseAnswer,
    /// They are held, and all else with them.
    Stall,
}

/// The connection is over: an end was closed, or the network made it so.
struct Closed;

impl TcpProxy {
    /// Listens on a free port for clients of the server on `server_port` of 127.0.0.1.
    pub async fn start(server_port: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await;
        let listener = listener
            .unwrap_or_else(|error| panic!("the proxy cannot listen on port {port}: {error}"));
        let network = Arc::new(Network {
            server_port: AtomicU16::new(server_port),
            mode: watch::Sender::new(Mode::Pass),
            cuts: watch::Sender::new(0),
            ambush: Mutex::new(None),
        });
        let acceptor = tokio::spawn(accept(listener, Arc::clone(&network)));
        Self {
            port,
            network,
            acceptor,
        }
    }

    /// The port that clients connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a server, led through this proxy.
    #[must_use]
    pub fn url(&self, server_url: &str) -> String {
        let mut url =
            Url::parse(server_url).unwrap_or_else(|error| panic!("not a server's URL: {error}"));
        assert!(
            url.set_port(Some(self.port)).is_ok(),
            "a URL without a host cannot be led through a proxy"
        );
        url.into()
    }

    /// Leads new connections to another server from now on, as a name does after a failover; old ones are closed.
    pub fn lead_to(&self, server_port: u16) {
        self.network
            .server_port
            .store(server_port, Ordering::SeqCst);
        self.network.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Lets everything through, as at the start. Bytes held by [`stall`](Self::stall) go on.
    pub fn pass(&self) {
        self.network.mode.send_replace(Mode::Pass);
    }

    /// Lets everything through, in each direction `delay` later than it came.
    pub fn delay(&self, delay: Duration) {
        self.network.mode.send_replace(Mode::Delay(delay));
    }

    /// Accepts connections and bytes, old and new, and forwards nothing: a network that swallows packets.
    pub fn stall(&self) {
        self.network.mode.send_replace(Mode::Stall);
    }

    /// Tells the clients that the server will send nothing more, while what they send still reaches it.
    pub fn half_close(&self) {
        self.network.mode.send_replace(Mode::HalfClosed);
    }

    /// Closes all connections, and each new one at once, until [`pass`](Self::pass).
    pub fn cut(&self) {
        self.network.mode.send_replace(Mode::Cut);
        self.network.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// From now on the first client bytes that hold `pattern` (any, if it is empty) reach the server, and when it answers,
    /// the answer is thrown away and that connection closed: so a COMMIT is done and its client cannot know. The future
    /// is ready when that has happened.
    ///
    /// The pattern is looked for in the plain bytes, so the connection must not be encrypted, and the client must not send
    /// before it has its earlier answers. A later call takes the place of one that is still waiting.
    pub fn lose_answer_to(&self, pattern: &[u8]) -> impl Future<Output = ()> + use<> {
        self.lay(pattern, Trap::LoseAnswer)
    }

    /// From the first client bytes on that hold `pattern`, forwards nothing, as after [`stall`](Self::stall): those bytes reach the
    /// server only after [`pass`](Self::pass), and they do so even if their client is dead by then. The future is ready when they are
    /// held.
    ///
    /// What is said of the pattern, and of a later call, at [`lose_answer_to`](Self::lose_answer_to) holds here too.
    pub fn stall_at(&self, pattern: &[u8]) -> impl Future<Output = ()> + use<> {
        self.lay(pattern, Trap::Stall)
    }

    fn lay(&self, pattern: &[u8], trap: Trap) -> impl Future<Output = ()> + use<> {
        let (sprung, done) = oneshot::channel();
        *self.network.ambush() = Some(Ambush {
            pattern: pattern.to_vec(),
            trap,
            sprung,
        });
        async move {
            if done.await.is_err() {
                panic!(
                    "nothing came of {trap:?}: the connection or the proxy ended first, or a later call took over"
                );
            }
        }
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

impl Network {
    fn ambush(&self) -> MutexGuard<'_, Option<Ambush>> {
        self.ambush.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the ambush of this kind that these client bytes walk into.
    fn spring(&self, trap: Trap, bytes: &[u8]) -> Option<oneshot::Sender<()>> {
        let holds = |pattern: &[u8]| {
            pattern.is_empty() || bytes.windows(pattern.len()).any(|part| part == pattern)
        };
        Some(
            self.ambush()
                .take_if(|ambush| ambush.trap == trap && holds(&ambush.pattern))?
                .sprung,
        )
    }
}

async fn accept(listener: TcpListener, network: Arc<Network>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => drop(connections.spawn(connect(client, Arc::clone(&network)))),
                Err(error) => panic!("the proxy cannot accept a connection: {error}"),
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one connection until an end closes it or the network is cut.
async fn connect(client: TcpStream, network: Arc<Network>) {
    let mut cuts = network.cuts.subscribe();
    if *network.mode.borrow() == Mode::Cut {
        return;
    }
    let forward = async {
        let server = TcpStream::connect(("127.0.0.1", network.server_port.load(Ordering::SeqCst)))
            .await
            .map_err(|_| Closed)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let lost = Mutex::new(None);
        let requests = forward_requests(from_client, to_server, &network, &lost);
        tokio::try_join!(
            requests,
            forward_answers(from_server, to_client, &network, &lost)
        )
    };
    // Both ways to end leave the sockets to be dropped, which closes them.
    tokio::select! {
        _ = forward => {}
        _ = cuts.changed() => {}
    }
}

type Lost = Mutex<Option<oneshot::Sender<()>>>;

async fn forward_requests(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    network: &Network,
    lost: &Lost,
) -> Result<(), Closed> {
    let mut mode = network.mode.subscribe();
    let mut bytes = Vec::with_capacity(64 * 1024);
    loop {
        bytes.clear();
        if client.read_buf(&mut bytes).await.map_err(|_| Closed)? == 0 {
            return server.shutdown().await.map_err(|_| Closed);
        }
        if let Some(sprung) = network.spring(Trap::Stall, &bytes) {
            network.mode.send_replace(Mode::Stall);
            // It fails only when the test no longer waits for it.
            sprung.send(()).ok();
        }
        pass_time(&mut mode).await?;
        if let Some(sprung) = network.spring(Trap::LoseAnswer, &bytes) {
            *lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(sprung);
        }
        server.write_all(&bytes).await.map_err(|_| Closed)?;
    }
}

async fn forward_answers(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    network: &Network,
    lost: &Lost,
) -> Result<(), Closed> {
    let mut mode = network.mode.subscribe();
    let mut half_closed = network.mode.subscribe();
    let mut bytes = Vec::with_capacity(64 * 1024);
    loop {
        bytes.clear();
        let read = tokio::select! {
            read = server.read_buf(&mut bytes) => read.map_err(|_| Closed)?,
            Ok(_) = half_closed.wait_for(|mode| *mode == Mode::HalfClosed) => 0,
        };
        if read == 0 {
            return client.shutdown().await.map_err(|_| Closed);
        }
        if let Some(sprung) = lost.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It fails only when the test no longer waits for it.
            sprung.send(()).ok();
            return Err(Closed);
        }
        pass_time(&mut mode).await?;
        client.write_all(&bytes).await.map_err(|_| Closed)?;
    }
}

/// Keeps bytes for as long as the network does.
async fn pass_time(mode: &mut watch::Receiver<Mode>) -> Result<(), Closed> {
    let now = *mode
        .wait_for(|mode| *mode != Mode::Stall)
        .await
        .map_err(|_| Closed)?;
    if let Mode::Delay(delay) = now {
        sleep(delay).await;
    }
    Ok(())
}
