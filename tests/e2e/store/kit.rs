//! What the tests of the store share: a log in a database of its own, appends, and the look at what the log and the server
//! make of them.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use tidelog_command::store::conformance::{PARTITIONS, SpoilableLog, StoreFactory};
use tidelog_command::store::{AppendError, EventStore, MySqlEventStore, MySqlOptions};
use tidelog_domain::{
    Append, Appended, Cursor, EventId, ExpectedVersion, NewEvent, Partition, Partitions, Payload,
    Position, RecordedEvent, StreamId, Version,
};
use tidelog_test_support::Server;
use tidelog_test_support::grants::administrator;

use crate::log::fresh_log;
use crate::waiting::eventually;

/// What becomes of an append.
pub(crate) type Verdict = Result<Vec<Appended>, AppendError>;

/// A log in a database of its own.
pub(crate) struct DatabaseLog {
    url: String,
}

impl DatabaseLog {
    /// A database with a log that has no events yet.
    pub(crate) async fn fresh(server: &Server) -> Self {
        Self {
            url: fresh(server).await,
        }
    }
}

#[async_trait]
impl StoreFactory for DatabaseLog {
    async fn open(
        &self,
        partitions: Partitions,
    ) -> Result<Arc<dyn EventStore>, Box<dyn std::error::Error + Send + Sync>> {
        let mut options = MySqlOptions::from_url(&self.url)?;
        options.partitions = partitions;
        Ok(Arc::new(MySqlEventStore::connect(options).await?))
    }
}

#[async_trait]
impl SpoilableLog for DatabaseLog {
    async fn spoil(&self, partition: Partition, position: Position) {
        let sql = format!(
            "UPDATE events SET stream='garbage' WHERE partition_no={partition} AND position={position}"
        );
        run(&self.url, &sql).await;
    }
}

/// The URL of a log in a database of its own, by a user with the rights of a service; and with the one that who renews the history
/// needs, which the suite and some tests here do by the stores that they have.
pub(crate) async fn fresh(server: &Server) -> String {
    let users = fresh_log(server, partitions()).await;
    let user = users.service.split(['/', '@']).nth(2).unwrap();
    let grant = format!("GRANT UPDATE (history) ON log_meta TO '{user}'@'%'");
    run(&users.administrator, &grant).await;
    users.service
}

/// The partitions of all logs here.
pub(crate) fn partitions() -> Partitions {
    Partitions::new(PARTITIONS).unwrap()
}

/// How the log in the database `url` is opened.
pub(crate) fn options(url: &str) -> MySqlOptions {
    let mut options = MySqlOptions::from_url(url).unwrap();
    options.partitions = partitions();
    options
}

/// A store on the log in the database `url`.
pub(crate) async fn connect(url: &str) -> MySqlEventStore {
    MySqlEventStore::connect(options(url)).await.unwrap()
}

/// The stream `thing/{id}`.
pub(crate) fn stream(id: &str) -> StreamId {
    StreamId::new("thing", id).unwrap()
}

/// The first stream of the partition `partition`.
pub(crate) fn stream_of(partition: u16) -> StreamId {
    (0..)
        .map(|n: u32| stream(&n.to_string()))
        .find(|stream| partition_of(stream) == Partition::new(partition))
        .unwrap()
}

/// Where `stream` is.
pub(crate) fn partition_of(stream: &StreamId) -> Partition {
    stream.partition(partitions())
}

/// Expects the version `version`.
pub(crate) const fn exact(version: u64) -> ExpectedVersion {
    ExpectedVersion::Exact(Version::new(version))
}

/// An append of `count` new events.
pub(crate) fn write(stream: &StreamId, expected: ExpectedVersion, count: usize) -> Append {
    let event = || NewEvent {
        id: EventId::new(uuid::Uuid::now_v7()),
        event_type: "thing.happened".into(),
        schema_version: 1,
        payload: Payload::from_stored(b"{}"),
        metadata: Payload::from_stored(b"{}"),
    };
    let events = (0..count).map(|_| event()).collect();
    Append::one(stream.clone(), expected, events)
}

/// The ids of the events of `append`.
pub(crate) fn ids(append: &Append) -> Vec<EventId> {
    let events = append.writes.iter().flat_map(|write| &write.events);
    events.map(|event| event.id).collect()
}

/// Appends one append by lane 0.
pub(crate) async fn append_one(store: &dyn EventStore, append: Append) -> Verdict {
    store.append(0, vec![append].into()).await.remove(0)
}

/// Appends one append by a task of its own.
pub(crate) fn spawn_append(
    store: &MySqlEventStore,
    append: Append,
) -> tokio::task::JoinHandle<Verdict> {
    let store = store.clone();
    tokio::spawn(async move { append_one(&store, append).await })
}

/// Appends `count` events to `stream`, whatever its version.
pub(crate) async fn grow(store: &dyn EventStore, stream: &StreamId, count: usize) {
    append_one(store, write(stream, ExpectedVersion::Any, count))
        .await
        .unwrap();
}

/// All events of the log, partition by partition, after a look at what must always hold of them: positions and versions
/// are dense, and time does not run backwards.
pub(crate) async fn whole_log(store: &dyn EventStore) -> Vec<RecordedEvent> {
    let mut log = Vec::new();
    let mut versions: HashMap<StreamId, u64> = HashMap::new();
    for partition in partitions().iter() {
        let events = store.read(partition, Cursor::START, 1_000_000).await;
        let events = events.unwrap();
        assert!(events.is_sorted_by_key(|event| event.recorded_at));
        for (position, event) in (1..).zip(&events) {
            assert_eq!(event.position.number(), position, "positions are dense");
            let version = versions.entry(event.stream.clone()).or_default();
            *version += 1;
            assert_eq!(event.version.number(), *version, "versions are dense");
        }
        log.extend(events);
    }
    log
}

/// How often each event is in the log.
pub(crate) async fn counts(store: &dyn EventStore) -> HashMap<EventId, usize> {
    let mut counts = HashMap::new();
    for event in whole_log(store).await {
        *counts.entry(event.id).or_default() += 1;
    }
    counts
}

/// The ids of the events of `stream` in the log.
pub(crate) async fn ids_of(store: &dyn EventStore, stream: &StreamId) -> Vec<EventId> {
    let events = whole_log(store).await.into_iter();
    let events = events.filter(|event| &event.stream == stream);
    events.map(|event| event.id).collect()
}

/// Runs `sql` on the database `url` as its administrator, past any store.
pub(crate) async fn run(url: &str, sql: &str) -> Vec<MySqlRow> {
    let mut connection = MySqlConnection::connect(&administrator(url)).await.unwrap();
    let rows = connection.fetch_all(AssertSqlSafe(sql.to_owned())).await;
    connection.close().await.unwrap();
    rows.unwrap()
}

/// One who has locked heads, as another appender does, and keeps them until it is dropped or told otherwise.
pub(crate) struct Holder(MySqlConnection);

impl Holder {
    /// Locks the heads of `partitions`.
    pub(crate) async fn of(url: &str, partitions: &[Partition]) -> Self {
        let mut connection = MySqlConnection::connect(&administrator(url)).await.unwrap();
        connection.execute("START TRANSACTION").await.unwrap();
        let mut holder = Self(connection);
        for partition in partitions {
            holder.lock(*partition).await.unwrap();
        }
        holder
    }

    /// Locks the head of `partition` too.
    pub(crate) async fn lock(&mut self, partition: Partition) -> Result<(), sqlx::Error> {
        let sql = format!(
            "SELECT next_position FROM log_head FORCE INDEX (PRIMARY) WHERE partition_no={partition} FOR UPDATE"
        );
        self.0.fetch_one(AssertSqlSafe(sql)).await.map(drop)
    }

    /// Lets the heads go, unchanged.
    pub(crate) async fn release(mut self) {
        self.0.execute("ROLLBACK").await.unwrap();
        self.0.close().await.unwrap();
    }

    /// The connection, with its transaction open.
    pub(crate) fn connection(&mut self) -> &mut MySqlConnection {
        &mut self.0
    }

    /// The connection, with its transaction open, to keep.
    pub(crate) fn into_connection(self) -> MySqlConnection {
        self.0
    }
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let holds = async || match condition().await {
        true => Ok(()),
        false => Err("it does not hold".to_owned()),
    };
    eventually(what, holds).await;
}

/// The connections to the database of `url`, but for the one that asks, and what each is doing.
///
/// Not from the table `processlist`: it fails while a statement runs that has bytes in it which are no text.
pub(crate) async fn connections(url: &str) -> Vec<(u64, String)> {
    let database = url.rsplit_once('/').unwrap().1;
    let ask = "SHOW PROCESSLIST";
    let text = |row: &MySqlRow, name| {
        let bytes: Option<Vec<u8>> = row.get_unchecked(name);
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    };
    let rows = run(url, ask).await;
    rows.iter()
        .filter(|row| text(row, "db") == database && text(row, "Info") != ask)
        .map(|row| (row.get_unchecked("Id"), text(row, "State")))
        .collect()
}

/// The connections to the database of `url` that wait for a lock of a row, and for how many seconds their transactions
/// have run.
///
/// From the report that is made when it is asked for: the table `innodb_trx` shows what it showed before to whoever asks
/// more often than every 100 ms.
pub(crate) async fn waiting(url: &str) -> Vec<(u64, u64)> {
    let ours = connections(url).await;
    let report: String = run(url, "SHOW ENGINE INNODB STATUS").await[0].get(2);
    report
        .split("---TRANSACTION")
        .filter(|transaction| transaction.contains("LOCK WAIT"))
        .map(|transaction| {
            let connection = number_after(transaction, "thread id ").unwrap();
            (
                connection,
                number_after(transaction, "ACTIVE ").unwrap_or(0),
            )
        })
        .filter(|(connection, _)| ours.iter().any(|(id, _)| id == connection))
        .collect()
}

/// Waits until no connection to the database of `url` is inside of a transaction.
///
/// Told by the same report, and for the same reason.
pub(crate) async fn until_no_transaction_is_open(url: &str) {
    eventually("every transaction to have ended", async || {
        let ours = connections(url).await;
        let report: String = run(url, "SHOW ENGINE INNODB STATUS").await[0].get(2);
        let open: Vec<u64> = report
            .split("---TRANSACTION")
            .filter(|transaction| {
                transaction
                    .lines()
                    .next()
                    .is_some_and(|line| line.contains(", ACTIVE"))
            })
            .filter_map(|transaction| number_after(transaction, "thread id "))
            .filter(|connection| ours.iter().any(|(id, _)| id == connection))
            .collect();
        match open.as_slice() {
            [] => Ok(()),
            open => Err(format!("the connections {open:?} are inside of one")),
        }
    })
    .await;
}

/// The number that follows `label` in `text`.
fn number_after(text: &str, label: &str) -> Option<u64> {
    let (_, rest) = text.split_once(label)?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..digits].parse().ok()
}

/// Waits until an appender waits for a head.
pub(crate) async fn until_waiting(url: &str) {
    until("an appender waits for a head", async || {
        !waiting(url).await.is_empty()
    })
    .await;
}
