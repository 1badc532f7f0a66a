//! The port of the read store, and its adapters.

mod alias;
#[cfg(any(feature = "mongodb", feature = "sqlite"))]
mod condition;
#[cfg(any(test, feature = "conformance"))]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests fail loudly"
)]
pub mod conformance;
mod divided;
mod filter;
#[cfg(any(feature = "mongodb", feature = "sqlite"))]
mod gathered;
mod index;
mod memory;
#[cfg(feature = "mongodb")]
mod mongodb;
mod name;
mod query;
#[cfg(feature = "sqlite")]
mod sqlite;
mod storable;

#[cfg(feature = "mongodb")]
pub use self::mongodb::{
    InvalidMongoUrl, MongoOptions, MongoReadStore, MongoServerError, MongoServerInfo,
};
pub use alias::{Alias, Kind, Progress, Replaying};
pub use divided::DividedReadStore;
pub(crate) use filter::may_match;
pub use filter::{matches, page, place_of};
pub use index::{Index, IndexState, KeptIndex};
pub use memory::InMemoryReadStore;
pub use name::{MAX_NAME_BYTES, is_name};
pub use query::{Direction, Field, Filter, Place, Query, Sort, Test};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteReadStore;
pub use storable::{MAX_DATA_DEPTH, check as check_storable};

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use tidelog_domain::{Partition, Position, Version};
use tidelog_eventbus::{Retry, StateError, StateStore};

/// How many documents [`ReadStore::count`] reads at once, where the store does not count by itself.
const COUNT_PAGE: usize = 1_000;

/// A read store: documents in collections, the state records of the subscriptions that write them, and an alias a
/// view.
///
/// A collection is one version of a view. Its state records (see [`StateStore`]; the subscription is the
/// collection's name) live and die with it. One that is not there reads as empty, and what is written to it makes it. Names of
/// collections and views MUST be refused unless [`is_name`] holds. Times are kept to the microsecond. Every adapter
/// passes the same conformance suite (the feature `conformance`).
#[async_trait]
pub trait ReadStore: StateStore {
    /// Makes the collection, if it is not there.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`].
    async fn create_collection(&self, collection: &str) -> Result<(), ReadError>;

    /// Drops the collection with its documents and state records, if it is there.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`].
    async fn drop_collection(&self, collection: &str) -> Result<(), ReadError>;

    /// The documents of these ids, tombstones included, in any order; missing ones are left out.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`].
    async fn get(&self, collection: &str, ids: &[&str]) -> Result<Vec<Document>, ReadError>;

    /// How far the documents of these ids have been applied (see [`Document::applied`]), as [`ReadStore::get`] gives them, in any
    /// order.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`].
    async fn applied(
        &self,
        collection: &str,
        ids: &[&str],
    ) -> Result<Vec<(String, Applied)>, ReadError> {
        // For a store that cannot read a part of a document.
        let documents = self.get(collection, ids).await?;
        let applied = documents.into_iter().map(|found| (found.id, found.applied));
        Ok(applied.collect())
    }

    /// Writes documents, each on its condition, and says of each (in their order) whether it was written.
    ///
    /// The writes of a batch name each document once. A document that some adapter could not keep exactly (a whole number above
    /// `i64::MAX`, a NUL in the name of a field, data nested deeper than [`MAX_DATA_DEPTH`]) is refused by all. Each one MUST be atomic and, when it is said to be written,
    /// durable (in a store with replicas: on a majority). They are independent of each other: after an error any of them may have
    /// been made.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`]; [`ReadError::Unwritable`] for the first document that can never be stored.
    async fn write(
        &self,
        collection: &str,
        writes: &[DocumentWrite],
    ) -> Result<Vec<Written>, ReadError>;

    /// The documents that fit `query`, in its order: what [`page`] says, whatever the store compares by itself. It MUST end within
    /// a time of its own, also when nobody waits for the answer any more.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`]; [`ReadError::TooSlow`].
    async fn find(&self, collection: &str, query: &Query) -> Result<Vec<Document>, ReadError>;

    /// How many documents fit the filter of `query` (which counts tombstones or not; its `sort`, `after` and `limit` do not
    /// matter).
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`]; [`ReadError::TooSlow`].
    async fn count(&self, collection: &str, query: &Query) -> Result<u64, ReadError> {
        // For a store that cannot count by itself: page by page.
        let mut page = Query {
            sort: Vec::new(),
            after: None,
            limit: COUNT_PAGE,
            ..query.clone()
        };
        let mut count = 0;
        loop {
            let found = self.find(collection, &page).await?;
            count += u64::try_from(found.len()).unwrap_or(u64::MAX);
            match found.into_iter().nth(COUNT_PAGE - 1) {
                Some(last) => page.after = Some(Place::behind(last.id)),
                None => return Ok(count),
            }
        }
    }

    /// Makes those of `wanted` that the collection does not have, beside reads and, where the store can, writes, and drops others that were
    /// made here; whatever else there is stays. It returns when all of them are ready, which takes as long as it takes; when it is
    /// dropped, or asked again or by others at the same time, no harm is done. No search ever needs an index.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`], after which they may be being made; [`ReadError::Unwritable`] for one that the store cannot
    /// make. A store that has none does nothing.
    async fn ensure_indexes(&self, collection: &str, wanted: &[Index]) -> Result<(), ReadError> {
        let _ = (collection, wanted);
        Ok(())
    }

    /// The indexes of the collection that were made here. A store that has none gives none.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`].
    async fn indexes(&self, collection: &str) -> Result<Vec<KeptIndex>, ReadError> {
        let _ = collection;
        Ok(Vec::new())
    }

    /// The alias of `view`: which version of it is read, or being built as its first one. `None` when there is none yet.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`].
    async fn load_alias(&self, view: &str) -> Result<Option<Alias>, ReadError>;

    /// Writes the alias of `view` if the stored one still has the revision `expected` (0: there is none), and says
    /// whether it did. `alias.revision` is ignored; the new one is `expected + 1`.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`].
    async fn compare_and_set_alias(
        &self,
        view: &str,
        expected: u64,
        alias: &Alias,
    ) -> Result<bool, ReadError>;
}

/// The last position applied, for each partition that something was made from.
pub type Applied = BTreeMap<Partition, Position>;

/// A document of a read model.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its key, 1 to 128 URL-safe bytes for an aggregate's own.
    pub id: String,
    /// What the projection made of it. A tombstone keeps its last state.
    pub data: Map<String, Value>,
    /// The version of the stream behind it; for a view of several streams, the number of events that made it.
    pub version: Version,
    /// When the first event that made it was recorded.
    pub created_at: DateTime<Utc>,
    /// When the last event that changed it was recorded.
    pub updated_at: DateTime<Utc>,
    /// Whether it is a tombstone.
    pub deleted: bool,
    /// The last position applied to it, for each partition that it was made from.
    pub applied: Applied,
    /// Goes up by one with each write: what a conditional write compares. From 1.
    pub revision: u64,
}

impl Document {
    /// About how many bytes its data has as JSON.
    #[must_use]
    pub fn weight(&self) -> usize {
        weight_of_fields(&self.data)
    }

    /// Whether no event made it: it stands, deleted and with nothing applied, where a document was found that the log knows
    /// nothing of. The first event of its key begins it as if it were not there.
    pub(crate) fn is_of_no_event(&self) -> bool {
        self.deleted && self.applied.is_empty()
    }

    /// How far it has applied `partition`: [`Position::START`] when it has nothing of it.
    fn position_in(&self, partition: Partition) -> Position {
        let position = self.applied.get(&partition).copied();
        position.unwrap_or(Position::START)
    }
}

fn weight_of_fields(fields: &Map<String, Value>) -> usize {
    let fields = fields.iter();
    fields
        .map(|(name, value)| name.len() + 4 + weight_of(value))
        .sum()
}

fn weight_of(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| weight_of(item) + 1).sum::<usize>() + 2,
        Value::Object(fields) => weight_of_fields(fields) + 2,
    }
}

/// A write of one document, on a condition.
#[derive(Clone, Debug, PartialEq)]
pub enum DocumentWrite {
    /// Writes the document if there is none of its id. `revision` is ignored and becomes 1.
    Insert(Document),
    /// Writes the document if the stored one still has `document.revision`, which then goes up by one.
    Replace(Document),
    /// For documents of one stream whose events carry the full state: overwrites `data`, `version`, `updated_at`, `deleted`
    /// and `applied` if the stored document's applied position of `partition` is below the new one (one that has none
    /// is at [`Position::START`]). `created_at` stays. The revision goes up by one.
    Advance {
        /// The document after the event; `created_at` and `revision` are ignored.
        document: Document,
        /// The partition of its stream.
        partition: Partition,
    },
}

impl DocumentWrite {
    /// The document that is written.
    #[must_use]
    pub const fn document(&self) -> &Document {
        match self {
            Self::Insert(document) | Self::Replace(document) | Self::Advance { document, .. } => {
                document
            }
        }
    }

    /// What is stored after this write, where `stored` was before it; `None` where its condition does not hold: for a store that has no
    /// conditional writes of its own, and reads before it writes.
    #[must_use]
    pub fn applied_to(&self, stored: Option<&Document>) -> Option<Document> {
        let new = self.document();
        let (created_at, revision) = match (self, stored) {
            (Self::Insert(_), None) => (new.created_at, 0),
            (Self::Replace(_), Some(stored)) if stored.revision == new.revision => {
                (new.created_at, new.revision)
            }
            (Self::Advance { partition, .. }, Some(stored))
                if stored.position_in(*partition) < new.position_in(*partition) =>
            {
                (stored.created_at, stored.revision)
            }
            _ => return None,
        };
        Some(Document {
            created_at: storable::stored_time(created_at),
            updated_at: storable::stored_time(new.updated_at),
            revision: revision.saturating_add(1),
            ..new.clone()
        })
    }
}

/// Whether a write was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It was.
    Applied,
    /// Its condition did not hold: the document is there already, is at another revision or position, or (for
    /// [`DocumentWrite::Replace`] and [`DocumentWrite::Advance`]) is missing.
    Unmet,
}

/// Why the read store did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It cannot be reached, or cannot answer now.
    #[error("the read store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A query needs more time or memory than the store gives it. It would need as much again: ask for less.
    #[error("a query took more than the read store gives it")]
    TooSlow(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A document can never be stored.
    #[error("the document {id} cannot be stored: {reason}")]
    Unwritable {
        /// Which.
        id: String,
        /// Why.
        reason: String,
    },
    /// A collection or a view cannot be called this (see [`is_name`]).
    #[error("{name:?} cannot be the name of a collection or a view")]
    InvalidName {
        /// The name.
        name: String,
    },
    /// What is stored cannot be understood.
    #[error("the read store has a record that cannot be understood: {what}")]
    Corrupt {
        /// Which, and why.
        what: String,
    },
}

impl ReadError {
    /// What a caller may do.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Unavailable(_) | Self::TooSlow(_) => Retry::AfterBackoff,
            Self::Unwritable { .. } | Self::InvalidName { .. } | Self::Corrupt { .. } => {
                Retry::Never
            }
        }
    }
}

/// The state records of a view are kept by its read store: what fails with them fails with the store.
impl From<StateError> for ReadError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Corrupt { what } => Self::Corrupt { what },
            other => Self::Unavailable(Box::new(other)),
        }
    }
}
