//! The bus on NATS JetStream.
//!
//! **What is where.** Each partition has one stream, in files, and each history of it one subject. A message is an event in its wire form;
//! a stream keeps a bounded number of them, a bounded number of bytes and 7 days, the newest of each.
//!
//! **Order and uniqueness** come from the positions: a publisher looks at the last message of the subject, leaves out what is not after
//! its position, and sends each message with the header `Nats-Expected-Last-Subject-Sequence`: the place of the one before it. NATS turns
//! down one that does not follow. So of several publishers at a place one gets through; the others look again, and find their events there.
//!
//! **When something dies in the middle.** A publisher: what it had sent is there up to some message, and the next publisher looks where that
//! is. An answer: the same, the publisher itself looks again. The stream (wiped, or its newest part lost): there is no last message, or an
//! older one; publishing begins at what the relay gives, and readers see a hole or begin anew. Nothing that is remembered in a process
//! is believed without NATS' word: of a publisher, the header is that; a reader begins at the place of the event that it read last, and
//! another event there makes it look anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tidelog_domain::{Cursor, HistoryId, Partition, Partitions, Position, RecordedEvent};
use tokio::sync::Mutex as AsyncMutex;

use crate::app_name::is_app_name;
use crate::bus::{BusError, EventBus};

pub(crate) mod connection;
mod names;
pub(crate) mod news;
pub(crate) mod paging;
pub(crate) mod place;
mod publishing;
mod reading;
mod server;

use connection::Connection;
use names::Names;
pub(crate) use place::Place as NatsPlace;
use publishing::Lane;
pub(crate) use publishing::is_full;
pub use server::{NatsConnectError, NatsServer};

/// How long an event stays at most: 7 days. So those of older histories go by themselves; a partition that was just quiet for so long
/// begins anew with its next event, and consumers fill the gap from the log.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// An event bus on NATS JetStream (NATS 2.11 or later), on one server or a cluster.
///
/// Each partition is one stream, `<app>-events-<partition>` (a dot in the app's name is written as `~`), and each history of it the subject
/// `<app>.events.<history>.<partition>`. A message is an event in its [wire form](crate::wire).
///
/// Nothing is connected until the first call, and every call connects again after a failure: a program starts and runs with NATS down, and
/// has [`BusError::Unavailable`] until it is up. A TLS connection needs rustls' default provider to be installed.
pub struct NatsEventBus {
    app: String,
    names: Names,
    keep: usize,
    /// The bound of each stream.
    keep_bytes: Option<u64>,
    connection: Connection,
    lanes: Mutex<HashMap<Partition, Arc<AsyncMutex<Lane>>>>,
    /// How far each partition was read.
    places: Mutex<HashMap<(HistoryId, Partition), publishing::Place>>,
}

/// Why a NATS bus cannot be made of these settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidNatsBus {
    /// The URL is none of NATS. It is not shown: it may have a password in it.
    #[error(
        "it is not a URL of NATS, like nats://user:password@host:4222 or nats+tls://host1:4222,host2:4222/?replicas=3"
    )]
    Url,
    /// A file cannot be read, or is not what it should be.
    #[error("the file that its parameter {parameter} names cannot be used")]
    File {
        /// The URL's parameter.
        parameter: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate of ours without its key, or the other way round.
    #[error("its parameters ssl_certfile and ssl_keyfile need each other")]
    TlsPair,
    /// A user and a file of credentials.
    #[error("it has both a user and the parameter creds")]
    TwoLogins,
    /// Not a number of servers that may keep a stream.
    #[error("its parameter replicas is a number from 1 to 5")]
    Replicas,
    /// The app's name cannot be part of a subject.
    #[error("an app's name is 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-'")]
    App,
}

impl NatsEventBus {
    /// How many events of a partition are kept, unless told otherwise.
    pub const DEFAULT_KEEP: usize = 100_000;

    /// A bus for the app `app` on the NATS at `url`. Nothing is connected yet.
    ///
    /// `nats://` and `nats+tls://` (or `tls://`) name one server of a cluster or several ones, separated by commas. The parameter `creds`
    /// names a file of credentials; `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` name PEM files: the authorities to trust instead of the
    /// machine's, and a certificate of our own; `replicas` is how many servers keep each stream (1).
    ///
    /// # Errors
    ///
    /// [`InvalidNatsBus`] when the URL or the name are malformed, or a file cannot be read.
    pub fn new(url: &str, app: &str) -> Result<Self, InvalidNatsBus> {
        if !is_app_name(app) {
            return Err(InvalidNatsBus::App);
        }
        Ok(Self {
            app: app.to_owned(),
            names: Names::new(app),
            keep: Self::DEFAULT_KEEP,
            keep_bytes: None,
            connection: Connection::new(NatsPlace::parse(url)?),
            lanes: Mutex::default(),
            places: Mutex::default(),
        })
    }

    /// Keeps the last `events` events of each partition.
    #[must_use]
    pub fn keeping(mut self, events: usize) -> Self {
        self.keep = events;
        self
    }

    /// Keeps fewer than that where the streams of all `partitions` would take more than `bytes` of NATS' disk: each may take an equal share.
    #[must_use]
    pub fn keeping_bytes(mut self, bytes: u64, partitions: Partitions) -> Self {
        self.keep_bytes = Some((bytes / u64::from(partitions.count())).max(1));
        self
    }

    /// Connects, asks the server who it is, and makes sure that JetStream is there for our user: for checks at start-up.
    ///
    /// # Errors
    ///
    /// [`NatsConnectError`], which says what is there instead, or what is missing.
    pub async fn server(&self) -> Result<NatsServer, NatsConnectError> {
        let session = self.connection.session().await?;
        let client = &session.client;
        let is_recent = |major, minor| client.is_server_compatible(major, minor, 0);
        let server = server::read_info(client.server_info(), is_recent)?;
        let account = session.jetstream.query_account().await;
        account.map_err(NatsConnectError::of_account)?;
        Ok(server)
    }

    /// The name of the stream that has `partition`.
    #[must_use]
    pub fn stream(&self, partition: Partition) -> String {
        self.names.stream(partition)
    }
}

#[async_trait]
impl EventBus for NatsEventBus {
    async fn publish(
        &self,
        history: HistoryId,
        partition: Partition,
        events: &[RecordedEvent],
    ) -> Result<(), BusError> {
        self.publish_to(history, partition, events).await
    }

    async fn last(
        &self,
        history: HistoryId,
        partition: Partition,
    ) -> Result<Option<Cursor>, BusError> {
        let session = self
            .connection
            .session()
            .await
            .map_err(BusError::unavailable)?;
        let last = self.last_stored(&session, history, partition).await?;
        Ok(last.map(|(_, cursor)| cursor))
    }

    /// Each partition is a request of its own.
    fn reads_together(&self) -> bool {
        false
    }

    async fn read(
        &self,
        history: HistoryId,
        after: &[(Partition, Position)],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<RecordedEvent>, BusError> {
        self.read_from(history, after, limit, wait).await
    }
}
