//! A read store that fails when it is told to, in front of one that works.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tidelog_domain::Partition;
use tidelog_eventbus::{StateError, StateRecord, StateStore};
use tokio::sync::watch;

use crate::store::{
    Alias, Applied, Document, DocumentWrite, InMemoryReadStore, Index, KeptIndex, Query, ReadError,
    ReadStore, Written,
};

/// A store that can be cut off, can die in the middle of a write, and can stand still.
///
/// Cloning gives another handle with the same faults, [`FaultyStore::elsewhere`] one with faults of its own.
#[derive(Clone)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn ReadStore>,
    /// The same, where it is in memory.
    memory: Option<Arc<InMemoryReadStore>>,
    faults: Arc<Faults>,
    /// The collections that readers were led to, one after the other, by whoever did it.
    led_to: Arc<Mutex<Vec<String>>>,
}

#[derive(Default)]
struct Faults {
    cut_off: AtomicBool,
    /// How many documents the next bulk writes before it fails, and one more; 0: it does not fail.
    torn: AtomicUsize,
    /// How many calls are made before all stand still, and one more; 0: none does.
    calls_left: AtomicUsize,
    frozen: watch::Sender<bool>,
    /// Whether no index can be made.
    has_no_indexes: AtomicBool,
    /// Whether the first document of the next bulk is said to be written, and is not.
    loses: AtomicBool,
    /// How many milliseconds after a change of an alias its answer comes.
    alias_answer_ms: AtomicU64,
    /// Whether the documents that are asked next how far they are, are gone after the answer.
    forgets: AtomicBool,
    state_loads: AtomicUsize,
    documents: AtomicUsize,
    read: AtomicUsize,
}

impl Default for FaultyStore {
    fn default() -> Self {
        let memory = Arc::new(InMemoryReadStore::new());
        Self {
            memory: Some(memory.clone()),
            ..Self::around(memory)
        }
    }
}

impl FaultyStore {
    /// Faults in front of `inner`.
    pub(crate) fn around(inner: Arc<dyn ReadStore>) -> Self {
        Self {
            inner,
            memory: None,
            faults: Arc::default(),
            led_to: Arc::default(),
        }
    }

    /// The same store as another process sees it: with faults of its own.
    pub(crate) fn elsewhere(&self) -> Self {
        Self {
            faults: Arc::default(),
            ..self.clone()
        }
    }

    /// Takes a document away, as somebody does by hand.
    pub(crate) fn take_away(&self, collection: &str, id: &str) {
        self.memory.as_ref().unwrap().take_away(collection, id);
    }

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

    /// After `calls` more calls every one stands still before it is made, as those of a stopped process do.
    pub(crate) fn freeze_after(&self, calls: usize) {
        self.faults.calls_left.store(calls + 1, Ordering::SeqCst);
    }

    /// The first document of the next bulk is said to be written, and is not.
    pub(crate) fn lose_a_document(&self) {
        self.faults.loses.store(true, Ordering::SeqCst);
    }

    /// What is asked next how far it is, is gone after the answer, as after a crash of a store that had not kept it yet.
    pub(crate) fn forget_what_is_looked_at(&self) {
        self.faults.forgets.store(true, Ordering::SeqCst);
    }

    /// No index can be made, as where its user may not, until it is put back.
    pub(crate) fn refuse_indexes(&self, refuse: bool) {
        self.faults.has_no_indexes.store(refuse, Ordering::SeqCst);
    }

    /// Waits until it stands still.
    pub(crate) async fn frozen(&self) {
        let mut frozen = self.faults.frozen.subscribe();
        frozen.wait_for(|frozen| *frozen).await.unwrap();
    }

    /// Lets what stands still go on.
    pub(crate) fn thaw(&self) {
        self.faults.frozen.send_replace(false);
    }

    /// The answer to a change of an alias comes so long after it was made.
    pub(crate) fn answer_alias_after(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        self.faults.alias_answer_ms.store(ms, Ordering::SeqCst);
    }

    /// How often state records were loaded.
    pub(crate) fn state_loads(&self) -> usize {
        self.faults.state_loads.load(Ordering::SeqCst)
    }

    /// How many documents were handed over to be written.
    pub(crate) fn documents_handed_over(&self) -> usize {
        self.faults.documents.load(Ordering::SeqCst)
    }

    /// How many documents were asked for by their ids.
    pub(crate) fn documents_read(&self) -> usize {
        self.faults.read.load(Ordering::SeqCst)
    }

    /// The collections that readers were led to, one after the other.
    pub(crate) fn led_to(&self) -> Vec<String> {
        self.led_to.lock().unwrap().clone()
    }

    async fn reach(&self) -> Result<&dyn ReadStore, ReadError> {
        let faults = &*self.faults;
        let one_less = |left: usize| left.checked_sub(1);
        let left = faults
            .calls_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        if left == Ok(1) {
            faults.frozen.send_replace(true);
        }
        let mut frozen = faults.frozen.subscribe();
        frozen.wait_for(|frozen| !frozen).await.unwrap();
        if faults.cut_off.load(Ordering::SeqCst) {
            return Err(ReadError::Unavailable("cut off".into()));
        }
        Ok(&*self.inner)
    }

    async fn reach_states(&self) -> Result<&dyn ReadStore, StateError> {
        let reached = self.reach().await;
        reached.map_err(|error| StateError::Unavailable(Box::new(error)))
    }
}

#[async_trait]
impl ReadStore for FaultyStore {
    async fn create_collection(&self, collection: &str) -> Result<(), ReadError> {
        self.reach().await?.create_collection(collection).await
    }

    async fn drop_collection(&self, collection: &str) -> Result<(), ReadError> {
        self.reach().await?.drop_collection(collection).await
    }

    async fn get(&self, collection: &str, ids: &[&str]) -> Result<Vec<Document>, ReadError> {
        let store = self.reach().await?;
        self.faults.read.fetch_add(ids.len(), Ordering::SeqCst);
        store.get(collection, ids).await
    }

    async fn applied(
        &self,
        collection: &str,
        ids: &[&str],
    ) -> Result<Vec<(String, Applied)>, ReadError> {
        let applied = self.reach().await?.applied(collection, ids).await?;
        if self.faults.forgets.swap(false, Ordering::SeqCst) {
            for (id, _) in &applied {
                self.take_away(collection, id);
            }
        }
        Ok(applied)
    }

    async fn write(
        &self,
        collection: &str,
        writes: &[DocumentWrite],
    ) -> Result<Vec<Written>, ReadError> {
        let store = self.reach().await?;
        self.faults
            .documents
            .fetch_add(writes.len(), Ordering::SeqCst);
        if self.faults.loses.swap(false, Ordering::SeqCst) {
            let mut written = store.write(collection, &writes[1..]).await?;
            written.insert(0, Written::Applied);
            return Ok(written);
        }
        match self.faults.torn.swap(0, Ordering::SeqCst) {
            0 => store.write(collection, writes).await,
            torn => {
                let some = writes.get(..torn - 1).unwrap_or(writes);
                store.write(collection, some).await?;
                Err(ReadError::Unavailable("torn".into()))
            }
        }
    }

    async fn find(&self, collection: &str, query: &Query) -> Result<Vec<Document>, ReadError> {
        self.reach().await?.find(collection, query).await
    }

    async fn ensure_indexes(&self, collection: &str, wanted: &[Index]) -> Result<(), ReadError> {
        let store = self.reach().await?;
        if self.faults.has_no_indexes.load(Ordering::SeqCst) {
            return Err(ReadError::Unavailable("no rights".into()));
        }
        store.ensure_indexes(collection, wanted).await
    }

    async fn indexes(&self, collection: &str) -> Result<Vec<KeptIndex>, ReadError> {
        self.reach().await?.indexes(collection).await
    }

    async fn load_alias(&self, view: &str) -> Result<Option<Alias>, ReadError> {
        self.reach().await?.load_alias(view).await
    }

    async fn compare_and_set_alias(
        &self,
        view: &str,
        expected: u64,
        alias: &Alias,
    ) -> Result<bool, ReadError> {
        let store = self.reach().await?;
        let set = store.compare_and_set_alias(view, expected, alias).await?;
        if set && alias.built {
            let mut led_to = self.led_to.lock().unwrap();
            let of_view = |led: &&String| led.starts_with(&format!("{view}_v"));
            if led_to.iter().rfind(of_view) != Some(&alias.collection) {
                led_to.push(alias.collection.clone());
            }
        }
        let late = self.faults.alias_answer_ms.load(Ordering::SeqCst);
        if late > 0 {
            tokio::time::sleep(Duration::from_millis(late)).await;
        }
        Ok(set)
    }
}

#[async_trait]
impl StateStore for FaultyStore {
    async fn load_states(
        &self,
        subscription: &str,
    ) -> Result<Vec<(Partition, u64, StateRecord)>, StateError> {
        self.faults.state_loads.fetch_add(1, Ordering::SeqCst);
        self.reach_states().await?.load_states(subscription).await
    }

    async fn compare_and_set_state(
        &self,
        subscription: &str,
        partition: Partition,
        expected: u64,
        record: &StateRecord,
    ) -> Result<bool, StateError> {
        self.reach_states()
            .await?
            .compare_and_set_state(subscription, partition, expected, record)
            .await
    }
}
