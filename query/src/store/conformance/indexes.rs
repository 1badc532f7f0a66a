//! Indexes change how fast a search is, and nothing else.

use serde_json::{Value, json};

use super::ReadStoreFactory;
use super::sample::{document, find_ids, fresh, insert, unique, with_data};
use crate::store::{
    Direction, Document, Field, Filter, Index, Query, ReadStore, Sort, Test, matches, page,
    place_of,
};

fn field(path: &str) -> Field {
    Field::Data(path.split('.').map(str::to_owned).collect())
}

fn sort(field: Field, direction: Direction) -> Sort {
    Sort { field, direction }
}

/// By one field, by one in an object, and by a field that descends with a time.
fn indexes() -> Vec<Index> {
    let (up, down) = (Direction::Ascending, Direction::Descending);
    [
        vec![sort(field("stars"), up)],
        vec![sort(field("author.name"), down)],
        vec![sort(field("title"), down), sort(Field::CreatedAt, up)],
    ]
    .map(|fields| Index { fields })
    .into()
}

/// Of each kind of value, some of them more than once, some missing.
fn documents(prefix: &str) -> Vec<Document> {
    let values = [
        json!(null),
        json!(3),
        json!(3.0),
        json!(-1.5),
        json!((1_i64 << 53) + 1),
        json!(""),
        json!("a"),
        json!("A"),
        json!("ab"),
        json!("é\u{0}"),
        json!(false),
        json!(true),
    ];
    let data = |number: usize, value: &Value| match number % 3 {
        0 => json!({"stars": value, "author": {"name": "Ann"}, "title": value}),
        1 => json!({"title": "a", "author": {"name": value}}),
        _ => json!({"stars": value, "title": value, "author": null}),
    };
    let values = values.iter().cycle().take(36).enumerate();
    let documents = values.map(|(n, value)| with_data(&format!("{prefix}{n:02}"), data(n, value)));
    documents.collect()
}

/// Filters and orders that the indexes are for, and some that they are not for.
fn queries() -> Vec<Query> {
    let filter = |path, test| Filter::Field(field(path), test);
    let filters = [
        filter("stars", Test::Is(json!(3))),
        filter("stars", Test::Is(json!(null))),
        filter("stars", Test::Not(json!(3))),
        filter("stars", Test::AtLeast(json!("a"))),
        filter("stars", Test::Below(json!(4))),
        filter("title", Test::Prefix("a".to_owned())),
        filter(
            "title",
            Test::OneOf(vec![json!("a"), json!(true), json!(null)]),
        ),
        filter("title", Test::ContainsText("b".to_owned())),
        filter("author.name", Test::Is(json!("Ann"))),
        filter("author.name", Test::Exists(false)),
        Filter::default(),
    ];
    let orders = [
        vec![],
        vec![sort(field("stars"), Direction::Ascending)],
        vec![sort(field("stars"), Direction::Descending)],
        vec![sort(field("author.name"), Direction::Descending)],
        vec![
            sort(field("title"), Direction::Descending),
            sort(Field::CreatedAt, Direction::Ascending),
        ],
    ];
    let each = |filter: &Filter| {
        let each = |sort: &Vec<Sort>| Query {
            filter: filter.clone(),
            sort: sort.clone(),
            limit: 5,
            ..Query::default()
        };
        orders.iter().map(each).collect::<Vec<_>>()
    };
    filters.iter().flat_map(each).collect()
}

/// That each query finds what it should, page by page.
async fn all_is_found(store: &dyn ReadStore, collection: &str, documents: &[Document]) {
    for mut query in queries() {
        let fits = documents.iter().filter(|doc| matches(doc, &query.filter));
        let fits = fits.count() as u64;
        assert_eq!(
            store.count(collection, &query).await.unwrap(),
            fits,
            "{query:?}"
        );
        loop {
            let expected = page(documents.iter(), &query);
            let ids: Vec<_> = expected.iter().map(|doc| doc.id.clone()).collect();
            assert_eq!(find_ids(store, collection, &query).await, ids, "{query:?}");
            let Some(last) = expected.last() else { break };
            query.after = Some(place_of(last, &query.sort));
        }
    }
}

/// The names of what the collection has, all of them ready; none where the store keeps no indexes.
async fn kept(store: &dyn ReadStore, collection: &str) -> Vec<String> {
    let kept = store.indexes(collection).await.unwrap();
    assert!(kept.iter().all(|own| own.is_ready), "{kept:?}");
    let mut names: Vec<_> = kept.into_iter().map(|own| own.name).collect();
    names.sort();
    names
}

/// Made before documents are written, among them, or afterwards, and dropped again: the same is found.
pub async fn an_index_changes_nothing_of_what_is_found(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    let mut all = documents("a");
    insert(&*store, &collection, all.clone()).await;
    all_is_found(&*store, &collection, &all).await;
    store.ensure_indexes(&collection, &indexes()).await.unwrap();
    all_is_found(&*store, &collection, &all).await;
    let more = documents("b");
    insert(&*store, &collection, more.clone()).await;
    all.extend(more);
    all_is_found(&*store, &collection, &all).await;
    store.ensure_indexes(&collection, &[]).await.unwrap();
    all_is_found(&*store, &collection, &all).await;
}

/// What is wanted is there afterwards, and nothing else; at once and again is as good as once; other collections keep theirs.
pub async fn indexes_are_made_once_and_dropped_when_they_are_not_wanted(
    factory: &dyn ReadStoreFactory,
) {
    let (store, collection) = fresh(factory).await;
    let other = unique("post");
    store.create_collection(&other).await.unwrap();
    let wanted = indexes();
    let (one, two, three) = futures_util::join!(
        store.ensure_indexes(&collection, &wanted),
        store.ensure_indexes(&collection, &wanted),
        store.ensure_indexes(&other, &wanted),
    );
    one.and(two).and(three).unwrap();
    let names = kept(&*store, &collection).await;
    let mut expected: Vec<_> = wanted.iter().map(Index::name).collect();
    expected.sort();
    assert!(names.is_empty() || names == expected, "{names:?}");
    store
        .ensure_indexes(&collection, &wanted[1..2])
        .await
        .unwrap();
    let left = kept(&*store, &collection).await;
    assert!(left.is_empty() || left == [wanted[1].name()], "{left:?}");
    assert_eq!(kept(&*store, &other).await, names);
    insert(&*store, &collection, vec![document("a")]).await;
    store.drop_collection(&collection).await.unwrap();
    assert!(kept(&*store, &collection).await.is_empty());
    // A collection that is not there is made.
    store.ensure_indexes(&collection, &wanted).await.unwrap();
    assert_eq!(kept(&*store, &collection).await, names);
    insert(&*store, &collection, vec![document("a")]).await;
}
