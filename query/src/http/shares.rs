//! What one tenant may take of the places that all tenants share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidelog_domain::Tenant;

/// The places that each tenant has. Cloning gives another handle to the same.
#[derive(Clone)]
pub(super) struct Shares {
    most: usize,
    taken: Arc<Mutex<HashMap<Tenant, usize>>>,
}

/// A tenant has a place while this lives.
pub(super) struct Share(Option<(Shares, Tenant)>);

impl Shares {
    /// At most so many for each tenant.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            taken: Arc::default(),
        }
    }

    /// A place for `tenant`, if it has not taken all of its own; without tenants there is always one.
    pub(super) fn take(&self, tenant: Option<&Tenant>) -> Option<Share> {
        let Some(tenant) = tenant else {
            return Some(Share(None));
        };
        let mut taken = self.taken();
        let count = taken.entry(tenant.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        drop(taken);
        Some(Share(Some((self.clone(), tenant.clone()))))
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Tenant, usize>> {
        // Nothing panics while it is held.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some((shares, tenant)) = &self.0 else {
            return;
        };
        let mut taken = shares.taken();
        if let Some(count) = taken.get_mut(tenant) {
            *count -= 1;
            if *count == 0 {
                taken.remove(tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_that_has_taken_its_places_leaves_those_of_others_alone() {
        let shares = Shares::new(2);
        let [acme, beta] = ["acme", "beta"].map(|name| Tenant::new(name).unwrap());
        let taken = [(); 2].map(|()| shares.take(Some(&acme)).unwrap());
        assert!(shares.take(Some(&acme)).is_none());
        assert!(shares.take(Some(&beta)).is_some());
        assert!((0..3).all(|_| shares.take(None).is_some()));
        drop(taken);
        assert!(shares.taken().is_empty());
        assert!(shares.take(Some(&acme)).is_some());
    }
}
