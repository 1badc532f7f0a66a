//! The subscriptions that run in this process, for whoever wants to know how far their views are.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tidelog_eventbus::{PartitionState, SubscriptionStatus};

/// What this process does for a view.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ViewState {
    /// It has not looked yet.
    Starting,
    /// It builds the view's first version; readers are led to it when it has caught up.
    Building {
        /// The collection.
        collection: String,
    },
    /// It projects new events into the version that is read.
    Following {
        /// The collection.
        collection: String,
    },
    /// It builds the view anew: the log has another history, or the view another definition.
    Replaying {
        /// Events that are folded.
        events: u64,
        /// Events that the log has, as far as is known.
        of: u64,
    },
    /// It can do nothing for the view now.
    Waiting {
        /// Why, for people.
        reason: String,
    },
}

/// What this process does for the views, and the subscriptions that it runs for them.
///
/// Empty in a process that only answers queries: then the state records in the read store say how far a view is. Cloning
/// gives another handle to the same.
#[derive(Clone, Debug, Default)]
pub struct LiveViews {
    inner: Arc<RwLock<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By the collection that each one writes, with the view.
    subscriptions: HashMap<String, (String, SubscriptionStatus)>,
    /// By view.
    states: BTreeMap<String, ViewState>,
}

impl LiveViews {
    /// What can be seen of the subscription that writes `collection`, if it runs here.
    #[must_use]
    pub fn get(&self, collection: &str) -> Option<SubscriptionStatus> {
        let inner = self.read();
        let (_, status) = inner.subscriptions.get(collection)?;
        Some(status.clone())
    }

    /// What can be seen of all subscriptions, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<SubscriptionStatus> {
        let inner = self.read();
        let statuses = inner.subscriptions.values();
        statuses.map(|(_, status)| status.clone()).collect()
    }

    /// What can be seen of the subscriptions, each with its view, by name.
    #[must_use]
    pub fn by_view(&self) -> Vec<(String, SubscriptionStatus)> {
        let mut all: Vec<_> = self.read().subscriptions.values().cloned().collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    /// What is done for each view, by name.
    #[must_use]
    pub fn states(&self) -> BTreeMap<String, ViewState> {
        self.read().states.clone()
    }

    /// How many events `collection` is behind the log, where that is known here.
    #[must_use]
    pub fn lag(&self, collection: &str) -> Option<u64> {
        let status = self.get(collection)?;
        let partitions = status.partitions();
        let known = partitions
            .iter()
            .all(|partition| partition.state != PartitionState::Starting);
        known.then(|| status.lag())
    }

    pub(crate) fn insert(&self, view: &str, status: SubscriptionStatus) {
        let collection = status.name().to_owned();
        let subscription = (view.to_owned(), status);
        self.write().subscriptions.insert(collection, subscription);
    }

    pub(crate) fn remove(&self, collection: &str) {
        self.write().subscriptions.remove(collection);
    }

    /// Says what is done for `view` from now on: for who keeps it.
    pub fn set_state(&self, view: &str, state: ViewState) {
        self.write().states.insert(view.to_owned(), state);
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}
