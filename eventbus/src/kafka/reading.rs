//! Reading: consumers without a group, each told where to begin, on threads that may wait.
//!
//! Positions are not offsets. A reader remembers for each partition what it gave out and where it goes on; without that it looks at the last
//! records and goes back from the newest event among them, by twice as many offsets as there are positions between. Where many published the same,
//! that may be too few; then there is a hole, which consumers fill from the log. What comes is given out only where its position is
//! above all before it: so each comes once and in order, whatever several publishers left.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tidelog_domain::{Cursor, HistoryId, Partition, Position, RecordedEvent, causes};

use super::blocking::{Client, apart};
use super::topic::MAX_RECORD_BYTES;
use super::{KafkaEventBus, TIMEOUT, over};
use crate::bus::BusError;
use crate::lock::lock;
use crate::wire;

/// How many of the last records are looked at for the newest event: so many may several publishers have got between each other.
const TAIL: i64 = 32;

/// How long one wait in librdkafka is: so late a reader that went away is noticed.
const SLICE: Duration = Duration::from_millis(50);

/// How long a broker waits for records before it says that there are none.
const FETCH_WAIT: Duration = Duration::from_millis(500);

/// The same, where it is only asked how far a partition goes.
const TAIL_WAIT: Duration = Duration::from_millis(10);

/// When the payloads of what came and was not given out have so many bytes, nobody waits for more of it.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// How many consumers are kept for the next read.
const MAX_IDLE: usize = 4;

/// Consumers of one topic, each of them told its places once: librdkafka ends the program where places are changed again before it has
/// let go of those before.
#[derive(Clone)]
struct Source {
    config: ClientConfig,
    topic: String,
}

/// A consumer, and where it is in each partition that it reads.
pub(super) struct Reader {
    consumer: Client<BaseConsumer<Quiet>>,
    source: Source,
    history: HistoryId,
    at: BTreeMap<Partition, At>,
    /// The payloads of all that came and was not given out yet.
    waiting_bytes: usize,
}

/// Where a reader is in a partition.
struct At {
    /// What was given out, or asked for, ends here.
    position: Position,
    /// The newest position that came.
    newest: Position,
    /// What came and was not given out yet.
    waiting: VecDeque<RecordedEvent>,
}

/// The newest event among the last records, and its offset.
type Tails = HashMap<Partition, (Cursor, i64)>;

/// Says to the log what librdkafka says.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, fac: &str, message: &str) {
        tracing::debug!(fac, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(error = causes(&error), reason, "librdkafka");
    }
}

impl ConsumerContext for Quiet {}

/// Tells a read that nobody waits for it any more.
struct Leaving(Arc<AtomicBool>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl KafkaEventBus {
    pub(super) async fn read_from(
        &self,
        history: HistoryId,
        after: &[(Partition, Position)],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<RecordedEvent>, BusError> {
        self.topics.make(history).await?;
        let leaving = Leaving(Arc::default());
        let (left, keep) = (Arc::clone(&leaving.0), self.keep);
        let (pool, after) = (Arc::clone(&self.readers), after.to_vec());
        let source = self.source(history);
        let read = apart(move || {
            let idle = take_matching(&mut lock(&pool), history, &after);
            let begin = || Reader::begin(source, history, &after, keep, limit, &left);
            let mut reader = idle.map_or_else(begin, Ok)?;
            let found = reader.read(limit, wait, &left)?;
            give_back(&pool, reader);
            Ok(found)
        });
        self.noticed(history, read.await)
    }

    /// The newest event of `partition`.
    pub(super) async fn tail(
        &self,
        history: HistoryId,
        partition: Partition,
    ) -> Result<Option<Cursor>, BusError> {
        self.topics.make(history).await?;
        let permit = Arc::clone(&self.asking).acquire_owned().await;
        let source = self.source(history);
        let leaving = Leaving(Arc::default());
        let left = Arc::clone(&leaving.0);
        let asked = apart(move || {
            let _permit = permit;
            let mut tails = source.tails(&[partition], &left)?;
            Ok(tails.remove(&partition).map(|(cursor, _)| cursor))
        });
        self.noticed(history, asked.await)
    }

    /// After a failure the topic is made anew, unless it is there, and the next publish has a producer of its own: brokers that lost what they
    /// knew of this one would take its records for some that they have.
    fn noticed<T>(&self, history: HistoryId, result: Result<T, BusError>) -> Result<T, BusError> {
        if let Err(BusError::Unavailable(_)) = &result {
            self.topics.forget(history);
            self.producers.forget_current();
        }
        result
    }

    fn source(&self, history: HistoryId) -> Source {
        let mut config = self.place.config();
        config
            // Nothing is ever committed: no consumer is created without a group's name.
            .set("group.id", format!("{}.events", self.app))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_uncommitted")
            .set("fetch.error.backoff.ms", "20")
            // One answer of all partitions: on a slow line a larger one would not be there in time, at no try.
            .set("fetch.max.bytes", MAX_RECORD_BYTES.to_string())
            .set("queued.max.messages.kbytes", "8192");
        Source {
            config,
            topic: self.topics.name(history),
        }
    }
}

/// The reader that is where this read begins, if there is one.
fn take_matching(
    pool: &mut Vec<Reader>,
    history: HistoryId,
    after: &[(Partition, Position)],
) -> Option<Reader> {
    let place = pool.iter().position(|reader| {
        let is_at = |(partition, position): &(Partition, Position)| {
            let at = reader.at.get(partition);
            at.is_some_and(|at| at.position == *position)
        };
        reader.history == history && reader.at.len() == after.len() && after.iter().all(is_at)
    });
    place.map(|place| pool.swap_remove(place))
}

/// Keeps a reader for later, and lets the one go that waited the longest. (Only called where it may take time.)
fn give_back(pool: &std::sync::Mutex<Vec<Reader>>, reader: Reader) {
    let mut pool = lock(pool);
    pool.push(reader);
    let surplus = (pool.len() > MAX_IDLE).then(|| pool.remove(0));
    drop(pool);
    drop(surplus);
}

impl Reader {
    /// A reader that has taken in what there is `after` these positions, up to `limit` of each partition.
    fn begin(
        source: Source,
        history: HistoryId,
        after: &[(Partition, Position)],
        keep: i64,
        limit: usize,
        is_over: &AtomicBool,
    ) -> Result<Self, BusError> {
        let partitions: Vec<_> = after.iter().map(|(partition, _)| *partition).collect();
        let tails = source.tails(&partitions, is_over)?;
        let place = |(partition, position): &(Partition, Position)| {
            let next = tails.get(partition).map_or(0, |(cursor, offset)| {
                let end = offset + 1;
                let between = cursor.position.number().checked_sub(position.number() + 1);
                let between = between.map(|between| i64::try_from(between).unwrap_or(i64::MAX));
                // Twice as far back as there are positions between: as if each had been published twice.
                let next = between.map_or(end, |between| {
                    offset.saturating_sub(between.saturating_mul(2))
                });
                next.max(end.saturating_sub(keep)).max(0)
            });
            let at = At {
                position: *position,
                newest: *position,
                waiting: VecDeque::new(),
            };
            (*partition, (at, next))
        };
        let places: BTreeMap<_, _> = after.iter().map(place).collect();
        let consumer = source.consumer(FETCH_WAIT, false)?;
        let offsets = places
            .iter()
            .map(|(own, (_, next))| (*own, Offset::Offset(*next)));
        source.assign(&consumer, offsets)?;
        let mut reader = Self {
            consumer,
            source,
            history,
            at: places.into_iter().map(|(own, (at, _))| (own, at)).collect(),
            waiting_bytes: 0,
        };
        reader.catch_up(&tails, limit, is_over)?;
        Ok(reader)
    }

    /// What comes in `wait`, or what was there before it, which nobody waits for.
    fn read(
        &mut self,
        limit: usize,
        wait: Duration,
        is_over: &AtomicBool,
    ) -> Result<Vec<RecordedEvent>, BusError> {
        let deadline = Instant::now() + wait;
        let mut found = self.give_out(limit);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !found.is_empty() || left.is_zero() || is_over.load(Ordering::Relaxed) {
                break;
            }
            if self.take_in(SLICE.min(left))? != Came::Nothing {
                // What came with it.
                while self.has_room()
                    && !is_over.load(Ordering::Relaxed)
                    && self.take_in(Duration::ZERO)? != Came::Nothing
                {}
            }
            found = self.give_out(limit);
        }
        if found.is_empty() && wait < 2 * FETCH_WAIT {
            // Too short to have heard of it.
            let partitions: Vec<_> = self.at.keys().copied().collect();
            let tails = self.source.tails(&partitions, is_over)?;
            self.catch_up(&tails, limit, is_over)?;
            found = self.give_out(limit);
        }
        Ok(found)
    }

    /// Takes in what there is up to `tails`, up to `limit` of each partition.
    fn catch_up(
        &mut self,
        tails: &Tails,
        limit: usize,
        is_over: &AtomicBool,
    ) -> Result<(), BusError> {
        let is_behind = |(own, at): (&Partition, &At)| {
            let newest = tails.get(own).map(|(cursor, _)| cursor.position);
            newest > Some(at.newest) && at.waiting.len() < limit
        };
        let mut last = Instant::now();
        while self.has_room() && !is_over.load(Ordering::Relaxed) {
            let behind = self.at.iter().filter(|at| is_behind(*at));
            let behind: Vec<_> = behind.map(|(own, _)| *own).collect();
            if behind.is_empty() {
                break;
            }
            // What comes to the others is no sign of these.
            match self.take_in(SLICE)? {
                Came::Record(own) if behind.contains(&own) => last = Instant::now(),
                _ if last.elapsed() > TIMEOUT => return Err(late()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether more may come, beside what was not given out yet.
    fn has_room(&self) -> bool {
        self.waiting_bytes < MAX_WAITING_BYTES
    }

    /// Takes in what comes next, a record or the news that there is no other.
    fn take_in(&mut self, wait: Duration) -> Result<Came, BusError> {
        let consumer = self.consumer.get().ok_or_else(over)?;
        match polled(consumer, wait)? {
            Polled::Nothing => Ok(Came::Nothing),
            Polled::End(_) => Ok(Came::End),
            Polled::Record(_, event) => {
                let partition = event.partition;
                if let Some(at) = self.at.get_mut(&partition)
                    && event.position > at.newest
                {
                    at.newest = event.position;
                    self.waiting_bytes += event.payload.as_bytes().len();
                    at.waiting.push_back(event);
                }
                Ok(Came::Record(partition))
            }
        }
    }

    /// Gives out what came, at most `limit` of each partition.
    fn give_out(&mut self, limit: usize) -> Vec<RecordedEvent> {
        let mut found = Vec::new();
        for at in self.at.values_mut() {
            let count = limit.min(at.waiting.len());
            found.extend(at.waiting.drain(..count).inspect(|event| {
                at.position = event.position;
                self.waiting_bytes -= event.payload.as_bytes().len();
            }));
        }
        found
    }
}

impl Source {
    /// A consumer whose brokers wait for `wait` with the answer that there is nothing, and that tells of it or not.
    fn consumer(
        &self,
        wait: Duration,
        tells: bool,
    ) -> Result<Client<BaseConsumer<Quiet>>, BusError> {
        let mut config = self.config.clone();
        config
            .set("fetch.wait.max.ms", wait.as_millis().to_string())
            .set("enable.partition.eof", tells.to_string());
        let consumer = config
            .create_with_context(Quiet)
            .map_err(BusError::unavailable)?;
        Ok(Client::new(consumer))
    }

    /// Tells a consumer, once, where it begins.
    fn assign(
        &self,
        consumer: &Client<BaseConsumer<Quiet>>,
        places: impl Iterator<Item = (Partition, Offset)>,
    ) -> Result<(), BusError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in places {
            let partition = i32::from(partition.number());
            let added = list.add_partition_offset(&self.topic, partition, offset);
            added.map_err(BusError::unavailable)?;
        }
        let consumer = consumer.get().ok_or_else(over)?;
        consumer.assign(&list).map_err(BusError::unavailable)
    }

    /// The newest event among the last records of each partition that has any. Where more comes all the time, there may be newer ones.
    fn tails(&self, partitions: &[Partition], is_over: &AtomicBool) -> Result<Tails, BusError> {
        let consumer = self.consumer(TAIL_WAIT, true)?;
        let places = partitions
            .iter()
            .map(|own| (*own, Offset::OffsetTail(TAIL)));
        self.assign(&consumer, places)?;
        let consumer = consumer.get().ok_or_else(over)?;
        // How many records of each came that is not through.
        let mut open: HashMap<_, i64> = partitions.iter().map(|own| (*own, 0)).collect();
        let mut tails = Tails::new();
        let begun = Instant::now();
        let mut last = begun;
        while !open.is_empty() {
            if last.elapsed() > TIMEOUT || is_over.load(Ordering::Relaxed) {
                return Err(late());
            }
            match polled(consumer, SLICE)? {
                Polled::Nothing => {}
                Polled::End(partition) => {
                    last = Instant::now();
                    open.remove(&partition);
                }
                Polled::Record(offset, event) => {
                    // What comes to those that are through is no sign of the others.
                    if let Some(came) = open.get_mut(&event.partition) {
                        last = Instant::now();
                        *came += 1;
                        // Its end of the beginning was passed, and another does not come.
                        if *came > TAIL && begun.elapsed() > TIMEOUT {
                            open.remove(&event.partition);
                        }
                    }
                    let newest = tails.get(&event.partition);
                    if newest.is_none_or(|(newest, _)| event.position > newest.position) {
                        tails.insert(event.partition, (event.cursor(), offset));
                    }
                }
            }
        }
        Ok(tails)
    }
}

/// What a reader took in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    /// Nothing in time.
    Nothing,
    /// The news that there is no further record.
    End,
    /// A record of this partition.
    Record(Partition),
}

/// What a consumer has next.
enum Polled {
    /// Nothing in time.
    Nothing,
    /// There is no further record in this partition.
    End(Partition),
    /// A record, and its offset.
    Record(i64, RecordedEvent),
}

fn polled(consumer: &BaseConsumer<Quiet>, wait: Duration) -> Result<Polled, BusError> {
    match consumer.poll(wait) {
        None => Ok(Polled::Nothing),
        Some(Ok(message)) => Ok(Polled::Record(message.offset(), decoded(&message)?)),
        Some(Err(KafkaError::PartitionEOF(number))) => Ok(Polled::End(partition_of(number))),
        Some(Err(error)) => Err(BusError::unavailable(error)),
    }
}

fn partition_of(number: i32) -> Partition {
    Partition::new(u16::try_from(number).unwrap_or(u16::MAX))
}

/// The event in a record.
fn decoded(message: &BorrowedMessage<'_>) -> Result<RecordedEvent, BusError> {
    let partition = partition_of(message.partition());
    let corrupt = |why: &str| BusError::Corrupt {
        partition,
        what: format!("record {}: {why}", message.offset()),
    };
    let event = wire::decode(message.payload().unwrap_or_default());
    let event = event.map_err(|error| corrupt(&causes(&error)))?;
    if event.partition != partition {
        return Err(corrupt("its event belongs to another partition"));
    }
    Ok(event)
}

fn late() -> BusError {
    BusError::unavailable(std::io::Error::from(std::io::ErrorKind::TimedOut))
}
