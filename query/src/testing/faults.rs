//! A read store that fails when it is told to: the one in memory, with a fault in front of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use tidelog_domain::Partition;
use tidelog_eventbus::{StateError, StateRecord, StateStore};

use crate::store::{
    Alias, Document, DocumentWrite, InMemoryReadStore, Query, ReadError, ReadStore, Written,
};

/// The store in memory, which can be cut off, and can die in the middle of a write.
#[derive(Clone, Default)]
pub(crate) struct FaultyStore {
    inner: Arc<InMemoryReadStore>,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    cut_off: AtomicBool,
    /// How many documents the next bulk writes before it fails, and one more; 0: it does not fail.
    torn: AtomicUsize,
    state_loads: AtomicUsize,
}

impl FaultyStore {
    /// Nothing can be reached until it is put back.
    pub(crate) fn cut_off(&self, cut_off: bool) {
        self.faults.cut_off.store(cut_off, Ordering::SeqCst);
    }

    /// The next bulk fails after `documents` of it were written.
    pub(crate) fn tear_next_write(&self, documents: usize) {
        self.faults.torn.store(documents + 1, Ordering::SeqCst);
    }

    /// The next bulk is written as any other.
    pub(crate) fn heal(&self) {
        self.faults.torn.store(0, Ordering::SeqCst);
    }

    /// How often state records were loaded.
    pub(crate) fn state_loads(&self) -> usize {
        self.faults.state_loads.load(Ordering::SeqCst)
    }

    fn reach(&self) -> Result<&InMemoryReadStore, ReadError> {
        if self.faults.cut_off.load(Ordering::SeqCst) {
            return Err(ReadError::Unavailable("cut off".into()));
        }
        Ok(&self.inner)
    }

    fn reach_states(&self) -> Result<&InMemoryReadStore, StateError> {
        self.reach()
            .map_err(|error| StateError::Unavailable(Box::new(error)))
    }
}

#[async_trait]
impl ReadStore for FaultyStore {
    async fn create_collection(&self, collection: &str) -> Result<(), ReadError> {
        self.reach()?.create_collection(collection).await
    }

    async fn drop_collection(&self, collection: &str) -> Result<(), ReadError> {
        self.reach()?.drop_collection(collection).await
    }

    async fn get(&self, collection: &str, ids: &[&str]) -> Result<Vec<Document>, ReadError> {
        self.reach()?.get(collection, ids).await
    }

    async fn write(
        &self,
        collection: &str,
        writes: &[DocumentWrite],
    ) -> Result<Vec<Written>, ReadError> {
        match self.faults.torn.swap(0, Ordering::SeqCst) {
            0 => self.reach()?.write(collection, writes).await,
            torn => {
                let some = writes.get(..torn - 1).unwrap_or(writes);
                self.inner.write(collection, some).await?;
                Err(ReadError::Unavailable("torn".into()))
            }
        }
    }

    async fn find(&self, collection: &str, query: &Query) -> Result<Vec<Document>, ReadError> {
        self.reach()?.find(collection, query).await
    }

    async fn load_alias(&self, view: &str) -> Result<Option<Alias>, ReadError> {
        self.reach()?.load_alias(view).await
    }

    async fn compare_and_set_alias(
        &self,
        view: &str,
        expected: u64,
        alias: &Alias,
    ) -> Result<bool, ReadError> {
        self.reach()?
            .compare_and_set_alias(view, expected, alias)
            .await
    }
}

#[async_trait]
impl StateStore for FaultyStore {
    async fn load_states(
        &self,
        subscription: &str,
    ) -> Result<Vec<(Partition, u64, StateRecord)>, StateError> {
        self.faults.state_loads.fetch_add(1, Ordering::SeqCst);
        self.reach_states()?.load_states(subscription).await
    }

    async fn compare_and_set_state(
        &self,
        subscription: &str,
        partition: Partition,
        expected: u64,
        record: &StateRecord,
    ) -> Result<bool, StateError> {
        self.reach_states()?
            .compare_and_set_state(subscription, partition, expected, record)
            .await
    }
}
