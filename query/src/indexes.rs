//! The indexes that a view declares.

use tidelog_domain::ViewDefinition;

use crate::http::sorted_by;
use crate::store::{Field, Index, IndexState, KeptIndex};

/// The most indexes of a view: each one makes every write dearer.
pub const MAX_INDEXES: usize = 16;

/// An index that a view declares and cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidIndex {
    /// It is not the order of a list.
    #[error("the view {view} declares the index {index:?}: {reason}")]
    NoOrder {
        /// The view.
        view: String,
        /// The index, as it is declared.
        index: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is declared twice.
    #[error("the view {view} declares the index {index:?} twice")]
    Twice {
        /// The view.
        view: String,
        /// The index.
        index: String,
    },
    /// There are too many.
    #[error("the view {view} declares {count} indexes; it may have {MAX_INDEXES}")]
    TooMany {
        /// The view.
        view: String,
        /// How many there are.
        count: usize,
    },
}

/// The indexes that `view` declares (see [`ViewDefinition::indexes`]), held against its schema.
///
/// # Errors
///
/// [`InvalidIndex`], the first there is.
pub fn declared_indexes(view: &dyn ViewDefinition) -> Result<Vec<Index>, InvalidIndex> {
    let declared = view.indexes();
    if declared.len() > MAX_INDEXES {
        return Err(InvalidIndex::TooMany {
            view: view.name().to_owned(),
            count: declared.len(),
        });
    }
    let mut indexes: Vec<Index> = Vec::with_capacity(declared.len());
    for text in declared {
        let wrong = |reason: String| InvalidIndex::NoOrder {
            view: view.name().to_owned(),
            index: text.clone(),
            reason,
        };
        let fields = sorted_by(view, text).map_err(wrong)?;
        let index = Index { fields };
        if index.fields.iter().any(|sort| sort.field == Field::Id) {
            let reason = "each index ends with the id, and a list is searched by it without any";
            return Err(wrong(reason.to_owned()));
        }
        if !index.is_plain() {
            let reason =
                "a field of an index has nothing but letters, digits, `_` and `-` in its name";
            return Err(wrong(reason.to_owned()));
        }
        if indexes.contains(&index) {
            return Err(InvalidIndex::Twice {
                view: view.name().to_owned(),
                index: text.clone(),
            });
        }
        indexes.push(index);
    }
    Ok(indexes)
}

/// Those that a view can have of what it declares: a program that starts has looked at them all.
pub(crate) fn usable_indexes(view: &dyn ViewDefinition) -> Vec<Index> {
    declared_indexes(view).unwrap_or_else(|error| {
        tracing::error!(%error, "the view is kept without its indexes");
        Vec::new()
    })
}

/// How far `index` is, where a collection has these.
pub(crate) fn state_of(index: &Index, kept: &[KeptIndex]) -> IndexState {
    match kept.iter().find(|own| own.name == index.name()) {
        Some(own) if own.is_ready => IndexState::Ready,
        Some(_) => IndexState::Building,
        None => IndexState::Missing,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tidelog_domain::{EntitySchema, EntityView};

    use super::*;

    fn view(indexes: Value) -> EntityView {
        let schema = json!({
            "type": "object",
            "properties": {
                "title": {"type": "string"},
                "tags": {"type": "array", "items": {"type": "string"}},
                "author": {"type": "object", "properties": {"name": {"type": "string"}}},
                "odd name": {"type": "string"},
                "extra": {}
            },
            "x-tidelog-indexes": indexes
        });
        EntityView::new(EntitySchema::from_value("post", schema).unwrap())
    }

    #[test]
    fn an_index_is_declared_in_the_words_of_an_order() {
        let view = view(json!(["title", "-created_at,author.name", "-title"]));
        let declared = declared_indexes(&view).unwrap();
        let texts: Vec<_> = declared.iter().map(Index::text).collect();
        assert_eq!(texts, ["title", "-created_at,author.name", "-title"]);
    }

    #[test]
    fn an_index_that_cannot_be_is_refused_with_the_reason() {
        for (indexes, why) in [
            (json!(["nothing"]), "the view post has no such field"),
            (json!(["tags"]), "may hold a list"),
            (json!(["extra"]), "does not say what the field holds"),
            (json!([""]), "names of different fields"),
            (json!(["title,title"]), "names of different fields"),
            (json!(["title,"]), "names of different fields"),
            (json!(["id"]), "each index ends with the id"),
            (json!(["title,-id"]), "each index ends with the id"),
            (json!(["odd name"]), "letters, digits"),
            (json!(["title", "title"]), "twice"),
            (json!(vec!["title"; 17]), "17 indexes"),
        ] {
            let error = declared_indexes(&view(indexes.clone())).unwrap_err();
            let error = error.to_string();
            assert!(error.starts_with("the view post declares"), "{error}");
            assert!(error.contains(why), "{indexes}: {error}");
        }
    }

    #[test]
    fn an_index_builds_no_view_anew() {
        use tidelog_domain::ViewDefinition;

        let (with, without) = (view(json!(["title"])), view(json!([])));
        assert_eq!(with.fingerprint(), without.fingerprint());
    }
}
