//! Making and dropping collections, and what they may be called.

use super::ReadStoreFactory;
use super::sample::{
    PARTITION, document, everything, find_ids, fresh, get_one, insert, state, unique,
};
use crate::store::{Alias, DocumentWrite, ReadError, Retry};

/// Data and progress go together, so that neither can be there without the other. Other collections stay.
pub async fn a_dropped_collection_takes_its_documents_and_state_with_it(
    factory: &dyn ReadStoreFactory,
) {
    let (store, collection) = fresh(factory).await;
    let other = unique("other");
    store.create_collection(&other).await.unwrap();
    for name in [&collection, &other] {
        insert(&*store, name, vec![document("a")]).await;
        let set = store
            .compare_and_set_state(name, PARTITION, 0, &state())
            .await;
        assert!(set.unwrap());
    }
    store.drop_collection(&collection).await.unwrap();
    for _ in 0..2 {
        assert!(
            find_ids(&*store, &collection, &everything())
                .await
                .is_empty()
        );
        assert!(store.get(&collection, &["a"]).await.unwrap().is_empty());
        assert!(store.load_states(&collection).await.unwrap().is_empty());
        store.create_collection(&collection).await.unwrap();
    }
    // It begins anew.
    insert(&*store, &collection, vec![document("a")]).await;
    let set = store
        .compare_and_set_state(&collection, PARTITION, 0, &state())
        .await;
    assert!(set.unwrap());
    assert_eq!(get_one(&*store, &other, "a").await, document("a"));
    assert_eq!(store.load_states(&other).await.unwrap().len(), 1);
}

/// Both are done once and harmless after that; two that do it at once do not disturb each other; a write makes the collection.
pub async fn making_and_dropping_a_collection_can_be_repeated(factory: &dyn ReadStoreFactory) {
    let store = factory.store().await;
    let collection = unique("again");
    store.drop_collection(&collection).await.unwrap();
    let (a, b) = futures_util::join!(
        store.create_collection(&collection),
        store.create_collection(&collection)
    );
    a.and(b).unwrap();
    insert(&*store, &collection, vec![document("a")]).await;
    store.create_collection(&collection).await.unwrap();
    assert_eq!(get_one(&*store, &collection, "a").await, document("a"));
    for _ in 0..2 {
        store.drop_collection(&collection).await.unwrap();
    }
    insert(&*store, &collection, vec![document("b")]).await;
    assert_eq!(find_ids(&*store, &collection, &everything()).await, ["b"]);
    store.drop_collection(&collection).await.unwrap();
    let set = store
        .compare_and_set_state(&collection, PARTITION, 0, &state())
        .await;
    assert!(set.unwrap());
    store.drop_collection(&collection).await.unwrap();
}

/// Names go into commands: whatever could mean something there is refused, as a thing that no repetition helps.
pub async fn a_name_that_could_be_misread_is_refused(factory: &dyn ReadStoreFactory) {
    let store = factory.store().await;
    let long = "x".repeat(200);
    for name in [
        "",
        "Post",
        "po.st",
        "$cmd",
        "a\"b",
        "a\0b",
        "a b",
        "é",
        "../x",
        "tidelog_views",
        &long,
    ] {
        let alias = Alias::first("post", "");
        let writes = [DocumentWrite::Insert(document("a"))];
        for refused in [
            store.create_collection(name).await.err(),
            store.drop_collection(name).await.err(),
            store.get(name, &["a"]).await.err(),
            store.get(name, &[]).await.err(),
            store.find(name, &everything()).await.err(),
            store.write(name, &writes).await.err(),
            store.write(name, &[]).await.err(),
            store.load_alias(name).await.err(),
            store.compare_and_set_alias(name, 0, &alias).await.err(),
        ] {
            let error = refused.unwrap_or_else(|| panic!("{name:?} was taken"));
            assert!(matches!(error, ReadError::InvalidName { .. }), "{error:?}");
            assert_eq!(error.retry(), Retry::Never);
        }
        let refused = store.load_states(name).await.unwrap_err();
        assert_eq!(refused.retry(), Retry::Never);
        let refused = store
            .compare_and_set_state(name, PARTITION, 0, &state())
            .await;
        assert_eq!(refused.unwrap_err().retry(), Retry::Never);
    }
}
