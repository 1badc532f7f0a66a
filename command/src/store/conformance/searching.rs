//! Looking for events and streams, as people do.

use tidelog_domain::{
    Append, EventId, ExpectedVersion, Metadata, NewEvent, Partition, Payload, Position,
    RecordedEvent, StreamId, Version,
};
use tidelog_eventbus::{EventQuery, Found};
use uuid::Uuid;

use super::support::{append_one, event, event_of, grow, open, stream, streams_of};
use super::{SpoilableLog, StoreFactory};
use crate::store::{EventStore, MAX_EVENT_BYTES};

const PARTITION: Partition = Partition::new(1);

/// How long a search may be that is asked for again and again.
const ROUNDS: usize = 1_000;

/// An event of this name and with these ids in its metadata.
fn with_ids(name: &str, correlation: &str, causation: u128) -> NewEvent {
    let metadata = Metadata {
        correlation_id: correlation.to_owned(),
        causation_id: Some(Uuid::from_u128(causation)),
        // What stands elsewhere in the metadata is found by nobody.
        actor: Some("\"correlation_id\":\"c1\"".to_owned()),
        ..Metadata::default()
    };
    NewEvent {
        event_type: name.into(),
        metadata: Payload::of(&metadata).unwrap(),
        ..event()
    }
}

/// Appends `events` to a stream of the partition; the first has position 1.
async fn fill(store: &dyn EventStore, events: Vec<NewEvent>) {
    let stream = streams_of(PARTITION.number(), 1).remove(0);
    let one = Append::one(stream, ExpectedVersion::Any, events);
    append_one(store, one).await.unwrap();
}

/// Searches `first..=last` to its end, however often the store stops, and gives all that is found: the positions, and the rows
/// that cannot be understood.
async fn positions(
    store: &dyn EventStore,
    [mut first, mut last]: [u64; 2],
    wanted: &EventQuery,
    newest_first: bool,
    limit: usize,
) -> (Vec<u64>, Vec<u64>) {
    let (mut events, mut unreadable) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let range = Position::new(first)..=Position::new(last);
        let found = store.search(PARTITION, range.clone(), wanted, newest_first, limit);
        let found: Found = found.await.unwrap();
        assert!(range.contains(&found.looked_to), "{found:?} of {range:?}");
        assert!(found.events.len() <= limit.max(1), "{found:?}");
        let position = |event: &RecordedEvent| event.position.number();
        events.extend(found.events.iter().map(position));
        unreadable.extend(found.unreadable.iter().map(|(at, _)| at.number()));
        let looked_to = found.looked_to.number();
        if newest_first {
            last = looked_to - 1;
        } else {
            first = looked_to + 1;
        }
        if first > last {
            return (events, unreadable);
        }
    }
    panic!("the search does not end: {first} to {last}");
}

/// The positions of what is wanted, which are all readable.
async fn found(store: &dyn EventStore, wanted: &EventQuery) -> Vec<u64> {
    let (found, unreadable) = positions(store, [1, 1_000], wanted, false, 2).await;
    assert_eq!(unreadable, [0; 0]);
    found
}

/// Each thing that may be asked for is heeded, alone and with the others; ids are compared whole, whatever is in them.
///
/// # Panics
///
/// When the store does otherwise.
pub async fn events_are_found_by_what_is_asked_for(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let exotic = "größe \"quoted\" \\ %_ \u{1}";
    let events = vec![
        with_ids("thing.made", "c1", 1),
        with_ids("thing.changed", "c1", 2),
        with_ids("thing.changed", "c11", 2),
        with_ids("thing.changed", "C1", 3),
        with_ids("thing.Changed", exotic, 3),
        event_of(b"null"),
        // What is looked for stands here, and is something else's.
        NewEvent {
            metadata: Payload::from_stored(
                br#"{"correlation_id":"x","other":{"correlation_id":"c1"}}"#,
            ),
            ..event()
        },
    ];
    let last = events[5].id;
    fill(&*store, events).await;
    let all = EventQuery::default();
    assert_eq!(found(&*store, &all).await, [1, 2, 3, 4, 5, 6, 7]);
    let named = |name: &str| EventQuery {
        event_type: Some(name.to_owned()),
        ..EventQuery::default()
    };
    let correlated = |id: &str| EventQuery {
        correlation_id: Some(id.to_owned()),
        ..EventQuery::default()
    };
    assert_eq!(found(&*store, &named("thing.changed")).await, [2, 3, 4]);
    assert_eq!(found(&*store, &named("thing.change")).await, [0; 0]);
    assert_eq!(found(&*store, &correlated("c1")).await, [1, 2]);
    assert_eq!(found(&*store, &correlated("c11")).await, [3]);
    assert_eq!(found(&*store, &correlated("1")).await, [0; 0]);
    assert_eq!(found(&*store, &correlated(exotic)).await, [5]);
    assert_eq!(found(&*store, &correlated("c")).await, [6]);
    let caused = EventQuery {
        causation_id: Some(Uuid::from_u128(2)),
        ..EventQuery::default()
    };
    assert_eq!(found(&*store, &caused).await, [2, 3]);
    let both = EventQuery {
        event_type: Some("thing.changed".to_owned()),
        ..correlated("c1")
    };
    assert_eq!(found(&*store, &both).await, [2]);
    let one = |id: EventId| EventQuery {
        event_id: Some(id),
        ..EventQuery::default()
    };
    assert_eq!(found(&*store, &one(last)).await, [6]);
    let nobody = EventId::new(Uuid::from_u128(99));
    assert_eq!(found(&*store, &one(nobody)).await, [0; 0]);
}

/// The ends of a range belong to it; both orders; a limit; positions that are not there yet; another partition.
///
/// # Panics
///
/// When the store does otherwise.
pub async fn a_range_is_searched_from_either_end(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let kind = |n: u128| {
        if n.is_multiple_of(3) {
            "third"
        } else {
            "other"
        }
    };
    let events = (1..=20).map(|n| with_ids(kind(n), "c", n)).collect();
    fill(&*store, events).await;
    grow(&*store, &streams_of(2, 1)[0], 5).await;
    let thirds = EventQuery {
        event_type: Some("third".to_owned()),
        ..EventQuery::default()
    };
    let search = async |range, newest_first, limit| {
        positions(&*store, range, &thirds, newest_first, limit)
            .await
            .0
    };
    for limit in [0, 1, 2, 100] {
        assert_eq!(search([3, 15], false, limit).await, [3, 6, 9, 12, 15]);
        assert_eq!(search([3, 15], true, limit).await, [15, 12, 9, 6, 3]);
        assert_eq!(search([4, 14], true, limit).await, [12, 9, 6]);
        assert_eq!(search([18, 1_000], false, limit).await, [18]);
    }
    assert_eq!(search([7, 7], true, 9).await, [0; 0]);
    let range = Position::new(1)..=Position::new(20);
    let newest = store.search(PARTITION, range, &thirds, true, 2).await;
    let newest = newest.unwrap();
    let newest: Vec<_> = newest.events.iter().map(|e| e.position.number()).collect();
    assert_eq!(newest, [18, 15]);
    let range = Position::new(1)..=Position::new(9);
    let empty = store
        .search(Partition::new(3), range, &thirds, true, 2)
        .await
        .unwrap();
    assert!(empty.events.is_empty() && empty.unreadable.is_empty());
    assert_eq!(empty.looked_to, Position::new(1));
}

/// A search of large events may stop early; whoever goes on misses none.
///
/// # Panics
///
/// When the store does not.
pub async fn a_search_of_large_events_loses_none(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let payload = vec![b'7'; MAX_EVENT_BYTES / 2];
    for _ in 0..4 {
        let events = (0..8).map(|_| event_of(&payload)).collect();
        fill(&*store, events).await;
    }
    let all = EventQuery::default();
    let (mut found, _) = positions(&*store, [1, 32], &all, true, 1_000).await;
    found.reverse();
    assert_eq!(found, (1..=32).collect::<Vec<u64>>());
}

/// A row that cannot be understood is named, and hides no other.
///
/// # Panics
///
/// When the store does otherwise.
pub async fn a_search_names_an_unreadable_row_and_goes_on(log: &dyn SpoilableLog) {
    let store = open(log).await;
    let events = (1..=9).map(|n| with_ids("thing.made", "c", n)).collect();
    fill(&*store, events).await;
    log.spoil(PARTITION, Position::new(4)).await;
    let all = EventQuery::default();
    for limit in [1, 2, 100] {
        let (found, unreadable) = positions(&*store, [1, 9], &all, false, limit).await;
        assert_eq!(found, [1, 2, 3, 5, 6, 7, 8, 9]);
        assert_eq!(unreadable, [4]);
        let (found, unreadable) = positions(&*store, [1, 9], &all, true, limit).await;
        assert_eq!(found, [9, 8, 7, 6, 5, 3, 2, 1]);
        assert_eq!(unreadable, [4]);
    }
    // It is not one that is wanted here, so there is nothing to say of it.
    let other = EventQuery {
        event_type: Some("thing.changed".to_owned()),
        ..EventQuery::default()
    };
    let (found, unreadable) = positions(&*store, [1, 9], &other, true, 2).await;
    assert_eq!((found, unreadable), (Vec::new(), Vec::new()));
}

/// Streams come by the bytes of their names, page by page, each with its last version; a prefix is one to the byte.
///
/// # Panics
///
/// When the store does otherwise.
pub async fn streams_are_listed_by_name(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let names = [
        "post/Ann", "post/a", "post/ann", "post/b.", "posts/a", "pot/x",
    ];
    for (n, name) in names.iter().enumerate().rev() {
        grow(&*store, &StreamId::parse(name).unwrap(), n + 1).await;
    }
    let listed = async |prefix: &str, after: Option<&StreamId>, limit| {
        let found = store.streams(prefix, after, limit).await.unwrap();
        let plain =
            |(stream, version): &(StreamId, Version)| (stream.to_string(), version.number());
        found.iter().map(plain).collect::<Vec<_>>()
    };
    let all: Vec<_> = (1..)
        .zip(names)
        .map(|(n, name)| (name.to_owned(), n))
        .collect();
    assert_eq!(listed("", None, 100).await, all);
    assert_eq!(listed("post/", None, 100).await, all[..4]);
    assert_eq!(listed("post", None, 100).await, all[..5]);
    assert_eq!(listed("post/a", None, 100).await, all[1..3]);
    assert_eq!(listed("post/a%", None, 100).await, []);
    assert_eq!(listed("é", None, 100).await, []);
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = listed("po", after.as_ref(), 2).await;
        let Some((last, _)) = page.last() else { break };
        assert!(page.len() <= 2);
        after = Some(StreamId::parse(last).unwrap());
        paged.extend(page);
    }
    assert_eq!(paged, all);
    assert_eq!(listed("post/", Some(&stream("zzz")), 9).await, []);
}
