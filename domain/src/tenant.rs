//! For whom data is kept, and how that keeps it apart.

use std::fmt;
use std::sync::Arc;

/// The most bytes a tenant's name may have.
pub const MAX_TENANT_BYTES: usize = 56;

/// What stands between a tenant and the rest in the name of a stream. Neither categories nor ids have it.
const IN_STREAMS: char = ':';

/// What stands between a tenant and the key in the name of a document: the symbol for a unit separator (U+241F). A key may have any
/// character, so it is one that keys do not have; one that has it is told apart all the same.
const IN_DOCUMENTS: char = '␟';

/// A tenant: one of those for whom a program keeps data that the others must neither see nor change.
///
/// Its name is 1 to [`MAX_TENANT_BYTES`] letters, digits, `-`, `.` and `_`, and two are the same only when all their bytes are. It stands
/// first in the name of each stream and of each document that is the tenant's, so that whatever is looked up by such a name cannot be
/// another's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(pub(crate) Arc<str>);

/// A text that cannot be the name of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tenant is called by 1 to {MAX_TENANT_BYTES} letters, digits, '-', '.' or '_'")]
pub struct InvalidTenant;

impl Tenant {
    /// The tenant called `name`.
    ///
    /// # Errors
    ///
    /// [`InvalidTenant`].
    pub fn new(name: &str) -> Result<Self, InvalidTenant> {
        if is_tenant(name) {
            Ok(Self(name.into()))
        } else {
            Err(InvalidTenant)
        }
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the names of all streams of the tenant begin with, and no other stream's.
    #[must_use]
    pub fn streams(&self) -> String {
        format!("{}{IN_STREAMS}", self.0)
    }

    /// What the names of all documents of the tenant begin with, and no other document's.
    #[must_use]
    pub fn documents(&self) -> String {
        format!("{}{IN_DOCUMENTS}", self.0)
    }

    /// A number that stands for the tenant in tokens: XXH64 (seed 0) of its name. It tells tenants apart, and proves nothing.
    #[must_use]
    pub fn mark(&self) -> u64 {
        twox_hash::XxHash64::oneshot(0, self.0.as_bytes())
    }
}

/// What the document is called that a view keeps under `key` for `tenant`: `acme␟ann`; without a tenant it is the key.
///
/// No two pairs of tenant and key share a name: a key without a tenant that looks like one with a tenant gets the separator before it.
#[must_use]
pub fn document_id(tenant: Option<&Tenant>, key: &str) -> String {
    match tenant {
        Some(tenant) => format!("{tenant}{IN_DOCUMENTS}{key}"),
        None if split(key).is_some() => format!("{IN_DOCUMENTS}{key}"),
        None => key.to_owned(),
    }
}

/// The key under which the document `id` is kept, as [`document_id`] made it.
#[must_use]
pub fn document_key(id: &str) -> &str {
    split(id).map_or(id, |(_, key)| key)
}

/// Whose document `id` is, as [`document_id`] made it; `None` where it is no tenant's.
#[must_use]
pub fn document_tenant(id: &str) -> Option<Tenant> {
    let (tenant, _) = split(id)?;
    Tenant::new(tenant).ok()
}

/// What stands before and behind the first separator, where what stands before it is a tenant's name, or nothing.
fn split(text: &str) -> Option<(&str, &str)> {
    let parts = text.split_once(IN_DOCUMENTS);
    parts.filter(|(tenant, _)| tenant.is_empty() || is_tenant(tenant))
}

/// Whether `text` may name a tenant.
fn is_tenant(text: &str) -> bool {
    (1..=MAX_TENANT_BYTES).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tenant({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_name_that_could_run_into_what_follows_is_refused() {
        let long = "x".repeat(MAX_TENANT_BYTES + 1);
        for name in ["", "a:b", "a␟b", "a/b", "a b", "é", "a\0", "a%", &long] {
            assert_eq!(Tenant::new(name), Err(InvalidTenant), "{name:?}");
        }
        for name in ["a", "Acme-2.eu_1", &"x".repeat(MAX_TENANT_BYTES)] {
            assert_eq!(Tenant::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn no_two_documents_share_a_name() {
        let tenants = ["a", "b"].map(|name| Some(Tenant::new(name).unwrap()));
        let tenants = [None].into_iter().chain(tenants);
        let keys = ["x", "a␟x", "␟x", "␟␟x", "a␟", "␟", "b␟a␟x", "é␟x", "a:x"];
        let mut names = BTreeSet::new();
        for tenant in tenants.clone() {
            for key in keys {
                let name = document_id(tenant.as_ref(), key);
                assert_eq!(document_key(&name), key, "{name}");
                assert_eq!(document_tenant(&name), tenant, "{name}");
                assert!(names.insert(name.clone()), "{name}");
            }
        }
        for tenant in tenants.flatten() {
            let prefix = tenant.documents();
            let own = names.iter().filter(|name| name.starts_with(&prefix));
            assert_eq!(own.count(), keys.len());
        }
    }
}
