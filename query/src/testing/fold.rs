//! What a view must be: the plain fold of the log, written down without batches, conditions or caches.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use tidelog_domain::{Folding, RecordedEvent, ViewDefinition};

use crate::store::{Document, Query, ReadStore};

/// A document without what may differ between two runs: its revision and positions, and what a tombstone of a
/// view over several partitions last was.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Folded {
    pub(crate) data: Map<String, Value>,
    pub(crate) version: u64,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
    pub(crate) deleted: bool,
}

/// The documents that `events` make.
pub(crate) fn folded(
    view: &dyn ViewDefinition,
    events: &[RecordedEvent],
) -> BTreeMap<String, Folded> {
    let mut documents: BTreeMap<String, Folded> = BTreeMap::new();
    for event in events.iter().filter(|event| view.filter().matches(event)) {
        for key in view.keys(event).unwrap() {
            let before = documents.get(&key).cloned();
            let live = before.as_ref().filter(|doc| !doc.deleted);
            let after = view.project(live.map(|doc| doc.data.clone()), &key, event);
            let after = after.unwrap();
            let at = event.recorded_at;
            let document = Folded {
                deleted: after.is_none(),
                data: after.unwrap_or_else(|| match view.folding() {
                    Folding::FullState => view.last_state(event).unwrap(),
                    Folding::ReadAndFold => Map::new(),
                }),
                version: match view.category() {
                    Some(_) => event.version.number(),
                    None => before.as_ref().map_or(0, |doc| doc.version) + 1,
                },
                created_at: before.as_ref().map_or(at, |doc| doc.created_at.min(at)),
                updated_at: before.as_ref().map_or(at, |doc| doc.updated_at.max(at)),
            };
            documents.insert(key, document);
        }
    }
    documents
}

/// The documents of a collection, tombstones included but for those that no event made.
pub(crate) async fn stored(
    view: &dyn ViewDefinition,
    store: &dyn ReadStore,
    collection: &str,
) -> BTreeMap<String, Folded> {
    let everything = Query {
        limit: usize::MAX,
        deleted: true,
        ..Query::default()
    };
    let found = store.find(collection, &everything).await.unwrap();
    found
        .into_iter()
        .filter(|document| !document.is_of_no_event())
        .map(|document| (document.id.clone(), comparable(view, document)))
        .collect()
}

fn comparable(view: &dyn ViewDefinition, document: Document) -> Folded {
    let hidden = document.deleted && view.folding() == Folding::ReadAndFold;
    Folded {
        data: if hidden { Map::new() } else { document.data },
        version: document.version.number(),
        created_at: document.created_at,
        updated_at: document.updated_at,
        deleted: document.deleted,
    }
}
