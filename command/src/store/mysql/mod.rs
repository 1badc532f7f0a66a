//! The event store on MySQL and MariaDB.

mod doubt;
pub(super) mod error;
mod inspecting;
mod known;
mod lost;
mod opening;
mod options;
mod reader;
mod rights;
mod script;
mod searching;
mod session;
mod snapshots;
mod states;
mod writer;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use sqlx::mysql::MySqlPool;
use tidelog_domain::{
    Append, Appended, Cursor, HistoryId, Partition, Position, RecordedEvent, StreamId, Version,
};
use tidelog_eventbus::{
    EventQuery, Found, LogError, LogIdentity, LogReader, LogSearch, StateError, StateRecord,
    StateStore, StreamReader,
};

use super::failure::Failure;
use super::inspection::Inspection;
use super::lane::Lane;
use super::pool::to_its_end;
use super::states::bytes;
use super::{AppendError, EventStore, OpenError, ReadFrom, Snapshot, StreamPage, StreamRead};
use known::Known;
use opening::ServerFacts;
use reader::{PAGE_TIMEOUT, READ_TIMEOUT};
use writer::Shared;

pub use options::MySqlOptions;

/// An event store on MySQL (8.4 and later) or MariaDB (10.11 and later).
///
/// Each lane has a connection of its own, in a task that no caller can cancel, and appends a batch in one trip to the server
/// as long as the versions that this process knows are true.
///
/// A clone is another handle to the same store.
#[derive(Clone, Debug)]
pub struct MySqlEventStore {
    shared: Arc<Shared>,
    lanes: Arc<[Lane]>,
    pool: MySqlPool,
    facts: Arc<ServerFacts>,
}

impl MySqlEventStore {
    /// Opens the log, after making or migrating it where that is needed (one program at a time).
    ///
    /// A log that is made and migrated is opened by a user with the rights of `deploy/mysql/grants.sql`: nothing is made, and nothing but
    /// read.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub async fn connect(options: MySqlOptions) -> Result<Self, OpenError> {
        let (facts, history) = opening::open(&options).await?;
        let shared = Arc::new(Shared {
            partitions: options.partitions,
            connect_timeout: options.connect_timeout,
            in_doubt_timeout: options.in_doubt_timeout,
            known: Known::new(options.partitions, options.known_streams, history),
            address: options.address.clone(),
        });
        Ok(Self {
            lanes: (0..options.lanes.max(1))
                .map(|_| writer::start(Arc::clone(&shared)))
                .collect(),
            pool: opening::pool(&options),
            shared,
            facts: Arc::new(facts),
        })
    }

    /// Looks at the database without making, changing or locking anything.
    ///
    /// # Errors
    ///
    /// [`OpenError`], as when it is opened.
    pub async fn inspect(options: &MySqlOptions) -> Result<Inspection, OpenError> {
        inspecting::inspect(options).await
    }

    /// What the server calls its version: `9.7.0`, `10.11.4-MariaDB`.
    #[must_use]
    pub fn server_version(&self) -> &str {
        &self.facts.version
    }

    /// What an operator should know of the server's settings and the user's rights, a sentence each: under some settings, a reader can
    /// see events that a crash takes back.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.facts.warnings
    }
}

#[async_trait]
impl EventStore for MySqlEventStore {
    async fn append(
        &self,
        lane: usize,
        batch: Arc<[Append]>,
    ) -> Vec<Result<Vec<Appended>, AppendError>> {
        match self.lanes.get(lane % self.lanes.len()) {
            Some(lane) => lane.append(batch).await,
            None => Vec::new(),
        }
    }

    fn lanes(&self) -> usize {
        self.lanes.len()
    }

    async fn read_streams(
        &self,
        reads: &[StreamRead],
        limit: usize,
    ) -> Result<Vec<StreamPage>, AppendError> {
        let wanted = reads.to_vec();
        let found = to_its_end(&self.pool, READ_TIMEOUT, move |connection| {
            reader::streams(connection, wanted, limit).boxed()
        });
        let found = found.await;
        let found = found.map_err(|failure| failure.append_error())?;
        for (read, page) in reads.iter().zip(&found) {
            self.shared.known.read(&page.events);
            let to_the_end = read.from == ReadFrom::Last || page.events.len() < limit;
            let snapshot = page.snapshot.as_ref().map(|(one, _)| one.version);
            let last = page.events.last().map(|last| last.version).or(snapshot);
            if let (true, Some(last)) = (to_the_end, last) {
                self.shared.known.is_at(&read.stream, last);
            }
        }
        Ok(found)
    }

    async fn keep_snapshots(&self, snapshots: &[Snapshot]) -> Result<(), AppendError> {
        let snapshots = snapshots.to_vec();
        let kept = to_its_end(&self.pool, READ_TIMEOUT, move |connection| {
            snapshots::keep(connection, snapshots).boxed()
        });
        kept.await.map_err(|failure| failure.append_error())
    }

    async fn renew_history(&self) -> Result<HistoryId, AppendError> {
        let renewed = to_its_end(&self.pool, READ_TIMEOUT, |connection| {
            reader::renew_history(connection).boxed()
        });
        let renewed = renewed.await;
        let history = renewed.map_err(|failure| failure.append_error())?;
        self.shared.known.begin(history);
        Ok(history)
    }

    async fn forget_keys(&self, age: Duration, limit: usize) -> Result<usize, AppendError> {
        let forgotten = to_its_end(&self.pool, READ_TIMEOUT, move |connection| {
            reader::forget_keys(connection, age, limit).boxed()
        });
        let forgotten = forgotten.await;
        forgotten.map_err(|failure| failure.append_error())
    }
}

#[async_trait]
impl LogReader for MySqlEventStore {
    async fn identity(&self) -> Result<LogIdentity, LogError> {
        let history = to_its_end(&self.pool, READ_TIMEOUT, |connection| {
            reader::history(connection).boxed()
        });
        let history = history.await;
        Ok(LogIdentity {
            history: history.map_err(Failure::log_error)?,
            partitions: self.shared.partitions,
        })
    }

    async fn heads(&self) -> Result<Vec<Position>, LogError> {
        let heads = to_its_end(&self.pool, READ_TIMEOUT, |connection| {
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
        let events = to_its_end(&self.pool, PAGE_TIMEOUT, move |connection| {
            reader::page(connection, partition, cursor, limit).boxed()
        });
        let events = events.await.map_err(Failure::log_error)?;
        self.shared.known.read(events.last());
        Ok(events)
    }
}

#[async_trait]
impl StreamReader for MySqlEventStore {
    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let stream = stream.clone();
        let events = to_its_end(&self.pool, READ_TIMEOUT, move |connection| {
            async move { reader::stream_page(connection, &stream, after, limit).await }.boxed()
        });
        let events = events.await.map_err(Failure::log_error)?;
        self.shared.known.read(&events);
        Ok(events)
    }
}

#[async_trait]
impl LogSearch for MySqlEventStore {
    async fn search(
        &self,
        partition: Partition,
        range: RangeInclusive<Position>,
        wanted: &EventQuery,
        newest_first: bool,
        limit: usize,
    ) -> Result<Found, LogError> {
        let wanted = wanted.clone();
        let found = to_its_end(&self.pool, READ_TIMEOUT, move |connection| {
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
        let found = to_its_end(&self.pool, READ_TIMEOUT, move |connection| {
            async move { searching::streams(connection, &prefix, after.as_ref(), limit).await }
                .boxed()
        });
        found.await.map_err(Failure::log_error)
    }
}

#[async_trait]
impl StateStore for MySqlEventStore {
    async fn load_states(
        &self,
        subscription: &str,
    ) -> Result<Vec<(Partition, u64, StateRecord)>, StateError> {
        let name = subscription.to_owned();
        let states = to_its_end(&self.pool, READ_TIMEOUT, move |connection| {
            async move { states::load(connection, &name).await }.boxed()
        });
        let states = states.await;
        states.map_err(|failure| failure.state_error(subscription))
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
        let set = to_its_end(&self.pool, READ_TIMEOUT, move |connection| {
            async move {
                states::compare_and_set(connection, &name, partition, expected, record).await
            }
            .boxed()
        });
        set.await.map_err(failed)
    }
}
