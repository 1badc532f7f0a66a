//! The port of the event store, and its adapters.

#[cfg_attr(
    not(any(feature = "mysql", feature = "sqlite")),
    allow(dead_code, reason = "the databases use the rest")
)]
mod failure;
mod inspection;
#[cfg_attr(
    not(any(feature = "mysql", feature = "sqlite")),
    allow(dead_code, reason = "the databases use the rest")
)]
mod keys;
#[cfg(any(feature = "mysql", feature = "sqlite"))]
mod lane;
mod memory;
#[cfg(any(feature = "mysql", feature = "sqlite"))]
mod migrations;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg_attr(
    not(any(feature = "mysql", feature = "sqlite")),
    allow(dead_code, reason = "the databases use the rest")
)]
mod open;
#[cfg_attr(
    not(any(feature = "mysql", feature = "sqlite")),
    allow(dead_code, reason = "the databases use the rest")
)]
mod page;
#[cfg_attr(
    not(any(feature = "mysql", feature = "sqlite")),
    allow(dead_code, reason = "the databases use the rest")
)]
mod plan;
#[cfg(any(feature = "mysql", feature = "sqlite"))]
mod pool;
#[cfg(any(feature = "mysql", feature = "sqlite"))]
mod rows;
#[cfg_attr(
    not(any(feature = "mysql", feature = "sqlite")),
    allow(dead_code, reason = "the databases use the rest")
)]
mod search;
mod snapshots;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "mysql", feature = "sqlite"))]
mod states;

#[cfg(feature = "conformance")]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the suite is a test: it fails loudly"
)]
pub mod conformance;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidelog_domain::{Append, Appended, HistoryId, StreamId, Version};
use tidelog_eventbus::{LogSearch, Retry, StateStore};

pub use inspection::{InspectedLog, Inspection, PendingMigration};
pub use keys::Recorded;
pub use memory::InMemoryEventStore;
#[cfg(feature = "mysql")]
pub(crate) use mysql::error::passes as passes_on_mysql;
#[cfg(feature = "mysql")]
pub use mysql::{MySqlEventStore, MySqlOptions};
pub use open::OpenError;
pub use plan::{MAX_APPEND_BYTES, MAX_EVENT_BYTES, MAX_EVENT_TYPE_BYTES};
pub use snapshots::{MAX_SNAPSHOT_BYTES, Snapshot, StreamPage};
#[cfg(feature = "sqlite")]
pub(crate) use sqlite::error::passes as passes_on_sqlite;
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteEventStore, SqliteOptions};

/// An event store: the log, and the only truth.
///
/// Its positions are dense in each partition and in the order of commits, its versions dense in each stream.
/// It also keeps the state records of reactions, so that they are restored together with the log.
///
/// A call that was begun and that nobody polls MUST NOT keep from others what they need, such as a connection of a pool.
///
/// Every adapter passes the same conformance suite (the feature `conformance`).
#[async_trait]
pub trait EventStore: LogSearch + StateStore {
    /// Appends a batch in one transaction, and says of each append whether it happened.
    ///
    /// - An append happens as a whole or not at all; one that is turned down does not touch the others.
    /// - The appends are looked at in order, each on the result of those before it. When one is turned down,
    ///   every later one of the batch that expects an [`Exact`](tidelog_domain::ExpectedVersion::Exact) version of one
    ///   of its streams is turned down too: it was decided on what did not happen.
    /// - `Ok` for an append MUST mean that it is durable, in the log just once; an error other than
    ///   [`AppendError::InDoubt`] MUST mean that it is not in the log and never will be.
    /// - An append with a [key](Append::key) that the log knows, or that came earlier in the batch, does not happen, whatever its
    ///   streams are at: it is answered by [`AppendError::Replayed`] or [`AppendError::KeyReused`]. When one that records its
    ///   key happens, checks without an event included, its row MUST be written in the same transaction. One that is turned
    ///   down records nothing.
    /// - Dropping the future MUST NOT leave a transaction open or a connection in an unknown state.
    ///
    /// `lane` names the connection to use, from 0 to the number of [`EventStore::lanes`]: batches of one lane run one after
    /// the other. The result has one item an append, in their order.
    async fn append(
        &self,
        lane: usize,
        batch: Arc<[Append]>,
    ) -> Vec<Result<Vec<Appended>, AppendError>>;

    /// How many batches the store works on at once.
    fn lanes(&self) -> usize;

    /// The events of several streams: for each of `reads`, in order, at most `limit` events after a version, in
    /// order. Empty for a stream that does not exist.
    ///
    /// A snapshot that is given MUST be of the log's history, have the fingerprint that was asked for, and be of an event that
    /// the log has; the events with it are those after it. Whatever is kept meanwhile, the two MUST fit together.
    ///
    /// # Errors
    ///
    /// [`AppendError::Unavailable`].
    async fn read_streams(
        &self,
        reads: &[StreamRead],
        limit: usize,
    ) -> Result<Vec<StreamPage>, AppendError>;

    /// Keeps snapshots of the log's present history, one a stream, each in place of one that is of an earlier version, of another
    /// fingerprint or of another history; else what is kept stays.
    ///
    /// It needs not be durable. Some may be kept and others not when it fails. It never makes an append wait for long.
    ///
    /// # Errors
    ///
    /// [`AppendError::Unavailable`].
    async fn keep_snapshots(&self, snapshots: &[Snapshot]) -> Result<(), AppendError>;

    /// Gives the log a new history, after positions were issued again, and returns it. Bus keys, checkpoints and
    /// tokens of the old one no longer count.
    ///
    /// # Errors
    ///
    /// [`AppendError::Unavailable`].
    async fn renew_history(&self) -> Result<HistoryId, AppendError>;

    /// Forgets at most `limit` of the idempotency keys that were recorded longer than `age` ago, by the store's clock, and says
    /// how many it forgot. It never waits for an append for long, nor makes one wait.
    ///
    /// # Errors
    ///
    /// [`AppendError::Unavailable`].
    async fn forget_keys(&self, age: Duration, limit: usize) -> Result<usize, AppendError>;
}

/// Which events of a stream are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRead {
    /// The stream.
    pub stream: StreamId,
    /// From where.
    pub from: ReadFrom,
}

/// Where a read of a stream begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// After this version; [`Version::NONE`] for all events.
    After(Version),
    /// After the stream's snapshot with this fingerprint, which comes along; from the first event where there is none.
    Snapshot(Arc<str>),
    /// The last event alone.
    Last,
}

/// Why an append did not happen, or is not known to have happened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// A stream was not at the version expected. Nothing of the append was written.
    #[error("{stream} is at version {actual}, which is not what was expected")]
    Conflict {
        /// The stream.
        stream: StreamId,
        /// Its version.
        actual: Version,
    },
    /// It was decided on an earlier append of its batch, which was turned down. Nothing of it was written.
    #[error("an earlier append to {stream} in the same batch was turned down")]
    Superseded {
        /// The stream.
        stream: StreamId,
    },
    /// Its key was used before, by the same request, which came to this. Nothing of the append was written.
    #[error("its idempotency key was used before")]
    Replayed(Recorded),
    /// Its key was used before, by another request. Nothing of the append was written.
    #[error("its idempotency key belongs to another request")]
    KeyReused,
    /// It can never be written: an event is too large, or the append is malformed. Nothing of it was written.
    #[error("the append cannot be written: {reason}")]
    Unwritable {
        /// Why.
        reason: String,
    },
    /// The store cannot be reached, or cannot write now. Nothing was written.
    #[error("the event store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer of the commit was lost, and could not be found out in time. It may or may not be in the log.
    #[error("whether the append was committed could not be found out in time")]
    InDoubt(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The log went back in time under this process: a restore, or a failover to a stale replica. Nothing was written.
    #[error(
        "the log lost events that this process has seen: it was restored or replaced; stop the services, then run \
         `doctor --new-history`"
    )]
    Diverged,
    /// What is stored cannot be understood.
    #[error("the log has a row that cannot be understood: {what}")]
    Corrupt {
        /// Which, and why.
        what: String,
    },
}

impl AppendError {
    /// What a caller may do.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Conflict { .. } | Self::Superseded { .. } => Retry::AfterReload,
            Self::Unavailable(_) => Retry::AfterBackoff,
            Self::Replayed(_)
            | Self::KeyReused
            | Self::Unwritable { .. }
            | Self::InDoubt(_)
            | Self::Diverged
            | Self::Corrupt { .. } => Retry::Never,
        }
    }
}
