//! Random documents and filters: the store agrees with [`matches`].

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof};
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value};
use tokio::runtime::Handle;

use super::ReadStoreFactory;
use super::sample::{document, everything, find_ids, fresh, insert, unique};
use crate::store::{
    Direction, Document, DocumentWrite, Field, Filter, Query, ReadError, ReadStore, Sort, Test,
    matches, page, place_of,
};

/// How many sets of documents are tried.
const ROUNDS: u32 = 24;

/// Names that meet each other often, usual ones and others.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec!["a", "b", "c"]),
        1 => prop::sample::select(vec!["0", "a.b", "$a", "", "é", "\"", "_id"]),
    ]
    .prop_map(str::to_owned)
}

/// Values that meet each other often, and some at the edges.
fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2..3_i64).prop_map(Value::from),
        (-2..3_i32).prop_map(|n| Value::from(f64::from(n))),
        (-2..3_i32).prop_map(|n| Value::from(f64::from(n) / 2.0)),
        prop::sample::select(vec![i64::MIN, i64::MAX, 1 << 53, (1 << 53) + 1])
            .prop_map(Value::from),
        prop::sample::select(vec![9_007_199_254_740_992.0, 1e300, 0.1, -0.0, 5e-324])
            .prop_map(Value::from),
        prop::num::f64::NORMAL.prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec!["", "1", "true", "a", "A", "null", "\0", "é\u{1}\"\\"])
            .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec((name(), inner), 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    vec((name(), value()), 0..4).prop_map(|fields| fields.into_iter().collect())
}

fn documents() -> impl Strategy<Value = Vec<Document>> {
    let data = vec((object(), any::<bool>()), 1..12);
    data.prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        numbered
            .map(|(n, (data, deleted))| Document {
                data,
                deleted,
                ..document(&format!("{n:02}"))
            })
            .collect()
    })
}

/// Random filters, and of each document one that it surely meets.
fn filters() -> impl Strategy<Value = Vec<Filter>> {
    let filter =
        (vec(name(), 0..4), value()).prop_map(|(path, value)| Filter::is(Field::Data(path), value));
    vec(filter, 1..12)
}

/// What a path of `data` has, from a random place in it.
fn own_filters(documents: &[Document]) -> Vec<Filter> {
    let fields = documents.iter().flat_map(|document| &document.data);
    fields
        .flat_map(|(name, value)| {
            let at = |path: &[&String], value: &Value| {
                let path = path.iter().map(|name| (*name).clone()).collect();
                Filter::is(Field::Data(path), value.clone())
            };
            let inner = value.as_object().into_iter().flatten();
            inner
                .map(|(below, value)| at(&[name, below], value))
                .chain([at(&[name], value)])
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Writes what the store takes: it may refuse unusual names.
async fn insert_storable(
    store: &dyn ReadStore,
    collection: &str,
    documents: Vec<Document>,
) -> Vec<Document> {
    let mut stored = Vec::new();
    for document in documents {
        let write = [DocumentWrite::Insert(document.clone())];
        match store.write(collection, &write).await {
            Ok(_) => stored.push(document),
            Err(ReadError::Unwritable { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    stored
}

/// Each filter finds what [`matches()`] says, no more and no less.
pub async fn generated_filters_find_what_their_definition_says(factory: &dyn ReadStoreFactory) {
    let store = factory.store().await;
    run((documents(), filters()), |(documents, filters)| {
        let store = Arc::clone(&store);
        async move {
            let collection = unique("generated");
            store.create_collection(&collection).await.unwrap();
            let stored = insert_storable(&*store, &collection, documents).await;
            let own = own_filters(&stored);
            for filter in filters.into_iter().chain(own) {
                let expected: Vec<_> = stored
                    .iter()
                    .filter(|document| !document.deleted && matches(document, &filter))
                    .map(|document| document.id.clone())
                    .collect();
                let query = Query {
                    filter: filter.clone(),
                    ..everything()
                };
                let found = find_ids(&*store, &collection, &query).await;
                assert_eq!(found, expected, "{filter:?}");
            }
            store.drop_collection(&collection).await.unwrap();
        }
    })
    .await;
}

/// A field of the envelope, or one of `data` that many documents have.
fn field() -> impl Strategy<Value = Field> {
    prop_oneof![
        1 => Just(Field::Id),
        1 => Just(Field::Version),
        1 => Just(Field::CreatedAt),
        1 => Just(Field::UpdatedAt),
        8 => vec(name(), 1..3).prop_map(Field::Data),
    ]
}

/// Texts that are the beginnings and the insides of others.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "",
            "a",
            "A",
            "0",
            "00",
            "\0",
            "é",
            "é\u{1}",
            "\"",
            "\\",
            ".*",
            "$",
            "%",
            "_",
            "\u{d7ff}",
            "\u{10ffff}",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ]
}

/// A value that the field may be compared with: also one of the wrong kind.
fn bound() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => scalar(),
        1 => prop::sample::select(vec![
            "2026-03-01T10:20:30.123456Z",
            "2026-03-01T10:20:30.1234564Z",
            "2026-03-01T12:20:30.123457+02:00",
            "1969-12-31T23:59:59.9999999Z",
            "00",
            "01",
        ])
        .prop_map(Value::from),
        1 => prop::sample::select(vec![
            Value::from(u64::MAX), Value::from(1.5), Value::from(-1e300), Value::from(i64::MAX), Value::from(1e300),
        ]),
        1 => value(),
    ]
}

fn test() -> impl Strategy<Value = Test> {
    prop_oneof![
        2 => bound().prop_map(Test::Is),
        2 => bound().prop_map(Test::Not),
        2 => vec(bound(), 0..4).prop_map(Test::OneOf),
        1 => bound().prop_map(Test::Above),
        1 => bound().prop_map(Test::AtLeast),
        1 => bound().prop_map(Test::Below),
        1 => bound().prop_map(Test::AtMost),
        1 => piece().prop_map(Test::Prefix),
        1 => piece().prop_map(Test::ContainsText),
        1 => bound().prop_map(Test::HasItem),
        1 => any::<bool>().prop_map(Test::Exists),
    ]
}

/// Trees of filters, three deep.
fn tree() -> impl Strategy<Value = Filter> {
    let leaf = (field(), test()).prop_map(|(field, test)| Filter::Field(field, test));
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Filter::All),
            vec(inner, 0..4).prop_map(Filter::Any),
        ]
    })
}

/// Documents whose `k` and `l` have scalars alone, of any kind and often the same: what can be sorted by.
fn sortable() -> impl Strategy<Value = Vec<Document>> {
    let key = || {
        prop_oneof![
            1 => Just(None),
            2 => prop::sample::select(vec!["", "a", "b", "\0", "é"]).prop_map(|text| Some(Value::from(text))),
            4 => scalar().prop_map(Some),
        ]
    };
    let one = (key(), key(), any::<bool>(), object(), 1..4_u64, 0..3_i64);
    vec(one, 1..16).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        let documents = numbered.map(|(n, (k, l, deleted, mut data, version, later))| {
            data.extend(
                [("k", k), ("l", l)]
                    .into_iter()
                    .filter_map(|(name, value)| Some((name.to_owned(), value?))),
            );
            let usual = document(&format!("{:02}", (n * 7) % 16));
            Document {
                data,
                deleted,
                version: tidelog_domain::Version::new(version),
                updated_at: usual.updated_at + chrono::Duration::microseconds(later),
                ..usual
            }
        });
        documents.collect()
    })
}

fn order() -> impl Strategy<Value = Vec<Sort>> {
    let field = prop_oneof![
        1 => Just(Field::Id),
        1 => Just(Field::Version),
        1 => Just(Field::UpdatedAt),
        3 => Just(Field::Data(vec!["k".to_owned()])),
        3 => Just(Field::Data(vec!["l".to_owned()])),
        1 => Just(Field::Data(vec!["k".to_owned(), "x".to_owned()])),
    ];
    let direction = prop_oneof![Just(Direction::Ascending), Just(Direction::Descending)];
    let sort = (field, direction).prop_map(|(field, direction)| Sort { field, direction });
    vec(sort, 0..4)
}

/// Any filter, any order, any page: each store answers what [`page`] says, and counts as many. So they all agree.
pub async fn generated_queries_find_what_their_definition_says(factory: &dyn ReadStoreFactory) {
    let store = factory.store().await;
    let queries = vec((tree(), order(), 1..5_usize, any::<bool>()), 1..8);
    run((sortable(), queries), |(documents, queries)| {
        let store = Arc::clone(&store);
        async move {
            let collection = unique("generated");
            store.create_collection(&collection).await.unwrap();
            let stored = insert_storable(&*store, &collection, documents).await;
            for (filter, sort, limit, deleted) in queries {
                let query = Query {
                    filter,
                    sort,
                    after: None,
                    limit,
                    deleted,
                    max_bytes: None,
                };
                agrees(&*store, &collection, &stored, query).await;
            }
            store.drop_collection(&collection).await.unwrap();
        }
    })
    .await;
}

/// The store finds what `query` means among `stored`, counted, at once and page by page.
async fn agrees(store: &dyn ReadStore, collection: &str, stored: &[Document], query: Query) {
    let all = Query {
        limit: usize::MAX,
        ..query.clone()
    };
    let expected = page(stored.iter().cloned(), &all);
    let count = store.count(collection, &query).await.unwrap();
    assert_eq!(count, expected.len() as u64, "{query:?}");
    let found = store.find(collection, &all).await.unwrap();
    assert_eq!(found, expected, "{query:?}");
    let (mut query, mut seen) = (query, Vec::new());
    // One more than is needed: the last page is empty, or there are too many.
    for _ in 0..=expected.len() {
        let found = store.find(collection, &query).await.unwrap();
        let Some(last) = found.last() else { break };
        query.after = Some(place_of(last, &query.sort));
        seen.extend(found);
    }
    assert_eq!(seen, expected, "{query:?}");
}

/// Whatever is stored comes back the same, fields in their order.
pub async fn generated_data_comes_back_as_it_was(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    run(documents(), |documents| {
        let (store, collection) = (Arc::clone(&store), collection.clone());
        async move {
            let documents = documents.into_iter().map(|document| Document {
                id: unique(&document.id),
                ..document
            });
            let stored = insert_storable(&*store, &collection, documents.collect()).await;
            let ids: Vec<_> = stored.iter().map(|document| document.id.as_str()).collect();
            let mut found = store.get(&collection, &ids).await.unwrap();
            found.sort_by(|a, b| a.id.cmp(&b.id));
            assert_eq!(found, stored);
            for (found, stored) in found.iter().zip(&stored) {
                // As texts, so that the order of the fields and the kinds of the numbers count.
                assert_eq!(
                    serde_json::to_string(&found.data).unwrap(),
                    serde_json::to_string(&stored.data).unwrap()
                );
            }
        }
    })
    .await;
    insert(&*store, &collection, Vec::new()).await;
}

/// Tries a case on random values, and on smaller ones when it fails. Needs a runtime with several threads.
async fn run<S, F>(strategy: S, case: impl Fn(S::Value) -> F)
where
    S: Strategy,
    F: Future<Output = ()>,
{
    let config = Config {
        cases: ROUNDS,
        failure_persistence: None,
        ..Config::default()
    };
    tokio::task::block_in_place(|| {
        TestRunner::new(config)
            .run(&strategy, |value| {
                Handle::current().block_on(case(value));
                Ok(())
            })
            .unwrap();
    });
}
