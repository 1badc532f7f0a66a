//! The conformance suite on files of their own, and what only SQLite can get wrong.

use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;
use tidelog_eventbus::StateStore;

use super::*;
use crate::store::conformance::ReadStoreFactory;

/// A file for each case.
struct File(TempDir);

impl File {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn open(&self) -> SqliteReadStore {
        SqliteReadStore::open(&self.0.path().join("tidelog.db"))
            .await
            .unwrap()
    }
}

#[async_trait]
impl ReadStoreFactory for File {
    async fn store(&self) -> Arc<dyn ReadStore> {
        Arc::new(self.open().await)
    }
}

crate::read_store_conformance!(conformance, File::new());
crate::replay_conformance!(replay, File::new());

#[tokio::test]
async fn what_was_written_is_there_after_the_file_is_opened_again() {
    let file = File::new();
    let store = file.open().await;
    let document = Document {
        id: "a".to_owned(),
        data: serde_json::Map::new(),
        version: tidelog_domain::Version::new(1),
        created_at: chrono::DateTime::UNIX_EPOCH,
        updated_at: chrono::DateTime::UNIX_EPOCH,
        deleted: false,
        applied: [].into(),
        revision: 1,
    };
    let writes = [DocumentWrite::Insert(document.clone())];
    assert_eq!(
        store.write("post", &writes).await.unwrap(),
        [Written::Applied]
    );
    store.close().await;
    let query = Query {
        limit: 1,
        ..Query::default()
    };
    let found = file.open().await.find("post", &query).await.unwrap();
    assert_eq!(found, [document]);
}

#[tokio::test]
async fn a_write_waits_for_the_transaction_of_another_connection() {
    let file = File::new();
    let (store, other) = (file.open().await, file.open().await);
    let held = other.begin().await.unwrap();
    let waiting = store.create_collection("post");
    tokio::pin!(waiting);
    // It has no way to be done while the lock is held, however long one looks.
    let early = tokio::time::timeout(Duration::from_millis(50), &mut waiting).await;
    assert!(early.is_err());
    held.rollback().await.unwrap();
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_database_is_told_from_one_that_is_locked() {
    let file = File::new();
    let path = file.0.path().join("tidelog.db");
    std::fs::write(
        &path,
        "these are not the pages of a database, but they are long enough".repeat(99),
    )
    .unwrap();
    let error = SqliteReadStore::open(&path).await.unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { .. }), "{error:?}");
    let error = SqliteReadStore::open(&file.0.path().join("no/such/folder"))
        .await
        .unwrap_err();
    assert!(matches!(error, ReadError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn a_collection_is_never_another_table_of_the_file() {
    let file = File::new();
    let store = file.open().await;
    for name in ["read_states", "sqlite_master", "events", "order", "a-b"] {
        store.create_collection(name).await.unwrap();
        store.drop_collection(name).await.unwrap();
    }
    assert!(store.load_states("events").await.unwrap().is_empty());
}

/// A file with more documents than SQLite can look at in no time.
async fn many(file: &File) -> SqliteReadStore {
    let store = file.open().await;
    let documents = (0..2_000).map(|n| {
        DocumentWrite::Insert(Document {
            id: format!("{n:04}"),
            data: [("title".to_owned(), format!("title {n}").into())]
                .into_iter()
                .collect(),
            version: tidelog_domain::Version::new(1),
            created_at: chrono::DateTime::UNIX_EPOCH,
            updated_at: chrono::DateTime::UNIX_EPOCH,
            deleted: false,
            applied: [].into(),
            revision: 1,
        })
    });
    let documents: Vec<_> = documents.collect();
    store.write("post", &documents).await.unwrap();
    store
}

/// A search for what is nowhere, in an order that no index has.
fn search() -> Query {
    use crate::store::{Direction, Field, Filter, Sort, Test};

    let field = Field::Data(vec!["title".to_owned()]);
    Query {
        filter: Filter::Field(field.clone(), Test::ContainsText("nowhere".to_owned())),
        sort: vec![Sort {
            field,
            direction: Direction::Descending,
        }],
        limit: 1,
        ..Query::default()
    }
}

#[tokio::test]
async fn a_search_that_takes_too_long_is_broken_off_and_harms_no_later_one() {
    let file = File::new();
    let mut store = many(&file).await;
    store.search_timeout = Duration::ZERO;
    for _ in 0..2 * SEARCHERS {
        let error = store.find("post", &search()).await.unwrap_err();
        assert!(matches!(error, ReadError::TooSlow(_)), "{error:?}");
        let error = store.count("post", &search()).await.unwrap_err();
        assert!(matches!(error, ReadError::TooSlow(_)), "{error:?}");
    }
    // Reading by id is no search.
    assert_eq!(store.get("post", &["0007"]).await.unwrap().len(), 1);
    store.search_timeout = SEARCH_TIMEOUT;
    for _ in 0..2 * SEARCHERS {
        assert_eq!(store.find("post", &search()).await.unwrap(), []);
        assert_eq!(store.count("post", &Query::default()).await.unwrap(), 2_000);
    }
}

/// How SQLite goes about `query`.
async fn plan(store: &SqliteReadStore, query: &Query) -> String {
    let sql = filter::Search::of(query).unwrap().find("\"view_post\"");
    let text = format!("EXPLAIN QUERY PLAN {}", sql.text);
    let rows = sql.bind(sqlx::query(AssertSqlSafe(text)));
    let rows = rows.fetch_all(&store.searchers).await.unwrap();
    let details = rows.iter().map(|row| sqlx::Row::get::<String, _>(row, 3));
    details.collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn an_index_on_a_field_serves_its_filters_and_orders() {
    use crate::store::{Direction, Field, Filter, Place, Sort, Test};
    use serde_json::json;

    let file = File::new();
    let store = many(&file).await;
    let field = Field::Data(vec!["title".to_owned()]);
    let order = |direction| {
        let field = field.clone();
        vec![Sort { field, direction }]
    };
    let up = Index {
        fields: order(Direction::Ascending),
    };
    let tested = |test| Query {
        filter: Filter::Field(field.clone(), test),
        limit: 10,
        ..Query::default()
    };
    let sorted = |query: Query| Query {
        sort: order(Direction::Ascending),
        ..query
    };
    let next = |query: Query| Query {
        after: Some(Place {
            keys: vec![json!("title 7")],
            id: "0007".to_owned(),
        }),
        ..sorted(query)
    };
    let anything = || Query {
        limit: 10,
        ..Query::default()
    };
    let queries = [
        (tested(Test::Is(json!("title 7"))), true),
        (
            tested(Test::OneOf(vec![json!("title 7"), json!(null)])),
            true,
        ),
        (tested(Test::AtLeast(json!("title 9"))), true),
        (tested(Test::Below(json!(9))), true),
        (tested(Test::Prefix("title 7".to_owned())), true),
        (sorted(tested(Test::Prefix("title 7".to_owned()))), true),
        (sorted(anything()), false),
        (next(anything()), true),
        (next(tested(Test::AtLeast(json!("title 6")))), true),
    ];
    for (query, _) in &queries {
        let before = plan(&store, query).await;
        assert!(!before.contains("tl_"), "{before} for {query:?}");
    }
    store
        .ensure_indexes("post", std::slice::from_ref(&up))
        .await
        .unwrap();
    // To explain is not to run: who looked before would not look at the schema again.
    let later = file.open().await;
    for (query, is_narrowed) in &queries {
        let plan = plan(&later, query).await;
        let uses = format!("USING INDEX {}_post", up.name());
        let how = if *is_narrowed { "SEARCH" } else { "SCAN" };
        assert!(
            plan.contains(&uses) && plan.starts_with(how),
            "{plan} for {query:?}"
        );
        // What is sorted by nothing comes by id, which is an index's order only of what is equal.
        let is_sorted = !plan.contains("TEMP B-TREE");
        assert!(is_sorted || query.sort.is_empty(), "{plan} for {query:?}");
        assert!(!store.find("post", query).await.unwrap().is_empty() || query == &queries[3].0);
    }
    // An index of somebody else's stays.
    let own = "CREATE INDEX by_hand ON view_post (version)";
    sqlx::query(own).execute(&store.writer).await.unwrap();
    store.ensure_indexes("post", &[]).await.unwrap();
    let left = "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND tbl_name = 'view_post' AND sql IS NOT NULL";
    let left: i64 = sqlx::query_scalar(left)
        .fetch_one(&store.writer)
        .await
        .unwrap();
    assert_eq!(left, 1);
}
