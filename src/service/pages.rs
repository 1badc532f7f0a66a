//! The pages of the administration, and what looks at everything for them.

use axum::Router;
use tidelog_http::{app, open_to_all};
use tidelog_query::store::ReadStore;
use tidelog_query::{LiveViews, QueryService, QuerySettings, query_router};

use super::{Running, Source, catalog};
use crate::App;
use crate::admin::Access;
use crate::admin::audit::CATEGORY as RECORD;
use crate::admin::pages::{Site, router};
use crate::admin::sampler::{Samples, Sources, watch};
use crate::app::InvalidApp;
use crate::backends::Opened;
use crate::subscriptions::Subscriptions;

/// What the pages of a process are made of.
pub(super) struct Parts<'a> {
    pub(super) program: &'a App,
    pub(super) source: &'a Source,
    pub(super) store: &'a Opened<dyn ReadStore>,
    pub(super) live: LiveViews,
    pub(super) subscriptions: Subscriptions,
    pub(super) access: Access,
    /// The API with its record, for callers inside the process.
    pub(super) api: Router,
}

impl Parts<'_> {
    /// Begins to look, and gives the pages.
    pub(super) fn start(self, running: &Running) -> Result<Router, InvalidApp> {
        let (catalog, store) = (catalog(self.program)?, self.store.backend.clone());
        let samples = Samples::default();
        let [log, bus] = self.source.descriptions.clone();
        let sources = Sources {
            log: self.source.log.clone(),
            reached: running.reached.clone(),
            descriptions: [log, bus, self.store.description.clone()],
            subscriptions: self.subscriptions.clone(),
        };
        let seen = samples.clone();
        running.workers.spawn(|stop| watch(sources, seen, stop));
        let queries = QueryService::new(catalog.clone(), store, self.live)
            .with_log(self.source.log.clone())
            .with_stop(running.workers.stop.clone());
        let deciders = self.program.deciders().iter();
        let categories = deciders.map(|own| own.category().to_owned());
        Ok(router(Site {
            categories: categories.chain([RECORD.to_owned()]).collect(),
            app: self.program.name().to_owned(),
            access: self.access,
            api: app(self.api),
            // Who may see a page may see what it shows.
            queries: open_to_all(app(query_router(queries, QuerySettings::default()))),
            catalog,
            subscriptions: self.subscriptions,
            samples,
        }))
    }
}
