use std::error::Error;

use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;
use tidelog_domain::{ExpectedVersion, StreamId};

use super::*;
use crate::store::conformance::{PARTITIONS, SpoilableLog, StoreFactory};

/// A log in a directory of its own.
struct FileLog(TempDir);

impl FileLog {
    fn fresh() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn options(&self) -> SqliteOptions {
        let mut options = SqliteOptions::new(self.0.path().join("log.db"));
        options.partitions = Partitions::new(PARTITIONS).unwrap();
        options
    }

    /// Runs `sql` on the file, past the store.
    async fn run(&self, sql: impl Into<String>) {
        let connection = sqlx::sqlite::SqliteConnectOptions::new().filename(self.options().path);
        let mut connection = connection.connect().await.unwrap();
        let sql = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.into()));
        sql.execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

#[async_trait]
impl StoreFactory for FileLog {
    async fn open(
        &self,
        partitions: Partitions,
    ) -> Result<Arc<dyn EventStore>, Box<dyn Error + Send + Sync>> {
        let mut options = self.options();
        options.partitions = partitions;
        Ok(Arc::new(SqliteEventStore::open(options).await?))
    }
}

#[async_trait]
impl SpoilableLog for FileLog {
    async fn spoil(&self, partition: Partition, position: Position) {
        self.run(format!(
            "UPDATE events SET stream = 'garbage' WHERE partition_no = {partition} AND position = {position}"
        ))
        .await;
    }
}

crate::event_store_conformance!(conformance, FileLog::fresh(), durable, spoilable);

#[tokio::test]
async fn a_file_in_use_is_refused_by_the_name_of_its_lock() {
    let log = FileLog::fresh();
    let first = SqliteEventStore::open(log.options()).await.unwrap();
    let refused = SqliteEventStore::open(log.options()).await.unwrap_err();
    let text = refused.to_string();
    assert!(matches!(refused, OpenError::InUse { .. }), "{text}");
    assert!(
        text.contains("log.db.lock") && text.contains("stop it"),
        "{text}"
    );
    drop(first);
    SqliteEventStore::open(log.options()).await.unwrap();
}

#[tokio::test]
async fn a_log_of_a_newer_program_is_refused() {
    let log = FileLog::fresh();
    drop(SqliteEventStore::open(log.options()).await.unwrap());
    log.run("UPDATE log_migrations SET version = 999 WHERE version = 1")
        .await;
    let refused = SqliteEventStore::open(log.options()).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::Newer { version: 999 }),
        "{refused}"
    );
}

#[tokio::test]
async fn a_log_with_another_hash_is_refused() {
    let log = FileLog::fresh();
    drop(SqliteEventStore::open(log.options()).await.unwrap());
    log.run("UPDATE log_meta SET hash = 'crc32'").await;
    let refused = SqliteEventStore::open(log.options()).await.unwrap_err();
    assert!(refused.to_string().contains("\"crc32\""), "{refused}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let log = FileLog::fresh();
    std::fs::write(log.options().path, "no database at all ".repeat(500)).unwrap();
    let refused = SqliteEventStore::open(log.options()).await.unwrap_err();
    let cause = refused.source().unwrap().to_string();
    assert!(cause.contains("not a database"), "{refused}: {cause}");
}

#[tokio::test]
async fn time_does_not_run_backwards_when_the_clock_was_set_back() {
    let log = FileLog::fresh();
    let store = SqliteEventStore::open(log.options()).await.unwrap();
    let future = 4_102_444_800_000_000;
    log.run("UPDATE log_head SET last_recorded_at = 4102444800000000")
        .await;
    let stream = StreamId::new("thing", "1").unwrap();
    let event = tidelog_domain::NewEvent {
        id: tidelog_domain::EventId::new(uuid::Uuid::now_v7()),
        event_type: "thing.happened".into(),
        schema_version: 1,
        payload: tidelog_domain::Payload::from_stored(b"{}"),
        metadata: tidelog_domain::Payload::from_stored(b"{}"),
    };
    let batch = vec![Append::one(stream, ExpectedVersion::Any, vec![event])];
    let appended = store.append(0, batch.into()).await.remove(0).unwrap();
    assert_eq!(appended[0].recorded_at.unwrap().timestamp_micros(), future);
}

#[tokio::test]
async fn a_file_is_looked_at_without_making_or_changing_anything() {
    let log = FileLog::fresh();
    let inspect = async || SqliteEventStore::inspect(&log.options()).await.unwrap();
    let nothing = inspect().await;
    assert_eq!(nothing.pending.len(), opening::MIGRATIONS.len());
    assert_eq!(nothing.log, None);
    assert!(!log.options().path.exists());

    // Also while it is open.
    let store = SqliteEventStore::open(log.options()).await.unwrap();
    let made = inspect().await;
    assert_eq!(made.pending, []);
    let inspected = made.log.unwrap();
    let history = store.identity().await.unwrap().history;
    assert_eq!(inspected.history, Some(history));
    assert_eq!(inspected.partitions, u32::from(PARTITIONS));
    assert_eq!(inspected.heads, vec![(1, 0); usize::from(PARTITIONS)]);
    assert_eq!(inspected.last_recorded_at, None);
    drop(store);

    log.run("DELETE FROM log_migrations WHERE version = 4")
        .await;
    let due = inspect().await.pending;
    assert_eq!((due.len(), due[0].number), (1, 4));
    assert!(due[0].sql.contains("CREATE TABLE"), "{due:?}");
    log.run("UPDATE log_migrations SET version = 999 WHERE version = 1")
        .await;
    let newer = SqliteEventStore::inspect(&log.options()).await;
    assert!(matches!(newer, Err(OpenError::Newer { version: 999 })));
}
