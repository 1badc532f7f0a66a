//! What a stream is called, and which partition of the log it lives in.

use std::fmt;
use std::sync::Arc;

use crate::position::{Partition, Partitions};
use crate::tenant::{InvalidTenant, Tenant, document_id};

/// The most bytes an aggregate's id may have.
pub const MAX_ID_BYTES: usize = 128;

/// The most bytes a category (an aggregate's name) may have.
const MAX_CATEGORY_BYTES: usize = 64;

/// The name of a stream: a category (the aggregate's name) and the aggregate's id, written `post/7f3a`; where it belongs to a
/// [`Tenant`], that first: `acme:post/7f3a`.
///
/// A category is a lower-case letter followed by up to 63 of `a-z 0-9 _ -`. An id is 1 to
/// [`MAX_ID_BYTES`] of the characters that a URL leaves alone (RFC 3986, unreserved: letters, digits,
/// `- . _ ~`), and neither `.` nor `..`, which URL parsers fold away. Two ids are the same only when
/// all their bytes are: `Ann` and `ann` are two streams on every backend.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    name: Arc<str>,
    /// Where the category begins: 0, or behind the tenant and its colon.
    category: usize,
    slash: usize,
}

/// A text that is no stream's name, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidStreamId {
    /// The tenant cannot be one.
    #[error(transparent)]
    Tenant(#[from] InvalidTenant),
    /// The category is empty, too long, or has a character that it may not have.
    #[error("a category is a lower-case letter followed by up to 63 of a-z, 0-9, _ and -")]
    Category,
    /// The id is empty, too long, `.`, `..`, or has a character that it may not have.
    #[error("an id is 1 to 128 letters, digits, '-', '.', '_' or '~', and not '.' or '..'")]
    Id,
    /// There is no `/` between category and id.
    #[error("a stream is written category/id, or tenant:category/id")]
    NoSlash,
}

impl StreamId {
    /// Names the stream of `id` in `category`, which belongs to no tenant.
    ///
    /// # Errors
    ///
    /// [`InvalidStreamId`] when either has a character or a length that it may not have.
    pub fn new(category: &str, id: &str) -> Result<Self, InvalidStreamId> {
        Self::of(None, category, id)
    }

    /// Names the stream of `id` in `category` that belongs to `tenant`.
    ///
    /// # Errors
    ///
    /// [`InvalidStreamId`] when category or id has a character or a length that it may not have.
    pub fn of(tenant: Option<&Tenant>, category: &str, id: &str) -> Result<Self, InvalidStreamId> {
        if !is_category(category) {
            return Err(InvalidStreamId::Category);
        }
        if !is_id(id) {
            return Err(InvalidStreamId::Id);
        }
        let prefix = tenant.map(Tenant::streams).unwrap_or_default();
        Ok(Self {
            name: format!("{prefix}{category}/{id}").into(),
            category: prefix.len(),
            slash: prefix.len() + category.len(),
        })
    }

    /// The stream of the same category and id that belongs to `tenant`.
    #[must_use]
    pub fn for_tenant(&self, tenant: Option<&Tenant>) -> Self {
        let prefix = tenant.map(Tenant::streams).unwrap_or_default();
        let rest = self.name.get(self.category..).unwrap_or_default();
        Self {
            name: format!("{prefix}{rest}").into(),
            category: prefix.len(),
            slash: self.slash - self.category + prefix.len(),
        }
    }

    /// Reads a stream's name as [`StreamId::as_str`] wrote it.
    ///
    /// # Errors
    ///
    /// [`InvalidStreamId`] when it is not such a name.
    pub fn parse(name: &str) -> Result<Self, InvalidStreamId> {
        let (category, id) = name.split_once('/').ok_or(InvalidStreamId::NoSlash)?;
        match category.split_once(':') {
            None => Self::new(category, id),
            Some((tenant, category)) => Self::of(Some(&Tenant::new(tenant)?), category, id),
        }
    }

    /// The whole name, `category/id` or `tenant:category/id`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Whose stream it is; `None` where it belongs to no tenant.
    #[must_use]
    pub fn tenant(&self) -> Option<Tenant> {
        let tenant = self.name.get(..self.category.checked_sub(1)?)?;
        Some(Tenant(tenant.into()))
    }

    /// The category: the aggregate's name.
    #[must_use]
    pub fn category(&self) -> &str {
        let category = self.name.get(self.category..self.slash);
        category.unwrap_or_default()
    }

    /// What the document is called that a view keeps of this stream alone: the aggregate's id, in the name of its tenant.
    #[must_use]
    pub fn document_id(&self) -> String {
        document_id(self.tenant().as_ref(), self.id())
    }

    /// The aggregate's id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.name.get(self.slash + 1..).unwrap_or_default()
    }

    /// The partition of the log that holds this stream: XXH64 (seed 0) of the name, modulo `partitions`.
    ///
    /// The hash is part of the stored format: its name is kept in the log, and its vectors are published
    /// in `docs/partitioning.md`.
    #[must_use]
    pub fn partition(&self, partitions: Partitions) -> Partition {
        partitions.of_hash(twox_hash::XxHash64::oneshot(0, self.name.as_bytes()))
    }
}

/// Whether `text` may name a category.
pub(crate) fn is_category(text: &str) -> bool {
    text.len() <= MAX_CATEGORY_BYTES
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

/// Whether `text` may be an aggregate's id.
fn is_id(text: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&text.len())
        && text != "."
        && text != ".."
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'))
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_a_category_and_an_id() {
        let stream = StreamId::new("post", "a.B~1_-").unwrap();
        assert_eq!(
            (stream.category(), stream.id(), stream.as_str()),
            ("post", "a.B~1_-", "post/a.B~1_-")
        );
        assert_eq!(StreamId::parse("post/a.B~1_-").unwrap(), stream);
    }

    #[test]
    fn a_stream_of_a_tenant_is_another_than_that_of_any_other() {
        let acme = Tenant::new("acme").unwrap();
        let stream = StreamId::of(Some(&acme), "post", "1").unwrap();
        assert_eq!(stream.as_str(), "acme:post/1");
        assert_eq!(
            (stream.tenant(), stream.category(), stream.id()),
            (Some(acme.clone()), "post", "1")
        );
        assert_eq!(StreamId::parse("acme:post/1").unwrap(), stream);
        let own = StreamId::new("post", "1").unwrap();
        assert_eq!(own.tenant(), None);
        assert_ne!(own, stream);
        assert_eq!(own.for_tenant(Some(&acme)), stream);
        assert_eq!(stream.for_tenant(None), own);
        for bad in [
            ":post/1",
            "a:b:post/1",
            "ac me:post/1",
            "acme:/1",
            "acme:post",
        ] {
            assert!(StreamId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_that_a_url_could_change_is_refused() {
        let long = "x".repeat(MAX_ID_BYTES + 1);
        for id in [
            "", ".", "..", "a/b", "a b", "a'b", "a\0b", "é", "a%20", &long,
        ] {
            assert_eq!(
                StreamId::new("post", id),
                Err(InvalidStreamId::Id),
                "{id:?}"
            );
        }
        assert!(StreamId::new("post", &"x".repeat(MAX_ID_BYTES)).is_ok());
        for category in ["", "Post", "1post", "po st", "po/st"] {
            assert_eq!(
                StreamId::new(category, "1"),
                Err(InvalidStreamId::Category),
                "{category:?}"
            );
        }
        assert_eq!(StreamId::parse("post"), Err(InvalidStreamId::NoSlash));
    }

    /// The vectors of `docs/partitioning.md`: a change here would lose every stored stream.
    #[test]
    fn the_published_vectors_of_the_partition_hash_hold() {
        let of = |name: &str, count| {
            StreamId::parse(name)
                .unwrap()
                .partition(Partitions::new(count).unwrap())
                .number()
        };
        let vectors = include_str!("../../docs/partitioning.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .map(|row| {
                row.split('|')
                    .map(|cell| cell.trim().trim_matches('`'))
                    .collect::<Vec<_>>()
            });
        let mut seen = 0;
        for row in vectors {
            assert_eq!(of(row[0], 16).to_string(), row[2], "{}", row[0]);
            assert_eq!(of(row[0], 5).to_string(), row[3], "{}", row[0]);
            seen += 1;
        }
        assert_eq!(seen, 7);
    }
}
