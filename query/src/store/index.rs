//! Indexes: by what a collection is searched fast. They change nothing of what is found.

use serde::{Deserialize, Serialize};
use twox_hash::XxHash64;

use super::{Direction, Field, Sort};

/// What the names of our indexes begin with: no other is ever dropped.
pub(crate) const PREFIX: &str = "tl_";

/// Goes up when an adapter makes another index of the same fields: then it is another one, with another name.
const EDITION: u32 = 1;

/// An index of a collection: by these fields, and then by id, so that a page can go on in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// What it goes by, as in [`Query::sort`](super::Query::sort); one field at least.
    pub fields: Vec<Sort>,
}

impl Index {
    /// What it is called in a store: the same fields in the same directions have the same name in each.
    #[must_use]
    pub fn name(&self) -> String {
        let text = format!("{EDITION} {}", self.text());
        let hash = XxHash64::oneshot(0, text.as_bytes());
        format!("{PREFIX}{hash:016x}")
    }

    /// It in the words of `sort`.
    #[must_use]
    pub fn text(&self) -> String {
        let fields = self.fields.iter().map(|sort| {
            let name = match &sort.field {
                Field::Id => "id".to_owned(),
                Field::Version => "version".to_owned(),
                Field::CreatedAt => "created_at".to_owned(),
                Field::UpdatedAt => "updated_at".to_owned(),
                Field::Data(path) => path.join("."),
            };
            match sort.direction {
                Direction::Ascending => name,
                Direction::Descending => format!("-{name}"),
            }
        });
        fields.collect::<Vec<_>>().join(",")
    }

    /// Whether every store can keep it: the names of its fields have nothing in them but letters, digits, `_` and `-`.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let plain = |sort: &Sort| match &sort.field {
            Field::Data(path) => is_plain_path(path),
            _ => true,
        };
        !self.fields.is_empty() && self.fields.iter().all(plain)
    }
}

#[cfg(any(feature = "mongodb", feature = "sqlite"))]
impl Index {
    /// Why it cannot be made.
    pub(crate) fn unusable(&self) -> super::ReadError {
        super::ReadError::Unwritable {
            id: self.text(),
            reason: "no index can be made of a field of this name".to_owned(),
        }
    }
}

/// Whether a path may stand in the text of a statement, as it does in an index.
pub(crate) fn is_plain_path(path: &[String]) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    !path.is_empty()
        && path
            .iter()
            .all(|name| !name.is_empty() && name.chars().all(plain))
}

/// An index that a collection has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptIndex {
    /// What it is [called](Index::name).
    pub name: String,
    /// Whether it is complete: until then it is being made, and no search goes by it.
    pub is_ready: bool,
}

/// How far an index is that a view declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum IndexState {
    /// Searches go by it.
    Ready,
    /// It is being made.
    Building,
    /// It is not there: a process with the role eventbus makes it.
    Missing,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(names: &[&str]) -> Index {
        let fields = names.iter().map(|name| Sort {
            field: Field::Data(name.split('.').map(str::to_owned).collect()),
            direction: Direction::Descending,
        });
        Index {
            fields: fields.collect(),
        }
    }

    #[test]
    fn an_index_is_named_for_its_fields_and_directions() {
        let one = index(&["title", "author.name"]);
        assert_eq!(one.text(), "-title,-author.name");
        // A name that changes is an index that every database makes anew.
        assert_eq!(one.name(), index(&["title", "author.name"]).name());
        assert_ne!(one.name(), index(&["author.name", "title"]).name());
        let mut other = one.clone();
        other.fields[0].direction = Direction::Ascending;
        assert_ne!(one.name(), other.name());
        assert!(one.name().starts_with("tl_") && one.name().len() == 19);
    }

    #[test]
    fn an_index_is_of_fields_that_every_store_can_name() {
        assert!(index(&["title", "author_name", "a-b.ü9"]).is_plain());
        for names in [&["a'b"][..], &["a b"], &["a?"], &["a..b"], &[]] {
            assert!(!index(names).is_plain(), "{names:?}");
        }
    }
}
