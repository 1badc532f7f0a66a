//! State records, beside the log. (What every state store must do, the suite of those says.)

use std::sync::Arc;

use async_trait::async_trait;
use tidelog_domain::Partition;
use tidelog_eventbus::conformance::StateStoreFactory;
use tidelog_eventbus::{StateRecord, StateStore};

use super::StoreFactory;
use super::support::open;

/// The partition of the cases.
const PARTITION: Partition = Partition::new(1);

/// The state records of the event stores that a factory opens.
#[derive(Debug)]
pub struct StatesOf<F>(pub F);

#[async_trait]
impl<F: StoreFactory> StateStoreFactory for StatesOf<F> {
    async fn states(&self) -> Arc<dyn StateStore> {
        open(&self.0).await
    }
}

/// A record that was written is there when the log is opened again, at its revision, and whatever history the log has now.
///
/// # Panics
///
/// When it is not.
pub async fn a_state_record_survives_its_store(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let record = StateRecord::at_start(store.identity().await.unwrap().history);
    let taken = record.taken_by("a");
    for (revision, record) in [(0, &record), (1, &taken)] {
        let set = store.compare_and_set_state("mailer", PARTITION, revision, record);
        assert!(set.await.unwrap());
    }
    drop(store);
    let again = open(factory).await;
    again.renew_history().await.unwrap();
    let stored = again.load_states("mailer").await.unwrap();
    assert_eq!(stored, [(PARTITION, 2, taken)]);
}

/// Of two stores on one log that change a record at the same revision, one does.
///
/// # Panics
///
/// When both do, or none.
pub async fn two_stores_never_both_change_a_state_record(factory: &dyn StoreFactory) {
    let stores = [open(factory).await, open(factory).await];
    let history = stores[0].identity().await.unwrap().history;
    let (first, second) = (&stores[0], &stores[1]);
    for revision in 0..20 {
        let set = async |store: &Arc<dyn super::EventStore>, owner: &str| {
            let record = StateRecord::at_start(history).taken_by(owner);
            let set = store.compare_and_set_state("mailer", PARTITION, revision, &record);
            set.await.unwrap()
        };
        let (one, other) = tokio::join!(set(first, "a"), set(second, "b"));
        assert_ne!(one, other, "at revision {revision}");
        for store in &stores {
            let stored = store.load_states("mailer").await.unwrap();
            let owner = if one { "a" } else { "b" };
            assert_eq!(stored[0].1, revision + 1);
            assert_eq!(stored[0].2.owner.as_deref(), Some(owner));
        }
    }
}
