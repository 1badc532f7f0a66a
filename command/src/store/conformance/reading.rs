//! Reading by partition and by stream, the heads, the history.

use tidelog_domain::{
    Append, Cursor, EventId, ExpectedVersion, Partition, Position, StreamId, Version,
};
use tidelog_eventbus::LogError;

use super::support::{
    append, append_one, event_of, events_of, exact, grow, open, partitions, stream, streams_of,
    whole_log, write,
};
use super::{SpoilableLog, StoreFactory};
use crate::store::{MAX_EVENT_BYTES, ReadFrom, StreamRead};

/// A cursor goes on where the page before it ended; at the head there is nothing.
///
/// # Panics
///
/// When the store does not.
pub async fn a_partition_is_read_page_by_page(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let partition = Partition::new(2);
    let streams = streams_of(2, 3);
    for n in 0..10 {
        grow(&*store, &streams[n % 3], 1).await;
    }
    let all = store.read(partition, Cursor::START, 100).await.unwrap();
    let positions: Vec<_> = all.iter().map(|event| event.position.number()).collect();
    assert_eq!(positions, (1..=10).collect::<Vec<u64>>());
    let first = store.read(partition, Cursor::START, 3).await.unwrap();
    assert_eq!(first, all[..3]);
    let second = store.read(partition, first[2].cursor(), 4).await.unwrap();
    assert_eq!(second, all[3..7]);
    let rest = store.read(partition, all[6].cursor(), 100).await.unwrap();
    assert_eq!(rest, all[7..]);
    let head = store.read(partition, all[9].cursor(), 100).await.unwrap();
    assert!(head.is_empty());
    let none = store.read(partition, all[3].cursor(), 0).await.unwrap();
    assert!(none.is_empty());
    let without_id = Cursor {
        position: Position::new(8),
        event_id: None,
    };
    let after = store.read(partition, without_id, 100).await.unwrap();
    assert_eq!(after, all[8..]);
    let empty = store.read(Partition::new(3), Cursor::START, 100).await;
    assert!(empty.unwrap().is_empty());
}

/// A cursor whose event is not there, or is another, is told so: the log went back in time.
///
/// # Panics
///
/// When the store does not.
pub async fn a_cursor_that_does_not_fit_is_noticed(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let partition = Partition::new(1);
    let stream = streams_of(1, 1).remove(0);
    grow(&*store, &stream, 5).await;
    let events = store.read(partition, Cursor::START, 100).await.unwrap();
    let another = EventId::new(uuid::Uuid::from_u128(1));
    let misfits = [
        Cursor::at(Position::new(6), another),
        Cursor::at(Position::new(60), another),
        Cursor::at(Position::new(3), another),
        Cursor::at(Position::new(3), events[3].id),
        Cursor::at(Position::new(5), events[0].id),
        Cursor {
            position: Position::new(6),
            event_id: None,
        },
    ];
    for cursor in misfits {
        match store.read(partition, cursor, 2).await {
            Err(LogError::Diverged {
                partition: at,
                position,
            }) => assert_eq!((at, position), (partition, cursor.position)),
            other => panic!("expected {cursor:?} to be noticed, got {other:?}"),
        }
    }
}

/// A row that cannot be understood fails the read that begins with it, and names its position; those before it are given first, and
/// those of other partitions are given all the same.
///
/// # Panics
///
/// When the store does otherwise.
pub async fn an_unreadable_row_holds_back_no_event_before_it(log: &dyn SpoilableLog) {
    let store = open(log).await;
    let (partition, other) = (Partition::new(1), Partition::new(2));
    for partition in [partition, other] {
        grow(&*store, &streams_of(partition.number(), 1)[0], 9).await;
    }
    let all = store.read(partition, Cursor::START, 100).await.unwrap();
    log.spoil(partition, Position::new(6)).await;
    let before = store.read(partition, Cursor::START, 100).await.unwrap();
    assert_eq!(before, all[..5]);
    let before = store.read(partition, all[2].cursor(), 100).await.unwrap();
    assert_eq!(before, all[3..5]);
    // With the row first, and with it as the cursor's own.
    for cursor in [all[4].cursor(), all[5].cursor()] {
        match store.read(partition, cursor, 100).await {
            Err(LogError::Corrupt { what }) => assert!(what.contains("position 6"), "{what}"),
            other => panic!("expected the row to be noticed, got {other:?}"),
        }
    }
    let after = store.read(partition, all[6].cursor(), 100).await.unwrap();
    assert_eq!(after, all[7..]);
    let untouched = store.read(other, Cursor::START, 100).await.unwrap();
    assert_eq!(untouched.len(), 9);
}

/// The read `from` of `stream`.
fn read(stream: &StreamId, from: ReadFrom) -> StreamRead {
    StreamRead {
        stream: stream.clone(),
        from,
    }
}

/// Pages of large events may be shorter than asked for; whoever reads on misses none.
///
/// # Panics
///
/// When the store does not.
pub async fn pages_of_large_events_lose_none(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let large = streams_of(1, 1).remove(0);
    let payload = vec![b'7'; MAX_EVENT_BYTES / 2];
    for round in 0..10 {
        let events = (0..8).map(|_| event_of(&payload)).collect();
        let one = Append::one(large.clone(), exact(round * 8), events);
        append_one(&*store, one).await.unwrap();
    }
    let (mut cursor, mut read) = (Cursor::START, Vec::new());
    loop {
        let page = store.read(Partition::new(1), cursor, 1_000).await.unwrap();
        let Some(last) = page.last() else { break };
        cursor = last.cursor();
        read.extend(page.iter().map(|event| event.position.number()));
    }
    assert_eq!(read, (1..=80).collect::<Vec<u64>>());
}

/// After a version, from the start, the last alone, no more than the limit, nothing of a missing stream.
///
/// # Panics
///
/// When the store does not.
pub async fn streams_are_read_from_a_version_or_from_their_end(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let (long, short, missing) = (stream("long"), stream("short"), stream("missing"));
    grow(&*store, &long, 6).await;
    grow(&*store, &short, 1).await;
    grow(&*store, &long, 4).await;
    let after = |version| ReadFrom::After(Version::new(version));
    let reads = [
        read(&long, after(0)),
        read(&missing, after(0)),
        read(&long, after(8)),
        read(&long, after(10)),
        read(&long, after(99)),
        read(&long, ReadFrom::Last),
        read(&missing, ReadFrom::Last),
        read(&short, ReadFrom::Last),
        read(&short, after(0)),
    ];
    let expected: [&[u64]; 9] = [
        &[1, 2, 3, 4],
        &[],
        &[9, 10],
        &[],
        &[],
        &[10],
        &[],
        &[1],
        &[1],
    ];
    let found = store.read_streams(&reads, 4).await.unwrap();
    assert_eq!(found.len(), reads.len());
    for ((page, read), expected) in found.iter().zip(&reads).zip(expected) {
        let events = &page.events;
        let versions: Vec<_> = events.iter().map(|e| e.version.number()).collect();
        assert_eq!(versions, expected, "{read:?}");
        assert!(events.iter().all(|event| event.stream == read.stream));
    }
    let nothing = store.read_streams(&[], 4).await.unwrap();
    assert!(nothing.is_empty());
    let none = store.read_streams(&[read(&long, after(0))], 0).await;
    assert!(none.unwrap()[0].events.is_empty());
    let next = append_one(&*store, write(&long, exact(10), 1)).await;
    assert_eq!(next.unwrap()[0].version, Version::new(11));
}

/// A stream alone, page by page: in order, none missing, no event of another; pages of large events may be shorter.
///
/// # Panics
///
/// When the store does not.
pub async fn a_stream_is_read_page_by_page(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let (small, beside, large) = (stream("s"), stream("S"), stream("large"));
    let missing = stream("missing");
    for _ in 0..5 {
        grow(&*store, &small, 2).await;
        grow(&*store, &beside, 1).await;
    }
    let all = events_of(&*store, &small).await;
    let after = |stream, version, limit| store.read_stream(stream, Version::new(version), limit);
    assert_eq!(after(&small, 0, 100).await.unwrap(), all);
    assert_eq!(after(&small, 0, 3).await.unwrap(), all[..3]);
    assert_eq!(after(&small, 3, 4).await.unwrap(), all[3..7]);
    assert_eq!(after(&small, 9, 100).await.unwrap(), all[9..]);
    for (stream, version, limit) in [(&small, 10, 9), (&small, u64::MAX >> 1, 9), (&small, 0, 0)] {
        assert_eq!(after(stream, version, limit).await.unwrap(), []);
    }
    assert_eq!(after(&missing, 0, 9).await.unwrap(), []);
    let payload = vec![b'7'; MAX_EVENT_BYTES / 2];
    for round in 0..4 {
        let events = (0..8).map(|_| event_of(&payload)).collect();
        let one = Append::one(large.clone(), exact(round * 8), events);
        append_one(&*store, one).await.unwrap();
    }
    let mut versions = Vec::new();
    loop {
        let last = versions.last().copied().unwrap_or_default();
        let page = after(&large, last, 1_000).await.unwrap();
        if page.is_empty() {
            break;
        }
        versions.extend(page.iter().map(|event| event.version.number()));
    }
    assert_eq!(versions, (1..=32).collect::<Vec<u64>>());
}

/// Hundreds of streams in one read, there or not, in the order asked for.
///
/// # Panics
///
/// When the store does not.
pub async fn many_streams_are_read_at_once(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let streams: Vec<_> = (0..300).map(|n| stream(&format!("s{n}"))).collect();
    let batch = streams
        .iter()
        .step_by(2)
        .map(|stream| write(stream, ExpectedVersion::NoStream, 2))
        .collect();
    let verdicts = append(&*store, batch).await;
    assert!(verdicts.iter().all(Result::is_ok));
    for (from, there) in [
        (ReadFrom::Last, 1),
        (ReadFrom::After(Version::new(1)), 1),
        (ReadFrom::After(Version::NONE), 2),
        (ReadFrom::Snapshot("none has one".into()), 2),
    ] {
        let reads: Vec<_> = streams
            .iter()
            .map(|stream| read(stream, from.clone()))
            .collect();
        let found = store.read_streams(&reads, 10).await.unwrap();
        for (n, (page, stream)) in found.iter().zip(&streams).enumerate() {
            assert_eq!(
                page.events.len(),
                if n % 2 == 0 { there } else { 0 },
                "{stream} {from:?}"
            );
            assert!(page.events.iter().all(|event| &event.stream == stream));
        }
    }
}

/// One head a partition, at the last position.
///
/// # Panics
///
/// When the store does not.
pub async fn the_heads_are_those_of_the_log(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let identity = store.identity().await.unwrap();
    assert_eq!(identity.partitions, partitions());
    let empty = vec![Position::START; usize::from(partitions().count())];
    assert_eq!(store.heads().await.unwrap(), empty);
    grow(&*store, &streams_of(0, 1)[0], 3).await;
    grow(&*store, &streams_of(3, 1)[0], 1).await;
    let heads: Vec<_> = store.heads().await.unwrap();
    let heads: Vec<_> = heads.into_iter().map(Position::number).collect();
    assert_eq!(heads, [3, 0, 0, 1]);
    let log = whole_log(&*store).await;
    let lengths: Vec<_> = log.iter().map(|events| events.len() as u64).collect();
    assert_eq!(lengths, heads);
}

/// A renewed history is a new one, from the next look on, and the log goes on under it.
///
/// # Panics
///
/// When the store does not.
pub async fn a_history_is_renewed(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let thing = stream("thing");
    grow(&*store, &thing, 1).await;
    let before = store.identity().await.unwrap().history;
    assert_eq!(store.identity().await.unwrap().history, before);
    let renewed = store.renew_history().await.unwrap();
    assert_ne!(renewed, before);
    assert_eq!(store.identity().await.unwrap().history, renewed);
    let next = append_one(&*store, write(&thing, exact(1), 1)).await;
    assert_eq!(next.unwrap()[0].version, Version::new(2));
    whole_log(&*store).await;
}
