//! State records: apart from the documents. (What every state store must do, the suite of those says.)

use std::sync::Arc;

use async_trait::async_trait;
use tidelog_domain::Partition;
use tidelog_eventbus::StateStore;
use tidelog_eventbus::conformance::StateStoreFactory;

use super::ReadStoreFactory;
use super::sample::{document, everything, find_ids, fresh, insert, state};
use crate::store::{Field, Filter, Place, Query};

/// The state records of the read stores that a factory gives.
#[derive(Debug)]
pub struct StatesOf<F>(pub F);

#[async_trait]
impl<F: ReadStoreFactory> StateStoreFactory for StatesOf<F> {
    async fn states(&self) -> Arc<dyn StateStore> {
        self.0.store().await
    }
}

/// They may live in the documents' own collection, but no read of documents sees them.
pub async fn state_records_are_never_among_the_documents(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    let record = state();
    for number in 0..8 {
        let partition = Partition::new(number);
        let set = store.compare_and_set_state(&collection, partition, 0, &record);
        assert!(set.await.unwrap());
    }
    insert(&*store, &collection, ["3", "m"].map(document).to_vec()).await;
    let null = |field| Filter::is(field, serde_json::Value::Null);
    for filter in [
        Filter::default(),
        null(Field::Data(vec!["owner".to_owned()])),
        null(Field::Data(vec!["a.b".to_owned()])),
    ] {
        for (after, ids) in [
            (None, &["3", "m"][..]),
            (Some(""), &["3", "m"]),
            (Some("m"), &[]),
        ] {
            let query = Query {
                filter: filter.clone(),
                after: after.map(Place::behind),
                deleted: true,
                ..everything()
            };
            assert_eq!(find_ids(&*store, &collection, &query).await, ids);
        }
    }
    let found = store
        .get(&collection, &["0", "1", "{\"partition\":1}", "partition"])
        .await
        .unwrap();
    assert!(found.is_empty());
    assert_eq!(store.load_states(&collection).await.unwrap().len(), 8);
}
