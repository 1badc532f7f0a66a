//! The topic of a history: its name, and what it is made with.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tidelog_domain::{HistoryId, Partitions};

use super::TIMEOUT;
use super::blocking::{Client, apart};
use super::place::Place;
use crate::bus::BusError;
use crate::lock::lock;
use crate::wire::LARGEST_EVENT_BYTES;

/// How long a record stays at most: 7 days, in milliseconds. So the topics of older histories become empty by themselves.
const RETENTION_MS: &str = "604800000";

/// The bounds of a segment. What is too much goes by whole segments, so that each is a part of the bound.
const SEGMENT_BYTES: (u64, u64) = (1024 * 1024, 1024 * 1024 * 1024);

/// Into how many segments a partition's share is divided, at least.
const SEGMENTS: u64 = 4;

/// The largest record that a topic takes: an event, and room for what surrounds it.
pub(super) const MAX_RECORD_BYTES: usize = 2 * LARGEST_EVENT_BYTES;

type Admin = Client<AdminClient<DefaultClientContext>>;

/// Who makes topics.
pub(super) struct Topics {
    app: String,
    place: Place,
    partitions: Partitions,
    /// The bound of each partition, in bytes.
    max_bytes: Option<u64>,
    /// The histories whose topic was made, or found.
    made: Mutex<HashSet<HistoryId>>,
    admin: Mutex<Option<Arc<Admin>>>,
}

impl Topics {
    pub(super) fn new(app: &str, place: Place, partitions: Partitions) -> Self {
        Self {
            app: app.to_owned(),
            place,
            partitions,
            max_bytes: None,
            made: Mutex::default(),
            admin: Mutex::default(),
        }
    }

    /// Bounds all partitions of a topic, together, to `bytes`: each to an equal share.
    pub(super) fn bound(&mut self, bytes: u64) {
        self.max_bytes = Some((bytes / u64::from(self.partitions.count())).max(1));
    }

    /// The name of the topic of `history`.
    pub(super) fn name(&self, history: HistoryId) -> String {
        format!("{}.events.{history}", self.app)
    }

    /// Forgets that the topic of `history` is there.
    pub(super) fn forget(&self, history: HistoryId) {
        lock(&self.made).remove(&history);
    }

    /// Makes the topic of `history`, unless it is there.
    pub(super) async fn make(&self, history: HistoryId) -> Result<(), BusError> {
        if lock(&self.made).contains(&history) {
            return Ok(());
        }
        let name = self.name(history);
        let replicas = self.place.replicas.unwrap_or(-1);
        let partitions = i32::from(self.partitions.count());
        let (share, segment) = match self.max_bytes {
            Some(share) => {
                let (least, most) = SEGMENT_BYTES;
                let segment = (share / SEGMENTS).clamp(least, most);
                (share.to_string(), segment)
            }
            None => ("-1".to_owned(), SEGMENT_BYTES.1),
        };
        let (segment, record) = (segment.to_string(), MAX_RECORD_BYTES.to_string());
        let topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(replicas))
            .set("cleanup.policy", "delete")
            .set("retention.ms", RETENTION_MS)
            .set("retention.bytes", &share)
            .set("segment.bytes", &segment)
            .set("max.message.bytes", &record);
        let client = self.admin()?;
        let admin = client.get().ok_or_else(super::over)?;
        let made = admin.create_topics([&topic], &options()).await;
        for result in made.map_err(BusError::unavailable)? {
            match result {
                Ok(_) => {}
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {
                    self.is_wide_enough(&name, Arc::clone(&client)).await?;
                }
                Err((_, code)) => return Err(BusError::unavailable(KafkaError::AdminOp(code))),
            }
        }
        lock(&self.made).insert(history);
        Ok(())
    }

    /// Refuses a topic that somebody else made, and has no place for some partitions of the log.
    async fn is_wide_enough(&self, name: &str, admin: Arc<Admin>) -> Result<(), BusError> {
        let topic = name.to_owned();
        let asked = apart(move || {
            let client = admin.get().ok_or_else(super::over)?.inner();
            let metadata = client.fetch_metadata(Some(&topic), TIMEOUT);
            let metadata = metadata.map_err(BusError::unavailable)?;
            let topics = metadata.topics().iter();
            let mut counts = topics.map(|found| found.partitions().len());
            Ok(counts.next().unwrap_or(0))
        });
        let (found, needed) = (asked.await?, usize::from(self.partitions.count()));
        // None: it is deleted just now, or the broker does not know of it yet.
        if (1..needed).contains(&found) {
            let topic = name.to_owned();
            return Err(BusError::unavailable(TooNarrow {
                topic,
                found,
                needed,
            }));
        }
        Ok(())
    }

    /// The bound that the broker `id` has for a record; `None` where it does not tell.
    pub(super) async fn record_bound(&self, id: i32) -> Option<usize> {
        let admin = self.admin().ok()?;
        let broker = ResourceSpecifier::Broker(id);
        let described = admin.get()?.describe_configs([&broker], &options()).await;
        let described = described.ok()?.into_iter().next()?.ok()?;
        let bound = described.get("message.max.bytes")?.value.as_deref()?;
        bound.parse().ok()
    }

    fn admin(&self) -> Result<Arc<Admin>, BusError> {
        let mut admin = lock(&self.admin);
        if let Some(admin) = &*admin {
            return Ok(Arc::clone(admin));
        }
        let fresh = self
            .place
            .config()
            .create()
            .map_err(BusError::unavailable)?;
        Ok(Arc::clone(admin.insert(Arc::new(Client::new(fresh)))))
    }
}

/// A topic has fewer partitions than the log.
#[derive(Debug, thiserror::Error)]
#[error(
    "the topic {topic} has {found} partitions, and the log has {needed}: add partitions to it, or delete it, and it is made as it has to be"
)]
struct TooNarrow {
    topic: String,
    found: usize,
    needed: usize,
}

fn options() -> AdminOptions {
    let timeout: Option<Duration> = Some(TIMEOUT);
    AdminOptions::new()
        .request_timeout(timeout)
        .operation_timeout(timeout)
}
