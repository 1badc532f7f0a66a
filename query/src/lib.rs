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

mod awaited;
mod catalog;
mod changes;
mod consistency;
mod history;
mod http;
mod indexes;
mod live;
mod projector;
mod replay;
pub mod store;
#[cfg(test)]
mod testing;
mod versions;
mod views;

pub use awaited::AwaitedLog;
pub use catalog::{Catalog, NameTaken, Named};
pub use consistency::{Consistency, ConsistencyError, ReadOf, Seen};
pub use http::{QueryService, QuerySettings, query_document, query_router, views_admin_router};
pub use indexes::{InvalidIndex, MAX_INDEXES, declared_indexes};
pub use live::{LiveViews, ViewState};
pub use projector::{MAX_KEY_BYTES, ProjectError, Projector};
#[cfg(any(test, feature = "conformance"))]
pub use replay::conformance as replay_conformance;
pub use replay::{
    Compare, Compared, Mended, OnProgress, Only, Replay, ReplayError, ReplayOptions,
    ReplayProgress, Replayed, ReplayedDocument, ReplayedOnly,
};
pub use versions::{ALIAS_MAX_AGE, Current, DROP_GRACE, Versions};
pub use views::{
    IndexReport, LastReplay, Previous, ReplayReport, ReplayState, ViewReport, Views, ViewsOptions,
};
