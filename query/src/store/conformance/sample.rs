//! What the cases write.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tidelog_domain::{HistoryId, Partition, Position, Version};
use tidelog_eventbus::StateRecord;
use uuid::Uuid;

use super::ReadStoreFactory;
use crate::store::{Document, DocumentWrite, Query, ReadStore, Written};

/// The partition of the sample documents.
pub(super) const PARTITION: Partition = Partition::new(3);

/// A name that nobody else has.
pub(super) fn unique(name: &str) -> String {
    format!("{name}_{}", Uuid::now_v7().simple())
}

/// The store and a new collection in it.
pub(super) async fn fresh(factory: &dyn ReadStoreFactory) -> (Arc<dyn ReadStore>, String) {
    let store = factory.store().await;
    let collection = unique("post");
    store.create_collection(&collection).await.unwrap();
    (store, collection)
}

/// The fields of an object.
pub(super) fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}

/// A document as its first event, at position 1, leaves it.
pub(super) fn document(id: &str) -> Document {
    with_data(id, json!({"title": "Tides", "stars": 3}))
}

/// The document with this data.
pub(super) fn with_data(id: &str, data: Value) -> Document {
    Document {
        id: id.to_owned(),
        data: fields(data),
        version: Version::new(1),
        created_at: "2026-03-01T10:20:30.123456Z".parse().unwrap(),
        updated_at: "2026-03-01T10:20:30.123456Z".parse().unwrap(),
        deleted: false,
        applied: BTreeMap::from([(PARTITION, Position::new(1))]),
        revision: 1,
    }
}

/// The document after the event at `position`.
pub(super) fn at_position(id: &str, position: u64) -> Document {
    Document {
        version: Version::new(position),
        updated_at: "2026-03-02T00:00:00.000001Z".parse().unwrap(),
        applied: BTreeMap::from([(PARTITION, Position::new(position))]),
        ..with_data(id, json!({"title": format!("at {position}")}))
    }
}

/// The write that takes a document to `position`.
pub(super) fn advance(id: &str, position: u64) -> DocumentWrite {
    DocumentWrite::Advance {
        document: at_position(id, position),
        partition: PARTITION,
    }
}

/// Inserts documents, each of which must be new.
pub(super) async fn insert(store: &dyn ReadStore, collection: &str, documents: Vec<Document>) {
    let writes: Vec<_> = documents.into_iter().map(DocumentWrite::Insert).collect();
    let written = store.write(collection, &writes).await.unwrap();
    assert_eq!(written, vec![Written::Applied; writes.len()]);
}

/// Makes one write.
pub(super) async fn write_one(
    store: &dyn ReadStore,
    collection: &str,
    write: DocumentWrite,
) -> Written {
    let written = store.write(collection, &[write]).await.unwrap();
    assert_eq!(written.len(), 1);
    written[0]
}

/// The document, which must be there.
pub(super) async fn get_one(store: &dyn ReadStore, collection: &str, id: &str) -> Document {
    let mut found = store.get(collection, &[id]).await.unwrap();
    assert_eq!(found.len(), 1, "{id:?}");
    found.remove(0)
}

/// The ids of what a query finds.
pub(super) async fn find_ids(
    store: &dyn ReadStore,
    collection: &str,
    query: &Query,
) -> Vec<String> {
    let found = store.find(collection, query).await.unwrap();
    found.into_iter().map(|document| document.id).collect()
}

/// A query for everything that is not a tombstone.
pub(super) fn everything() -> Query {
    Query {
        limit: 10_000,
        ..Query::default()
    }
}

/// A state record.
pub(super) fn state() -> StateRecord {
    StateRecord::at_start(HistoryId::new(Uuid::nil()))
}
