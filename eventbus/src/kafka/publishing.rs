//! Publishing: in order, by a producer that Kafka knows again, and only what is after the last event.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tidelog_domain::{HistoryId, Partition, Position, RecordedEvent, causes};
use tokio::sync::oneshot;

use super::blocking::{Client, apart};
use super::place::Place;
use super::topic::MAX_RECORD_BYTES;
use super::{DELIVERY_MS, KafkaEventBus, TIMEOUT, TIMEOUT_MS, over};
use crate::bus::BusError;
use crate::lock::lock;
use crate::wire;

/// The most events that are sent in one go.
const CHUNK_MAX_EVENTS: usize = 500;

/// The most bytes of events that are sent in one go (a single event may have more).
const CHUNK_MAX_BYTES: usize = 1024 * 1024;

/// What is around an event in its record.
const RECORD_BYTES: usize = 1024;

/// How long a publisher believes that it is the only one. After that it asks whether somebody else has published.
const ALONE_FOR: Duration = Duration::from_millis(100);

/// What is known of one partition by who publishes to it.
#[derive(Default)]
pub(super) struct Lane {
    /// The last position of a history.
    last: Option<(HistoryId, Option<Position>)>,
    /// The offset after the last record of ours, and since when it is that; if there is one.
    end: Option<(i64, Instant)>,
    /// The last event of a history that did not fit.
    left_out: Option<(HistoryId, Position)>,
    /// How many bytes the smallest record had that the topic refused alone, and when.
    refused: Option<(usize, Instant)>,
}

impl Lane {
    /// The partition's last position is known.
    pub(super) fn set(&mut self, history: HistoryId, last: Option<Position>) {
        self.last = Some((history, last));
        self.end = None;
    }
}

/// For how long it is believed that a topic refuses what is as large as what it refused: somebody may raise its bound.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// An event as it is sent.
struct Record {
    position: Position,
    key: String,
    body: Vec<u8>,
}

/// Tells each record's sender what became of it.
struct Told;

/// The record's offset, or why it is not there.
type Delivery = oneshot::Sender<Result<i64, KafkaError>>;

impl ClientContext for Told {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, fac: &str, message: &str) {
        tracing::debug!(fac, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(error = causes(&error), reason, "librdkafka");
    }
}

impl ProducerContext for Told {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, sender: Box<Delivery>) {
        let result = result
            .as_ref()
            .map(Message::offset)
            .map_err(|(error, _)| error.clone());
        // Whoever went away does not want to know.
        drop(sender.send(result));
    }
}

/// A producer, until something goes wrong with it.
pub(super) struct Producers {
    place: Place,
    current: Mutex<Option<Arc<Producer>>>,
}

pub(super) struct Producer(Client<ThreadedProducer<Told>>);

impl Producers {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            current: Mutex::default(),
        }
    }

    fn get(&self) -> Result<Arc<Producer>, BusError> {
        let mut current = lock(&self.current);
        if let Some(producer) = &*current {
            return Ok(Arc::clone(producer));
        }
        let mut config = self.place.config();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("request.timeout.ms", TIMEOUT_MS)
            .set("message.timeout.ms", DELIVERY_MS)
            .set("message.max.bytes", MAX_RECORD_BYTES.to_string())
            .set("linger.ms", "0");
        let fresh = ThreadedProducer::from_config_and_context(&config, Told);
        let fresh = Producer(Client::new(fresh.map_err(BusError::unavailable)?));
        Ok(Arc::clone(current.insert(Arc::new(fresh))))
    }

    /// Throws the producer away, if there is one.
    pub(super) fn forget_current(&self) {
        lock(&self.current).take();
    }

    /// Throws `failed` away, if it still is the one: what it has not sent is not sent any more.
    fn forget(&self, failed: &Arc<Producer>) {
        lock(&self.current).take_if(|current| Arc::ptr_eq(current, failed));
    }
}

impl KafkaEventBus {
    pub(super) async fn publish_to(
        &self,
        history: HistoryId,
        partition: Partition,
        mut events: &[RecordedEvent],
    ) -> Result<(), BusError> {
        if events.is_empty() {
            return Ok(());
        }
        self.topics.make(history).await?;
        let lane = self.lane(partition);
        let mut lane = lane.lock().await;
        let known = lane.last.filter(|(of, _)| *of == history);
        let last = match known {
            Some((_, last)) if !self.is_overtaken(history, partition, &lane).await => last,
            _ => {
                let last = self
                    .tail(history, partition)
                    .await?
                    .map(|last| last.position);
                lane.set(history, last);
                last
            }
        };
        let new = events.partition_point(|event| Some(event.position) <= last);
        events = events.get(new..).unwrap_or_default();
        while !events.is_empty() {
            // Whatever happens from here on, where it is has to be asked again unless it goes well.
            lane.last = None;
            let (chunk, left) = self.chunk(history, &mut lane, events);
            let end = match self.send(history, partition, chunk.clone()).await {
                Err(error) if is_too_large(&error) => {
                    self.send_each(&mut lane, history, partition, chunk).await?
                }
                sent => sent?,
            };
            let reached = events.len() - left.len();
            let reached = events
                .get(reached.saturating_sub(1))
                .map(|event| event.position);
            lane.set(history, reached);
            lane.end = end.map(|end| (end, Instant::now()));
            events = left;
        }
        Ok(())
    }

    /// The records of as many of `events` as go at once, and the events that are left.
    fn chunk<'e>(
        &self,
        history: HistoryId,
        lane: &mut Lane,
        mut events: &'e [RecordedEvent],
    ) -> (Vec<Arc<Record>>, &'e [RecordedEvent]) {
        let (mut records, mut bytes) = (Vec::new(), 0);
        lane.refused = lane
            .refused
            .filter(|(_, when)| when.elapsed() < REFUSED_FOR);
        let fits = lane.refused.map_or(usize::MAX, |(bytes, _)| bytes - 1);
        while let Some((event, rest)) = events.split_first() {
            if records.len() == CHUNK_MAX_EVENTS || bytes > CHUNK_MAX_BYTES {
                break;
            }
            events = rest;
            let why = match wire::encode(&self.app, event) {
                Ok(body) if body.len() > fits => too_large_for_topic(body.len()),
                Ok(body) if body.len() + RECORD_BYTES <= MAX_RECORD_BYTES => {
                    bytes += body.len();
                    records.push(Arc::new(Record {
                        position: event.position,
                        key: event.stream.to_string(),
                        body,
                    }));
                    continue;
                }
                Ok(body) => format!("it has {} bytes, and {MAX_RECORD_BYTES} fit", body.len()),
                Err(error) => causes(&error),
            };
            left_out(lane, history, event.partition, event.position, &why);
        }
        (records, events)
    }

    /// Whether somebody else may have published to this partition since we did.
    async fn is_overtaken(&self, history: HistoryId, partition: Partition, lane: &Lane) -> bool {
        let Some((end, since)) = lane.end else {
            return false;
        };
        if since.elapsed() < ALONE_FOR {
            return false;
        }
        let topic = self.topics.name(history);
        let producer = self.producers.get();
        let asked = apart(move || {
            let producer = producer?;
            let client = producer.0.get().ok_or_else(over)?.client();
            let number = i32::from(partition.number());
            let asked = client.fetch_watermarks(&topic, number, TIMEOUT);
            asked.map_err(BusError::unavailable)
        });
        asked.await.map_or(true, |(_, now)| now != end)
    }

    /// The offset after the last one of the records, of which there may be none.
    async fn send(
        &self,
        history: HistoryId,
        partition: Partition,
        records: Vec<Arc<Record>>,
    ) -> Result<Option<i64>, BusError> {
        let producer = self.producers.get()?;
        let topic = self.topics.name(history);
        let sending = Arc::clone(&producer);
        let deliveries = apart(move || sending.send(&topic, partition, &records)).await?;
        let (mut end, mut failed) = (None, None);
        for told in join_all(deliveries).await {
            match told {
                // A record that is said to be there already has none: that is somebody else's, with our producer's number.
                Ok(Ok(offset)) if offset >= 0 => end = end.max(Some(offset + 1)),
                Ok(Err(error)) if is_of_size(&error) => failed = Some(error),
                Ok(Err(error)) => failed = failed.or(Some(error)),
                // Its producer ended with the record in it.
                Ok(Ok(_)) | Err(_) => failed = failed.or(Some(KafkaError::Canceled)),
            }
        }
        let Some(error) = failed else {
            return Ok(end);
        };
        self.producers.forget(&producer);
        self.topics.forget(history);
        Err(BusError::unavailable(error))
    }

    /// Sends records one by one, of which some, or all together, are more than the topic takes: it has a bound of somebody else's. What it
    /// refuses alone is left out.
    async fn send_each(
        &self,
        lane: &mut Lane,
        history: HistoryId,
        partition: Partition,
        records: Vec<Arc<Record>>,
    ) -> Result<Option<i64>, BusError> {
        let mut end = None;
        for record in records {
            let (position, bytes) = (record.position, record.body.len());
            if lane.refused.is_some_and(|(refused, _)| bytes >= refused) {
                left_out(
                    lane,
                    history,
                    partition,
                    position,
                    &too_large_for_topic(bytes),
                );
                continue;
            }
            match self.send(history, partition, vec![record]).await {
                Err(error) if is_too_large(&error) => {
                    let smallest = lane.refused.map_or(bytes, |(before, _)| before.min(bytes));
                    lane.refused = Some((smallest.max(1), Instant::now()));
                    let why = too_large_for_topic(bytes);
                    left_out(lane, history, partition, position, &why);
                }
                sent => end = end.max(sent?),
            }
        }
        Ok(end)
    }
}

impl Producer {
    /// Hands the records over, all at once, so that nothing of another publish comes in between.
    fn send(
        &self,
        topic: &str,
        partition: Partition,
        records: &[Arc<Record>],
    ) -> Result<Vec<oneshot::Receiver<Result<i64, KafkaError>>>, BusError> {
        let producer = self.0.get().ok_or_else(over)?;
        let mut deliveries = Vec::with_capacity(records.len());
        for record in records {
            let (sender, receiver) = oneshot::channel();
            let record = BaseRecord::with_opaque_to(topic, Box::new(sender))
                .partition(i32::from(partition.number()))
                .key(&record.key)
                .payload(&record.body);
            deliveries.push(receiver);
            if let Err((error, _)) = producer.send(record) {
                return Err(BusError::unavailable(error));
            }
        }
        Ok(deliveries)
    }
}

/// Whether a record was refused since it, or what it was sent together with, is too large.
fn is_too_large(error: &BusError) -> bool {
    let BusError::Unavailable(cause) = error else {
        return false;
    };
    cause.downcast_ref().is_some_and(is_of_size)
}

fn is_of_size(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageProduction(
            RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge
        )
    )
}

fn too_large_for_topic(bytes: usize) -> String {
    format!("it has {bytes} bytes, which the max.message.bytes of its topic does not let in")
}

fn left_out(
    lane: &mut Lane,
    history: HistoryId,
    partition: Partition,
    position: Position,
    why: &str,
) {
    // A hole, which consumers fill from the log. Holding all later ones back for it would be worse.
    let is_told = lane
        .left_out
        .is_some_and(|(of, last)| of == history && last >= position);
    if !is_told {
        lane.left_out = Some((history, position));
        tracing::error!(
            %partition, %position, error = why,
            "an event cannot be put on the bus; consumers read it from the log"
        );
    }
}
