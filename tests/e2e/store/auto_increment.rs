//! The negative control of the conformance suite: a store that orders by an AUTO_INCREMENT column, as many do, is found out.
//!
//! Such a store hands out positions at the INSERT, which become visible at the COMMIT. Whoever reads "all after the
//! last position that I have seen" between the two never sees an event. And the right store, put to the same: the
//! second append waits for the first.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::mysql::{MySqlConnection, MySqlPool, MySqlPoolOptions, MySqlRow};
use sqlx::{AssertSqlSafe, Connection, Executor, Row, query};
use tidelog_command::store::conformance::{
    StoreFactory, positions_are_dense_and_in_the_order_of_commits,
};
use tidelog_command::store::{AppendError, EventStore, Snapshot, StreamPage, StreamRead};
use tidelog_domain::{
    Append, Appended, Cursor, EventId, ExpectedVersion, HistoryId, Partition, Partitions, Payload,
    Position, RecordedEvent, StreamId, Version,
};
use tidelog_eventbus::{
    EventQuery, Found, LogError, LogIdentity, LogReader, LogSearch, StateError, StateRecord,
    StateStore, StreamReader,
};
use tidelog_test_support::{fresh_mysql_database, shared};
use tokio::sync::watch;

use super::kit::{Holder, append_one, connect, fresh, partition_of, stream, until_waiting, write};

/// A log whose positions come from an AUTO_INCREMENT column: a table for each partition, so that they are dense and order is
/// all that can be wrong.
struct AutoIncrementStore {
    pool: MySqlPool,
    partitions: Partitions,
    history: HistoryId,
    /// Whether an append was held already: the first one is.
    held: AtomicBool,
    /// Where the append is that waits between its INSERT and its COMMIT until a reader has gone past it.
    waiting: watch::Sender<Option<(Partition, Position)>>,
}

impl AutoIncrementStore {
    async fn open(url: &str, partitions: Partitions) -> Self {
        let pool = MySqlPoolOptions::new().max_connections(32).connect(url);
        let pool = pool.await.unwrap();
        for partition in partitions.iter() {
            let sql = format!(
                "CREATE TABLE events_{partition} (position BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, stream VARBINARY(200) \
                 NOT NULL, version BIGINT UNSIGNED NOT NULL, event_id BINARY(16) NOT NULL, UNIQUE (stream, version))"
            );
            pool.execute(AssertSqlSafe(sql)).await.unwrap();
        }
        Self {
            pool,
            partitions,
            history: HistoryId::new(uuid::Uuid::now_v7()),
            held: AtomicBool::new(false),
            waiting: watch::Sender::new(None),
        }
    }

    /// Appends as such stores do: insert, let the database number the rows, commit.
    async fn append_by_insert(&self, append: &Append) -> Result<Vec<Appended>, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let mut appended = Vec::new();
        for write in &append.writes {
            let partition = write.stream.partition(self.partitions);
            let last: Option<u64> = query(AssertSqlSafe(format!(
                "SELECT MAX(version) FROM events_{partition} WHERE stream=?"
            )))
            .bind(write.stream.as_str().as_bytes())
            .fetch_one(&mut *transaction)
            .await?
            .try_get(0)?;
            let mut version = last.unwrap_or(0);
            let mut position = 0;
            for event in &write.events {
                version += 1;
                let inserted = query(AssertSqlSafe(format!(
                    "INSERT INTO events_{partition} (stream,version,event_id) VALUES (?,?,?)"
                )))
                .bind(write.stream.as_str().as_bytes())
                .bind(version)
                .bind(&event.id.uuid().as_bytes()[..])
                .execute(&mut *transaction)
                .await?;
                position = inserted.last_insert_id();
            }
            self.hold_the_first(partition, Position::new(position))
                .await;
            appended.push(Appended {
                stream: write.stream.clone(),
                partition,
                version: Version::new(version),
                position: Some(Position::new(position)),
                recorded_at: None,
            });
        }
        transaction.commit().await?;
        Ok(appended)
    }

    /// What a busy server does now and then, here for certain: between the INSERT and the COMMIT of the first append others
    /// commit, and a reader reads past it.
    async fn hold_the_first(&self, partition: Partition, position: Position) {
        if !self.held.swap(true, Ordering::SeqCst) {
            let mut passed = self.waiting.subscribe();
            self.waiting.send_replace(Some((partition, position)));
            passed.wait_for(Option::is_none).await.unwrap();
        }
    }

    fn event(partition: Partition, row: &MySqlRow) -> Result<RecordedEvent, sqlx::Error> {
        let stream: Vec<u8> = row.try_get(1)?;
        let id: Vec<u8> = row.try_get(3)?;
        Ok(RecordedEvent {
            stream: StreamId::parse(std::str::from_utf8(&stream).unwrap()).unwrap(),
            version: Version::new(row.try_get(2)?),
            partition,
            position: Position::new(row.try_get(0)?),
            id: EventId::new(uuid::Uuid::from_slice(&id).unwrap()),
            event_type: "thing.happened".into(),
            schema_version: 1,
            payload: Payload::from_stored(b"{}"),
            metadata: Payload::from_stored(b"{}"),
            recorded_at: Default::default(),
        })
    }
}

#[async_trait]
impl EventStore for AutoIncrementStore {
    async fn append(
        &self,
        _lane: usize,
        batch: Arc<[Append]>,
    ) -> Vec<Result<Vec<Appended>, AppendError>> {
        let mut verdicts = Vec::new();
        for append in batch.iter() {
            let done = self.append_by_insert(append).await;
            verdicts.push(done.map_err(|error| AppendError::Unavailable(Box::new(error))));
        }
        verdicts
    }

    fn lanes(&self) -> usize {
        1
    }

    async fn read_streams(
        &self,
        _reads: &[StreamRead],
        _limit: usize,
    ) -> Result<Vec<StreamPage>, AppendError> {
        unimplemented!("the case of the order reads by position")
    }

    async fn keep_snapshots(&self, _snapshots: &[Snapshot]) -> Result<(), AppendError> {
        unimplemented!("the case of the order has no states")
    }

    async fn renew_history(&self) -> Result<HistoryId, AppendError> {
        Ok(self.history)
    }

    async fn forget_keys(&self, _age: Duration, _limit: usize) -> Result<usize, AppendError> {
        unimplemented!("the case of the order brings no keys")
    }
}

#[async_trait]
impl StateStore for AutoIncrementStore {
    async fn load_states(
        &self,
        _subscription: &str,
    ) -> Result<Vec<(Partition, u64, StateRecord)>, StateError> {
        unimplemented!("the case of the order has no subscription")
    }

    async fn compare_and_set_state(
        &self,
        _subscription: &str,
        _partition: Partition,
        _expected: u64,
        _record: &StateRecord,
    ) -> Result<bool, StateError> {
        unimplemented!("the case of the order has no subscription")
    }
}

#[async_trait]
impl LogSearch for AutoIncrementStore {
    async fn search(
        &self,
        _: Partition,
        _: RangeInclusive<Position>,
        _: &EventQuery,
        _: bool,
        _: usize,
    ) -> Result<Found, LogError> {
        unimplemented!("the case of the order reads by position")
    }

    async fn streams(
        &self,
        _: &str,
        _: Option<&StreamId>,
        _: usize,
    ) -> Result<Vec<(StreamId, Version)>, LogError> {
        unimplemented!("the case of the order reads by position")
    }
}

#[async_trait]
impl StreamReader for AutoIncrementStore {
    async fn read_stream(
        &self,
        _: &StreamId,
        _: Version,
        _: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        unimplemented!("the case of the order reads by position")
    }
}

#[async_trait]
impl LogReader for AutoIncrementStore {
    async fn identity(&self) -> Result<LogIdentity, LogError> {
        Ok(LogIdentity {
            history: self.history,
            partitions: self.partitions,
        })
    }

    async fn heads(&self) -> Result<Vec<Position>, LogError> {
        unimplemented!("the case of the order reads by position")
    }

    async fn read(
        &self,
        partition: Partition,
        cursor: Cursor,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let sql = format!(
            "SELECT position,stream,version,event_id FROM events_{partition} WHERE position>? ORDER BY position LIMIT ?"
        );
        let rows = query(AssertSqlSafe(sql))
            .bind(cursor.position.number())
            .bind(u64::try_from(limit).unwrap())
            .fetch_all(&self.pool)
            .await
            .map_err(|error| LogError::Unavailable(Box::new(error)))?;
        let events: Result<Vec<_>, _> =
            rows.iter().map(|row| Self::event(partition, row)).collect();
        let events = events.unwrap();
        self.waiting.send_if_modified(|waiting| {
            let passed = waiting.is_some_and(|(held, position)| {
                let last = events.last().map(|event| event.position);
                held == partition && last.is_some_and(|last| last > position)
            });
            if passed {
                *waiting = None;
            }
            passed
        });
        Ok(events)
    }
}

/// A log of that kind in a database of its own.
struct AutoIncrementLog(String);

#[async_trait]
impl StoreFactory for AutoIncrementLog {
    async fn open(
        &self,
        partitions: Partitions,
    ) -> Result<Arc<dyn EventStore>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Arc::new(
            AutoIncrementStore::open(&self.0, partitions).await,
        ))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_that_orders_by_auto_increment_fails_the_case_of_the_order() {
    let log = AutoIncrementLog(fresh_mysql_database(shared::mysql().await).await);
    let case = tokio::spawn(async move {
        positions_are_dense_and_in_the_order_of_commits(&log).await;
    });
    let panic = case
        .await
        .expect_err("the suite lets a store pass that loses events")
        .into_panic();
    let why = panic.downcast_ref::<String>().unwrap();
    assert!(
        why.contains("it went past an event that becomes visible later, and will never see it"),
        "it failed for another reason: {why}"
    );
}

#[tokio::test]
async fn a_reader_of_auto_increment_never_sees_what_is_committed_after_it_went_past() {
    let url = fresh_mysql_database(shared::mysql().await).await;
    let partitions = Partitions::new(1).unwrap();
    let store = Arc::new(AutoIncrementStore::open(&url, partitions).await);
    let partition = Partition::new(0);
    let (a, b) = (stream("a"), stream("b"));

    let first = Arc::clone(&store);
    let first_append = write(&a, ExpectedVersion::NoStream, 1);
    let first = tokio::spawn(async move { append_one(&*first, first_append).await });
    let mut waiting = store.waiting.subscribe();
    waiting.wait_for(Option::is_some).await.unwrap();
    append_one(&*store, write(&b, ExpectedVersion::NoStream, 1))
        .await
        .unwrap();
    let seen = store.read(partition, Cursor::START, 10).await.unwrap();
    first.await.unwrap().unwrap();

    assert_eq!(seen.len(), 1);
    assert_eq!((&seen[0].stream, seen[0].position.number()), (&b, 2));
    let rest = store.read(partition, seen[0].cursor(), 10).await.unwrap();
    assert!(rest.is_empty(), "the event of a is lost to this reader");
    let all = store.read(partition, Cursor::START, 10).await.unwrap();
    assert_eq!(all[0].stream, a, "and yet it is in the log");
}

#[tokio::test]
async fn an_append_waits_for_the_one_that_has_the_head_so_no_reader_goes_past() {
    let url = fresh(shared::mysql().await).await;
    let store = Arc::new(connect(&url).await);
    let a = stream("a");
    let partition = partition_of(&a);

    let holder = Holder::of(&url, &[partition]).await;
    let second = Arc::clone(&store);
    let second_append = write(&a, ExpectedVersion::NoStream, 1);
    let second = tokio::spawn(async move { append_one(&*second, second_append).await });
    until_waiting(&url).await;
    let seen = store.read(partition, Cursor::START, 10).await.unwrap();
    assert!(seen.is_empty());

    let mut first: MySqlConnection = holder.into_connection();
    for sql in [
        format!(
            "INSERT INTO events SELECT partition_no,next_position,'thing/first',1,x'{:032x}','t',1,'','',UTC_TIMESTAMP(6) \
             FROM log_head WHERE partition_no={partition}",
            1
        ),
        format!("UPDATE log_head SET next_position=next_position+1 WHERE partition_no={partition}"),
        "COMMIT".to_owned(),
    ] {
        first.execute(AssertSqlSafe(sql)).await.unwrap();
    }
    first.close().await.unwrap();

    let appended = second.await.unwrap().unwrap();
    assert_eq!(appended[0].position, Some(Position::new(2)));
    let seen = store.read(partition, Cursor::START, 10).await.unwrap();
    let streams: Vec<_> = seen.iter().map(|event| event.stream.as_str()).collect();
    assert_eq!(streams, ["thing/first", "thing/a"]);
}
