//! Reads: by id, in order, page by page.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_domain::{Partition, Position};

use super::ReadStoreFactory;
use super::sample::{document, everything, find_ids, fresh, get_one, insert, unique};
use crate::store::{Document, Place, Query};

/// A find leaves tombstones out unless it asks for them; a get gives them.
pub async fn tombstones_are_hidden_unless_they_are_asked_for(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    let tombstone = Document {
        deleted: true,
        ..document("b")
    };
    let documents = vec![document("a"), tombstone.clone(), document("c")];
    insert(&*store, &collection, documents.clone()).await;
    let found = find_ids(&*store, &collection, &everything()).await;
    assert_eq!(found, ["a", "c"]);
    let query = Query {
        deleted: true,
        ..everything()
    };
    assert_eq!(store.find(&collection, &query).await.unwrap(), documents);
    assert_eq!(get_one(&*store, &collection, "b").await, tombstone);
}

/// A get gives what there is of the ids it was asked for, once each.
pub async fn ids_that_are_missing_or_doubled_do_not_disturb_a_get(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    insert(&*store, &collection, ["a", "b", "c"].map(document).to_vec()).await;
    let found = store
        .get(&collection, &["b", "x", "b", "a", "", "A", "a ", "a\0"])
        .await
        .unwrap();
    let ids: Vec<_> = found.iter().map(|document| document.id.as_str()).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(BTreeSet::from_iter(ids), BTreeSet::from(["a", "b"]));
    assert!(store.get(&collection, &[]).await.unwrap().is_empty());
    assert!(store.get(&collection, &["x"]).await.unwrap().is_empty());
}

/// How far documents are is told of each that is there, tombstones among them, as a get tells it.
pub async fn how_far_documents_are_is_told_as_a_get_tells_it(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    let [p3, p40] = [3, 40].map(Partition::new);
    let documents = vec![
        Document {
            applied: BTreeMap::from([(p3, Position::new(7)), (p40, Position::new(1 << 40))]),
            ..document("a")
        },
        Document {
            applied: BTreeMap::from([(p40, Position::new(1))]),
            deleted: true,
            ..document("b")
        },
        Document {
            applied: BTreeMap::new(),
            ..document("c")
        },
        document("d"),
    ];
    insert(&*store, &collection, documents.clone()).await;
    let ids = ["b", "x", "a", "b", "c"];
    let applied = store.applied(&collection, &ids).await.unwrap();
    assert_eq!(applied.len(), 3, "{applied:?}");
    let expected = documents.into_iter().take(3);
    let expected = expected.map(|document| (document.id, document.applied));
    assert_eq!(BTreeMap::from_iter(applied), BTreeMap::from_iter(expected));
    assert!(store.applied(&collection, &[]).await.unwrap().is_empty());
}

/// No collation, no numbers: bytes.
pub async fn documents_come_in_the_bytewise_order_of_their_ids(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    let mut ids = vec![
        "10", "9", "B", "a", "b", "A", "ab", "a b", "a\0", "a-b", "a_b", "é", "e", "z", "ß",
        "\u{ffff}", "😀", "~", "a.b", "$a", "a'b", "a\"b", "",
    ];
    insert(
        &*store,
        &collection,
        ids.iter().map(|id| document(id)).collect(),
    )
    .await;
    ids.sort_unstable();
    assert_eq!(find_ids(&*store, &collection, &everything()).await, ids);
    let query = Query {
        after: Some(Place::behind("a b")),
        ..everything()
    };
    let later: Vec<_> = ids.into_iter().filter(|id| *id > "a b").collect();
    assert_eq!(find_ids(&*store, &collection, &query).await, later);
}

/// Each page begins after the last id of the one before, whether that document is still there or not.
pub async fn pages_follow_each_other_without_gap_or_repeat(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    let ids: Vec<_> = (0..57).map(|n| format!("d{n:02}")).collect();
    insert(
        &*store,
        &collection,
        ids.iter().map(|id| document(id)).collect(),
    )
    .await;
    for limit in [1, 10, 57, 58] {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let query = Query {
                after: after.clone(),
                limit,
                ..Query::default()
            };
            let page = find_ids(&*store, &collection, &query).await;
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after = Some(Place::behind(last.as_str()));
            seen.extend(page);
        }
        assert_eq!(seen, ids, "pages of {limit}");
    }
    let query = Query {
        after: Some(Place::behind("d30x")),
        limit: 1,
        ..Query::default()
    };
    assert_eq!(find_ids(&*store, &collection, &query).await, ["d31"]);
}

/// 0 is not "no limit".
pub async fn a_limit_of_nothing_gives_nothing(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    insert(&*store, &collection, vec![document("a")]).await;
    assert!(
        find_ids(&*store, &collection, &Query::default())
            .await
            .is_empty()
    );
    let query = Query {
        limit: usize::MAX,
        ..Query::default()
    };
    assert_eq!(find_ids(&*store, &collection, &query).await, ["a"]);
}

/// A reader may hold the name of a version that was just dropped.
pub async fn a_collection_that_is_not_there_reads_as_empty(factory: &dyn ReadStoreFactory) {
    let store = factory.store().await;
    let collection = unique("nowhere");
    assert!(store.get(&collection, &["a"]).await.unwrap().is_empty());
    assert!(
        find_ids(&*store, &collection, &everything())
            .await
            .is_empty()
    );
    assert!(store.load_states(&collection).await.unwrap().is_empty());
    assert_eq!(store.load_alias(&collection).await.unwrap(), None);
}
