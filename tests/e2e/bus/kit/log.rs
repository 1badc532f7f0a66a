//! A log in memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tidelog_command::store::{EventStore, InMemoryEventStore};
use tidelog_domain::{
    Append, Cursor, EventId, ExpectedVersion, HistoryId, NewEvent, Partition, Payload, Position,
    RecordedEvent, StreamId,
};
use tidelog_eventbus::{CommitSignal, LogError, LogIdentity, LogReader};
use uuid::Uuid;

use super::partitions;

/// A log in memory that can be restored from a backup, and the signal of its commits.
#[derive(Clone)]
pub(crate) struct Log {
    disk: Arc<Disk>,
    pub(crate) signal: CommitSignal,
}

/// What a log in memory is kept on. A restore puts another log in its place, with the same history.
struct Disk {
    history: Mutex<HistoryId>,
    store: Mutex<InMemoryEventStore>,
    is_down: AtomicBool,
}

impl Disk {
    fn store(&self) -> InMemoryEventStore {
        self.store.lock().unwrap().clone()
    }

    fn is_up(&self) -> Result<(), LogError> {
        match self.is_down.load(Ordering::SeqCst) {
            true => Err(LogError::Unavailable("the test has switched it off".into())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl LogReader for Disk {
    async fn identity(&self) -> Result<LogIdentity, LogError> {
        self.is_up()?;
        Ok(LogIdentity {
            history: *self.history.lock().unwrap(),
            partitions: partitions(),
        })
    }

    async fn heads(&self) -> Result<Vec<Position>, LogError> {
        self.is_up()?;
        self.store().heads().await
    }

    async fn read(
        &self,
        partition: Partition,
        cursor: Cursor,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        self.is_up()?;
        self.store().read(partition, cursor, limit).await
    }
}

impl Log {
    pub(crate) fn new() -> Self {
        Self {
            disk: Arc::new(Disk {
                history: Mutex::new(HistoryId::new(Uuid::now_v7())),
                store: Mutex::new(InMemoryEventStore::new(partitions())),
                is_down: AtomicBool::new(false),
            }),
            signal: CommitSignal::new(partitions()),
        }
    }

    pub(crate) fn reader(&self) -> Arc<dyn LogReader> {
        Arc::clone(&self.disk) as Arc<dyn LogReader>
    }

    /// Puts another log in the place of this one, as a restore of a backup does: positions are issued again.
    pub(crate) fn restore(&self, backup: &Log) {
        *self.disk.store.lock().unwrap() = backup.disk.store();
    }

    /// Makes the log unavailable to those who read it, or available again. (Appends go on.)
    pub(crate) fn be_down(&self, is_down: bool) {
        self.disk.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Gives the log a new history, as the operator does after a restore.
    pub(crate) fn renew_history(&self) -> HistoryId {
        let new = HistoryId::new(Uuid::now_v7());
        *self.disk.history.lock().unwrap() = new;
        new
    }

    /// Appends `count` events, spread over streams in all partitions, and tells the signal.
    pub(crate) async fn append(&self, count: usize) {
        let batch: Vec<_> = (0..count)
            .map(|number| append_to(&format!("sample/s{}", number % 64)))
            .collect();
        let appended = self.disk.store().append(0, batch.into()).await;
        let heads: Vec<_> = appended
            .into_iter()
            .flat_map(Result::unwrap)
            .map(|appended| (appended.partition, appended.position.unwrap()))
            .collect();
        self.signal.committed(heads);
    }

    /// Appends `count` events one by one to one stream, and says which partition has it.
    pub(crate) async fn append_to(&self, stream: &str, count: usize) -> Partition {
        for _ in 0..count {
            let batch = vec![append_to(stream)].into();
            let appended = self.disk.store().append(0, batch).await;
            let appended = appended.into_iter().next().unwrap().unwrap();
            let heads = appended
                .iter()
                .map(|one| (one.partition, one.position.unwrap()));
            self.signal.committed(heads.collect::<Vec<_>>());
        }
        StreamId::parse(stream).unwrap().partition(partitions())
    }

    /// Appends one event with so many bytes to `stream`.
    pub(crate) async fn append_large(&self, stream: &str, bytes: usize) {
        let mut append = append_to(stream);
        let payload = format!("\"{}\"", "x".repeat(bytes - 2));
        append.writes[0].events[0].payload = Payload::from_stored(payload.as_bytes());
        let appended = self.disk.store().append(0, vec![append].into()).await;
        let appended = appended.into_iter().next().unwrap().unwrap();
        let heads = appended
            .iter()
            .map(|one| (one.partition, one.position.unwrap()));
        self.signal.committed(heads.collect::<Vec<_>>());
    }

    pub(crate) async fn heads(&self) -> Vec<Position> {
        self.disk.store().heads().await.unwrap()
    }

    pub(crate) fn history(&self) -> HistoryId {
        *self.disk.history.lock().unwrap()
    }

    /// All events of a partition.
    pub(crate) async fn events(&self, partition: Partition) -> Vec<RecordedEvent> {
        let store = self.disk.store();
        let all = store.read(partition, Cursor::START, usize::MAX - 1);
        all.await.unwrap()
    }
}

fn append_to(stream: &str) -> Append {
    let event = NewEvent {
        id: EventId::new(Uuid::now_v7()),
        event_type: "sample.made".into(),
        schema_version: 1,
        payload: Payload::from_stored(br#"{"a":1,"text":"some words that an event may have"}"#),
        metadata: Payload::from_stored(br#"{"correlation_id":"c"}"#),
    };
    let stream = StreamId::parse(stream).unwrap();
    Append::one(stream, ExpectedVersion::Any, vec![event])
}

/// The name of a stream in `partition`.
pub(crate) fn stream_in(partition: Partition) -> String {
    streams_in(partition).next().unwrap()
}

/// Names of streams in `partition`.
pub(crate) fn streams_in(partition: Partition) -> impl Iterator<Item = String> {
    (0..)
        .map(|number| format!("sample/s{number}"))
        .filter(move |name| StreamId::parse(name).unwrap().partition(partitions()) == partition)
}
