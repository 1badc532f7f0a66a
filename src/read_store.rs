#![doc = include_str!("../docs/read-store.md")]

pub use tidelog_domain::{Partition, Position, Version};
pub use tidelog_eventbus::{Retry, StateError, StateRecord, StateStore};
#[cfg(feature = "sqlite")]
pub use tidelog_query::store::SqliteReadStore;
#[cfg(feature = "conformance")]
pub use tidelog_query::store::conformance;
pub use tidelog_query::store::{
    Alias, Direction, Document, DocumentWrite, Field, Filter, InMemoryReadStore, Index, KeptIndex,
    Kind, MAX_DATA_DEPTH, MAX_NAME_BYTES, Place, Progress, Query, ReadError, ReadStore, Replaying,
    Sort, Test, Written, check_storable, is_name, matches, page, place_of,
};
