//! Reads that see the writes of their own process without a token: what `dev` gives to a person who types a write and
//! then a read.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tidelog_domain::ViewDefinition;
use tidelog_eventbus::CommitSignal;
use tidelog_query::store::ReadStore;
use tidelog_query::{Catalog, LiveViews, Named, Versions, ViewState};
use tokio::time::{sleep, timeout};

/// The longest wait: after it a read is answered with what there is.
const PATIENCE: Duration = Duration::from_secs(2);

/// The pause between two looks at views that are just being built.
const PAUSE: Duration = Duration::from_millis(5);

/// What reads wait for.
#[derive(Clone)]
pub(super) struct Freshness {
    commits: CommitSignal,
    live: LiveViews,
    catalog: Catalog,
    versions: Versions,
}

impl Freshness {
    /// A read of a view of `catalog` waits until that view, kept in this process as `live` says in `store`, has applied what
    /// `commits` says.
    pub(super) fn new(
        commits: CommitSignal,
        live: LiveViews,
        catalog: Catalog,
        store: Arc<dyn ReadStore>,
    ) -> Self {
        Self {
            commits,
            live,
            catalog,
            versions: Versions::new(store),
        }
    }

    /// Makes every request to `router` wait.
    pub(super) fn applied_to(self, router: Router) -> Router {
        router.layer(from_fn_with_state(self, fresh))
    }

    /// Waits until `view` is there and has applied what was committed before this call. One that stands still, because it is
    /// being built anew, is read as it is.
    async fn settle(&self, view: &str) {
        let collection = loop {
            let states = self.live.states();
            match states.get(view) {
                Some(ViewState::Following { collection }) => break collection.clone(),
                Some(state) if may_stand_still(state) && self.is_read(view).await => return,
                _ => sleep(PAUSE).await,
            }
        };
        let Some(status) = self.live.get(&collection) else {
            return;
        };
        for partition in status.partitions() {
            let head = self.commits.head(partition.partition);
            status.reached(partition.partition, head).await;
        }
    }

    /// Whether there is a version of `view` that readers are led to.
    async fn is_read(&self, view: &str) -> bool {
        matches!(self.versions.current(view).await, Ok(Some(_)))
    }
}

/// Whether a view in this `state` may have a version that is read and that nothing is projected into.
const fn may_stand_still(state: &ViewState) -> bool {
    matches!(
        state,
        ViewState::Replaying { .. } | ViewState::Waiting { .. }
    )
}

/// The view that a request to `path` reads.
fn asked_for(catalog: &Catalog, path: &str) -> Option<Arc<dyn ViewDefinition>> {
    let name = path.trim_start_matches('/').split('/').next()?;
    match catalog.named(name)? {
        Named::One(view) | Named::Many(view) => Some(view.clone()),
    }
}

async fn fresh(State(freshness): State<Freshness>, request: Request, next: Next) -> Response {
    if let Some(view) = asked_for(&freshness.catalog, request.uri().path()) {
        // Too late is no failure: the read is answered as it would be without waiting.
        let _ = timeout(PATIENCE, freshness.settle(view.name())).await;
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidelog_domain::{EntitySchema, EntityView, Partitions};
    use tidelog_query::store::{Alias, InMemoryReadStore};

    use super::*;

    fn catalog() -> Catalog {
        let view = |name: &str| -> Arc<dyn ViewDefinition> {
            let schema = EntitySchema::from_value(name, json!({"type": "object"})).unwrap();
            Arc::new(EntityView::new(schema))
        };
        Catalog::new(vec![view("post"), view("order")]).unwrap()
    }

    #[test]
    fn a_read_waits_for_the_view_that_it_asks_for_and_for_no_other() {
        let catalog = catalog();
        let asked = |path| asked_for(&catalog, path).map(|view| view.name().to_owned());
        assert_eq!(asked("/post/7").as_deref(), Some("post"));
        assert_eq!(asked("/posts").as_deref(), Some("post"));
        assert_eq!(asked("/order").as_deref(), Some("order"));
        assert_eq!(asked("/openapi.json"), None);
        assert_eq!(asked("/"), None);
    }

    #[tokio::test]
    async fn a_view_that_stands_still_while_it_is_replayed_is_read_as_it_is() {
        let store = Arc::new(InMemoryReadStore::new());
        let live = LiveViews::default();
        let freshness = Freshness::new(
            CommitSignal::new(Partitions::DEFAULT),
            live.clone(),
            catalog(),
            store.clone(),
        );
        live.set_state("post", ViewState::Replaying { events: 1, of: 9 });
        // Nothing is read yet: it is waited for.
        let waited = timeout(PAUSE * 10, freshness.settle("post")).await;
        assert!(waited.is_err());
        let first = Alias::first("post_v1", "a");
        let founded = store.compare_and_set_alias("post", 0, &first).await;
        assert!(founded.unwrap());
        freshness.settle("post").await;
    }
}
