//! Read-your-writes: waiting until a view has seen a write.
//!
//! One watcher a view serves all who wait for it, however many they are: it looks at the subscription's status where that runs
//! in this process, else at the state records in the read store, while somebody waits and no longer. There it looks at the
//! documents that are waited for, too: a document shows a write as soon as it is written, and the record follows it.

mod documents;
mod look;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::select_all;
use tidelog_domain::{ConsistencyToken, HistoryId};
use tidelog_eventbus::{PartitionStatus, SubscriptionStatus};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};

use self::documents::{Documents, Shown, has_applied};
use self::look::{Look, Verdict};
use crate::live::LiveViews;
use crate::store::{Applied, Document, ReadError, ReadStore};
use crate::versions::Versions;

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
    /// What they look at beside the views.
    documents: Documents,
}

/// The task that looks, as those who wait know it.
#[derive(Clone)]
struct Watcher {
    looks: watch::Sender<Looked>,
    /// Somebody new waits: look often again.
    arrived: Arc<Notify>,
}

/// What a watcher saw last.
#[derive(Clone)]
struct Looked {
    view: Look,
    shown: Option<Arc<Shown>>,
}

/// What a read looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOf<'a> {
    /// The document of this id.
    Document(&'a str),
    /// Any number of documents, which it does not know beforehand.
    Any,
}

/// Where a read of a document sees the write.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Seen {
    /// The view has applied it: whatever is read from now on shows it.
    InView,
    /// The document in this collection shows it, and the view is about to say so. A read of another collection, which takes this one's
    /// place at this moment, need not show it.
    InDocument {
        /// Which.
        collection: String,
    },
}

impl Seen {
    /// Whether `document`, as it was read from `collection` afterwards, shows the write of `token`.
    #[must_use]
    pub fn holds(
        &self,
        collection: &str,
        document: Option<&Document>,
        token: &ConsistencyToken,
    ) -> bool {
        match self {
            Self::InView => true,
            Self::InDocument { collection: seen } => {
                let shows = |document: &Document| has_applied(&document.applied, token);
                seen == collection && document.is_some_and(shows)
            }
        }
    }
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
                documents: Documents::default(),
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
        let judge = |looked: &Looked| looked.view.judge(read_of, token);
        self.wait(view, deadline, judge).await
    }

    /// The same for a read of one document, which may see the write a moment before the view is known to have applied it.
    ///
    /// # Errors
    ///
    /// [`ConsistencyError`].
    pub async fn wait_for_document(
        &self,
        view: &str,
        id: &str,
        token: &ConsistencyToken,
        deadline: Instant,
    ) -> Result<Seen, ConsistencyError> {
        let _awaited = self.shared.documents.enter(view, id);
        let judge = |looked: &Looked| match &looked.shown {
            Some(shown) if shown.shows(id, token) => Verdict::Seen(Seen::InDocument {
                collection: shown.collection.clone(),
            }),
            _ => looked
                .view
                .judge(ReadOf::Document(id), token)
                .map(|()| Seen::InView),
        };
        self.wait(view, deadline, judge).await
    }

    /// Waits until `judge` sees it in what the watcher of `view` saw.
    async fn wait<S>(
        &self,
        view: &str,
        deadline: Instant,
        judge: impl Fn(&Looked) -> Verdict<S>,
    ) -> Result<S, ConsistencyError> {
        let mut looks = self.join(view);
        loop {
            let missing = match judge(&looks.borrow_and_update()) {
                Verdict::Seen(seen) => return Ok(seen),
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
    fn join(&self, view: &str) -> watch::Receiver<Looked> {
        let mut watchers = self.shared.lock();
        if let Some(watcher) = watchers.get(view) {
            watcher.arrived.notify_one();
            return watcher.looks.subscribe();
        }
        let watcher = Watcher {
            looks: watch::Sender::new(Looked {
                view: Look::Pending,
                shown: None,
            }),
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
    async fn look(&self, view: &str, known: &mut Option<(String, HistoryId)>) -> (Looked, Watches) {
        let alone = |view| Looked { view, shown: None };
        let collection = match self.versions.current(view).await {
            Ok(Some(current)) => current.alias.collection.clone(),
            Ok(None) => return (alone(Look::Nothing), Watches::new()),
            Err(error) => return (alone(Look::Failed(Arc::new(error))), Watches::new()),
        };
        let status = self.live.get(&collection);
        // The watches come before the look: what moves in between wakes at once.
        let watches = status.as_ref().map(watches).unwrap_or_default();
        match (&status, &*known) {
            (Some(status), Some((name, history))) if *name == collection => {
                return (alone(Look::of_status(*history, status)), watches);
            }
            _ => {}
        }
        let (states, documents) = tokio::join!(
            self.store.load_states(&collection),
            self.look_at_documents(view, &collection)
        );
        let look = match states {
            Ok(states) => Look::of_states(&states),
            Err(error) => Look::Failed(Arc::new(error.into())),
        };
        let mut looked = alone(look);
        if let Look::Reached(history, _) = looked.view {
            *known = Some((collection.clone(), history));
            looked.shown = Some(Arc::new(Shown {
                collection,
                history,
                documents,
            }));
        }
        (looked, watches)
    }

    /// How far the documents are that are waited for; none where that cannot be told: what is known of the view stands for them.
    async fn look_at_documents(&self, view: &str, collection: &str) -> HashMap<String, Applied> {
        let awaited = self.documents.of(view);
        if awaited.is_empty() {
            return HashMap::new();
        }
        let ids: Vec<_> = awaited.iter().map(String::as_str).collect();
        let applied = self.store.applied(collection, &ids).await;
        applied.unwrap_or_default().into_iter().collect()
    }
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

#[cfg(test)]
mod tests;
