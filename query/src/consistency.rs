//! Read-your-writes: waiting until a view has seen a write.
//!
//! One watcher a view serves all who wait for it, however many they are: it looks at the subscription's status where that runs
//! in this process, else at the state records in the read store, while somebody waits and no longer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::select_all;
use tidelog_domain::{ConsistencyToken, HistoryId, Partition, Position};
use tidelog_eventbus::{Parked, PartitionStatus, StateRecord, SubscriptionStatus};
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
    /// So far is the version that is read now, or a later one.
    Reached(HistoryId, BTreeMap<Partition, Reached>),
    /// It could not look.
    Failed(Arc<ReadError>),
}

/// How far a view is in one partition.
#[derive(Clone)]
struct Reached {
    /// Everything up to here is in it, or set aside.
    position: Position,
    /// What of that is set aside.
    parked: Arc<Parked>,
}

/// What a read looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOf<'a> {
    /// The document of this id.
    Document(&'a str),
    /// Any number of documents, which it does not know beforehand.
    Any,
}

/// Why a read does not see the write.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsistencyError {
    /// The write is committed, and did not reach the view in time.
    #[error("the view has not applied the write yet")]
    NotYetProjected,
    /// The write is committed, and the view has set it aside, since it, or one before it, cannot be applied.
    #[error("the view has set the write aside")]
    SetAside,
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

    /// Waits until `view` has applied all that `token` names, at most until `deadline`. A read of `read_of` that looks up the
    /// view's version afterwards sees it.
    ///
    /// What is set aside is not applied. Of the events that wait in a sequence only the first and the last are known, so that a
    /// read of any documents may miss a write between the two; a read of the one document never does.
    ///
    /// # Errors
    ///
    /// [`ConsistencyError`].
    pub async fn wait_for(
        &self,
        view: &str,
        read_of: ReadOf<'_>,
        token: &ConsistencyToken,
        deadline: Instant,
    ) -> Result<(), ConsistencyError> {
        let mut looks = self.join(view);
        loop {
            let missing = match looks.borrow_and_update().judge(read_of, token) {
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
            Err(error) => Look::Failed(Arc::new(error.into())),
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
        let reached = partitions.map(|status| {
            let reached = Reached {
                position: status.cursor.position,
                parked: status.parked,
            };
            (status.partition, reached)
        });
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
            .map(|(partition, _, record)| {
                let reached = Reached {
                    position: record.checkpoint.cursor.position,
                    parked: Arc::new(record.parked.clone()),
                };
                (*partition, reached)
            });
        Self::Reached(history, reached.collect())
    }

    /// Whether all that `token` names has been applied to what is read.
    fn judge(&self, read_of: ReadOf<'_>, token: &ConsistencyToken) -> Verdict {
        let passed = |reached: &BTreeMap<_, Reached>,
                      (partition, position): &(Partition, Position)| {
            let reached = reached.get(partition);
            reached.is_some_and(|reached| reached.position >= *position)
        };
        let set_aside = |reached: &BTreeMap<_, Reached>,
                         (partition, position): &(Partition, Position)| {
            let reached = reached.get(partition);
            reached.is_some_and(|reached| is_set_aside(&reached.parked, *position, read_of))
        };
        match self {
            Self::Failed(error) => Verdict::Failed(shared(error)),
            Self::Pending => Verdict::Missing(|| ConsistencyError::Store(unanswered())),
            Self::Nothing => Verdict::Missing(|| ConsistencyError::NotYetProjected),
            Self::Reached(history, _) if *history != token.history => {
                Verdict::Missing(|| ConsistencyError::OtherHistory)
            }
            Self::Reached(_, reached) if !token.positions.iter().all(|at| passed(reached, at)) => {
                Verdict::Missing(|| ConsistencyError::NotYetProjected)
            }
            Self::Reached(_, reached)
                if token.positions.iter().any(|at| set_aside(reached, at)) =>
            {
                Verdict::Missing(|| ConsistencyError::SetAside)
            }
            Self::Reached(..) => Verdict::Seen,
        }
    }
}

/// Whether the event at `position`, which was passed, is set aside, as far as it concerns what is read.
fn is_set_aside(parked: &Parked, position: Position, read_of: ReadOf<'_>) -> bool {
    match read_of {
        ReadOf::Document(id) => parked.get(id).is_some_and(|own| own.first <= position),
        ReadOf::Any => {
            let mut parked = parked.iter();
            parked.any(|own| own.first == position || own.last == position)
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

/// What wakes who watches a subscription that runs here: a watch a partition.
pub(crate) type Watches = Vec<watch::Receiver<PartitionStatus>>;

/// What moves when the subscription goes on.
pub(crate) fn watches(status: &SubscriptionStatus) -> Watches {
    let partitions = status.partitions().into_iter();
    partitions
        .filter_map(|partition| status.watch(partition.partition))
        .collect()
}

/// Waits until one of them has moved; for good where there is none to wait for.
pub(crate) async fn moved(watches: Watches) {
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

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use serde_json::json;
    use tidelog_eventbus::{Operations, Skip};

    use super::*;
    use crate::testing::{System, posts};

    const WAIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn one_watcher_serves_all_who_wait_for_a_view_and_ends_with_the_last() {
        let system = System::new();
        let process = system.start(vec![posts()]);
        system.write("p", "one").await;
        system.settled(&*posts()).await;
        process.stop().await;
        // Nobody projects any more: what is written now is waited for in vain.
        let token = system.write("p", "two").await;
        let (_, consistency) = system.reader();
        let before = system.store.state_loads();
        let deadline = Instant::now() + WAIT;
        let waiting =
            (0..1_000).map(|_| consistency.wait_for("post", ReadOf::Any, &token, deadline));
        let waiting = join_all(waiting);
        let mut watchers = 0;
        let watching = async {
            sleep(WAIT / 2).await;
            watchers = consistency.watchers();
        };
        let (waited, ()) = tokio::join!(waiting, watching);
        let is_missing = |waited: &Result<_, _>| {
            matches!(waited, Err::<(), _>(ConsistencyError::NotYetProjected))
        };
        assert!(waited.iter().all(is_missing));
        assert_eq!(watchers, 1);
        let looks = u128::try_from(system.store.state_loads() - before).unwrap();
        assert!(
            looks < 20 + WAIT.as_millis() / LONGEST_PAUSE.as_millis(),
            "{looks}"
        );
        sleep(LONGEST_PAUSE * 2).await;
        assert_eq!(consistency.watchers(), 0);
        // The next one is served by a new watcher.
        let process = system.start(vec![posts()]);
        let deadline = Instant::now() + WAIT;
        consistency
            .wait_for("post", ReadOf::Any, &token, deadline)
            .await
            .unwrap();
        process.stop().await;
    }

    /// What a read of `id`, and one of any documents, hears at once that must see `token`: from the records, and in the
    /// process itself.
    async fn judged(
        system: &System,
        live: &LiveViews,
        id: &str,
        token: &ConsistencyToken,
    ) -> [Result<(), ConsistencyError>; 4] {
        let (versions, elsewhere) = system.reader();
        let here = Consistency::new(Arc::new(system.store.clone()), versions, live.clone());
        let wait = async |consistency: &Consistency, read_of| {
            let deadline = Instant::now() + Duration::from_millis(200);
            consistency.wait_for("post", read_of, token, deadline).await
        };
        [
            wait(&elsewhere, ReadOf::Document(id)).await,
            wait(&elsewhere, ReadOf::Any).await,
            wait(&here, ReadOf::Document(id)).await,
            wait(&here, ReadOf::Any).await,
        ]
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_is_set_aside_is_not_seen_before_it_is_applied_or_skipped() {
        let system = System::new();
        let process = system.start(vec![posts()]);
        system.write("good", "one").await;
        system.settled(&*posts()).await;
        let poison = json!("no object");
        let bad = system.log.append("bad", "post.created", &poison).await;
        let live = process.views.live();
        let status = live.get("post_v1").unwrap();
        let reached = async |token: &ConsistencyToken| {
            let (partition, position) = token.positions[0];
            status.reached(partition, position).await;
        };
        reached(&bad).await;
        let between = system.write("bad", "two").await;
        let last = system.write("bad", "three").await;
        let good = system.write("good", "two").await;
        reached(&last).await;
        reached(&good).await;
        // The record follows within a moment.
        sleep(Duration::from_secs(1)).await;

        let is_set_aside =
            |waited: &Result<(), _>| matches!(waited, Err(ConsistencyError::SetAside));
        for token in [&bad, &last] {
            let waited = judged(&system, &live, "bad", token).await;
            assert!(waited.iter().all(is_set_aside), "{waited:?}");
        }
        let [elsewhere, _, here, _] = judged(&system, &live, "bad", &between).await;
        assert!(is_set_aside(&elsewhere) && is_set_aside(&here));
        // Others are not concerned, though they come later in the partition.
        let waited = judged(&system, &live, "good", &good).await;
        assert!(waited.iter().all(Result::is_ok), "{waited:?}");

        let states = Arc::new(system.store.clone());
        let operations = Operations::new("post_v1", states, system.log.reader());
        let skip = Skip {
            sequence: "bad",
            reason: "it is no object",
            ..Skip::default()
        };
        let asked = operations.skip(&skip).await.unwrap();
        operations.answers(&[asked], WAIT).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        for token in [&bad, &between, &last] {
            let waited = judged(&system, &live, "bad", token).await;
            assert!(waited.iter().all(Result::is_ok), "{waited:?}");
        }
        process.stop().await;
    }
}
