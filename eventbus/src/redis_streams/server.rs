//! Who a Redis is, what an operator should change about it, and whether its user may do what is needed.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, RedisError, Value};

use super::connection::CONNECT_TIMEOUT;

/// What a Redis server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisServer {
    /// `redis`, or what a compatible server calls itself, like `valkey`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// How many bytes it may hold; `None`: as many as there are.
    pub max_memory: Option<u64>,
    /// How many bytes it holds, where it says so.
    pub used_memory: Option<u64>,
    /// Whether it is a node of a cluster.
    pub is_cluster: bool,
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
    /// It does not let us in: a missing or wrong user or password.
    #[error("Redis does not let us in: check the user and the password")]
    Refused(#[source] RedisError),
    /// It lets us in, and not do what is needed.
    #[error(
        "Redis does not let this user do what is needed (docs/redis.md has the rights): {what}"
    )]
    Forbidden {
        /// What is missing, in Redis' words.
        what: String,
    },
    /// The URL is one of a single server.
    #[error(
        "it is a node of a Redis Cluster, whose URL begins with redis+cluster:// or rediss+cluster://"
    )]
    IsCluster,
    /// The URL is one of a cluster.
    #[error("it is not a node of a Redis Cluster: its URL begins with redis:// or rediss://")]
    IsNoCluster,
    /// TLS fails: its certificate is not to be trusted, or it wants one of ours, or there is no TLS.
    #[error("TLS fails: it is not trusted, or does not trust us, or has no TLS")]
    Tls(#[source] RedisError),
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
    pub(crate) fn of(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::AuthenticationFailed => Self::Refused(error),
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Self::NotRedis(error),
            ErrorKind::Io if is_of_tls(&error) => Self::Tls(error),
            ErrorKind::Io if is_cut_off(&error) => Self::CutOff(error),
            ErrorKind::Io => Self::Unreachable(error),
            _ => match error.code() {
                Some("NOAUTH" | "WRONGPASS") => Self::Refused(error),
                Some("NOPERM") => Self::Forbidden {
                    what: error.detail().unwrap_or("NOPERM").to_owned(),
                },
                _ => Self::NotReady(error),
            },
        }
    }

    /// It did not answer within the time it has.
    pub(crate) fn timed_out() -> Self {
        let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
        Self::Unreachable(late.into())
    }

    /// It answered, and not as Redis does.
    pub(crate) fn odd(what: &'static str) -> Self {
        Self::NotRedis((ErrorKind::UnexpectedReturnType, what).into())
    }
}

/// Whether the server took the connection and closed it at our first words.
fn is_cut_off(error: &RedisError) -> bool {
    error.is_connection_dropped() && !error.is_connection_refusal()
}

/// Whether the handshake failed, or an alert came.
fn is_of_tls(error: &RedisError) -> bool {
    let source = error.source();
    let shared = source.and_then(|error| error.downcast_ref::<Arc<dyn Error + Send + Sync>>());
    let io = shared.and_then(|error| error.downcast_ref::<std::io::Error>());
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::InvalidData)
}

/// Reads the answer to `INFO`.
pub(crate) fn read_info(info: &str) -> Result<RedisServer, RedisConnectError> {
    let fields: HashMap<_, _> = info
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key, value.trim_end()))
        .collect();
    let Some(redis_version) = fields.get("redis_version") else {
        return Err(RedisConnectError::odd("INFO does not name a Redis version"));
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
    let max_memory = fields.get("maxmemory").and_then(|bytes| bytes.parse().ok());
    Ok(RedisServer {
        name: name.to_owned(),
        version: version.to_owned(),
        max_memory: max_memory.filter(|bytes| *bytes > 0),
        used_memory: fields
            .get("used_memory")
            .and_then(|bytes| bytes.parse().ok()),
        is_cluster: fields.get("cluster_enabled") == Some(&"1"),
        warnings,
    })
}

/// Commands like those that the bus uses on the stream `key`, which must not exist; they change nothing.
pub(crate) fn rehearsal(key: &str, field: &str, ttl: Duration) -> redis::Pipeline {
    let mut commands = redis::Pipeline::new();
    commands.cmd("XADD").arg(key).arg("NOMKSTREAM");
    commands.arg("MAXLEN").arg("~").arg(1).arg("1-0");
    commands.arg(field).arg("");
    commands.cmd("EXPIRE").arg(key).arg(ttl.as_secs());
    commands.cmd("XINFO").arg("STREAM").arg(key);
    commands.cmd("XREAD").arg("COUNT").arg(1);
    commands.arg("STREAMS").arg(key).arg("0-0");
    commands.cmd("XLEN").arg(key);
    commands.cmd("MEMORY").arg("USAGE").arg(key);
    commands.cmd("XTRIM").arg(key).arg("MAXLEN").arg(1);
    commands
}

/// What the user may not do, by the answers to a [`rehearsal`]. The bus' keys are like `keys`.
pub(crate) fn rights(answers: Vec<Value>, keys: &str) -> Result<(), RedisConnectError> {
    let mut missing: Vec<String> = answers
        .into_iter()
        .filter_map(|answer| answer.extract_error().err())
        .filter(|error| error.code() == Some("NOPERM"))
        .map(|error| error.detail().unwrap_or("NOPERM").to_owned())
        .collect();
    missing.dedup();
    if missing.is_empty() {
        Ok(())
    } else {
        missing.push(format!("the keys are {keys}"));
        let what = missing.join("; ");
        Err(RedisConnectError::Forbidden { what })
    }
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

    #[test]
    fn its_bounds_and_its_kind_are_known() {
        let node = "redis_version:7.0.15\r\nused_memory:4096\r\nmaxmemory:1048576\r\ncluster_enabled:1\r\n";
        let node = read_info(node).unwrap();
        assert_eq!(node.used_memory, Some(4_096));
        assert_eq!((node.max_memory, node.is_cluster), (Some(1_048_576), true));
        let alone = "redis_version:7.0.15\r\nmaxmemory:0\r\ncluster_enabled:0\r\n";
        let alone = read_info(alone).unwrap();
        assert_eq!((alone.max_memory, alone.is_cluster), (None, false));
    }
}
