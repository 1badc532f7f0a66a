//! The query service over HTTP: reads only.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tidelog_eventbus::StreamReader;
use tokio_util::sync::CancellationToken;

mod admin;
mod cursor;
mod filters;
mod history;
mod live;
mod openapi;
mod operators;
mod parameters;
mod prefer;
mod problems;
mod read;
mod representation;
mod scope;
mod selection;
mod shape;
#[cfg(test)]
mod tests;

pub use admin::views_admin_router;
#[cfg(any(test, feature = "conformance"))]
pub(crate) use filters::asked;
pub(crate) use filters::sorted_by;
pub use openapi::query_document;
#[cfg(any(test, feature = "conformance"))]
pub(crate) use read::next;

use crate::catalog::Catalog;
use crate::changes::Changes;
use crate::consistency::Consistency;
use crate::history::History;
use crate::live::LiveViews;
use crate::store::ReadStore;
use crate::versions::Versions;

/// The bounds of the query service.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QuerySettings {
    /// How many documents a page has when the client does not say. 20.
    pub default_limit: usize,
    /// How many documents a page may have. 200.
    pub max_limit: usize,
    /// How long a read with a token waits for its view when the client does not say. 2 s.
    pub default_wait: Duration,
    /// How long a client may make it wait. 30 s.
    pub max_wait: Duration,
    /// How long the read store may take to answer. 5 s.
    pub read_timeout: Duration,
    /// How many live connections there may be. 2,000.
    pub max_live: usize,
}

impl Default for QuerySettings {
    fn default() -> Self {
        Self {
            default_limit: 20,
            max_limit: 200,
            default_wait: Duration::from_secs(2),
            max_wait: Duration::from_secs(30),
            read_timeout: Duration::from_secs(5),
            max_live: 2_000,
        }
    }
}

/// What answers queries: the views, where they are stored, and how far they are.
///
/// Cloning gives another handle to the same.
#[derive(Clone)]
pub struct QueryService {
    catalog: Catalog,
    store: Arc<dyn ReadStore>,
    versions: Versions,
    live: LiveViews,
    consistency: Consistency,
    history: Option<History>,
    changes: Option<Changes>,
    stop: CancellationToken,
}

impl QueryService {
    /// Answers queries to the views of `catalog` in `store`. `live` has those whose subscriptions run in this process; it
    /// may be empty.
    #[must_use]
    pub fn new(catalog: Catalog, store: Arc<dyn ReadStore>, live: LiveViews) -> Self {
        let versions = Versions::new(store.clone());
        Self {
            consistency: Consistency::new(store.clone(), versions.clone(), live.clone()),
            catalog,
            store,
            versions,
            live,
            history: None,
            changes: None,
            stop: CancellationToken::new(),
        }
    }

    /// The same, which tells from `log` what the past was, and what changes. Without one it says so, and answers everything else.
    #[must_use]
    pub fn with_log(self, log: Arc<dyn StreamReader>) -> Self {
        let (store, versions) = (self.store.clone(), self.versions.clone());
        Self {
            changes: Some(Changes::new(
                store,
                versions,
                self.live.clone(),
                log.clone(),
            )),
            history: Some(History::new(log)),
            ..self
        }
    }

    /// The same, whose live connections end at once when `stop` is cancelled: there is nothing in flight on them.
    #[must_use]
    pub fn with_stop(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }
}

/// The query service as HTTP.md has it: `GET /{view}/{id}`, `GET /{views}?…`, `GET /{view}?…`, `GET /{view}/{id}/history`.
///
/// It is part of a service: [`tidelog_http::app`] gives it the problem documents for unknown paths and methods. It is behind a sign-in
/// ([`tidelog_http::signed_in`]) or open to all ([`tidelog_http::open_to_all`]).
pub fn query_router(service: QueryService, settings: QuerySettings) -> Router {
    Router::new()
        .route("/{name}", get(read::documents))
        .route("/{name}/{id}", get(read::document))
        .route("/{name}/{id}/history", get(history::events))
        .with_state(read::Reads::new(service, settings))
}
