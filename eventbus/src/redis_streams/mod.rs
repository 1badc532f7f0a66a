//! The bus on Redis Streams.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream::FuturesUnordered;
use redis::{RedisError, Value};
use tidelog_domain::{Cursor, HistoryId, Partition, Partitions, Position, RecordedEvent};

use crate::app_name::is_app_name;
use crate::bus::{BusError, EventBus};
use crate::wire;
use tidelog_domain::causes;

pub(crate) mod connection;
mod entries;
mod inspecting;
pub(crate) mod place;
pub(crate) mod readers;
pub(crate) mod server;
mod trimming;

use connection::{CommandConnection, Commands};
use entries::Keys;
pub use inspecting::RedisInspection;
use place::Place;
use readers::{BlockingError, Readers};
pub use server::{RedisConnectError, RedisServer};
use trimming::Trimming;

/// The most events that are sent in one go.
const PIPELINE_MAX_EVENTS: usize = 500;

/// The most bytes of events that are sent in one go (a single event may have more), so that a slow line does not
/// run into the response timeout.
const PIPELINE_MAX_BYTES: usize = 1024 * 1024;

/// How long a stream stays that nothing is published to: 7 days. So those of older histories go by themselves; one of a partition
/// that was just quiet for so long is made anew by its next event, and consumers fill the gap from the log.
const STREAM_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How often a stream that is too large is trimmed after one publish. Each time cuts an eighth of its entries at least; the
/// next publish goes on where that was not enough, as where small events were followed by large ones.
const TRIM_ROUNDS: usize = 8;

/// An event bus on Redis Streams (Redis 7.0 or later, or a server that is compatible with it), on one server or a cluster.
///
/// Each partition is one stream, and an event is the entry `<position>-0` with one field, `event`: its
/// [wire form](crate::wire). The stream's key is `{<app>:events}:<history>:<partition>` on one server and
/// `{<app>:events:<partition>}:<history>` on a cluster, where the partitions spread over the nodes. Redis itself turns
/// down an id that is not above the last one, and so a duplicate and a zombie's late publish; its `last-generated-id` is
/// the relay's cursor.
///
/// Nothing is connected until the first call, and every call connects again after a failure: a program starts and
/// runs with Redis down, and has [`BusError::Unavailable`] until it is up. A TLS connection (`rediss://`) needs
/// rustls' default provider to be installed.
pub struct RedisEventBus {
    app: String,
    keys: Keys,
    trimming: Trimming,
    /// The bound of all streams together.
    keep_bytes: Option<u64>,
    commands: Commands,
    readers: Readers<Partition>,
}

/// Why a Redis bus cannot be made of these settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRedisBus {
    /// The URL is none of Redis. It is not shown: it may have a password in it.
    #[error(
        "it is not a URL of Redis, like redis://user:password@host:6379/0, or redis+cluster://user:password@host1:6379,host2:6379"
    )]
    Url(#[source] RedisError),
    /// The URL names another database of a cluster.
    #[error("a Redis Cluster has no database but 0")]
    ClusterDatabase,
    /// A file of certificates cannot be read.
    #[error("the file that its parameter {parameter} names cannot be read")]
    TlsFile {
        /// The URL's parameter.
        parameter: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate of ours without its key, or the other way round.
    #[error("its parameters ssl_certfile and ssl_keyfile need each other")]
    TlsPair,
    /// The app's name cannot be part of a key.
    #[error("an app's name is 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-'")]
    App,
}

impl RedisEventBus {
    /// How many events of a partition are kept, unless told otherwise (Redis keeps up to about a hundred more).
    pub const DEFAULT_KEEP: usize = 100_000;

    /// A bus for the app `app` on the Redis at `url`. Nothing is connected yet.
    ///
    /// `redis://` and `rediss://` (TLS) name one server; `redis+cluster://` and `rediss+cluster://` name one node or more
    /// of a cluster, separated by commas. With TLS the parameters `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` name
    /// PEM files, which are read here: the authorities to trust instead of the public ones, and a certificate of our own.
    ///
    /// # Errors
    ///
    /// [`InvalidRedisBus`] when the URL or the name are malformed, or a file cannot be read.
    pub fn new(url: &str, app: &str) -> Result<Self, InvalidRedisBus> {
        if !is_app_name(app) {
            return Err(InvalidRedisBus::App);
        }
        let place = Arc::new(Place::parse(url)?);
        Ok(Self {
            app: app.to_owned(),
            keys: if place.is_cluster() {
                Keys::OfCluster
            } else {
                Keys::OfServer
            },
            trimming: Trimming::new(Self::DEFAULT_KEEP),
            keep_bytes: None,
            commands: Commands::new(Arc::clone(&place)),
            readers: Readers::new(place),
        })
    }

    /// Keeps about the last `events` events of each partition.
    #[must_use]
    pub fn keeping(mut self, events: usize) -> Self {
        self.trimming.max_events = events;
        self
    }

    /// Keeps fewer than that where the streams of all `partitions` would take more than `bytes` of Redis' memory: each
    /// may take an equal share.
    ///
    /// Redis is asked how large a stream is whenever an eighth of its share was published to it, and the stream is trimmed to
    /// seven eighths of it when it is above; so the bound is exact to about an eighth, and one event is always kept.
    #[must_use]
    pub fn keeping_bytes(mut self, bytes: u64, partitions: Partitions) -> Self {
        self.trimming.bound_bytes(bytes, partitions);
        self.keep_bytes = Some(bytes);
        self
    }

    /// Connects, asks the server who it is, and makes sure that our user may do what is needed: for checks at start-up.
    ///
    /// # Errors
    ///
    /// [`RedisConnectError`], within about 5 s, which says what is there instead, or what is missing.
    pub async fn server(&self) -> Result<RedisServer, RedisConnectError> {
        let key = self.keys.rehearsal(&self.app);
        let rehearsal = server::rehearsal(&key, entries::FIELD, STREAM_TTL);
        let (mut server, answers) = self.commands.server(&rehearsal).await?;
        server::rights(answers, &self.keys.pattern(&self.app))?;
        if let (Some(max), Some(keep), false) =
            (server.max_memory, self.keep_bytes, server.is_cluster)
            && keep > max - max / 4
        {
            server.warnings.push(format!(
                "its maxmemory is {max} bytes, and up to {keep} bytes of events are kept: it will be full before they are \
                 trimmed. Set bus_keep_bytes to three quarters of maxmemory at most"
            ));
        }
        Ok(server)
    }

    /// The key of the stream that has `partition`.
    #[must_use]
    pub fn key(&self, history: HistoryId, partition: Partition) -> String {
        self.keys.stream(&self.app, history, partition)
    }

    /// The commands that publish as many of `events` as go at once, how many bytes these have, and the events that are
    /// left.
    fn pipeline<'e>(
        &self,
        key: &str,
        mut events: &'e [RecordedEvent],
    ) -> (redis::Pipeline, usize, &'e [RecordedEvent]) {
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
                    commands.cmd("XADD").arg(key);
                    commands
                        .arg("MAXLEN")
                        .arg("~")
                        .arg(self.trimming.max_events);
                    commands.arg(entries::entry_id(event.position));
                    commands.arg(entries::FIELD).arg(body);
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
            commands.cmd("EXPIRE").arg(key).arg(STREAM_TTL.as_secs());
        }
        (commands, bytes, events)
    }

    /// Sends the commands that publish to `partition`.
    async fn send(
        connection: &mut CommandConnection<'_>,
        commands: &redis::Pipeline,
        partition: Partition,
    ) -> Result<(), BusError> {
        for answer in connection
            .run_all(commands)
            .await
            .map_err(BusError::unavailable)?
        {
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
        Ok(())
    }

    /// Trims `partition` to its bound in bytes.
    async fn trim(
        &self,
        connection: &mut CommandConnection<'_>,
        key: &str,
        partition: Partition,
    ) -> Result<(), BusError> {
        for _ in 0..TRIM_ROUNDS {
            let answers = connection.run_all(&trimming::ask_size(key)).await;
            let answers: Vec<_> = answers
                .map_err(BusError::unavailable)?
                .into_iter()
                .map(Value::extract_error)
                .collect::<Result<_, _>>()
                .map_err(|error| bus_error(error, partition))?;
            let keep = trimming::size(&answers).and_then(|size| self.trimming.keep(size));
            let Some(keep) = keep else {
                self.trimming.is_within(partition);
                return Ok(());
            };
            let mut xtrim = redis::cmd("XTRIM");
            xtrim.arg(key).arg("MAXLEN").arg("~").arg(keep);
            let trimmed = connection.run(xtrim.arg("LIMIT").arg(0)).await;
            if trimmed.map_err(|error| bus_error(error, partition))? == Value::Int(0) {
                // What is too much is less than a block.
                self.trimming.is_within(partition);
                return Ok(());
            }
        }
        self.trimming.is_above(partition);
        Ok(())
    }

    /// Waits at most `wait` for what `key`s, all of them on one server, have after the positions.
    async fn read_streams(
        &self,
        history: HistoryId,
        after: &[(Partition, Position)],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<RecordedEvent>, BusError> {
        let Some(&(first, _)) = after.first() else {
            return Ok(Vec::new());
        };
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
        let answer = self.readers.run(&first, &xread, block).await;
        let answer = answer.map_err(|error| match error {
            BlockingError::Connect(error) => BusError::unavailable(error),
            BlockingError::Command(error) => BusError::unavailable(error),
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

    /// The same where each partition may be on another node: one read each, of which the first that has something ends the
    /// wait.
    async fn read_each(
        &self,
        history: HistoryId,
        after: &[(Partition, Position)],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<RecordedEvent>, BusError> {
        let read = |one: &'_ (Partition, Position), wait| {
            let one = [*one];
            async move { self.read_streams(history, &one, limit, wait).await }
        };
        let at_once = after.iter().map(|one| read(one, Duration::ZERO));
        let found = try_join_all(at_once).await?.concat();
        if !found.is_empty() {
            return Ok(found);
        }
        let mut waiting: FuturesUnordered<_> = after.iter().map(|one| read(one, wait)).collect();
        while let Some(found) = waiting.next().await {
            let found = found?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
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
        let mut connection = self
            .commands
            .connection()
            .await
            .map_err(BusError::unavailable)?;
        let mut rest = events;
        while !rest.is_empty() {
            let (commands, bytes, left) = self.pipeline(&key, rest);
            rest = left;
            if commands.is_empty() {
                continue;
            }
            let sent = Self::send(&mut connection, &commands, partition).await;
            let is_full = matches!(sent, Err(BusError::Full(_)));
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            if is_full || (sent.is_ok() && self.trimming.is_due(partition, bytes)) {
                // What is above its bound may be what fills the server.
                self.trim(&mut connection, &key, partition).await?;
            }
            sent?;
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
        let mut connection = self
            .commands
            .connection()
            .await
            .map_err(BusError::unavailable)?;
        match connection.run(&xinfo).await {
            Ok(info) => {
                entries::last(info, partition).map_err(|what| BusError::Corrupt { partition, what })
            }
            Err(error) if is_no_such_key(&error) => Ok(None),
            Err(error) => Err(bus_error(error, partition)),
        }
    }

    fn reads_together(&self) -> bool {
        self.keys == Keys::OfServer
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
        if self.reads_together() || after.len() == 1 {
            self.read_streams(history, after, limit, wait).await
        } else {
            self.read_each(history, after, limit, wait).await
        }
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
        _ => BusError::unavailable(error),
    }
}
