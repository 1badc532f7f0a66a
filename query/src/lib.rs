//! tidelog's read side: projecting, the read store port and its adapters, replay, queries, HTTP.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "tests fail loudly"
    )
)]

mod catalog;
mod causes;
mod consistency;
mod http;
mod live;
mod projector;
pub mod store;
#[cfg(test)]
mod testing;
mod versions;

pub use catalog::{Catalog, NameTaken, Named};
pub use consistency::{Consistency, ConsistencyError};
pub use http::{QueryService, QuerySettings, query_router};
pub use live::LiveViews;
pub use projector::{MAX_KEY_BYTES, ProjectError, Projector};
pub use versions::{ALIAS_MAX_AGE, Current, DROP_GRACE, Versions};
