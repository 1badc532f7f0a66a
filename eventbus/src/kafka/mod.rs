//! The bus on Kafka.
//!
//! **What is where.** Each history has one topic, `<app>.events.<history>`, and each partition of the log is that partition of the topic. A
//! record is an event in its wire form, its key the event's stream. Kafka keeps them for 7 days, and fewer where they would take more than
//! the settings say.
//!
//! **Order and uniqueness.** Kafka takes what it gets: it cannot turn down a record by our position. A publisher looks at the last records
//! before its first, and sends what comes after; an idempotent producer keeps its records in order, each once. When several publish
//! at the same time, the same events are in the topic several times, and a late one's are after newer ones. A reader gives out an
//! event only when its position is above all before it: so each comes once, and in order.
//!
//! **When something dies in the middle.** A publisher: what it had sent is there up to some record. A record that nobody acknowledged: the
//! publish failed, and its producer is thrown away with all that it still had; the next one looks at the last records again. The topic (deleted,
//! or a broker that lost its disk): it is made anew, publishing begins at what the relay gives, and readers begin anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tidelog_domain::{Cursor, HistoryId, Partition, Partitions, Position, RecordedEvent};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use crate::app_name::is_app_name;
use crate::bus::{BusError, EventBus};
use crate::lock::lock;
use crate::wire::LARGEST_EVENT_BYTES;

mod blocking;
mod place;
mod publishing;
mod reading;
mod server;
mod topic;

use blocking::apart;
use place::Place;
use publishing::{Lane, Producers};
use reading::Reader;
pub use server::{KafkaConnectError, KafkaServer};
use topic::Topics;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(3);
const TIMEOUT_MS: &str = "3000";

/// How long the brokers may take to say who they are.
const SERVER_TIMEOUT: Duration = Duration::from_millis(2_500);

/// How long a record may take until it is acknowledged, all tries included.
const DELIVERY_MS: &str = "5000";

/// How many partitions are asked for their last event at a time.
const ASKING: usize = 4;

/// An event bus on Kafka (3.0 or later, or a server that speaks its protocol).
///
/// Each history has one topic, `<app>.events.<history>`, with the log's partitions; it is made when it is needed. A record is an event in its
/// [wire form](crate::wire), its key the event's stream. No consumer group and no transaction is used.
///
/// Nothing is connected until the first call, and every call connects again after a failure: a program starts and runs with Kafka down, and
/// has [`BusError::Unavailable`] until it is up. It is not spoken to over TLS.
pub struct KafkaEventBus {
    app: String,
    place: Place,
    topics: Topics,
    producers: Producers,
    /// How far back readers go, in records.
    keep: i64,
    lanes: Mutex<HashMap<Partition, Arc<AsyncMutex<Lane>>>>,
    /// Consumers for the next read.
    readers: Arc<Mutex<Vec<Reader>>>,
    asking: Arc<Semaphore>,
}

/// Why a Kafka bus cannot be made of these settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKafkaBus {
    /// The URL is none of Kafka. It is not shown.
    #[error("it is not a URL of Kafka, like kafka://host1:9092,host2:9092/?replicas=3")]
    Url,
    /// The URL has a user.
    #[error(
        "it names a user, and this program signs in to no Kafka: reach it through a proxy on this machine that does"
    )]
    User,
    /// Not a number of brokers that may keep a partition.
    #[error("its parameter replicas is a number from 1 on")]
    Replicas,
    /// The app's name cannot be part of a topic's.
    #[error("an app's name is 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-'")]
    App,
}

impl KafkaEventBus {
    /// How many events of a partition readers go back, unless told otherwise.
    pub const DEFAULT_KEEP: usize = 100_000;

    /// A bus for the app `app`, whose log has `partitions`, on the Kafka at `url`. Nothing is connected yet.
    ///
    /// `kafka://` names one broker or several ones, separated by commas. The parameter `replicas` is how many brokers keep each partition;
    /// without it that is as the brokers have it.
    ///
    /// # Errors
    ///
    /// [`InvalidKafkaBus`] when the URL or the name are malformed.
    pub fn new(url: &str, app: &str, partitions: Partitions) -> Result<Self, InvalidKafkaBus> {
        if !is_app_name(app) {
            return Err(InvalidKafkaBus::App);
        }
        let place = Place::parse(url)?;
        Ok(Self {
            app: app.to_owned(),
            topics: Topics::new(app, place.clone(), partitions),
            producers: Producers::new(place.clone()),
            place,
            keep: i64::try_from(Self::DEFAULT_KEEP).unwrap_or(i64::MAX),
            lanes: Mutex::default(),
            readers: Arc::default(),
            asking: Arc::new(Semaphore::new(ASKING)),
        })
    }

    /// Has readers go back to the last `events` events of each partition at most; Kafka itself keeps what its bounds in bytes and time let it.
    #[must_use]
    pub fn keeping(mut self, events: usize) -> Self {
        self.keep = i64::try_from(events).unwrap_or(i64::MAX);
        self
    }

    /// Keeps fewer where all partitions of a topic would take more than `bytes` of each disk that has them: each may take an equal share.
    /// Kafka throws whole segments away, of a quarter of that share, and of 1 MiB at least. It holds for topics that are made from now on.
    #[must_use]
    pub fn keeping_bytes(mut self, bytes: u64) -> Self {
        self.topics.bound(bytes);
        self
    }

    /// Connects, and asks the brokers who they are: for checks at start-up.
    ///
    /// # Errors
    ///
    /// [`KafkaConnectError`], within about 3 s.
    pub async fn server(&self) -> Result<KafkaServer, KafkaConnectError> {
        let config = self.place.config();
        let asked = apart(move || {
            let asker: BaseConsumer = config.create().map_err(BusError::unavailable)?;
            let metadata = asker
                .fetch_metadata(None, SERVER_TIMEOUT)
                .map_err(BusError::unavailable)?;
            let brokers = metadata.brokers();
            Ok((brokers.len(), brokers.first().map(|own| own.id())))
        });
        let asked = asked.await;
        let (brokers, first) =
            asked.map_err(|error| KafkaConnectError::Unreachable(Box::new(error)))?;
        let bound = match first {
            Some(id) => self.topics.record_bound(id).await,
            None => None,
        };
        // A topic that we make has a bound of its own; one that somebody else made may have this one.
        let warning = bound.filter(|bound| *bound < LARGEST_EVENT_BYTES).map(|bound| {
            format!(
                "its message.max.bytes is {bound}: events that have more may stay off the bus and are read from the log. Set it to \
                 {LARGEST_EVENT_BYTES} or more"
            )
        });
        Ok(KafkaServer {
            brokers,
            warnings: warning.into_iter().collect(),
        })
    }

    /// The name of the topic of `history`.
    #[must_use]
    pub fn topic(&self, history: HistoryId) -> String {
        self.topics.name(history)
    }

    fn lane(&self, partition: Partition) -> Arc<AsyncMutex<Lane>> {
        Arc::clone(lock(&self.lanes).entry(partition).or_default())
    }
}

#[async_trait]
impl EventBus for KafkaEventBus {
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
        let lane = self.lane(partition);
        let mut lane = lane.lock().await;
        let last = self.tail(history, partition).await?;
        // Who publishes next believes this, too.
        lane.set(history, last.map(|last| last.position));
        Ok(last)
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

/// A client is used that has ended.
fn over() -> BusError {
    BusError::unavailable(std::io::Error::other("the client has ended"))
}
