//! The subscriptions that run in this process, for whoever wants to know how far their views are.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tidelog_eventbus::{PartitionState, SubscriptionStatus};

/// The views' subscriptions of this process, by the collection that each one writes.
///
/// Empty in a process that only answers queries: then the state records in the read store say how far a view is. Cloning
/// gives another handle to the same.
#[derive(Clone, Debug, Default)]
pub struct LiveViews {
    subscriptions: Arc<RwLock<HashMap<String, SubscriptionStatus>>>,
}

impl LiveViews {
    /// What can be seen of the subscription that writes `collection`, if it runs here.
    #[must_use]
    pub fn get(&self, collection: &str) -> Option<SubscriptionStatus> {
        let subscriptions = self
            .subscriptions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        subscriptions.get(collection).cloned()
    }

    /// All of them, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<SubscriptionStatus> {
        let subscriptions = self
            .subscriptions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        subscriptions.values().cloned().collect()
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

    /// From now on `status` is that of the subscription it names.
    pub fn insert(&self, status: SubscriptionStatus) {
        self.subscriptions
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(status.name().to_owned(), status);
    }

    /// The subscription that writes `collection` runs here no longer.
    pub fn remove(&self, collection: &str) {
        self.subscriptions
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(collection);
    }
}
