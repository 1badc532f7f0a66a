//! The event store that lives in memory: for tests, and for trying things out.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tidelog_domain::{
    Append, Appended, Cursor, HistoryId, Partition, Partitions, Position, RecordedEvent, StreamId,
    Version,
};
use tidelog_eventbus::{
    EventQuery, Found, LogError, LogIdentity, LogReader, LogSearch, StateError, StateRecord,
    StateStore, StreamReader,
};

use crate::clock::Clock;

use super::failure::Failure;
use super::keys::{KeyRow, Keys, ScopedKey, keys};
use super::open::random_history;
use super::page::{after_cursor, first_position, rows_to_read};
use super::plan::{Place, Plan, Row, Taint, streams};
use super::search::Search;
use super::{AppendError, EventStore, ReadFrom, Snapshot, StreamPage, StreamRead};

/// How many events one search looks at: the log is locked meanwhile.
const SEARCH_MAX_EVENTS: u64 = 20_000;

/// An event store that keeps its log in memory, and loses it with the process.
///
/// A clone is another handle to the same log. It behaves as the other event stores do (it passes the same
/// conformance suite), but for what only a disk can give.
#[derive(Clone, Debug)]
pub struct InMemoryEventStore {
    partitions: Partitions,
    log: Arc<Mutex<Log>>,
    clock: Clock,
}

/// The log itself.
#[derive(Debug)]
struct Log {
    history: HistoryId,
    /// The events of each partition, by position; the first has position 1.
    events: Vec<Vec<RecordedEvent>>,
    /// The events of each stream, by version; the first has version 1.
    streams: HashMap<StreamId, Vec<RecordedEvent>>,
    /// What is recorded under each key, and when that was done.
    keys: HashMap<ScopedKey, (KeyRow, Instant)>,
    /// What is kept of each stream, and in which history.
    snapshots: HashMap<StreamId, (HistoryId, Snapshot)>,
    /// The state records of each subscription, with their revisions.
    states: HashMap<String, BTreeMap<Partition, (u64, StateRecord)>>,
}

impl InMemoryEventStore {
    /// An empty log of `partitions`.
    #[must_use]
    pub fn new(partitions: Partitions) -> Self {
        Self {
            partitions,
            log: Arc::new(Mutex::new(Log {
                history: random_history(),
                events: partitions.iter().map(|_| Vec::new()).collect(),
                streams: HashMap::new(),
                keys: HashMap::new(),
                snapshots: HashMap::new(),
                states: HashMap::new(),
            })),
            clock: Clock::default(),
        }
    }

    /// The same, whose events are recorded when `clock` says.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The log. A panic elsewhere cannot have left it half changed: what can panic comes before the first change.
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for InMemoryEventStore {
    fn default() -> Self {
        Self::new(Partitions::DEFAULT)
    }
}

impl Log {
    /// The version of `stream`.
    fn version(&self, stream: &StreamId) -> Version {
        let events = self.streams.get(stream);
        events
            .and_then(|events| events.last())
            .map_or(Version::NONE, |last| last.version)
    }

    /// Where the next events of `partition` go.
    fn place(&self, partition: Partition, now: DateTime<Utc>) -> Place {
        let last = self.events.get(partition.index()).and_then(|p| p.last());
        Place {
            base: last.map_or(Position::START, |last| last.position).next(),
            recorded_at: last.map_or(now, |last| last.recorded_at.max(now)),
        }
    }

    /// The snapshot of `stream` with `fingerprint` that counts, and the position of its event.
    fn snapshot(&self, stream: &StreamId, fingerprint: &str) -> Option<(Snapshot, Position)> {
        let (history, snapshot) = self.snapshots.get(stream)?;
        let fits = *history == self.history && *snapshot.fingerprint == *fingerprint;
        let events = self.streams.get(stream).filter(|_| fits)?;
        let there = |event: &&RecordedEvent| {
            event.version == snapshot.version && event.id == snapshot.event_id
        };
        let event = events.iter().rev().find(there)?;
        Some((snapshot.clone(), event.position))
    }

    /// A part of the events of a stream.
    fn page(&self, read: &StreamRead, limit: usize) -> StreamPage {
        let events = self.streams.get(&read.stream);
        let events = events.map_or(&[][..], Vec::as_slice);
        let snapshot = match &read.from {
            ReadFrom::Snapshot(fingerprint) => self.snapshot(&read.stream, fingerprint),
            _ => None,
        };
        let after = |version| events.partition_point(|e| e.version <= version);
        let skipped = match read.from {
            ReadFrom::After(version) => after(version),
            ReadFrom::Snapshot(_) => snapshot.as_ref().map_or(0, |(one, _)| after(one.version)),
            ReadFrom::Last => events.len().saturating_sub(1),
        };
        StreamPage {
            events: events.iter().skip(skipped).take(limit).cloned().collect(),
            snapshot,
        }
    }

    /// What is recorded under the keys of `batch`.
    fn used(&self, batch: &[Append]) -> Keys {
        keys(batch)
            .filter_map(|key| Some((key.scoped, self.keys.get(&key.scoped)?.0.clone())))
            .collect()
    }

    /// Writes what a plan has.
    fn write(&mut self, plan: &Plan<'_>, places: &BTreeMap<Partition, Place>) {
        let now = Instant::now();
        let keys = plan.keys.iter();
        self.keys
            .extend(keys.map(|(key, row)| (*key, (row.clone(), now))));
        for row in &plan.rows {
            let (Some(place), Some(events)) = (
                places.get(&row.partition),
                self.events.get_mut(row.partition.index()),
            ) else {
                continue;
            };
            let recorded = recorded(row, *place);
            events.push(recorded.clone());
            self.streams
                .entry(row.stream.clone())
                .or_default()
                .push(recorded);
        }
    }
}

/// The event of `row`, once it is in the log.
fn recorded(row: &Row<'_>, place: Place) -> RecordedEvent {
    RecordedEvent {
        stream: row.stream.clone(),
        version: row.version,
        partition: row.partition,
        position: place.base.plus(row.offset),
        id: row.event.id,
        event_type: Arc::clone(&row.event.event_type),
        schema_version: row.event.schema_version,
        payload: row.event.payload.clone(),
        metadata: row.event.metadata.clone(),
        recorded_at: place.recorded_at,
    }
}

#[async_trait]
impl EventStore for InMemoryEventStore {
    async fn append(
        &self,
        _lane: usize,
        batch: Arc<[Append]>,
    ) -> Vec<Result<Vec<Appended>, AppendError>> {
        let mut log = self.log();
        let versions = streams(&batch)
            .into_iter()
            .map(|stream| (stream, log.version(stream)))
            .collect();
        let used = log.used(&batch);
        let plan = Plan::new(&batch, self.partitions, versions, &used, Taint::default());
        let now = self.clock.now();
        let places = plan
            .counts
            .keys()
            .map(|partition| (*partition, log.place(*partition, now)))
            .collect();
        log.write(&plan, &places);
        plan.settle(&places)
    }

    fn lanes(&self) -> usize {
        1
    }

    async fn read_streams(
        &self,
        reads: &[StreamRead],
        limit: usize,
    ) -> Result<Vec<StreamPage>, AppendError> {
        let log = self.log();
        Ok(reads.iter().map(|read| log.page(read, limit)).collect())
    }

    async fn keep_snapshots(&self, snapshots: &[Snapshot]) -> Result<(), AppendError> {
        let mut log = self.log();
        let history = log.history;
        for new in snapshots {
            let kept = log.snapshots.get(&new.stream);
            if kept.is_none_or(|(of, kept)| {
                *of != history || kept.fingerprint != new.fingerprint || kept.version < new.version
            }) {
                let stream = new.stream.clone();
                log.snapshots.insert(stream, (history, new.clone()));
            }
        }
        Ok(())
    }

    async fn renew_history(&self) -> Result<HistoryId, AppendError> {
        let history = random_history();
        self.log().history = history;
        Ok(history)
    }

    async fn forget_keys(&self, age: Duration, limit: usize) -> Result<usize, AppendError> {
        let mut log = self.log();
        let old = log.keys.iter();
        let old: Vec<ScopedKey> = old
            .filter(|(_, (_, recorded))| recorded.elapsed() > age)
            .map(|(key, _)| *key)
            .take(limit)
            .collect();
        for key in &old {
            log.keys.remove(key);
        }
        Ok(old.len())
    }
}

#[async_trait]
impl LogReader for InMemoryEventStore {
    async fn identity(&self) -> Result<LogIdentity, LogError> {
        Ok(LogIdentity {
            history: self.log().history,
            partitions: self.partitions,
        })
    }

    async fn heads(&self) -> Result<Vec<Position>, LogError> {
        let log = self.log();
        let head = |events: &Vec<RecordedEvent>| {
            events.last().map_or(Position::START, |last| last.position)
        };
        Ok(log.events.iter().map(head).collect())
    }

    async fn read(
        &self,
        partition: Partition,
        cursor: Cursor,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let log = self.log();
        let events = log
            .events
            .get(partition.index())
            .map_or(&[][..], Vec::as_slice);
        let first = events.partition_point(|e| e.position < first_position(cursor));
        let page: Vec<_> = events
            .iter()
            .skip(first)
            .take(rows_to_read(cursor, limit))
            .cloned()
            .collect();
        after_cursor(partition, cursor, page).map_err(Failure::log_error)
    }
}

#[async_trait]
impl StreamReader for InMemoryEventStore {
    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let log = self.log();
        let events = log.streams.get(stream).into_iter().flatten();
        let events = events.filter(|event| event.version > after);
        Ok(events.take(limit).cloned().collect())
    }
}

#[async_trait]
impl LogSearch for InMemoryEventStore {
    async fn search(
        &self,
        partition: Partition,
        range: RangeInclusive<Position>,
        wanted: &EventQuery,
        newest_first: bool,
        limit: usize,
    ) -> Result<Found, LogError> {
        let mut search = Search::new(&range, wanted, newest_first, limit, SEARCH_MAX_EVENTS);
        let (first, last) = search.part();
        let log = self.log();
        let events = log.events.get(partition.index());
        let events = events.map_or(&[][..], Vec::as_slice);
        let before = |bound: Position| events.partition_point(|event| event.position < bound);
        let part = events.get(before(first)..before(last.next()));
        let mut part = part.unwrap_or_default().iter();
        let next = || {
            if newest_first {
                part.next_back()
            } else {
                part.next()
            }
        };
        for event in std::iter::from_fn(next).filter(|event| wanted.fits(event)) {
            let bytes = event.payload.as_bytes().len() + event.metadata.as_bytes().len();
            let pushed = search.push(event.position, Ok((event.clone(), bytes)));
            pushed.map_err(Failure::log_error)?;
            if search.is_full() {
                break;
            }
        }
        Ok(search.done())
    }

    async fn streams(
        &self,
        prefix: &str,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, Version)>, LogError> {
        let log = self.log();
        let is_wanted = |stream: &&StreamId| {
            stream.as_str().starts_with(prefix)
                && after.is_none_or(|after| stream.as_str() > after.as_str())
        };
        let mut names: Vec<_> = log.streams.keys().filter(is_wanted).collect();
        names.sort_unstable_by_key(|stream| stream.as_str());
        let names = names.into_iter().take(limit);
        Ok(names
            .map(|stream| (stream.clone(), log.version(stream)))
            .collect())
    }
}

#[async_trait]
impl StateStore for InMemoryEventStore {
    async fn load_states(
        &self,
        subscription: &str,
    ) -> Result<Vec<(Partition, u64, StateRecord)>, StateError> {
        let log = self.log();
        let states = log.states.get(subscription).into_iter().flatten();
        let state = |(partition, (revision, record)): (&Partition, &(u64, StateRecord))| {
            (*partition, *revision, record.clone())
        };
        Ok(states.map(state).collect())
    }

    async fn compare_and_set_state(
        &self,
        subscription: &str,
        partition: Partition,
        expected: u64,
        record: &StateRecord,
    ) -> Result<bool, StateError> {
        let mut log = self.log();
        let states = log.states.entry(subscription.to_owned()).or_default();
        if states.get(&partition).map_or(0, |(revision, _)| *revision) != expected {
            return Ok(false);
        }
        states.insert(partition, (expected.saturating_add(1), record.clone()));
        Ok(true)
    }
}

#[cfg(all(test, feature = "conformance"))]
mod tests {
    use super::*;
    use crate::store::conformance::StoreFactory;

    /// A log in memory: each store that is opened on it is a clone.
    struct MemoryLog(InMemoryEventStore);

    impl MemoryLog {
        fn fresh() -> Self {
            let partitions = crate::store::conformance::PARTITIONS;
            Self(InMemoryEventStore::new(
                Partitions::new(partitions).unwrap(),
            ))
        }
    }

    #[async_trait]
    impl StoreFactory for MemoryLog {
        async fn open(
            &self,
            partitions: Partitions,
        ) -> Result<Arc<dyn EventStore>, Box<dyn std::error::Error + Send + Sync>> {
            assert_eq!(partitions, self.0.partitions);
            Ok(Arc::new(self.0.clone()))
        }
    }

    crate::event_store_conformance!(conformance, MemoryLog::fresh(), shared);
}
