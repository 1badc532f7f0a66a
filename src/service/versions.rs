//! Whether the versions of the views that are read are of the program's own definitions: a new program is not ready while
//! what it would show was built by an older one.

use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::causes;
use tidelog_http::Part;
use tidelog_query::store::ReadStore;
use tidelog_query::{Catalog, ReplayReport, ReplayState, ViewReport};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// Says on `part` that the views of `catalog` are ready, once they are; gives whether they are now.
pub(super) async fn look(catalog: &Catalog, store: &dyn ReadStore, part: &Part) -> bool {
    let reason = match ViewReport::all(catalog, store).await {
        Ok(views) => views.iter().find_map(not_yet),
        Err(error) => {
            tracing::debug!(
                error = causes(&error),
                "the views' versions cannot be looked at"
            );
            Some("the read store does not answer".to_owned())
        }
    };
    match reason {
        Some(reason) => {
            part.not_ready(reason);
            false
        }
        None => {
            part.ready();
            true
        }
    }
}

/// Looks until the views are ready. They stay it: what a newer program builds later must not take this one out of service.
pub(super) async fn watch(
    catalog: Catalog,
    store: Arc<dyn ReadStore>,
    part: Part,
    stop: CancellationToken,
) {
    let ready = async {
        while !look(&catalog, &*store, &part).await {
            sleep(INTERVAL).await;
        }
    };
    stop.run_until_cancelled(ready).await;
}

/// Why the program cannot show `view` yet. One that has no version is built while the program runs, and one whose definition an
/// operator rolled back from is shown as it is.
fn not_yet(view: &ViewReport) -> Option<String> {
    if view.version.is_none() || view.is_current || view.is_refused {
        return None;
    }
    let name = &view.view;
    let is_running = |replay: &&ReplayReport| replay.state != ReplayState::Left;
    Some(match view.replay.as_ref().filter(is_running) {
        Some(replay) => format!(
            "the view {name} is being replayed: {} of {} events",
            replay.events, replay.of
        ),
        None => format!(
            "the version of the view {name} that is read has another definition than this program's, which is replayed by the role eventbus"
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidelog_domain::{EntitySchema, EntityView, ViewDefinition};
    use tidelog_http::Readiness;
    use tidelog_query::store::{Alias, InMemoryReadStore};

    use super::*;

    fn post() -> Arc<dyn ViewDefinition> {
        let schema = EntitySchema::from_value("post", json!({"type": "object"})).unwrap();
        Arc::new(EntityView::new(schema))
    }

    async fn becomes(store: &InMemoryReadStore, expected: u64, alias: Alias) {
        let set = store.compare_and_set_alias("post", expected, &alias).await;
        assert!(set.unwrap());
    }

    #[tokio::test]
    async fn a_program_is_ready_once_its_own_definitions_are_read() {
        let store = InMemoryReadStore::new();
        let catalog = Catalog::new(vec![post()]).unwrap();
        let readiness = Readiness::new();
        let part = readiness.part("views");
        let fits = async || look(&catalog, &store, &part).await;
        // There is none yet: it is built while the program runs.
        assert!(fits().await);
        becomes(&store, 0, Alias::first("post_v1", "an older one")).await;
        assert!(!fits().await);
        let (name, reason) = readiness.missing().remove(0);
        assert_eq!(name, "views");
        assert!(reason.contains("post") && reason.contains("another definition"));
        let refused = Alias {
            refused: vec![post().fingerprint()],
            ..Alias::first("post_v1", "an older one")
        };
        becomes(&store, 1, refused).await;
        assert!(fits().await);
        becomes(&store, 2, Alias::first("post_v2", post().fingerprint())).await;
        assert!(fits().await);
        assert!(readiness.is_ready());
    }
}
