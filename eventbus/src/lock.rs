//! Locks that are held for a moment.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while these locks are held, and no state of them would be invalid if something did.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
