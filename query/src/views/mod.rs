//! Keeping the views: a subscription for the version of each view that is read, followed from version to version.
//!
//! - A view without a version gets its first one: it is projected live, and readers are led to it once it has reached the heads that the
//!   log had at the start. Until then there is nothing to read: a half-built view is never seen. Its alias says with which definition
//!   it is being built: a program with another one begins anew, in another collection.
//! - When the alias leads elsewhere (a replay took over), the subscription there begins.
//! - When the log has a new history, the view is replayed by itself. So it is when the program starts with another definition of
//!   the view than the one that the version was built with (or brought back, where the version before has its definition); a
//!   program that finds such a version *later* leaves it alone: a newer program has taken over. So does one whose definition an operator has rolled
//!   back from.
//! - Replays that died are left to the next one, and cleared away when none comes; collections that nobody is led to any more are
//!   dropped after a grace period.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidelog_eventbus::{FailurePolicy, LogReader, SubscriptionOptions, Tail};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

mod keeper;
#[cfg(test)]
mod random_tests;
mod report;
mod steward;
#[cfg(test)]
mod tests;

use crate::catalog::Catalog;
use crate::live::LiveViews;
use crate::replay::{Replay, ReplayOptions};
use crate::store::ReadStore;
use crate::versions::{ALIAS_MAX_AGE, DROP_GRACE};
use keeper::Keeper;
pub use report::{IndexReport, LastReplay, Previous, ReplayReport, ReplayState, ViewReport};

/// How long the version before is kept: long enough to notice that the new one is wrong.
const ROLLBACK_GRACE: Duration = Duration::from_secs(3_600);

/// How long what a replay left is kept: long enough to start a process again, and to see why it died.
const RESUME_GRACE: Duration = Duration::from_secs(600);

/// The bounds and times of the views.
#[derive(Clone, Debug)]
pub struct ViewsOptions {
    /// Of each view's subscription.
    pub subscription: SubscriptionOptions,
    /// What is done about events that cannot be folded, for views that have a policy of their own, by name.
    pub policies: BTreeMap<String, FailurePolicy>,
    /// Of replays that begin by themselves.
    pub replay: ReplayOptions,
    /// How often each view's alias is looked at: how soon a switch is followed. 500 ms.
    pub alias_poll: Duration,
    /// How long what a replay built stays that died or was cancelled, for another to go on with it. 10 minutes.
    pub resume_grace: Duration,
    /// How long the version before the one that is read is kept for a rollback, unless it is to be kept for longer. An hour.
    pub rollback_grace: Duration,
    /// How long a collection stays after readers were led elsewhere. 60 s, and MUST NOT be less where others read.
    pub drop_grace: Duration,
}

impl ViewsOptions {
    /// Of the subscription of `view`.
    fn subscription_of(&self, view: &str) -> SubscriptionOptions {
        let mut options = self.subscription.clone();
        if let Some(policy) = self.policies.get(view) {
            options.policy.clone_from(policy);
        }
        options
    }

    /// Of a replay of `view`.
    fn replay_of(&self, view: &str) -> ReplayOptions {
        let mut options = self.replay.clone();
        if let Some(policy) = self.policies.get(view) {
            options.policy.clone_from(policy);
        }
        options
    }
}

impl Default for ViewsOptions {
    fn default() -> Self {
        Self {
            subscription: SubscriptionOptions::default(),
            policies: BTreeMap::new(),
            replay: ReplayOptions::default(),
            alias_poll: ALIAS_MAX_AGE,
            resume_grace: RESUME_GRACE,
            rollback_grace: ROLLBACK_GRACE,
            drop_grace: DROP_GRACE,
        }
    }
}

/// Keeps the views of a program up to date: what the role eventbus does for the read side.
#[derive(Clone)]
pub struct Views {
    shared: Arc<Shared>,
}

/// What all views are kept with.
struct Shared {
    catalog: Catalog,
    store: Arc<dyn ReadStore>,
    log: Arc<dyn LogReader>,
    tail: Tail,
    owner: String,
    live: LiveViews,
    options: ViewsOptions,
}

impl Views {
    /// Keeps the views of `catalog` in `store`. `tail` has to run beside it; `owner` is a text that no other process has, ever.
    #[must_use]
    pub fn new(
        catalog: Catalog,
        store: Arc<dyn ReadStore>,
        log: Arc<dyn LogReader>,
        tail: Tail,
        owner: impl Into<String>,
        options: ViewsOptions,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                catalog,
                store,
                log,
                tail,
                owner: owner.into(),
                live: LiveViews::default(),
                options,
            }),
        }
    }

    /// What can be seen of it while it runs: for readiness, for reads in the same process.
    #[must_use]
    pub fn live(&self) -> LiveViews {
        self.shared.live.clone()
    }

    /// The views that are kept.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.shared.catalog
    }

    /// Where they are kept.
    pub(crate) fn store(&self) -> &dyn ReadStore {
        &*self.shared.store
    }

    /// What replays `view` on demand, with the same options as the replays that begin by themselves.
    #[must_use]
    pub fn replay(&self, view: &str) -> Replay {
        let Shared {
            store,
            log,
            options,
            ..
        } = &*self.shared;
        Replay::new(store.clone(), log.clone()).with_options(options.replay_of(view))
    }

    /// Runs until `shutdown`; then finishes the batches in flight, writes the checkpoints and hands the partitions over.
    ///
    /// # Panics
    ///
    /// When the code that keeps a view panics: going on with the others would hide it.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut keepers = JoinSet::new();
        for view in self.shared.catalog.iter() {
            let keeper = Keeper::new(self.shared.clone(), view.clone());
            keepers.spawn(keeper.run(shutdown.clone()));
        }
        while let Some(ended) = keepers.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}
