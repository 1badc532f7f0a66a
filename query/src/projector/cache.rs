//! The documents that a partition's owner wrote last.

use std::collections::HashMap;
use std::mem;

use serde_json::{Map, Value};

use crate::store::Document;

/// About how many bytes of documents a partition keeps at most.
const MAX_BYTES: usize = 2 * 1024 * 1024;

/// What a document costs besides its data: ids, times, positions, the map's own entries.
const OVERHEAD_BYTES: usize = 256;

/// The documents as they were last written or read, for the partition that reads them before it folds.
///
/// Two generations: what was not used while the younger one filled up is forgotten. A document that others changed
/// meanwhile is found out by the revision when it is written.
#[derive(Debug, Default)]
pub(super) struct DocumentCache {
    young: HashMap<String, Document>,
    old: HashMap<String, Document>,
    young_bytes: usize,
}

impl DocumentCache {
    /// Takes the document out.
    pub(super) fn take(&mut self, id: &str) -> Option<Document> {
        if let Some(document) = self.young.remove(id) {
            self.young_bytes = self.young_bytes.saturating_sub(cost(&document));
            return Some(document);
        }
        self.old.remove(id)
    }

    /// Puts a document in, as it is stored.
    pub(super) fn put(&mut self, document: Document) {
        self.take(&document.id);
        self.young_bytes += cost(&document);
        self.young.insert(document.id.clone(), document);
        if self.young_bytes > MAX_BYTES / 2 {
            self.old = mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

/// About how many bytes a document takes.
fn cost(document: &Document) -> usize {
    OVERHEAD_BYTES + fields(&document.data)
}

fn fields(map: &Map<String, Value>) -> usize {
    map.iter()
        .map(|(name, value)| name.len() + size(value))
        .sum()
}

fn size(value: &Value) -> usize {
    mem::size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(size).sum(),
            Value::Object(map) => fields(map),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chrono::DateTime;
    use serde_json::json;
    use tidelog_domain::Version;

    use super::*;

    fn document(id: String, text_bytes: usize) -> Document {
        Document {
            id,
            data: Map::from_iter([("text".to_owned(), json!("x".repeat(text_bytes)))]),
            version: Version::new(1),
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
            deleted: false,
            applied: BTreeMap::new(),
            revision: 1,
        }
    }

    #[test]
    fn a_document_is_found_again_until_newer_ones_push_it_out() {
        let mut cache = DocumentCache::default();
        cache.put(document("first".into(), 1_000));
        let first = cache.take("first").unwrap();
        cache.put(first);
        for n in 0..2 * MAX_BYTES / 10_000 {
            cache.put(document(format!("{n}"), 10_000));
        }
        assert_eq!(cache.take("first"), None);
    }

    #[test]
    fn what_is_kept_stays_below_the_bound() {
        let mut cache = DocumentCache::default();
        for n in 0..5_000 {
            cache.put(document(format!("{n}"), 5_000));
            let kept = cache.young.values().chain(cache.old.values());
            assert!(kept.map(cost).sum::<usize>() <= MAX_BYTES);
        }
        assert!(cache.take("4999").is_some());
    }

    #[test]
    fn a_document_that_is_put_twice_counts_once() {
        let mut cache = DocumentCache::default();
        for _ in 0..3 {
            cache.put(document("same".into(), 1_000));
        }
        assert_eq!(cache.young_bytes, cost(&document("same".into(), 1_000)));
        cache.take("same");
        assert_eq!(cache.young_bytes, 0);
    }
}
