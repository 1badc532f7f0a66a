//! Streams of tenants: as long as they can be, and never another's.

use std::ops::RangeInclusive;

use tidelog_domain::{MAX_ID_BYTES, MAX_TENANT_BYTES, Position, StreamId, Tenant, Version};
use tidelog_eventbus::EventQuery;

use super::StoreFactory;
use super::snapshots::{assert_begins_at, keep, snapshot_at};
use super::support::{events_of, grow, open, partitions};
use crate::store::EventStore;

fn tenant(name: &str) -> Tenant {
    Tenant::new(name).unwrap()
}

/// The streams of all that `tenant` has, with their last versions.
async fn listed(store: &dyn EventStore, tenant: &Tenant) -> Vec<(String, u64)> {
    let found = store.streams(&tenant.streams(), None, 100).await.unwrap();
    let plain = found
        .iter()
        .map(|(stream, version)| (stream.to_string(), version.number()));
    plain.collect()
}

/// The same id in the same category is another stream for each tenant, and for none; also where one tenant's name begins with another's.
///
/// # Panics
///
/// When the store does otherwise.
pub async fn the_streams_of_tenants_are_different(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let (a, ab) = (tenant("a"), tenant("ab"));
    let owners = [None, Some(&a), Some(&ab)];
    let stream = |owner| StreamId::of(owner, "post", "1").unwrap();
    for (n, owner) in (1..).zip(owners) {
        grow(&*store, &stream(owner), n).await;
    }
    for (n, owner) in (1..).zip(owners) {
        let events = events_of(&*store, &stream(owner)).await;
        assert_eq!(events.len(), n);
        assert!(events.iter().all(|event| event.stream == stream(owner)));
    }
    assert_eq!(listed(&*store, &a).await, [("a:post/1".to_owned(), 2)]);
    assert_eq!(listed(&*store, &ab).await, [("ab:post/1".to_owned(), 3)]);
    let whole: RangeInclusive<Position> = Position::new(1)..=Position::new(100);
    for (n, owner) in (1..).zip(owners).skip(1) {
        let wanted = EventQuery {
            tenant: owner.cloned(),
            ..EventQuery::default()
        };
        let mut found = 0;
        for partition in partitions().iter() {
            let search = store.search(partition, whole.clone(), &wanted, false, 100);
            let events = search.await.unwrap().events;
            assert!(events.iter().all(|event| event.stream == stream(owner)));
            found += events.len();
        }
        assert_eq!(found, n);
    }
}

/// The longest name that a stream can have is kept whole, in the log and with a snapshot.
///
/// # Panics
///
/// When the store does otherwise.
pub async fn the_longest_name_of_a_stream_fits(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let owner = tenant(&"t".repeat(MAX_TENANT_BYTES));
    let (category, id) = ("c".repeat(64), "i".repeat(MAX_ID_BYTES));
    let stream = StreamId::of(Some(&owner), &category, &id).unwrap();
    grow(&*store, &stream, 3).await;
    assert_eq!(events_of(&*store, &stream).await.len(), 3);
    let read = store
        .read_stream(&stream, Version::new(1), 9)
        .await
        .unwrap();
    assert_eq!(read.len(), 2);
    let last = events_of(&*store, &stream).await.remove(2);
    keep(&*store, &snapshot_at(&last, b"{}")).await;
    assert_begins_at(&*store, &stream, b"{}").await;
}
