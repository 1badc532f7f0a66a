//! The idempotency keys of the commands that this process is working on.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidelog_domain::IdempotencyKey;

/// The scoped keys: no more than there are commands in the queues and the batches.
#[derive(Clone, Debug, Default)]
pub(super) struct RunningKeys(Arc<Mutex<HashSet<[u8; 32]>>>);

/// A key that is being worked on, until this is dropped.
#[derive(Debug)]
pub(super) struct RunningKey {
    all: RunningKeys,
    scoped: [u8; 32],
}

impl RunningKeys {
    /// Takes `key`, unless it is being worked on.
    pub(super) fn take(&self, key: &IdempotencyKey) -> Option<RunningKey> {
        self.keys().insert(key.scoped).then(|| RunningKey {
            all: self.clone(),
            scoped: key.scoped,
        })
    }

    /// The keys. Nothing can panic while they are half changed.
    fn keys(&self) -> MutexGuard<'_, HashSet<[u8; 32]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RunningKey {
    fn drop(&mut self) {
        self.all.keys().remove(&self.scoped);
    }
}
