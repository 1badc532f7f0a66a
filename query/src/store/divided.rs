//! Several read stores as one: some views have a store of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tidelog_domain::Partition;
use tidelog_eventbus::{StateError, StateRecord, StateStore};

use super::{
    Alias, Applied, Document, DocumentWrite, Index, KeptIndex, Query, ReadError, ReadStore, Written,
};
use crate::replay::view_of;

/// A read store that keeps some views in stores of their own, and all others in one.
///
/// All that belongs to a view is in one store: its alias, and of each of its versions the documents, the state records and the indexes.
/// So what holds in a store holds for the view, whatever the other stores do.
pub struct DividedReadStore {
    rest: Arc<dyn ReadStore>,
    own: BTreeMap<String, Arc<dyn ReadStore>>,
}

impl DividedReadStore {
    /// Keeps the views that `own` names where it says, and all others in `rest`.
    #[must_use]
    pub fn new(rest: Arc<dyn ReadStore>, own: BTreeMap<String, Arc<dyn ReadStore>>) -> Self {
        Self { rest, own }
    }

    /// Where `view` is.
    fn of_view(&self, view: &str) -> &dyn ReadStore {
        self.own.get(view).map_or(&*self.rest, |own| &**own)
    }

    /// Where `collection` is, which is a version of a view.
    fn of(&self, collection: &str) -> &dyn ReadStore {
        view_of(collection).map_or(&*self.rest, |view| self.of_view(view))
    }
}

#[async_trait]
impl ReadStore for DividedReadStore {
    async fn create_collection(&self, collection: &str) -> Result<(), ReadError> {
        self.of(collection).create_collection(collection).await
    }

    async fn drop_collection(&self, collection: &str) -> Result<(), ReadError> {
        self.of(collection).drop_collection(collection).await
    }

    async fn get(&self, collection: &str, ids: &[&str]) -> Result<Vec<Document>, ReadError> {
        self.of(collection).get(collection, ids).await
    }

    async fn applied(
        &self,
        collection: &str,
        ids: &[&str],
    ) -> Result<Vec<(String, Applied)>, ReadError> {
        self.of(collection).applied(collection, ids).await
    }

    async fn write(
        &self,
        collection: &str,
        writes: &[DocumentWrite],
    ) -> Result<Vec<Written>, ReadError> {
        self.of(collection).write(collection, writes).await
    }

    async fn find(&self, collection: &str, query: &Query) -> Result<Vec<Document>, ReadError> {
        self.of(collection).find(collection, query).await
    }

    async fn count(&self, collection: &str, query: &Query) -> Result<u64, ReadError> {
        self.of(collection).count(collection, query).await
    }

    async fn ensure_indexes(&self, collection: &str, wanted: &[Index]) -> Result<(), ReadError> {
        let store = self.of(collection);
        store.ensure_indexes(collection, wanted).await
    }

    async fn indexes(&self, collection: &str) -> Result<Vec<KeptIndex>, ReadError> {
        self.of(collection).indexes(collection).await
    }

    async fn load_alias(&self, view: &str) -> Result<Option<Alias>, ReadError> {
        self.of_view(view).load_alias(view).await
    }

    async fn compare_and_set_alias(
        &self,
        view: &str,
        expected: u64,
        alias: &Alias,
    ) -> Result<bool, ReadError> {
        let store = self.of_view(view);
        store.compare_and_set_alias(view, expected, alias).await
    }
}

#[async_trait]
impl StateStore for DividedReadStore {
    async fn load_states(
        &self,
        subscription: &str,
    ) -> Result<Vec<(Partition, u64, StateRecord)>, StateError> {
        self.of(subscription).load_states(subscription).await
    }

    async fn compare_and_set_state(
        &self,
        subscription: &str,
        partition: Partition,
        expected: u64,
        record: &StateRecord,
    ) -> Result<bool, StateError> {
        let store = self.of(subscription);
        let set = store.compare_and_set_state(subscription, partition, expected, record);
        set.await
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::store::InMemoryReadStore;
    use crate::store::conformance::ReadStoreFactory;

    /// A store in which some views have another one.
    struct Divided;

    #[async_trait]
    impl ReadStoreFactory for Divided {
        async fn store(&self) -> Arc<dyn ReadStore> {
            let own: Arc<dyn ReadStore> = Arc::new(InMemoryReadStore::new());
            let own = BTreeMap::from([("page".to_owned(), own)]);
            let rest = Arc::new(InMemoryReadStore::new());
            Arc::new(DividedReadStore::new(rest, own))
        }
    }

    crate::read_store_conformance!(conformance, Divided);
    crate::replay_conformance!(replay, Divided);

    #[tokio::test]
    async fn all_of_a_view_is_in_its_own_store_and_nothing_else_is() {
        let [own, rest] = [(); 2].map(|()| Arc::new(InMemoryReadStore::new()));
        let named: Arc<dyn ReadStore> = own.clone();
        let named = BTreeMap::from([("page".to_owned(), named)]);
        let store = DividedReadStore::new(rest.clone(), named);
        let record = StateRecord::at_start(tidelog_domain::HistoryId::new(Uuid::now_v7()));
        for (view, collection) in [("page", "page_v7"), ("pages", "pages_v7")] {
            let alias = Alias::first(collection, "a");
            assert!(store.compare_and_set_alias(view, 0, &alias).await.unwrap());
            let states = store.compare_and_set_state(collection, Partition::new(3), 0, &record);
            assert!(states.await.unwrap());
            let index = Index { fields: Vec::new() };
            store.ensure_indexes(collection, &[index]).await.unwrap();
        }
        for (its, view, collection, of_other) in [
            (&own, "page", "page_v7", false),
            (&own, "pages", "pages_v7", true),
            (&rest, "pages", "pages_v7", false),
            (&rest, "page", "page_v7", true),
        ] {
            assert_eq!(its.load_alias(view).await.unwrap().is_none(), of_other);
            let states = its.load_states(collection).await.unwrap();
            assert_eq!(states.is_empty(), of_other);
            let indexes = its.indexes(collection).await.unwrap();
            assert_eq!(indexes.is_empty(), of_other);
        }
        store.drop_collection("page_v7").await.unwrap();
        assert!(own.load_states("page_v7").await.unwrap().is_empty());
        assert!(!rest.load_states("pages_v7").await.unwrap().is_empty());
    }
}
