//! What the cases share: events, appends, and the look at a whole log.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidelog_domain::{
    Append, Appended, Cursor, EventId, ExpectedVersion, NewEvent, Partition, Partitions, Payload,
    Position, RecordedEvent, StreamId, StreamWrite, Version,
};

use super::{PARTITIONS, StoreFactory};
use crate::store::{AppendError, EventStore, ReadFrom, StreamRead};

/// What becomes of an append.
pub(super) type Verdict = Result<Vec<Appended>, AppendError>;

/// The partitions of the suite's logs.
pub(super) fn partitions() -> Partitions {
    Partitions::new(PARTITIONS).unwrap()
}

/// A store on a fresh log.
pub(super) async fn open(factory: &dyn StoreFactory) -> Arc<dyn EventStore> {
    factory.open(partitions()).await.unwrap()
}

/// The stream `thing/{id}`.
pub(super) fn stream(id: &str) -> StreamId {
    StreamId::new("thing", id).unwrap()
}

/// The first `count` streams of a partition.
pub(super) fn streams_of(partition: u16, count: usize) -> Vec<StreamId> {
    (0..)
        .map(|n: u32| stream(&n.to_string()))
        .filter(|stream| stream.partition(partitions()) == Partition::new(partition))
        .take(count)
        .collect()
}

/// A new event with a payload of these bytes.
pub(super) fn event_of(payload: &[u8]) -> NewEvent {
    NewEvent {
        id: EventId::new(uuid::Uuid::now_v7()),
        event_type: "thing.happened".into(),
        schema_version: 1,
        payload: Payload::from_stored(payload),
        metadata: Payload::from_stored(br#"{"correlation_id":"c"}"#),
    }
}

/// A new event, different from all others.
pub(super) fn event() -> NewEvent {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    event_of(format!("{{\"n\":{n}}}").as_bytes())
}

/// An append of `count` new events.
pub(super) fn write(stream: &StreamId, expected: ExpectedVersion, count: usize) -> Append {
    Append::one(
        stream.clone(),
        expected,
        (0..count).map(|_| event()).collect(),
    )
}

/// A write of `count` new events, as a part of an append.
pub(super) fn part(stream: &StreamId, expected: ExpectedVersion, count: usize) -> StreamWrite {
    StreamWrite {
        stream: stream.clone(),
        expected,
        events: (0..count).map(|_| event()).collect(),
    }
}

/// Expects the version `version`.
pub(super) const fn exact(version: u64) -> ExpectedVersion {
    ExpectedVersion::Exact(Version::new(version))
}

/// Appends a batch by lane 0.
pub(super) async fn append(store: &dyn EventStore, batch: Vec<Append>) -> Vec<Verdict> {
    let count = batch.len();
    let verdicts = store.append(0, batch.into()).await;
    assert_eq!(
        verdicts.len(),
        count,
        "a batch has one result for each append"
    );
    verdicts
}

/// Appends one append by lane 0.
pub(super) async fn append_one(store: &dyn EventStore, one: Append) -> Verdict {
    append(store, vec![one]).await.remove(0)
}

/// Appends `count` events to `stream`, whatever its version, and returns the version after them.
pub(super) async fn grow(store: &dyn EventStore, stream: &StreamId, count: usize) -> Version {
    let appended = append_one(store, write(stream, ExpectedVersion::Any, count)).await;
    appended.unwrap()[0].version
}

/// The events of `stream`, from the start.
pub(super) async fn events_of(store: &dyn EventStore, stream: &StreamId) -> Vec<RecordedEvent> {
    let read = StreamRead {
        stream: stream.clone(),
        from: ReadFrom::After(Version::NONE),
    };
    let mut pages = store.read_streams(&[read], 10_000).await.unwrap();
    pages.remove(0).events
}

/// Asserts that `verdict` is a conflict over `stream`, which is at `actual`.
pub(super) fn assert_conflict(verdict: &Verdict, stream: &StreamId, actual: u64) {
    match verdict {
        Err(AppendError::Conflict {
            stream: named,
            actual: found,
        }) => assert_eq!((named, found.number()), (stream, actual)),
        other => panic!("expected a conflict over {stream} at {actual}, got {other:?}"),
    }
}

/// Reads a partition to its end, by pages of `limit`.
pub(super) async fn read_all(
    store: &dyn EventStore,
    partition: Partition,
    limit: usize,
) -> Vec<RecordedEvent> {
    let mut events: Vec<RecordedEvent> = Vec::new();
    loop {
        let cursor = events.last().map_or(Cursor::START, RecordedEvent::cursor);
        let page = store.read(partition, cursor, limit).await.unwrap();
        assert!(
            page.len() <= limit,
            "a page has no more than it was asked for"
        );
        if page.is_empty() {
            return events;
        }
        events.extend(page);
    }
}

/// The whole log, by partition, after a look at all that must always hold of it.
pub(super) async fn whole_log(store: &dyn EventStore) -> Vec<Vec<RecordedEvent>> {
    let mut log = Vec::new();
    let mut versions: HashMap<StreamId, u64> = HashMap::new();
    for partition in partitions().iter() {
        let events = read_all(store, partition, 100).await;
        for (position, event) in (1..).zip(&events) {
            assert_eq!(
                event.position,
                Position::new(position),
                "positions are dense"
            );
            assert_eq!(event.partition, partition);
            assert_eq!(event.stream.partition(partitions()), partition);
            let version = versions.entry(event.stream.clone()).or_default();
            *version += 1;
            assert_eq!(
                event.version,
                Version::new(*version),
                "versions are dense, {}",
                event.stream
            );
        }
        for pair in events.windows(2) {
            assert!(
                pair[0].recorded_at <= pair[1].recorded_at,
                "time runs backwards"
            );
        }
        log.push(events);
    }
    log
}
