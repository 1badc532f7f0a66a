//! What is asked of a read store. What it means is in [`matches`](super::matches) and [`page`](super::page).

use serde_json::Value;

use super::Document;

/// Which documents of a collection are wanted, in which order, from where on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// What they must meet.
    pub filter: Filter,
    /// Their order. What is equal in all of these comes by id ascending (bytewise), and so does everything where there are none.
    pub sort: Vec<Sort>,
    /// Only documents behind this place of that order.
    pub after: Option<Place>,
    /// At most this many. 0 gives none.
    pub limit: usize,
    /// Whether tombstones count.
    pub deleted: bool,
    /// The page ends with the document by which it comes to more than so many bytes of data
    /// ([`Document::weight`](super::Document::weight)), also where there are more. No bound unless said.
    pub max_bytes: Option<usize>,
}

impl Query {
    /// What `document` counts as, where bytes count.
    pub(super) fn weight(&self, document: &Document) -> usize {
        match self.max_bytes {
            Some(_) => document.weight(),
            None => 0,
        }
    }

    /// Whether a page of so many bytes may have one more document.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.max_bytes.is_none_or(|most| bytes <= most)
    }

    /// Whether `documents` are all that such a page may have, by their bytes.
    pub(crate) fn is_filled(&self, documents: &[Document]) -> bool {
        let weights = documents.iter().map(|document| self.weight(document));
        !self.has_room(weights.sum())
    }
}

/// Conditions on a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All of these hold. Of none: always.
    All(Vec<Filter>),
    /// One of these holds. Of none: never.
    Any(Vec<Filter>),
    /// A field passes a test.
    Field(Field, Test),
}

impl Filter {
    /// A field equals a value.
    #[must_use]
    pub const fn is(field: Field, value: Value) -> Self {
        Self::Field(field, Test::Is(value))
    }
}

impl Default for Filter {
    /// What every document meets.
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

/// A test of one field. A missing field is `null`.
///
/// Numbers are compared by value, exactly and whatever form they are stored in (`1` is `1.0`, and 2^53 + 1 is not 2^53);
/// texts bytewise, so that case counts; times as instants.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// It equals this value. A list equals only the same list, an object only one with the same fields.
    Is(Value),
    /// It does not: also what is missing does not, unless the value is `null`.
    Not(Value),
    /// It equals one of these.
    OneOf(Vec<Value>),
    /// It is greater than this number or text, and of its kind: a number is never compared with a text, and `null` with nothing.
    Above(Value),
    /// It is greater or equal.
    AtLeast(Value),
    /// It is less.
    Below(Value),
    /// It is less or equal.
    AtMost(Value),
    /// It is a text that begins with this one. Every text begins with the empty one.
    Prefix(String),
    /// It is a text with this one in it.
    ContainsText(String),
    /// It is a list, and one of its items equals this value.
    HasItem(Value),
    /// It is there and not `null`; or, with `false`, it is not.
    Exists(bool),
}

/// A field of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// The document's id.
    Id,
    /// [`Document::version`](super::Document::version).
    Version,
    /// [`Document::created_at`](super::Document::created_at); compared with an RFC 3339 text.
    CreatedAt,
    /// [`Document::updated_at`](super::Document::updated_at); compared with an RFC 3339 text.
    UpdatedAt,
    /// A field of [`Document::data`](super::Document::data), as the names on the way to it, through objects only.
    Data(Vec<String>),
}

/// A field that documents are sorted by.
///
/// What is missing or `null` comes first, then numbers, then texts, then `false` and `true`. A list or an object has a place that
/// depends on the store: who sorts by a field that can hold one gets each page, but not the same order from all stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sort {
    /// Which.
    pub field: Field,
    /// In which direction.
    pub direction: Direction,
}

/// A direction of sorting. The ids of documents that are equal otherwise always ascend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The least first.
    Ascending,
    /// The greatest first.
    Descending,
}

/// A place between two documents of an order: where a page ended.
///
/// It stays where it is when the document that it was taken from is changed or deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// The last document's value of each field that is sorted by; an empty list stands for any list or object.
    pub keys: Vec<Value>,
    /// Its id.
    pub id: String,
}

impl Place {
    /// The place behind the document `id`, in the order of ids.
    #[must_use]
    pub fn behind(id: impl Into<String>) -> Self {
        Self {
            keys: Vec::new(),
            id: id.into(),
        }
    }
}
