//! What there is to see of a Redis for who looks after it.

use chrono::{DateTime, Utc};
use redis::{RedisError, from_redis_value};
use tidelog_domain::{HistoryId, Partition};

use super::connection::CommandConnection;
use super::{RedisConnectError, RedisEventBus, RedisServer};

/// How many keys Redis looks at in one step, about.
const SCAN_KEYS: u32 = 1_000;

/// After how many steps it is given up to count streams: a million keys or so.
const MAX_STEPS: u32 = 1_000;

/// What can be seen of a Redis without changing anything: for `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisInspection {
    /// Who it is.
    pub server: RedisServer,
    /// Its clock; `None` where it does not tell our user.
    pub clock: Option<DateTime<Utc>>,
    /// How many streams of the app there are that belong to other histories of its log: they go by themselves, 7 days after the last
    /// event was published to them. `None` where they cannot be counted: on a cluster, among too many keys, or when our user may not.
    pub streams_of_others: Option<u64>,
}

impl RedisEventBus {
    /// Looks at the Redis of the log with the history `history`.
    ///
    /// # Errors
    ///
    /// [`RedisConnectError`], as [`RedisEventBus::server`] has it.
    pub async fn inspect(&self, history: HistoryId) -> Result<RedisInspection, RedisConnectError> {
        let server = self.server().await?;
        let mut connection = self.commands.connection().await?;
        let clock = clock(&mut connection).await.ok().flatten();
        let streams_of_others = match server.is_cluster {
            true => None,
            false => self
                .streams_of_others(&mut connection, history)
                .await
                .ok()
                .flatten(),
        };
        Ok(RedisInspection {
            server,
            clock,
            streams_of_others,
        })
    }

    async fn streams_of_others(
        &self,
        connection: &mut CommandConnection<'_>,
        history: HistoryId,
    ) -> Result<Option<u64>, RedisError> {
        let own = self.key(history, Partition::new(0));
        let own = own.trim_end_matches(|c| c != ':');
        let pattern = self.keys.pattern(&self.app);
        let (mut others, mut cursor) = (0, 0_u64);
        for _ in 0..MAX_STEPS {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern);
            scan.arg("COUNT").arg(SCAN_KEYS);
            let (next, keys): (u64, Vec<String>) = from_redis_value(connection.run(&scan).await?)?;
            others += keys
                .iter()
                .filter(|key| !key.starts_with(own))
                .map(|_| 1)
                .sum::<u64>();
            if next == 0 {
                return Ok(Some(others));
            }
            cursor = next;
        }
        Ok(None)
    }
}

async fn clock(
    connection: &mut CommandConnection<'_>,
) -> Result<Option<DateTime<Utc>>, RedisError> {
    let answer = connection.run(&redis::cmd("TIME")).await?;
    let (seconds, micros): (i64, u32) = from_redis_value(answer)?;
    Ok(DateTime::from_timestamp(
        seconds,
        micros.saturating_mul(1_000),
    ))
}
