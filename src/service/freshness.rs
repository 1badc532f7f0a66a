//! Reads that see the writes of their own process without a token: what `dev` gives to a person who types a write and
//! then a read.

use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tidelog_eventbus::CommitSignal;
use tidelog_query::{LiveViews, ViewState};
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
    views: usize,
}

impl Freshness {
    /// Reads wait until all of the program's `views`, kept in this process as `live` says, have applied what `commits` says.
    pub(super) fn new(commits: CommitSignal, live: LiveViews, views: usize) -> Self {
        Self {
            commits,
            live,
            views,
        }
    }

    /// Makes every request to `router` wait.
    pub(super) fn applied_to(self, router: Router) -> Router {
        router.layer(from_fn_with_state(self, fresh))
    }

    /// Waits until all views are there and have applied what was committed before this call.
    async fn settle(&self) {
        while !self.all_follow() {
            sleep(PAUSE).await;
        }
        for view in self.live.all() {
            for partition in view.partitions() {
                let head = self.commits.head(partition.partition);
                view.reached(partition.partition, head).await;
            }
        }
    }

    /// Whether every view has a version that readers are led to.
    fn all_follow(&self) -> bool {
        let states = self.live.states();
        let follows = |state: &ViewState| matches!(state, ViewState::Following { .. });
        states.len() == self.views && states.values().all(follows)
    }
}

async fn fresh(State(freshness): State<Freshness>, request: Request, next: Next) -> Response {
    // Too late is no failure: the read is answered as it would be without waiting.
    let _ = timeout(PATIENCE, freshness.settle()).await;
    next.run(request).await
}
