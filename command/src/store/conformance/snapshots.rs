//! Snapshots: kept one a stream, given back as they were, and only while they fit the log.

use tidelog_domain::{EventId, ExpectedVersion, Payload, RecordedEvent, StreamId, Version};
use uuid::Uuid;

use super::StoreFactory;
use super::support::{append, events_of, grow, open, stream, write};
use crate::store::{EventStore, MAX_SNAPSHOT_BYTES, ReadFrom, Snapshot, StreamPage, StreamRead};

/// The fingerprint that the cases ask for.
const TODAY: &str = "0123456789abcdef0123456789abcdef";

/// A snapshot that was taken at `event`.
pub(super) fn snapshot_at(event: &RecordedEvent, state: &[u8]) -> Snapshot {
    Snapshot {
        stream: event.stream.clone(),
        version: event.version,
        event_id: event.id,
        fingerprint: TODAY.into(),
        state: Payload::from_stored(state),
    }
}

pub(super) async fn keep(store: &dyn EventStore, snapshot: &Snapshot) {
    let snapshots = std::slice::from_ref(snapshot);
    store.keep_snapshots(snapshots).await.unwrap();
}

fn from_snapshot(stream: &StreamId, fingerprint: &str) -> StreamRead {
    StreamRead {
        stream: stream.clone(),
        from: ReadFrom::Snapshot(fingerprint.into()),
    }
}

async fn read_as(store: &dyn EventStore, stream: &StreamId, fingerprint: &str) -> StreamPage {
    let reads = [from_snapshot(stream, fingerprint)];
    store.read_streams(&reads, 10_000).await.unwrap().remove(0)
}

/// Asserts that reading `stream` begins with the snapshot that has `state`, and goes on with the events after it.
pub(super) async fn assert_begins_at(store: &dyn EventStore, stream: &StreamId, state: &[u8]) {
    let page = read_as(store, stream, TODAY).await;
    let (snapshot, _) = page.snapshot.unwrap();
    assert_eq!(snapshot.state.as_bytes(), state);
    let mut events = events_of(store, stream).await;
    events.retain(|event| event.version > snapshot.version);
    assert_eq!(page.events, events);
}

/// Asserts that all events of `stream` are given, and no snapshot.
async fn assert_from_the_start(store: &dyn EventStore, stream: &StreamId, fingerprint: &str) {
    let page = read_as(store, stream, fingerprint).await;
    assert_eq!(page.snapshot, None);
    assert_eq!(page.events, events_of(store, stream).await);
    assert!(!page.events.is_empty());
}

/// A snapshot comes back byte for byte, with the position of its event and as many of the events after it as were asked for.
///
/// # Panics
///
/// When the store does not.
pub async fn a_snapshot_comes_back_as_it_was(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let names = ["Ann", "ann", "ann-"].map(stream);
    for name in &names {
        grow(&*store, name, 9).await;
    }
    store.keep_snapshots(&[]).await.unwrap();
    let events = events_of(&*store, &names[1]).await;
    let state = br#" {"n": 1.50, "t": "\u00e9\"'$"} "#;
    let kept = snapshot_at(&events[3], state);
    keep(&*store, &kept).await;
    let reads = [
        from_snapshot(&names[0], TODAY),
        from_snapshot(&names[1], TODAY),
        from_snapshot(&stream("missing"), TODAY),
        StreamRead {
            stream: names[1].clone(),
            from: ReadFrom::Last,
        },
        StreamRead {
            stream: names[1].clone(),
            from: ReadFrom::After(Version::new(7)),
        },
    ];
    let pages = store.read_streams(&reads, 3).await.unwrap();
    let versions = |page: &StreamPage| -> Vec<_> {
        let events = page.events.iter();
        events.map(|event| event.version.number()).collect()
    };
    let found: Vec<_> = pages.iter().map(versions).collect();
    assert_eq!(
        found,
        [vec![1, 2, 3], vec![5, 6, 7], vec![], vec![9], vec![8, 9]]
    );
    let snapshots: Vec<_> = pages.into_iter().map(|page| page.snapshot).collect();
    let there = Some((kept, events[3].position));
    assert_eq!(snapshots, [None, there, None, None, None]);
    assert_from_the_start(&*store, &names[2], TODAY).await;
}

/// One of the stream's last event leaves nothing to read, and the stream goes on as ever.
///
/// # Panics
///
/// When the store does not.
pub async fn a_stream_goes_on_after_its_snapshot(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let a = stream("a");
    grow(&*store, &a, 5).await;
    let events = events_of(&*store, &a).await;
    keep(&*store, &snapshot_at(&events[4], b"1")).await;
    let page = read_as(&*store, &a, TODAY).await;
    assert!(page.snapshot.is_some() && page.events.is_empty());
    let next = write(&a, ExpectedVersion::Exact(Version::new(5)), 1);
    let verdicts = append(&*store, vec![next]).await;
    assert_eq!(verdicts[0].as_ref().unwrap()[0].version, Version::new(6));
    assert_begins_at(&*store, &a, b"1").await;
}

/// A later one takes the place of the one before, and an earlier one does not.
///
/// # Panics
///
/// When the store does not.
pub async fn a_later_snapshot_wins(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let (a, b) = (stream("a"), stream("b"));
    for name in [&a, &b] {
        grow(&*store, name, 9).await;
    }
    let (of_a, of_b) = (events_of(&*store, &a).await, events_of(&*store, &b).await);
    let both = [snapshot_at(&of_a[2], b"3"), snapshot_at(&of_b[2], b"3")];
    store.keep_snapshots(&both).await.unwrap();
    assert_begins_at(&*store, &a, b"3").await;
    let next = [snapshot_at(&of_a[7], b"8"), snapshot_at(&of_b[1], b"2")];
    store.keep_snapshots(&next).await.unwrap();
    assert_begins_at(&*store, &a, b"8").await;
    assert_begins_at(&*store, &b, b"3").await;
}

/// One with another fingerprint is old: it is not given, and the next one takes its place, whatever its version.
///
/// # Panics
///
/// When the store does not.
pub async fn a_snapshot_of_another_fingerprint_is_left_alone(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let a = stream("a");
    grow(&*store, &a, 9).await;
    let events = events_of(&*store, &a).await;
    let old = Snapshot {
        fingerprint: "of yesterday".into(),
        ..snapshot_at(&events[7], b"8")
    };
    keep(&*store, &old).await;
    assert_from_the_start(&*store, &a, TODAY).await;
    assert_eq!(
        read_as(&*store, &a, "of yesterday").await.snapshot,
        Some((old, events[7].position))
    );
    // Of the same event, then of an earlier one.
    keep(&*store, &snapshot_at(&events[7], b"8 today")).await;
    assert_begins_at(&*store, &a, b"8 today").await;
    let tomorrow = Snapshot {
        fingerprint: "of tomorrow".into(),
        ..snapshot_at(&events[1], b"2")
    };
    keep(&*store, &tomorrow).await;
    assert_from_the_start(&*store, &a, TODAY).await;
}

/// One of another history is not given, and the next one takes its place, whatever its version.
///
/// # Panics
///
/// When the store does not.
pub async fn a_snapshot_of_another_history_is_left_alone(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let a = stream("a");
    grow(&*store, &a, 9).await;
    let events = events_of(&*store, &a).await;
    keep(&*store, &snapshot_at(&events[7], b"8")).await;
    store.renew_history().await.unwrap();
    assert_from_the_start(&*store, &a, TODAY).await;
    keep(&*store, &snapshot_at(&events[1], b"2")).await;
    assert_begins_at(&*store, &a, b"2").await;
}

/// One whose event the log does not have (any more) is not given.
///
/// # Panics
///
/// When the store does not.
pub async fn a_snapshot_whose_event_is_gone_is_left_alone(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let (a, b) = (stream("a"), stream("b"));
    for name in [&a, &b] {
        grow(&*store, name, 9).await;
    }
    let another_event = Snapshot {
        event_id: EventId::new(Uuid::now_v7()),
        ..snapshot_at(&events_of(&*store, &a).await[7], b"8")
    };
    let beyond = Snapshot {
        version: Version::new(10),
        ..snapshot_at(&events_of(&*store, &b).await[8], b"10")
    };
    store
        .keep_snapshots(&[another_event, beyond])
        .await
        .unwrap();
    assert_from_the_start(&*store, &a, TODAY).await;
    assert_from_the_start(&*store, &b, TODAY).await;
}

/// The largest state that may be kept can be kept.
///
/// # Panics
///
/// When the store does not.
pub async fn the_largest_snapshot_fits(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let large = stream("large");
    grow(&*store, &large, 1).await;
    let event = events_of(&*store, &large).await.remove(0);
    let mut state = vec![b' '; MAX_SNAPSHOT_BYTES - 2];
    state.extend_from_slice(b"{}");
    keep(&*store, &snapshot_at(&event, &state)).await;
    let (snapshot, _) = read_as(&*store, &large, TODAY).await.snapshot.unwrap();
    assert!(
        *snapshot.state.as_bytes() == *state,
        "it came back otherwise"
    );
}

/// While streams grow and their snapshots are replaced, what is read is always a snapshot and the events right after it.
///
/// # Panics
///
/// When the store does not.
pub async fn snapshots_and_events_fit_together(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let streams: Vec<_> = (0..30).map(|n| stream(&format!("s{n}"))).collect();
    for one in &streams {
        grow(&*store, one, 1).await;
    }
    let moving = async {
        for round in 0..20_usize {
            let batch = streams
                .iter()
                .map(|one| write(one, ExpectedVersion::Any, 2));
            append(&*store, batch.collect()).await;
            let mut snapshots = Vec::new();
            for one in streams.iter().skip(round % 2) {
                let event = events_of(&*store, one).await.pop().unwrap();
                let state = event.version.to_string();
                snapshots.push(snapshot_at(&event, state.as_bytes()));
            }
            store.keep_snapshots(&snapshots).await.unwrap();
        }
    };
    let reading = async {
        let reads: Vec<_> = streams
            .iter()
            .map(|one| from_snapshot(one, TODAY))
            .collect();
        for _ in 0..100 {
            let pages = store.read_streams(&reads, 10_000).await.unwrap();
            for (page, one) in pages.iter().zip(&streams) {
                let at = page.snapshot.as_ref().map_or(0, |(snapshot, _)| {
                    assert_eq!(
                        snapshot.state.as_bytes(),
                        snapshot.version.to_string().as_bytes()
                    );
                    snapshot.version.number()
                });
                for (version, event) in (at + 1..).zip(&page.events) {
                    assert_eq!((event.version.number(), &event.stream), (version, one));
                }
            }
        }
    };
    tokio::join!(moving, reading);
}

/// Snapshots outlive the process that took them.
///
/// # Panics
///
/// When the store does not.
pub async fn a_snapshot_survives_its_store(factory: &dyn StoreFactory) {
    let a = stream("a");
    let store = open(factory).await;
    grow(&*store, &a, 5).await;
    let events = events_of(&*store, &a).await;
    keep(&*store, &snapshot_at(&events[3], b"4")).await;
    drop(store);
    assert_begins_at(&*open(factory).await, &a, b"4").await;
}
