//! What one client may take of the places that all of them share.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The places that each client has, by what it is known by. Cloning gives another handle to the same.
#[derive(Debug)]
pub struct Shares<C> {
    most: usize,
    taken: Arc<Mutex<HashMap<C, usize>>>,
}

/// A client has a place while this lives.
#[derive(Debug)]
pub struct Share<C: Eq + Hash>(Option<(Shares<C>, C)>);

impl<C> Clone for Shares<C> {
    fn clone(&self) -> Self {
        Self {
            most: self.most,
            taken: Arc::clone(&self.taken),
        }
    }
}

impl<C: Clone + Eq + Hash> Shares<C> {
    /// At most so many for each client.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            taken: Arc::default(),
        }
    }

    /// A place for `client`, if it has not taken all of its own; where clients are not told apart there is always one.
    #[must_use]
    pub fn take(&self, client: Option<&C>) -> Option<Share<C>> {
        let Some(client) = client else {
            return Some(Share(None));
        };
        let mut taken = self.taken();
        let count = taken.entry(client.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        drop(taken);
        Some(Share(Some((self.clone(), client.clone()))))
    }
}

impl<C> Shares<C> {
    /// How many each client may have.
    #[must_use]
    pub fn most(&self) -> usize {
        self.most
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<C, usize>> {
        // Nothing panics while it is held.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Eq + Hash> Drop for Share<C> {
    fn drop(&mut self) {
        let Some((shares, client)) = &self.0 else {
            return;
        };
        let mut taken = shares.taken();
        if let Some(count) = taken.get_mut(client) {
            *count -= 1;
            if *count == 0 {
                taken.remove(client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_has_taken_its_places_leaves_those_of_others_alone() {
        let shares = Shares::new(2);
        let taken = [(); 2].map(|()| shares.take(Some(&"acme")).unwrap());
        assert!(shares.take(Some(&"acme")).is_none());
        assert!(shares.take(Some(&"beta")).is_some());
        assert!((0..3).all(|_| shares.take(None).is_some()));
        drop(taken);
        assert!(shares.taken().is_empty());
        assert!(shares.take(Some(&"acme")).is_some());
    }
}
