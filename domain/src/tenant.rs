//! For whom data is kept, and how that keeps it apart.

use std::fmt;
use std::sync::Arc;

/// The most bytes a tenant's name may have.
pub const MAX_TENANT_BYTES: usize = 56;

/// What stands between a tenant's name and what belongs to the tenant.
const SEPARATOR: char = ':';

/// A tenant: one of those for whom a program keeps data that the others must neither see nor change.
///
/// Its name is 1 to [`MAX_TENANT_BYTES`] letters, digits, `-`, `.` and `_`, and two are the same only when all their bytes are. It stands first in
/// the name of each stream and of each document that is the tenant's, so that whatever is looked up by such a name cannot be another's.
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

    /// What the names of all that is the tenant's begin with, and no other name.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{}{SEPARATOR}", self.0)
    }
}

/// What the document is called that a view keeps under `key` for `tenant`: `acme:ann`. No two pairs of tenant and key share a name, so a key
/// without a tenant that looks like one with a tenant gets a colon before it: `:acme:ann`.
#[must_use]
pub fn document_id(tenant: Option<&Tenant>, key: &str) -> String {
    match tenant {
        Some(tenant) => format!("{tenant}{SEPARATOR}{key}"),
        None if split(key).is_some() => format!("{SEPARATOR}{key}"),
        None => key.to_owned(),
    }
}

/// The key under which the document `id` is kept, as [`document_id`] made it.
#[must_use]
pub fn document_key(id: &str) -> &str {
    split(id).map_or(id, |(_, key)| key)
}

/// What stands before and behind the first colon, where what stands before it is a tenant's name, or nothing.
fn split(text: &str) -> Option<(&str, &str)> {
    let parts = text.split_once(SEPARATOR);
    parts.filter(|(tenant, _)| tenant.is_empty() || is_tenant(tenant))
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

/// Whether `text` may name a tenant.
fn is_tenant(text: &str) -> bool {
    (1..=MAX_TENANT_BYTES).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_documents_share_a_name() {
        let tenants = [
            None,
            Some(Tenant::new("a").unwrap()),
            Some(Tenant::new("b").unwrap()),
        ];
        let keys = [
            "x", "a:x", ":x", "::x", "a:", ":", "b:a:x", "é:x", "a b:x", "a/b:x",
        ];
        let mut names = std::collections::BTreeSet::new();
        for tenant in &tenants {
            for key in keys {
                let name = document_id(tenant.as_ref(), key);
                assert_eq!(document_key(&name), key, "{name}");
                if let Some(tenant) = tenant {
                    assert!(name.starts_with(&tenant.prefix()));
                }
                assert!(names.insert(name.clone()), "{name}");
            }
        }
        for tenant in tenants.iter().flatten() {
            let prefix = tenant.prefix();
            let own = names.iter().filter(|name| name.starts_with(&prefix));
            assert_eq!(own.count(), keys.len());
        }
    }

    #[test]
    fn a_name_that_could_run_into_what_follows_is_refused() {
        for name in [
            "",
            "a:b",
            "a/b",
            "a b",
            "é",
            "a\0",
            "a%",
            &"x".repeat(MAX_TENANT_BYTES + 1),
        ] {
            assert_eq!(Tenant::new(name), Err(InvalidTenant), "{name:?}");
        }
        for name in ["a", "Acme-2.eu_1", &"x".repeat(MAX_TENANT_BYTES)] {
            assert_eq!(Tenant::new(name).unwrap().as_str(), name);
        }
    }
}
