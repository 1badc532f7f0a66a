//! What only MongoDB can get wrong: its bounds on the size of a document, and of a command.

use std::collections::BTreeMap;

use serde_json::{Map, json};
use tidelog_domain::Version;
use tidelog_query::store::{
    Document, DocumentWrite, MongoOptions, MongoReadStore, ReadError, ReadStore, Written,
};
use tidelog_test_support::{fresh_mongodb_database, shared};

const MIB: usize = 1 << 20;

async fn store() -> MongoReadStore {
    let url = fresh_mongodb_database(shared::mongodb().await);
    let store = MongoReadStore::connect(&url, &MongoOptions::default()).await;
    store.unwrap()
}

fn insert(id: &str, bytes: usize) -> DocumentWrite {
    DocumentWrite::Insert(Document {
        id: id.to_owned(),
        data: Map::from_iter([("text".to_owned(), json!("x".repeat(bytes)))]),
        version: Version::new(1),
        created_at: Default::default(),
        updated_at: Default::default(),
        deleted: false,
        applied: BTreeMap::new(),
        revision: 0,
    })
}

#[tokio::test]
async fn a_document_that_is_too_large_is_named_and_never_tried_again() {
    let store = store().await;
    let writes = [insert("small", 10), insert("large", 16 * MIB)];
    match store.write("post_v1", &writes).await {
        Err(ReadError::Unwritable { id, reason }) => {
            assert_eq!(id, "large");
            assert!(reason.contains("16 MiB"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_bulk_that_is_larger_than_a_command_is_written_in_several() {
    let store = store().await;
    let writes: Vec<_> = (0..14)
        .map(|n| insert(&format!("p{n:02}"), 3 * MIB))
        .collect();
    let written = store.write("post_v1", &writes).await.unwrap();
    assert_eq!(written, [Written::Applied; 14]);
    let again = store.write("post_v1", &writes).await.unwrap();
    assert_eq!(again, [Written::Unmet; 14]);
    let found = store.get("post_v1", &["p00", "p13"]).await.unwrap();
    let length = |document: &Document| document.data["text"].as_str().unwrap().len();
    assert_eq!(found.iter().map(length).collect::<Vec<_>>(), [3 * MIB; 2]);
}
