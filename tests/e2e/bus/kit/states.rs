//! Where subscriptions keep their state.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tidelog_domain::Partition;
use tidelog_eventbus::{StateError, StateRecord, StateStore};
use tidelog_query::store::InMemoryReadStore;
use tokio::sync::RwLock;

/// Where subscriptions keep their state, in memory; it can fail, and be restored from a backup.
pub(crate) struct States {
    store: Mutex<Arc<InMemoryReadStore>>,
    /// Nothing can be read or written.
    is_down: AtomicBool,
    /// So many loads are answered although it is down.
    loads_to_answer: AtomicUsize,
    /// So many answers to writes that are done are still to be lost.
    answers_to_lose: AtomicUsize,
    /// Writes wait for their turn at this gate, as they do for the only connection of a pool.
    gate: Mutex<Option<Arc<RwLock<()>>>>,
    /// So many writes have come to the gate.
    at_gate: AtomicUsize,
}

impl States {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            store: Mutex::default(),
            is_down: AtomicBool::new(false),
            loads_to_answer: AtomicUsize::new(0),
            answers_to_lose: AtomicUsize::new(0),
            gate: Mutex::default(),
            at_gate: AtomicUsize::new(0),
        })
    }

    pub(crate) fn be_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Answers so many loads although it is down.
    pub(crate) fn answer_loads(&self, count: usize) {
        self.loads_to_answer.store(count, Ordering::SeqCst);
    }

    pub(crate) fn loads_to_answer(&self) -> usize {
        self.loads_to_answer.load(Ordering::SeqCst)
    }

    /// Lets writes wait for their turn at `gate` from now on.
    pub(crate) fn wait_at(&self, gate: &Arc<RwLock<()>>) {
        *self.gate.lock().unwrap() = Some(Arc::clone(gate));
    }

    /// How many writes have come to the gate.
    pub(crate) fn writes_at_gate(&self) -> usize {
        self.at_gate.load(Ordering::SeqCst)
    }

    /// What is behind it, which never fails.
    pub(crate) fn inner(&self) -> Arc<InMemoryReadStore> {
        Arc::clone(&*self.store.lock().unwrap())
    }

    pub(crate) fn lose_answers(&self, count: usize) {
        self.answers_to_lose.store(count, Ordering::SeqCst);
    }

    pub(crate) fn are_all_answers_lost(&self) -> bool {
        self.answers_to_lose.load(Ordering::SeqCst) == 0
    }

    /// Puts these records in the place of those that there are, as a restore of a backup does.
    pub(crate) async fn restore(&self, backup: &BTreeMap<Partition, (u64, StateRecord)>) {
        let store = Arc::new(InMemoryReadStore::new());
        for (partition, (_, record)) in backup {
            let written = store.compare_and_set_state("view", *partition, 0, record);
            assert!(written.await.unwrap());
        }
        *self.store.lock().unwrap() = store;
    }

    fn store(&self) -> Result<Arc<InMemoryReadStore>, StateError> {
        match self.is_down.load(Ordering::SeqCst) {
            true => Err(StateError::Unavailable(
                "the test has switched it off".into(),
            )),
            false => Ok(self.inner()),
        }
    }
}

#[async_trait]
impl StateStore for States {
    async fn load_states(
        &self,
        subscription: &str,
    ) -> Result<Vec<(Partition, u64, StateRecord)>, StateError> {
        let store = match count_down(&self.loads_to_answer) {
            true => self.inner(),
            false => self.store()?,
        };
        store.load_states(subscription).await
    }

    async fn compare_and_set_state(
        &self,
        subscription: &str,
        partition: Partition,
        expected: u64,
        record: &StateRecord,
    ) -> Result<bool, StateError> {
        let gate = self.gate.lock().unwrap().clone();
        let _turn = match gate {
            Some(gate) => {
                self.at_gate.fetch_add(1, Ordering::SeqCst);
                Some(gate.write_owned().await)
            }
            None => None,
        };
        let store = self.store()?;
        let written = store.compare_and_set_state(subscription, partition, expected, record);
        let written = written.await?;
        match count_down(&self.answers_to_lose) {
            true => Err(StateError::Unavailable(
                "the test has lost the answer".into(),
            )),
            false => Ok(written),
        }
    }
}

/// Takes one off, unless there is none left.
fn count_down(count: &AtomicUsize) -> bool {
    let one_less = |count: usize| count.checked_sub(1);
    count
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
        .is_ok()
}

/// The state records of `view`, by partition.
pub(crate) async fn records(states: &dyn StateStore) -> BTreeMap<Partition, (u64, StateRecord)> {
    let stored = states.load_states("view").await.unwrap();
    stored
        .into_iter()
        .map(|(partition, revision, record)| (partition, (revision, record)))
        .collect()
}

/// Changes a state record, whatever else happens to it.
pub(crate) async fn change(
    states: &dyn StateStore,
    partition: Partition,
    change: impl Fn(&StateRecord) -> StateRecord,
) {
    loop {
        let (revision, record) = records(states).await.remove(&partition).unwrap();
        let changed = change(&record);
        let written = states.compare_and_set_state("view", partition, revision, &changed);
        if written.await.unwrap() {
            return;
        }
    }
}
