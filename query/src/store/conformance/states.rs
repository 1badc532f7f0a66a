//! State records: compare-and-set, and apart from the documents.

use std::sync::Arc;

use futures_util::future::join_all;
use tidelog_domain::{HistoryId, Partition};
use tidelog_eventbus::StateRecord;
use uuid::Uuid;

use super::ReadStoreFactory;
use super::sample::{
    PARTITION, document, everything, find_ids, fresh, insert, parked, state, unique,
};
use crate::store::{Field, Filter, Query};

/// Of many that make the first record of a partition, and each next one, one does.
pub async fn a_state_record_is_made_once_among_racers(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    for expected in 0..4 {
        let racers = (0..32).map(|racer| {
            let (store, collection) = (Arc::clone(&store), collection.clone());
            tokio::spawn(async move {
                let record = StateRecord {
                    owner: Some(format!("racer {racer}")),
                    ..state(expected)
                };
                let won = store
                    .compare_and_set_state(&collection, PARTITION, expected, &record)
                    .await
                    .unwrap();
                won.then_some(record)
            })
        });
        let winners: Vec<_> = join_all(racers)
            .await
            .into_iter()
            .filter_map(Result::unwrap)
            .collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        let stored = store.load_states(&collection).await.unwrap();
        assert_eq!(stored, [(PARTITION, expected + 1, winners[0].clone())]);
    }
}

/// Neither an older nor a later revision, and not one of a record that is not there.
pub async fn a_state_record_changes_only_at_its_revision(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    let records = [state(1), state(2), state(3)];
    for (expected, record, done) in [
        (1, 0, false),
        (0, 0, true),
        (0, 1, false),
        (2, 1, false),
        (1, 1, true),
        (1, 2, false),
        (0, 2, false),
        (2, 2, true),
    ] {
        let set = store
            .compare_and_set_state(&collection, PARTITION, expected, &records[record])
            .await
            .unwrap();
        assert_eq!(set, done, "{expected}");
    }
    let stored = store.load_states(&collection).await.unwrap();
    assert_eq!(stored, [(PARTITION, 3, records[2].clone())]);
}

/// One record a partition of a collection, and they come in the order of the partitions.
pub async fn state_records_belong_to_their_partition_and_collection(
    factory: &dyn ReadStoreFactory,
) {
    let (store, collection) = fresh(factory).await;
    let other = unique("other");
    let mut expected = Vec::new();
    for number in [10, 2, 0, 1023, 9, 100] {
        let partition = Partition::new(number);
        let record = state(number.into());
        let set = store
            .compare_and_set_state(&collection, partition, 0, &record)
            .await
            .unwrap();
        assert!(set);
        expected.push((partition, 1, record));
    }
    expected.sort_by_key(|(partition, ..)| *partition);
    assert_eq!(store.load_states(&collection).await.unwrap(), expected);
    assert!(store.load_states(&other).await.unwrap().is_empty());
    let set = store
        .compare_and_set_state(&other, PARTITION, 0, &state(5))
        .await
        .unwrap();
    assert!(set);
    assert_eq!(store.load_states(&collection).await.unwrap(), expected);
    assert_eq!(store.load_states(&other).await.unwrap().len(), 1);
}

/// Everything that is in a record, and the emptiest one.
pub async fn a_state_record_comes_back_as_it_was(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    let mut full = state(i64::MAX.unsigned_abs());
    full.epoch = i64::MAX.unsigned_abs();
    full.parked = parked(1_000);
    let empty = StateRecord::at_start(HistoryId::new(Uuid::nil()));
    for (expected, record) in [full, empty, state(7)].into_iter().enumerate() {
        let expected = expected as u64;
        let set = store
            .compare_and_set_state(&collection, PARTITION, expected, &record)
            .await
            .unwrap();
        assert!(set);
        let stored = store.load_states(&collection).await.unwrap();
        assert_eq!(stored, [(PARTITION, expected + 1, record)]);
    }
}

/// They may live in the documents' own collection, but no read of documents sees them.
pub async fn state_records_are_never_among_the_documents(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    for number in 0..8 {
        let partition = Partition::new(number);
        let set = store
            .compare_and_set_state(&collection, partition, 0, &state(1))
            .await
            .unwrap();
        assert!(set);
    }
    insert(&*store, &collection, ["3", "m"].map(document).to_vec()).await;
    let null = |field| Filter {
        field,
        value: serde_json::Value::Null,
    };
    for filters in [
        vec![],
        vec![null(Field::Data(vec!["owner".to_owned()]))],
        vec![null(Field::Data(vec!["a.b".to_owned()]))],
    ] {
        for (after, ids) in [
            (None, &["3", "m"][..]),
            (Some(String::new()), &["3", "m"]),
            (Some("m".to_owned()), &[]),
        ] {
            let query = Query {
                filters: filters.clone(),
                after,
                deleted: true,
                ..everything()
            };
            assert_eq!(find_ids(&*store, &collection, &query).await, ids);
        }
    }
    let found = store
        .get(&collection, &["0", "1", "{\"partition\":1}", "partition"])
        .await
        .unwrap();
    assert!(found.is_empty());
    assert_eq!(store.load_states(&collection).await.unwrap().len(), 8);
}
