//! The bus on Redis Streams.

use std::time::Duration;

use async_trait::async_trait;
use redis::RedisError;
use tidelog_domain::{Cursor, HistoryId, Partition, Position, RecordedEvent};

use crate::bus::{BusError, EventBus};
use crate::wire;
use tidelog_domain::causes;

mod connection;
mod entries;

use connection::{BlockingError, Connections};
pub use connection::{RedisConnectError, RedisServer};

/// The most events that are sent in one go.
const PIPELINE_MAX_EVENTS: usize = 500;

/// The most bytes of events that are sent in one go (a single event may have more), so that a slow line does not
/// run into the response timeout.
const PIPELINE_MAX_BYTES: usize = 1024 * 1024;

/// How long a stream stays that nothing is published to: 7 days. So those of older histories go by themselves; one of a partition
/// that was just quiet for so long is made anew by its next event, and consumers fill the gap from the log.
const STREAM_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// An event bus on Redis Streams (Redis 7.0 or later, or a server that is compatible with it).
///
/// Each partition is one stream, `{<app>:events}:<history>:<partition>`, and an event is the entry `<position>-0`
/// with one field, `event`: its [wire form](crate::wire). Redis itself turns down an id that is not above the last
/// one, and so a duplicate and a zombie's late publish; its `last-generated-id` is the relay's cursor.
///
/// Nothing is connected until the first call, and every call connects again after a failure: a program starts and
/// runs with Redis down, and has [`BusError::Unavailable`] until it is up. A TLS connection (`rediss://`) needs
/// rustls' default provider to be installed.
pub struct RedisEventBus {
    app: String,
    keep: usize,
    connections: Connections,
}

/// Why a Redis bus cannot be made of these settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRedisBus {
    /// The URL is none of Redis. It is not shown: it may have a password in it.
    #[error("it is not a URL of Redis, like redis://user:password@host:6379/0")]
    Url(#[source] RedisError),
    /// The app's name cannot be part of a key.
    #[error("an app's name is 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-'")]
    App,
}

impl RedisEventBus {
    /// How many events of a partition are kept, unless told otherwise (Redis keeps up to about a hundred more).
    pub const DEFAULT_KEEP: usize = 100_000;

    /// A bus for the app `app` on the server at `url`. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`InvalidRedisBus`] when the URL or the name are malformed.
    pub fn new(url: &str, app: &str) -> Result<Self, InvalidRedisBus> {
        let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !(1..=64).contains(&app.len()) || !app.bytes().all(is_name) {
            return Err(InvalidRedisBus::App);
        }
        Ok(Self {
            app: app.to_owned(),
            keep: Self::DEFAULT_KEEP,
            connections: Connections::new(url).map_err(InvalidRedisBus::Url)?,
        })
    }

    /// Keeps about the last `events` events of each partition.
    #[must_use]
    pub fn keeping(mut self, events: usize) -> Self {
        self.keep = events;
        self
    }

    /// Connects, and asks the server who it is: for checks at start-up.
    ///
    /// # Errors
    ///
    /// [`RedisConnectError`], within about 5 s, which says what is there instead.
    pub async fn server(&self) -> Result<RedisServer, RedisConnectError> {
        self.connections.server().await
    }

    /// The key of the stream that has `partition`.
    #[must_use]
    pub fn key(&self, history: HistoryId, partition: Partition) -> String {
        entries::key(&self.app, history, partition)
    }

    /// The commands that publish as many of `events` as go at once, and the events that are left.
    fn pipeline<'e>(
        &self,
        key: &str,
        mut events: &'e [RecordedEvent],
    ) -> (redis::Pipeline, &'e [RecordedEvent]) {
        let mut commands = redis::Pipeline::with_capacity(events.len().min(PIPELINE_MAX_EVENTS));
        let mut bytes = 0;
        while let Some((event, rest)) = events.split_first() {
            if commands.len() == PIPELINE_MAX_EVENTS || bytes > PIPELINE_MAX_BYTES {
                break;
            }
            events = rest;
            match wire::encode(&self.app, event) {
                Ok(body) => {
                    bytes += body.len();
                    let id = entries::entry_id(event.position);
                    let mut xadd = redis::cmd("XADD");
                    xadd.arg(key).arg("MAXLEN").arg("~").arg(self.keep);
                    commands.add_command(xadd.arg(id).arg(entries::FIELD).arg(body).clone());
                }
                // It is left out: a hole, which consumers fill from the log. Holding all later ones back for
                // it would be worse.
                Err(error) => tracing::error!(
                    partition = %event.partition, position = %event.position, error = causes(&error),
                    "an event cannot be put on the bus; consumers read it from the log"
                ),
            }
        }
        if !commands.is_empty() {
            commands.add_command(
                redis::cmd("EXPIRE")
                    .arg(key)
                    .arg(STREAM_TTL.as_secs())
                    .clone(),
            );
        }
        (commands, events)
    }
}

#[async_trait]
impl EventBus for RedisEventBus {
    async fn publish(
        &self,
        history: HistoryId,
        partition: Partition,
        events: &[RecordedEvent],
    ) -> Result<(), BusError> {
        let key = self.key(history, partition);
        let mut connection = self.connections.commands().await.map_err(unavailable)?;
        let mut rest = events;
        while !rest.is_empty() {
            let (commands, left) = self.pipeline(&key, rest);
            rest = left;
            if commands.is_empty() {
                continue;
            }
            let answers = connection.run_all(&commands).await.map_err(unavailable)?;
            for answer in answers {
                if let Err(error) = answer.extract_error()
                    && !is_duplicate(&error)
                {
                    let error = bus_error(error, partition);
                    if matches!(error, BusError::Unavailable(_)) {
                        // A primary that became a replica keeps its clients: a new connection may lead to the new one.
                        connection.give_up();
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn last(
        &self,
        history: HistoryId,
        partition: Partition,
    ) -> Result<Option<Cursor>, BusError> {
        let mut xinfo = redis::cmd("XINFO");
        xinfo.arg("STREAM").arg(self.key(history, partition));
        let mut connection = self.connections.commands().await.map_err(unavailable)?;
        match connection.run(&xinfo).await {
            Ok(info) => {
                entries::last(info, partition).map_err(|what| BusError::Corrupt { partition, what })
            }
            Err(error) if is_no_such_key(&error) => Ok(None),
            Err(error) => Err(bus_error(error, partition)),
        }
    }

    async fn read(
        &self,
        history: HistoryId,
        after: &[(Partition, Position)],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<RecordedEvent>, BusError> {
        if after.is_empty() || limit == 0 {
            tokio::time::sleep(wait).await;
            return Ok(Vec::new());
        }
        // BLOCK 0 would wait for ever.
        let block = wait.max(Duration::from_millis(1));
        let keys: Vec<_> = after
            .iter()
            .map(|(partition, _)| self.key(history, *partition))
            .collect();
        let mut xread = redis::cmd("XREAD");
        xread.arg("COUNT").arg(limit);
        xread
            .arg("BLOCK")
            .arg(u64::try_from(block.as_millis()).unwrap_or(u64::MAX));
        xread.arg("STREAMS").arg(&keys);
        for (_, position) in after {
            xread.arg(entries::entry_id(*position));
        }
        let answer =
            self.connections
                .blocking(&xread, block)
                .await
                .map_err(|error| match error {
                    BlockingError::Connect(error) => unavailable(error),
                    BlockingError::Command(error) => unavailable(error),
                })?;
        let mut events = Vec::new();
        let mut asked = keys.iter().zip(after);
        for (key, found) in entries::streams(answer) {
            // Redis answers with some of the keys that it was asked for, in their order.
            let Some((_, &(partition, _))) = asked.find(|(asked, _)| **asked == key) else {
                break;
            };
            for entry in found {
                let event = entries::event(entry, partition)
                    .map_err(|what| BusError::Corrupt { partition, what })?;
                events.push(event);
            }
        }
        Ok(events)
    }
}

/// Redis already has this position or a later one.
fn is_duplicate(error: &RedisError) -> bool {
    error.code() == Some("ERR")
        && error.detail().is_some_and(|detail| {
            detail.contains("equal or smaller than the target stream top item")
        })
}

/// `XINFO STREAM` of a stream that is not there.
fn is_no_such_key(error: &RedisError) -> bool {
    error.code() == Some("ERR")
        && error
            .detail()
            .is_some_and(|detail| detail.contains("no such key"))
}

/// What an error of the server means.
fn bus_error(error: RedisError, partition: Partition) -> BusError {
    match error.code() {
        Some("OOM") => BusError::Full(error.into()),
        Some("WRONGTYPE") => BusError::Corrupt {
            partition,
            what: "its key has something else than a stream".to_owned(),
        },
        _ => unavailable(error),
    }
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> BusError {
    BusError::Unavailable(Box::new(error))
}
