//! What only MongoDB can get wrong: its bounds on the size of a document, and of a command, and how it looks for documents.

use std::collections::BTreeMap;

use mongodb::Database;
use mongodb::bson::{self, doc};
use serde_json::{Map, json};
use tidelog_domain::Version;
use tidelog_query::store::{
    Direction, Document, DocumentWrite, Field, Filter, Index, MongoOptions, MongoReadStore, Place,
    Query, ReadError, ReadStore, Sort, Test, Written,
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

fn text() -> Field {
    Field::Data(vec!["text".to_owned()])
}

fn tested(test: Test) -> Query {
    Query {
        filter: Filter::Field(text(), test),
        limit: 10,
        ..Query::default()
    }
}

/// In the order of the texts.
fn by_text(query: Query) -> Query {
    let ascending = Sort {
        field: text(),
        direction: Direction::Ascending,
    };
    Query {
        sort: vec![ascending],
        ..query
    }
}

fn next_page() -> Query {
    by_text(Query {
        after: Some(Place {
            keys: vec![json!("xxx")],
            id: "p03".to_owned(),
        }),
        limit: 10,
        ..Query::default()
    })
}

/// The server's own record of what it was asked, on a database that is the test's alone.
async fn profiled() -> (MongoReadStore, Database) {
    let url = fresh_mongodb_database(shared::mongodb().await);
    let store = MongoReadStore::connect(&url, &MongoOptions::default())
        .await
        .unwrap();
    // So many that the server has a reason to use an index.
    let writes: Vec<_> = (0..2_000)
        .map(|n| insert(&format!("p{n:04}"), n / 40))
        .collect();
    store.write("post_v1", &writes).await.unwrap();
    let client = mongodb::Client::with_uri_str(&url).await.unwrap();
    let database = client.default_database().unwrap();
    database.run_command(doc! { "profile": 2 }).await.unwrap();
    (store, database)
}

/// What was asked of the collection since the profile began: each command, and how it was answered.
async fn asked(database: &Database) -> Vec<bson::Document> {
    database.run_command(doc! { "profile": 0 }).await.unwrap();
    let profile = database.collection::<bson::Document>("system.profile");
    let filter = doc! { "ns": format!("{}.post_v1", database.name()), "op": { "$in": ["query", "command"] } };
    let mut cursor = profile.find(filter).sort(doc! { "ts": 1 }).await.unwrap();
    let mut asked = Vec::new();
    while cursor.advance().await.unwrap() {
        asked.push(cursor.deserialize_current().unwrap());
    }
    asked
}

#[tokio::test]
async fn each_search_tells_the_server_how_long_it_may_take_and_brings_no_code() {
    let (store, database) = profiled().await;
    let evil = || "a' || sleep(5000) || /.*/ $where".to_owned();
    for test in [
        Test::Prefix(evil()),
        Test::ContainsText(evil()),
        Test::Is(json!(evil())),
        Test::Is(json!({"$where": evil()})),
        Test::HasItem(json!({"$gt": ""})),
    ] {
        let query = tested(test);
        assert_eq!(store.find("post_v1", &query).await.unwrap(), []);
        assert_eq!(store.count("post_v1", &query).await.unwrap(), 0);
    }
    let asked = asked(&database).await;
    assert!(asked.len() >= 10, "{asked:?}");
    let most = i64::try_from(MongoOptions::default().operation_timeout_ms).unwrap();
    for asked in asked {
        let command = asked.get_document("command").unwrap();
        let time = command.get("maxTimeMS").map(|time| match time {
            bson::Bson::Int32(time) => i64::from(*time),
            bson::Bson::Int64(time) => *time,
            other => panic!("{other:?}"),
        });
        assert!(
            time.is_some_and(|time| (1..most).contains(&time)),
            "{command}"
        );
        assert!(
            !uses_code(&bson::Bson::Document(command.clone())),
            "{command}"
        );
    }
}

/// Whether a name of a field is an operator that runs code or a regular expression.
fn uses_code(value: &bson::Bson) -> bool {
    match value {
        bson::Bson::Document(fields) => fields.iter().any(|(name, value)| {
            let is_code = [
                "$where",
                "$regex",
                "$function",
                "$accumulator",
                "$regexMatch",
            ];
            is_code.contains(&name.as_str()) || uses_code(value)
        }),
        bson::Bson::Array(items) => items.iter().any(uses_code),
        bson::Bson::RegularExpression(_) | bson::Bson::JavaScriptCode(_) => true,
        _ => false,
    }
}

#[tokio::test]
async fn an_index_on_a_field_serves_its_filters_and_orders() {
    let (store, database) = profiled().await;
    let ascending = Sort {
        field: text(),
        direction: Direction::Ascending,
    };
    let index = Index {
        fields: vec![ascending],
    };
    let own = doc! {
        "createIndexes": "post_v1",
        "indexes": [{ "name": "by_hand", "key": { "version": 1 } }],
    };
    database.run_command(own).await.unwrap();
    store.ensure_indexes("post_v1", &[index]).await.unwrap();
    let queries = [
        tested(Test::Is(json!("xxx"))),
        tested(Test::OneOf(vec![json!("xxx"), json!("x")])),
        by_text(tested(Test::AtLeast(json!("xxx")))),
        by_text(tested(Test::Prefix("xxxxx".to_owned()))),
        next_page(),
    ];
    for query in &queries {
        assert!(!store.find("post_v1", query).await.unwrap().is_empty());
    }
    let asked = asked(&database).await;
    let plans: Vec<&str> = asked
        .iter()
        .filter(|asked| asked.get_document("command").unwrap().contains_key("find"))
        .map(|asked| asked.get_str("planSummary").unwrap())
        .collect();
    assert_eq!(plans.len(), queries.len());
    for (plan, query) in plans.iter().zip(&queries) {
        assert!(
            plan.contains("IXSCAN { data.text: 1, _id: 1 }"),
            "{plan} for {query:?}"
        );
    }
    // An index of somebody else's stays.
    store.ensure_indexes("post_v1", &[]).await.unwrap();
    let names = database.collection::<bson::Document>("post_v1");
    let names = names.list_index_names().await.unwrap();
    assert_eq!(names, ["_id_", "by_hand"]);
}

#[tokio::test]
async fn a_search_that_takes_too_long_says_so() {
    let url = fresh_mongodb_database(shared::mongodb().await);
    let store = MongoReadStore::connect(&url, &MongoOptions::default())
        .await
        .unwrap();
    let writes: Vec<_> = (0..2_000)
        .map(|n| insert(&format!("p{n}"), 4_096))
        .collect();
    store.write("post_v1", &writes).await.unwrap();
    let mut options = MongoOptions::default();
    options.operation_timeout_ms = 10;
    let hasty = MongoReadStore::connect(&url, &options).await.unwrap();
    let parts = (0..30).map(|n| Filter::Field(text(), Test::ContainsText(format!("x{n}"))));
    let query = Query {
        filter: Filter::Any(parts.collect()),
        limit: 1,
        ..Query::default()
    };
    let error = hasty.find("post_v1", &query).await.unwrap_err();
    assert!(matches!(error, ReadError::TooSlow(_)), "{error:?}");
    let error = hasty.count("post_v1", &query).await.unwrap_err();
    assert!(matches!(error, ReadError::TooSlow(_)), "{error:?}");
    // Who asks for less has an answer.
    let least = Query {
        limit: 1,
        ..Query::default()
    };
    assert_eq!(store.find("post_v1", &least).await.unwrap().len(), 1);
}
