//! Connections to Redis: made when they are needed, asked who they lead to, thrown away when they fail.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, RedisError};

/// How long a connection may take, greeting and password included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a command that does not block may take. (The library's own default of 500 ms is too short for a
/// server that is saving or under load, and would cut blocking reads as well.)
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

/// How much longer than its `BLOCK` a blocking read may take.
const BLOCKING_MARGIN: Duration = Duration::from_secs(3);

/// The most idle connections for blocking reads that are kept.
const MAX_IDLE_READERS: usize = 4;

/// What a Redis server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisServer {
    /// `redis`, or what a compatible server calls itself, like `valkey`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What an operator should change.
    pub warnings: Vec<String>,
}

/// Why there is no connection to Redis.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisConnectError {
    /// Nothing answers there in time.
    #[error("no Redis answers there within {} s", CONNECT_TIMEOUT.as_secs())]
    Unreachable(#[source] RedisError),
    /// It does not let us in: a missing or wrong user or password, or a user who may not do what we need.
    #[error("Redis does not let us in: check the user and the password")]
    Refused(#[source] RedisError),
    /// Something else answers there.
    #[error("what answers there is not Redis")]
    NotRedis(#[source] RedisError),
    /// It took the connection and closed it at our first words, as another kind of server does, or a proxy whose
    /// Redis is down.
    #[error("what is there closes the connection without an answer: it is not Redis, or not up")]
    CutOff(#[source] RedisError),
    /// It is Redis, and cannot work now: it loads its data, say.
    #[error("Redis is there, but not ready")]
    NotReady(#[source] RedisError),
}

impl RedisConnectError {
    /// Whether trying again later can help, with the settings as they are.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::CutOff(_) | Self::NotReady(_)
        )
    }

    /// Which of them `error` is, when it came up before the server proved to be Redis.
    fn of(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::AuthenticationFailed => Self::Refused(error),
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Self::NotRedis(error),
            ErrorKind::Io if is_cut_off(&error) => Self::CutOff(error),
            ErrorKind::Io => Self::Unreachable(error),
            _ => match error.code() {
                Some("NOAUTH" | "WRONGPASS" | "NOPERM") => Self::Refused(error),
                _ => Self::NotReady(error),
            },
        }
    }
}

/// Whether the server took the connection and closed it at our first words.
fn is_cut_off(error: &RedisError) -> bool {
    error.is_connection_dropped() && !error.is_connection_refusal()
}

type Connecting = Shared<BoxFuture<'static, Result<Connected, RedisConnectError>>>;

/// A connection, and who is at its other end.
#[derive(Clone)]
struct Connected {
    connection: MultiplexedConnection,
    server: Arc<RedisServer>,
}

/// The connections of one bus.
pub(super) struct Connections {
    client: Client,
    /// The one for commands that do not block. Whoever comes while it is being made waits for the same one.
    commands: Mutex<Option<Connecting>>,
    /// Those for blocking reads that nobody uses now.
    readers: Mutex<Vec<MultiplexedConnection>>,
    /// What was warned of last, so that a reconnect does not repeat it.
    warned: Arc<Mutex<Vec<String>>>,
}

impl Connections {
    /// Connections to `url`: none is made yet.
    pub(super) fn new(url: &str) -> Result<Self, RedisError> {
        let info = url
            .into_connection_info()?
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        Ok(Self {
            client: Client::open(info)?,
            commands: Mutex::default(),
            readers: Mutex::default(),
            warned: Arc::default(),
        })
    }

    /// Who the server is.
    pub(super) async fn server(&self) -> Result<RedisServer, RedisConnectError> {
        let fresh = connect(
            self.client.clone(),
            RESPONSE_TIMEOUT,
            Arc::clone(&self.warned),
        );
        fresh.await.map(|connected| (*connected.server).clone())
    }

    /// The connection for commands that do not block.
    pub(super) async fn commands(&self) -> Result<CommandConnection<'_>, RedisConnectError> {
        let connecting = {
            let mut slot = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
            slot.get_or_insert_with(|| {
                connect(
                    self.client.clone(),
                    RESPONSE_TIMEOUT,
                    Arc::clone(&self.warned),
                )
                .boxed()
                .shared()
            })
            .clone()
        };
        match connecting.clone().await {
            Ok(connected) => Ok(CommandConnection {
                connections: self,
                connecting,
                connection: connected.connection,
            }),
            Err(error) => {
                self.forget(&connecting);
                Err(error)
            }
        }
    }

    /// Throws the connection for commands away, if it still is this one.
    fn forget(&self, failed: &Connecting) {
        let mut slot = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        slot.take_if(|current| current.ptr_eq(failed));
    }

    /// Runs a command that blocks for at most `block`, on a connection that nobody else uses meanwhile.
    pub(super) async fn blocking(
        &self,
        command: &redis::Cmd,
        block: Duration,
    ) -> Result<redis::Value, BlockingError> {
        let timeout = block + BLOCKING_MARGIN;
        let idle = lock(&self.readers).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => {
                connect(
                    self.client.clone(),
                    RESPONSE_TIMEOUT,
                    Arc::clone(&self.warned),
                )
                .await?
                .connection
            }
        };
        connection.set_response_timeout(timeout);
        // A connection is only kept when its answer came: one that failed, or whose reader went away, is closed.
        let answer = command.query_async(&mut connection).await?;
        let mut readers = lock(&self.readers);
        if readers.len() < MAX_IDLE_READERS {
            readers.push(connection);
        }
        Ok(answer)
    }
}

/// Why a blocking command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum BlockingError {
    #[error(transparent)]
    Connect(#[from] RedisConnectError),
    #[error(transparent)]
    Command(#[from] RedisError),
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while these locks are held, and no state of them would be invalid if something did.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connection for commands that do not block, shared with others.
pub(super) struct CommandConnection<'a> {
    connections: &'a Connections,
    connecting: Connecting,
    connection: MultiplexedConnection,
}

impl CommandConnection<'_> {
    /// Runs a command.
    pub(super) async fn run(&mut self, command: &redis::Cmd) -> Result<redis::Value, RedisError> {
        let answer = command.query_async(&mut self.connection).await;
        answer.inspect_err(|error| self.forget_if_broken(error))
    }

    /// Runs commands in one go, and gives the answer of each; an error of the server is an answer too.
    pub(super) async fn run_all(
        &mut self,
        commands: &redis::Pipeline,
    ) -> Result<Vec<redis::Value>, RedisError> {
        let count = commands.len();
        let answers = self
            .connection
            .send_packed_commands(commands, 0, count)
            .await;
        answers.inspect_err(|error| self.forget_if_broken(error))
    }

    /// After an error of the server the connection is good; after any other (a time-out too) it is not.
    fn forget_if_broken(&self, error: &RedisError) {
        if error.code().is_none() {
            self.give_up();
        }
    }

    /// Has the next command make a new connection.
    pub(super) fn give_up(&self) {
        self.connections.forget(&self.connecting);
    }
}

/// Makes a connection and asks who is there.
async fn connect(
    client: Client,
    response_timeout: Duration,
    warned: Arc<Mutex<Vec<String>>>,
) -> Result<Connected, RedisConnectError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(response_timeout));
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .map_err(RedisConnectError::of)?;
    let pong: redis::Value = redis::cmd("PING")
        .query_async(&mut connection)
        .await
        .map_err(RedisConnectError::of)?;
    if pong != redis::Value::SimpleString("PONG".to_owned()) {
        let odd = RedisError::from((
            ErrorKind::UnexpectedReturnType,
            "PING is not answered by PONG",
        ));
        return Err(RedisConnectError::NotRedis(odd));
    }
    let info: String = redis::cmd("INFO")
        .query_async(&mut connection)
        .await
        .map_err(RedisConnectError::of)?;
    let server = read_info(&info)?;
    warn_once(&server, &warned);
    Ok(Connected {
        connection,
        server: Arc::new(server),
    })
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

/// Reads the answer to `INFO`.
fn read_info(info: &str) -> Result<RedisServer, RedisConnectError> {
    let fields: HashMap<_, _> = info
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key, value.trim_end()))
        .collect();
    let Some(redis_version) = fields.get("redis_version") else {
        let odd = RedisError::from((
            ErrorKind::UnexpectedReturnType,
            "INFO does not name a Redis version",
        ));
        return Err(RedisConnectError::NotRedis(odd));
    };
    let name = *fields.get("server_name").unwrap_or(&"redis");
    let version = *fields
        .get(format!("{name}_version").as_str())
        .unwrap_or(redis_version);
    let mut warnings = Vec::new();
    match fields.get("maxmemory_policy") {
        None | Some(&"noeviction") => {}
        Some(policy) => warnings.push(format!(
            "its maxmemory-policy is {policy}: set it to noeviction, or it throws whole streams away when it is full"
        )),
    }
    Ok(RedisServer {
        name: name.to_owned(),
        version: version.to_owned(),
        warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_and_those_who_are_like_it_are_known_by_name() {
        let redis =
            read_info("# Server\r\nredis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\n");
        let redis = redis.unwrap();
        assert_eq!(
            (&*redis.name, &*redis.version, redis.warnings.len()),
            ("redis", "7.0.15", 0)
        );
        let valkey =
            read_info("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.0.0\r\n")
                .unwrap();
        assert_eq!((&*valkey.name, &*valkey.version), ("valkey", "9.0.0"));
        assert!(read_info("version:8\r\n").is_err());
    }

    #[test]
    fn a_policy_that_evicts_is_warned_of() {
        let server = read_info("redis_version:7.0.15\r\nmaxmemory_policy:allkeys-lru\r\n").unwrap();
        assert!(server.warnings[0].contains("allkeys-lru"));
    }
}
