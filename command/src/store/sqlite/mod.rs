//! The event store on SQLite: one file, one process.

pub(super) mod error;
mod inspecting;
mod keys;
mod opening;
mod reader;
mod searching;
mod snapshots;
mod states;
mod writer;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use sqlx::sqlite::SqlitePool;
use tidelog_domain::{
    Append, Appended, Cursor, HistoryId, Partition, Partitions, Position, RecordedEvent, StreamId,
    Version,
};
use tidelog_eventbus::{
    EventQuery, Found, LogError, LogIdentity, LogReader, LogSearch, StateError, StateRecord,
    StateStore, StreamReader,
};
use tokio::sync::Mutex;

use super::failure::Failure;
use super::inspection::Inspection;
use super::lane::Lane;
use super::pool::{on_connection, run_to_its_end, to_its_end};
use super::states::bytes;
use super::{AppendError, EventStore, OpenError, Snapshot, StreamPage, StreamRead};

/// How long a use of a connection may take: longer than waiting for another program's lock, for that is in it. A file does not go away as a
/// server does; a disk may hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a log on SQLite is opened.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// The file of the database. It is made when it is not there; its directory must be.
    pub path: PathBuf,
    /// How many partitions the log has: fixed when it is made.
    pub partitions: Partitions,
    /// How many connections read at once, 4 by default.
    pub read_connections: u32,
    /// How long a statement waits for another program that holds the file's lock, 5 s by default.
    pub busy_timeout: Duration,
}

impl SqliteOptions {
    /// The log in `path`, with the default of everything else.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            partitions: Partitions::DEFAULT,
            read_connections: 4,
            busy_timeout: Duration::from_secs(5),
        }
    }
}

/// An event store in one file of SQLite, for one process.
///
/// A lock file beside the database (`<file>.lock`) keeps other processes out for as long as it is open. Each commit is
/// synced to the disk. Other connections of the same process may keep tables of their own in the file.
///
/// A clone is another handle to the same store. The file is released when the last one is dropped and the batch in hand is
/// done.
#[derive(Clone, Debug)]
pub struct SqliteEventStore {
    partitions: Partitions,
    lane: Lane,
    pool: SqlitePool,
    /// Held by who changes a state record. The file has one writer: those who wait for it here do so in turn, and leave the pool's
    /// other connections to who reads.
    changes_states: Arc<Mutex<()>>,
}

impl SqliteEventStore {
    /// Opens the log, after making or migrating it where that is needed.
    ///
    /// # Errors
    ///
    /// [`OpenError::InUse`] when another process has the file, and others of [`OpenError`].
    pub async fn open(options: SqliteOptions) -> Result<Self, OpenError> {
        let opened = opening::open(&options).await?;
        Ok(Self {
            partitions: options.partitions,
            lane: writer::start(opened.connection, opened.lock, options.partitions),
            pool: opened.pool,
            changes_states: Arc::default(),
        })
    }

    /// Looks at the file without making, changing or locking anything; also while another process has it.
    ///
    /// # Errors
    ///
    /// [`OpenError`], but for [`OpenError::InUse`].
    pub async fn inspect(options: &SqliteOptions) -> Result<Inspection, OpenError> {
        inspecting::inspect(options).await
    }
}

#[async_trait]
impl EventStore for SqliteEventStore {
    async fn append(
        &self,
        _lane: usize,
        batch: Arc<[Append]>,
    ) -> Vec<Result<Vec<Appended>, AppendError>> {
        self.lane.append(batch).await
    }

    fn lanes(&self) -> usize {
        1
    }

    async fn read_streams(
        &self,
        reads: &[StreamRead],
        limit: usize,
    ) -> Result<Vec<StreamPage>, AppendError> {
        let reads = reads.to_vec();
        let found = to_its_end(&self.pool, PATIENCE, move |connection| {
            async move { reader::streams(connection, &reads, limit).await }.boxed()
        });
        found.await.map_err(|failure| failure.append_error())
    }

    async fn keep_snapshots(&self, snapshots: &[Snapshot]) -> Result<(), AppendError> {
        let snapshots = snapshots.to_vec();
        let kept = to_its_end(&self.pool, PATIENCE, move |connection| {
            async move { snapshots::keep(connection, &snapshots).await }.boxed()
        });
        kept.await.map_err(|failure| failure.append_error())
    }

    async fn renew_history(&self) -> Result<HistoryId, AppendError> {
        let renewed = to_its_end(&self.pool, PATIENCE, |connection| {
            reader::renew_history(connection).boxed()
        });
        renewed.await.map_err(|failure| failure.append_error())
    }

    async fn forget_keys(&self, age: Duration, limit: usize) -> Result<usize, AppendError> {
        let forgotten = to_its_end(&self.pool, PATIENCE, move |connection| {
            keys::forget(connection, age, limit).boxed()
        });
        forgotten.await.map_err(|failure| failure.append_error())
    }
}

#[async_trait]
impl LogReader for SqliteEventStore {
    async fn identity(&self) -> Result<LogIdentity, LogError> {
        let history = to_its_end(&self.pool, PATIENCE, |connection| {
            reader::history(connection).boxed()
        });
        Ok(LogIdentity {
            history: history.await.map_err(Failure::log_error)?,
            partitions: self.partitions,
        })
    }

    async fn heads(&self) -> Result<Vec<Position>, LogError> {
        let heads = to_its_end(&self.pool, PATIENCE, |connection| {
            reader::heads(connection).boxed()
        });
        heads.await.map_err(Failure::log_error)
    }

    async fn read(
        &self,
        partition: Partition,
        cursor: Cursor,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let page = to_its_end(&self.pool, PATIENCE, move |connection| {
            reader::page(connection, partition, cursor, limit).boxed()
        });
        page.await.map_err(Failure::log_error)
    }
}

#[async_trait]
impl StreamReader for SqliteEventStore {
    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let stream = stream.clone();
        let page = to_its_end(&self.pool, PATIENCE, move |connection| {
            async move { reader::stream_page(connection, &stream, after, limit).await }.boxed()
        });
        page.await.map_err(Failure::log_error)
    }
}

#[async_trait]
impl LogSearch for SqliteEventStore {
    async fn search(
        &self,
        partition: Partition,
        range: RangeInclusive<Position>,
        wanted: &EventQuery,
        newest_first: bool,
        limit: usize,
    ) -> Result<Found, LogError> {
        let wanted = wanted.clone();
        let found = to_its_end(&self.pool, PATIENCE, move |connection| {
            async move {
                searching::search(connection, partition, range, &wanted, newest_first, limit).await
            }
            .boxed()
        });
        found.await.map_err(Failure::log_error)
    }

    async fn streams(
        &self,
        prefix: &str,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, Version)>, LogError> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        let found = to_its_end(&self.pool, PATIENCE, move |connection| {
            async move { searching::streams(connection, &prefix, after.as_ref(), limit).await }
                .boxed()
        });
        found.await.map_err(Failure::log_error)
    }
}

#[async_trait]
impl StateStore for SqliteEventStore {
    async fn load_states(
        &self,
        subscription: &str,
    ) -> Result<Vec<(Partition, u64, StateRecord)>, StateError> {
        let name = subscription.to_owned();
        let states = to_its_end(&self.pool, PATIENCE, move |connection| {
            async move { states::load(connection, &name).await }.boxed()
        });
        states
            .await
            .map_err(|failure| failure.state_error(subscription))
    }

    async fn compare_and_set_state(
        &self,
        subscription: &str,
        partition: Partition,
        expected: u64,
        record: &StateRecord,
    ) -> Result<bool, StateError> {
        let failed = |failure: Failure| failure.state_error(subscription);
        let (name, record) = (subscription.to_owned(), bytes(record).map_err(failed)?);
        let (pool, turns) = (self.pool.clone(), Arc::clone(&self.changes_states));
        let set = run_to_its_end(async move {
            let _turn = turns.lock().await;
            let set = on_connection(&pool, PATIENCE, |connection| {
                async move {
                    states::compare_and_set(connection, &name, partition, expected, record).await
                }
                .boxed()
            });
            set.await
        });
        set.await.map_err(failed)
    }
}

#[cfg(all(test, feature = "conformance"))]
mod tests;
