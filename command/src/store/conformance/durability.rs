//! Stores that outlive their process.

use tidelog_domain::{ExpectedVersion, Partitions, Version};

use super::StoreFactory;
use super::support::{
    append_one, assert_conflict, exact, grow, open, partitions, stream, streams_of, whole_log,
    write,
};

/// A log that is opened again has the same history and events, and goes on with the next versions and positions.
///
/// # Panics
///
/// When the store does not.
pub async fn a_log_survives_its_store(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let thing = stream("thing");
    grow(&*store, &thing, 3).await;
    for partition in 0..partitions().count() {
        grow(&*store, &streams_of(partition, 1)[0], 2).await;
    }
    let (identity, log) = (store.identity().await.unwrap(), whole_log(&*store).await);
    drop(store);
    let again = open(factory).await;
    assert_eq!(again.identity().await.unwrap(), identity);
    assert_eq!(whole_log(&*again).await, log);
    let stale = write(&thing, ExpectedVersion::NoStream, 1);
    assert_conflict(&append_one(&*again, stale).await, &thing, 3);
    let next = append_one(&*again, write(&thing, exact(3), 1)).await;
    assert_eq!(next.unwrap()[0].version, Version::new(4));
    let last = log[thing.partition(partitions()).index()].last().cloned();
    let grown = &whole_log(&*again).await[thing.partition(partitions()).index()];
    assert_eq!(
        grown.last().unwrap().position,
        last.unwrap().position.next()
    );
    let renewed = again.renew_history().await.unwrap();
    drop(again);
    let third = open(factory).await;
    assert_eq!(third.identity().await.unwrap().history, renewed);
}

/// The number of partitions is fixed when the log is made: a program that is configured for another does not open it.
///
/// # Panics
///
/// When the store does not.
pub async fn another_number_of_partitions_is_refused(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    grow(&*store, &stream("thing"), 1).await;
    let identity = store.identity().await.unwrap();
    drop(store);
    let other = Partitions::new(partitions().count() + 1).unwrap();
    let refused = factory.open(other).await.err().unwrap().to_string();
    assert!(
        refused.contains(&partitions().count().to_string())
            && refused.contains(&other.count().to_string()),
        "the refusal names both numbers: {refused}"
    );
    let again = open(factory).await;
    assert_eq!(again.identity().await.unwrap(), identity);
    assert_eq!(whole_log(&*again).await.concat().len(), 1);
}
