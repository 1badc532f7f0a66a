//! Read-your-writes: waiting until a view has seen a write.
//!
//! One watcher a view serves all who wait for it, however many they are: it looks at the subscription's status where that runs
//! in this process, else at the state records in the read store, while somebody waits and no longer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::select_all;
use tidelog_domain::{ConsistencyToken, HistoryId, Partition, Position};
use tidelog_eventbus::{PartitionStatus, StateError, StateRecord, SubscriptionStatus};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};

use crate::live::LiveViews;
use crate::store::{ReadError, ReadStore};
use crate::versions::{Versions, shared};

/// The pause between the first looks at the state records.
const FIRST_PAUSE: Duration = Duration::from_millis(2);

/// The longest pause between two looks, when nothing has come for a while.
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

/// Lets reads wait for writes. Cloning gives another handle to the same watchers.
#[derive(Clone)]
pub struct Consistency {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn ReadStore>,
    versions: Versions,
    live: LiveViews,
    /// One watcher a view, while somebody waits.
    watchers: Mutex<HashMap<String, Watcher>>,
}

/// The task that looks, as those who wait know it.
#[derive(Clone)]
struct Watcher {
    looks: watch::Sender<Look>,
    /// Somebody new waits: look often again.
    arrived: Arc<Notify>,
}

/// What the watcher saw last.
#[derive(Clone)]
enum Look {
    /// It has not looked yet.
    Pending,
    /// The view has no version yet, or nothing has been applied to it.
    Nothing,
    /// Everything up to these positions is in the version that is read now, or in a later one.
    Reached(HistoryId, BTreeMap<Partition, Position>),
    /// It could not look.
    Failed(Arc<ReadError>),
}

/// Why a read does not see the write.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsistencyError {
    /// The write is committed, and did not reach the view in time.
    #[error("the view has not applied the write yet")]
    NotYetProjected,
    /// The token is of another history of the log than the view. Either the log was restored and the write may be gone,
    /// or the view is being built anew from the history that the token is of.
    #[error("the view is built from another history of the log than the one that the token is of")]
    OtherHistory,
    /// How far the view is could not be found out.
    #[error("how far the view is could not be found out")]
    Store(#[source] ReadError),
}

impl Consistency {
    /// Watches the views of `store`; those whose subscriptions run here are in `live`.
    #[must_use]
    pub fn new(store: Arc<dyn ReadStore>, versions: Versions, live: LiveViews) -> Self {
        Self {
            shared: Arc::new(Shared {
                store,
                versions,
                live,
                watchers: Mutex::default(),
            }),
        }
    }

    /// Waits until `view` has applied all that `token` names, at most until `deadline`. A read that looks up the view's
    /// version afterwards sees it.
    ///
    /// # Errors
    ///
    /// [`ConsistencyError`].
    pub async fn wait_for(
        &self,
        view: &str,
        token: &ConsistencyToken,
        deadline: Instant,
    ) -> Result<(), ConsistencyError> {
        let mut looks = self.join(view);
        loop {
            let missing = match looks.borrow_and_update().judge(token) {
                Verdict::Seen => return Ok(()),
                Verdict::Failed(error) => return Err(ConsistencyError::Store(error)),
                Verdict::Missing(missing) => missing,
            };
            match timeout_at(deadline, looks.changed()).await {
                Ok(Ok(())) => {}
                // The watcher goes only when nobody waits; should it ever go earlier, a new one takes its place.
                Ok(Err(_)) => looks = self.join(view),
                Err(_) => return Err(missing()),
            }
        }
    }

    /// How many watchers run: one a view that somebody waits for.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.shared.lock().len()
    }

    /// Joins those who wait for `view`.
    fn join(&self, view: &str) -> watch::Receiver<Look> {
        let mut watchers = self.shared.lock();
        if let Some(watcher) = watchers.get(view) {
            watcher.arrived.notify_one();
            return watcher.looks.subscribe();
        }
        let watcher = Watcher {
            looks: watch::Sender::new(Look::Pending),
            arrived: Arc::default(),
        };
        let looks = watcher.looks.subscribe();
        watchers.insert(view.to_owned(), watcher.clone());
        tokio::spawn(self.shared.clone().watch(view.to_owned(), watcher));
        looks
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Watcher>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at how far `view` is, and tells those who wait, until there are none.
    async fn watch(self: Arc<Self>, view: String, watcher: Watcher) {
        let mut pause = FIRST_PAUSE;
        let mut known = None;
        loop {
            let (look, watches) = self.look(&view, &mut known).await;
            watcher.looks.send_replace(look);
            if self.retire(&view, &watcher) {
                return;
            }
            tokio::select! {
                () = moved(watches) => {}
                () = watcher.arrived.notified() => pause = FIRST_PAUSE,
                () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }

    /// Ends the watcher if nobody waits any more. Who comes now starts a new one.
    fn retire(&self, view: &str, watcher: &Watcher) -> bool {
        let mut watchers = self.lock();
        let idle = watcher.looks.receiver_count() == 0;
        if idle {
            watchers.remove(view);
        }
        idle
    }

    /// How far `view` is, and what moves when it goes on, where its subscription runs here. `known` is the history of
    /// the collection that was looked at last.
    async fn look(&self, view: &str, known: &mut Option<(String, HistoryId)>) -> (Look, Watches) {
        let collection = match self.versions.current(view).await {
            Ok(Some(current)) => current.alias.collection.clone(),
            Ok(None) => return (Look::Nothing, Watches::new()),
            Err(error) => return (Look::Failed(Arc::new(error)), Watches::new()),
        };
        let status = self.live.get(&collection);
        // The watches come before the look: what moves in between wakes at once.
        let watches = status.as_ref().map(watches).unwrap_or_default();
        match (&status, &*known) {
            (Some(status), Some((name, history))) if *name == collection => {
                return (Look::of_status(*history, status), watches);
            }
            _ => {}
        }
        let look = match self.store.load_states(&collection).await {
            Ok(states) => Look::of_states(&states),
            Err(error) => Look::Failed(Arc::new(of_state(error))),
        };
        if let Look::Reached(history, _) = look {
            *known = Some((collection, history));
        }
        (look, watches)
    }
}

impl Look {
    fn of_status(history: HistoryId, status: &SubscriptionStatus) -> Self {
        let partitions = status.partitions().into_iter();
        let reached = partitions.map(|status| (status.partition, status.cursor.position));
        Self::Reached(history, reached.collect())
    }

    fn of_states(states: &[(Partition, u64, StateRecord)]) -> Self {
        let Some((_, _, first)) = states.first() else {
            return Self::Nothing;
        };
        let history = first.checkpoint.history;
        let reached = states
            .iter()
            .filter(|(_, _, record)| record.checkpoint.history == history)
            .map(|(partition, _, record)| (*partition, record.checkpoint.cursor.position));
        Self::Reached(history, reached.collect())
    }

    /// Whether all that `token` names has been applied.
    fn judge(&self, token: &ConsistencyToken) -> Verdict {
        let seen = |reached: &BTreeMap<_, _>, (partition, position): &(Partition, Position)| {
            reached.get(partition).is_some_and(|at| at >= position)
        };
        match self {
            Self::Failed(error) => Verdict::Failed(shared(error)),
            Self::Pending => Verdict::Missing(|| ConsistencyError::Store(unanswered())),
            Self::Nothing => Verdict::Missing(|| ConsistencyError::NotYetProjected),
            Self::Reached(history, _) if *history != token.history => {
                Verdict::Missing(|| ConsistencyError::OtherHistory)
            }
            Self::Reached(_, reached) if token.positions.iter().all(|at| seen(reached, at)) => {
                Verdict::Seen
            }
            Self::Reached(..) => Verdict::Missing(|| ConsistencyError::NotYetProjected),
        }
    }
}

/// What a look says of a token.
enum Verdict {
    /// All of it has been applied.
    Seen,
    /// Not yet; this is what to say if it stays so.
    Missing(fn() -> ConsistencyError),
    /// That cannot be told.
    Failed(ReadError),
}

/// What wakes the watcher of a subscription that runs here: a watch a partition.
type Watches = Vec<watch::Receiver<PartitionStatus>>;

fn watches(status: &SubscriptionStatus) -> Watches {
    let partitions = status.partitions().into_iter();
    partitions
        .filter_map(|partition| status.watch(partition.partition))
        .collect()
}

/// Waits until one of them has moved; for good where there is none to wait for.
async fn moved(watches: Watches) {
    let changes = watches
        .into_iter()
        .map(|mut watch| Box::pin(async move { watch.changed().await.is_ok() }));
    let changes: Vec<_> = changes.collect();
    if changes.is_empty() || !select_all(changes).await.0 {
        std::future::pending().await
    }
}

/// The store did not answer as long as somebody was willing to wait.
fn unanswered() -> ReadError {
    ReadError::Unavailable("it did not answer in time".into())
}

/// The read store is where the state records of views are.
fn of_state(error: StateError) -> ReadError {
    match error {
        StateError::Corrupt { what } => ReadError::Corrupt { what },
        other => ReadError::Unavailable(Box::new(other)),
    }
}
