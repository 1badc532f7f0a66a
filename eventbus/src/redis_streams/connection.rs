//! The connection to Redis for commands that do not block: made when it is needed, asked who it leads to, thrown away
//! when it fails.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, select_ok};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, RedisError, Value};
use tokio::time::timeout;

use super::place::Place;
use super::server::{RedisConnectError, RedisServer, read_info};
use crate::lock::lock;

/// How long a connection may take, greeting and password included.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a command that does not block may take. (The library's own default of 500 ms is too short for a
/// server that is saving or under load, and would cut blocking reads as well.)
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long it may take to find the nodes of a cluster and to connect to them.
const CLUSTER_CONNECT_TIMEOUT: Duration = Duration::from_secs(6);

/// A connection to a cluster on which nothing was answered for so long is thrown away at the next failure. (It connects to a node
/// that failed again by itself, and the others' answers come meanwhile.)
const CLUSTER_PATIENCE: Duration = Duration::from_secs(10);

/// A connection to one server or to a cluster.
#[derive(Clone)]
enum Connection {
    Server(MultiplexedConnection),
    /// It finds the node that has a command's key, and goes after it when it moves. And when something was answered last.
    Cluster(ClusterConnection, Arc<Mutex<Instant>>),
}

impl Connection {
    async fn run(&mut self, command: &redis::Cmd) -> Result<Value, RedisError> {
        let answer = match self {
            Self::Server(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection, _) => connection.req_packed_command(command).await,
        };
        answer
            .inspect(|_| self.has_answered())
            .and_then(Value::extract_error)
    }

    async fn run_all(&mut self, commands: &redis::Pipeline) -> Result<Vec<Value>, RedisError> {
        let count = commands.len();
        let answers = match self {
            Self::Server(connection) => connection.req_packed_commands(commands, 0, count).await,
            Self::Cluster(connection, _) => {
                connection.req_packed_commands(commands, 0, count).await
            }
        };
        answers.inspect(|_| self.has_answered())
    }

    async fn run_as_one(&mut self, commands: &redis::Pipeline) -> Result<Value, RedisError> {
        // The answers of MULTI and of the queueing come first, then that of EXEC.
        let skipped = commands.len() + 1;
        let mut answers = match self {
            Self::Server(connection) => {
                connection.req_packed_commands(commands, skipped, 1).await?
            }
            Self::Cluster(connection, _) => {
                connection.req_packed_commands(commands, skipped, 1).await?
            }
        };
        self.has_answered();
        answers.pop().unwrap_or(Value::Nil).extract_error()
    }

    fn has_answered(&self) {
        if let Self::Cluster(_, answered) = self {
            *lock(answered) = Instant::now();
        }
    }

    /// Whether a failure means that it should be made anew.
    fn is_over(&self) -> bool {
        match self {
            Self::Server(_) => true,
            Self::Cluster(_, answered) => lock(answered).elapsed() > CLUSTER_PATIENCE,
        }
    }
}

type Connecting = Shared<BoxFuture<'static, Result<Connected, RedisConnectError>>>;

/// A connection, and who is at its other end.
#[derive(Clone)]
struct Connected {
    connection: Connection,
    server: Arc<RedisServer>,
}

/// The connection of one bus for commands that do not block.
pub(crate) struct Commands {
    place: Arc<Place>,
    /// Whoever comes while it is being made waits for the same one.
    current: Mutex<Option<Connecting>>,
    /// What was warned of last, so that a reconnect does not repeat it.
    warned: Arc<Mutex<Vec<String>>>,
}

impl Commands {
    pub(crate) fn new(place: Arc<Place>) -> Self {
        Self {
            place,
            current: Mutex::default(),
            warned: Arc::default(),
        }
    }

    /// Who the server is, asked on a connection of its own, and the answers to `rehearsal` on it. The warnings are the
    /// caller's to tell.
    pub(crate) async fn server(
        &self,
        rehearsal: &redis::Pipeline,
    ) -> Result<(RedisServer, Vec<Value>), RedisConnectError> {
        let mut fresh = connect(Arc::clone(&self.place)).await?;
        lock(&self.warned).clone_from(&fresh.server.warnings);
        let answers = fresh.connection.run_all(rehearsal).await;
        let answers = answers.map_err(RedisConnectError::of)?;
        Ok(((*fresh.server).clone(), answers))
    }

    /// The connection.
    pub(crate) async fn connection(&self) -> Result<CommandConnection<'_>, RedisConnectError> {
        let connecting = {
            let mut current = lock(&self.current);
            current
                .get_or_insert_with(|| {
                    let (place, warned) = (Arc::clone(&self.place), Arc::clone(&self.warned));
                    let connecting = async move {
                        let connected = connect(place).await?;
                        warn_once(&connected.server, &warned);
                        Ok(connected)
                    };
                    connecting.boxed().shared()
                })
                .clone()
        };
        match connecting.clone().await {
            Ok(connected) => Ok(CommandConnection {
                commands: self,
                connecting,
                connection: connected.connection,
            }),
            Err(error) => {
                self.forget(&connecting);
                Err(error)
            }
        }
    }

    /// Throws the connection away, if it still is this one.
    fn forget(&self, failed: &Connecting) {
        lock(&self.current).take_if(|current| current.ptr_eq(failed));
    }
}

/// The connection for commands that do not block, shared with others.
pub(crate) struct CommandConnection<'a> {
    commands: &'a Commands,
    connecting: Connecting,
    connection: Connection,
}

impl CommandConnection<'_> {
    /// Runs a command.
    pub(crate) async fn run(&mut self, command: &redis::Cmd) -> Result<Value, RedisError> {
        let answer = self.connection.run(command).await;
        answer.inspect_err(|error| self.forget_if_broken(error))
    }

    /// Runs commands on one key in one go, and gives the answer of each; an error of the server is an answer too.
    pub(crate) async fn run_all(
        &mut self,
        commands: &redis::Pipeline,
    ) -> Result<Vec<Value>, RedisError> {
        let answers = self.connection.run_all(commands).await;
        answers.inspect_err(|error| self.forget_if_broken(error))
    }

    /// Runs an [atomic](redis::Pipeline::atomic) pipeline on one key, and gives its answers as one array.
    pub(crate) async fn run_as_one(
        &mut self,
        commands: &redis::Pipeline,
    ) -> Result<Value, RedisError> {
        let answer = self.connection.run_as_one(commands).await;
        answer.inspect_err(|error| self.forget_if_broken(error))
    }

    /// After an error of the server the connection is good; after any other (a time-out too) it is not.
    fn forget_if_broken(&self, error: &RedisError) {
        if error.code().is_none() {
            self.give_up();
        }
    }

    /// Waits so long for the answers of one server, from now on, by this handle.
    pub(crate) fn wait_up_to(&mut self, response_timeout: Duration) {
        if let Connection::Server(connection) = &mut self.connection {
            connection.set_response_timeout(response_timeout);
        }
    }

    /// Has the next command make a new connection, where that may help.
    pub(crate) fn give_up(&self) {
        if self.connection.is_over() {
            self.commands.forget(&self.connecting);
        }
    }
}

/// Asks who is there, and makes the connection.
async fn connect(place: Arc<Place>) -> Result<Connected, RedisConnectError> {
    // The first node that answers speaks for its cluster.
    let greetings = place.nodes.iter().map(|node| greet(node.clone()).boxed());
    let ((connection, server), _) = select_ok(greetings).await?;
    let connection = match (&place.cluster, server.is_cluster) {
        (None, false) => Connection::Server(connection),
        (Some(cluster), true) => {
            let connection = cluster.get_async_connection();
            let connection = timeout(CLUSTER_CONNECT_TIMEOUT, connection).await;
            let connection = connection.map_err(|_| RedisConnectError::timed_out())?;
            let connection = connection.map_err(RedisConnectError::of)?;
            Connection::Cluster(connection, Arc::new(Mutex::new(Instant::now())))
        }
        (None, true) => return Err(RedisConnectError::IsCluster),
        (Some(_), false) => return Err(RedisConnectError::IsNoCluster),
    };
    Ok(Connected {
        connection,
        server: Arc::new(server),
    })
}

/// A connection to one node.
pub(crate) async fn dial(
    node: Option<ConnectionInfo>,
) -> Result<MultiplexedConnection, RedisConnectError> {
    let node = node.ok_or_else(|| RedisConnectError::odd("no node is known"))?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    let client = Client::open(node).map_err(RedisConnectError::of)?;
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .map_err(RedisConnectError::of)
}

/// A connection to one node, and who it is.
async fn greet(
    node: ConnectionInfo,
) -> Result<(MultiplexedConnection, RedisServer), RedisConnectError> {
    let mut connection = dial(Some(node)).await?;
    let pong: Value = redis::cmd("PING")
        .query_async(&mut connection)
        .await
        .map_err(RedisConnectError::of)?;
    if pong != Value::SimpleString("PONG".to_owned()) {
        return Err(RedisConnectError::odd("PING is not answered by PONG"));
    }
    let info: String = redis::cmd("INFO")
        .query_async(&mut connection)
        .await
        .map_err(RedisConnectError::of)?;
    let server = read_info(&info)?;
    Ok((connection, server))
}

/// Logs the warnings, unless they are the same as last time.
fn warn_once(server: &RedisServer, warned: &Mutex<Vec<String>>) {
    let mut warned = lock(warned);
    if *warned != server.warnings {
        for warning in &server.warnings {
            tracing::warn!(server = %server.name, version = %server.version, "{warning}");
        }
        warned.clone_from(&server.warnings);
    }
}
