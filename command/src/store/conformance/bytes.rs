//! What is stored comes back as it was, and names are bytes.

use tidelog_domain::{Append, Cursor, ExpectedVersion, MAX_ID_BYTES, Payload, StreamId};

use super::StoreFactory;
use super::support::{
    append, append_one, event, event_of, events_of, open, partitions, stream, whole_log, write,
};
use crate::store::{MAX_APPEND_BYTES, MAX_EVENT_BYTES, MAX_EVENT_TYPE_BYTES};

/// The order of keys, numbers that no float holds, escapes, spaces: all bytes come back, by either way of reading.
///
/// # Panics
///
/// When the store does not.
pub async fn payloads_come_back_byte_for_byte(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let exact = stream("exact");
    let every_byte: Vec<u8> = (0..=255).collect();
    let payloads: [&[u8]; 9] = [
        br#"{"z":1,"a":2,"z":3}"#,
        br#"{"big":12345678901234567890123456789.000000000000000000010,"small":1e-400,"one":1.0}"#,
        br#"{"nul":"\u0000","quote":"'\"`","backslash":"\\","percent":"%_;--"}"#,
        "{\"text\":\"Grüße 🦀 \u{2028} e\u{301}\"}".as_bytes(),
        b" { \"spaces\" :\t1 }\r\n ",
        b"null",
        b"\"\"",
        b"",
        &every_byte,
    ];
    let events: Vec<_> = payloads
        .iter()
        .map(|payload| {
            let mut event = event_of(payload);
            event.metadata = Payload::from_stored(payload);
            event.event_type = "größe.'changed'\\ \"%".into();
            event.schema_version = u32::MAX;
            event
        })
        .collect();
    let append = Append::one(exact.clone(), ExpectedVersion::NoStream, events.clone());
    append_one(&*store, append).await.unwrap();
    let partition = exact.partition(partitions());
    let by_stream = events_of(&*store, &exact).await;
    let by_position = store.read(partition, Cursor::START, 100).await.unwrap();
    assert_eq!(by_stream, by_position);
    assert_eq!(by_stream.len(), events.len());
    for (stored, event) in by_stream.iter().zip(&events) {
        assert_eq!(stored.payload.as_bytes(), event.payload.as_bytes());
        assert_eq!(stored.metadata.as_bytes(), event.metadata.as_bytes());
        assert_eq!(
            (&stored.id, &stored.event_type, stored.schema_version),
            (&event.id, &event.event_type, u32::MAX)
        );
    }
}

/// An event of just the most bytes that are allowed is stored.
///
/// # Panics
///
/// When the store does not.
pub async fn the_largest_event_fits(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let large = stream("large");
    let mut event = event_of(b"");
    event.payload = Payload::from_stored(&vec![b'7'; MAX_EVENT_BYTES - event.size()]);
    assert_eq!(event.size(), MAX_EVENT_BYTES);
    let append = Append::one(
        large.clone(),
        ExpectedVersion::NoStream,
        vec![event.clone()],
    );
    append_one(&*store, append).await.unwrap();
    let stored = events_of(&*store, &large).await;
    assert!(stored[0].payload == event.payload);
}

/// Appends of just the most bytes that are allowed are stored, several in one batch.
///
/// # Panics
///
/// When the store does not.
pub async fn the_largest_appends_fit_in_one_batch(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let streams: Vec<_> = (0..3).map(|n| stream(&format!("large-{n}"))).collect();
    let events = MAX_APPEND_BYTES / MAX_EVENT_BYTES;
    let overhead = event_of(b"").size();
    let largest = |stream: &StreamId| {
        let event = || event_of(&vec![b'7'; MAX_EVENT_BYTES - overhead]);
        let events = (0..events).map(|_| event()).collect();
        Append::one(stream.clone(), ExpectedVersion::NoStream, events)
    };
    let batch: Vec<_> = streams.iter().map(largest).collect();
    assert_eq!(batch[0].size(), MAX_APPEND_BYTES);
    for verdict in append(&*store, batch).await {
        assert_eq!(verdict.unwrap()[0].version.number(), events as u64);
    }
    for stream in &streams {
        assert_eq!(events_of(&*store, stream).await.len(), events);
    }
}

/// The names of events are bytes too.
///
/// # Panics
///
/// When the store does not.
pub async fn names_of_events_that_hardly_differ_come_back_as_they_were(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let (thing, long) = (stream("thing"), "n".repeat(MAX_EVENT_TYPE_BYTES));
    let names = ["Ann", "ann", "Ann ", " ann", "änn", "a\u{308}nn", &long];
    let named = |name: &&str| {
        let mut event = event();
        event.event_type = (*name).into();
        event
    };
    let events = names.iter().map(named).collect();
    let written = Append::one(thing.clone(), ExpectedVersion::NoStream, events);
    append_one(&*store, written).await.unwrap();
    let stored = events_of(&*store, &thing).await;
    let stored: Vec<_> = stored.iter().map(|event| &*event.event_type).collect();
    assert_eq!(stored, names);
}

/// Case, trailing characters, wildcards of a query language, and length: all make a stream of their own.
///
/// # Panics
///
/// When the store does not.
pub async fn streams_whose_names_hardly_differ_are_different(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let longest = "x".repeat(MAX_ID_BYTES);
    let almost = "x".repeat(MAX_ID_BYTES - 1);
    let category = "c".repeat(64);
    let ids = [
        "Ann", "ann", "ANN", "ann-", "ann_", "ann.", "ann~", "an_", "a.n", "1", "01", "1.0",
        &longest, &almost,
    ];
    let mut streams: Vec<_> = ids.iter().map(|id| stream(id)).collect();
    streams.push(StreamId::new("thing-", "ann").unwrap());
    streams.push(StreamId::new(&category, &longest).unwrap());
    let batch = streams
        .iter()
        .map(|stream| Append::one(stream.clone(), ExpectedVersion::NoStream, vec![event()]))
        .collect();
    for (verdict, stream) in append(&*store, batch).await.into_iter().zip(&streams) {
        assert!(verdict.is_ok(), "{stream}: {verdict:?}");
    }
    for stream in &streams {
        let events = events_of(&*store, stream).await;
        assert_eq!(events.len(), 1, "{stream}");
        assert_eq!(&events[0].stream, stream);
    }
    append_one(&*store, write(&streams[0], super::support::exact(1), 1))
        .await
        .unwrap();
    whole_log(&*store).await;
}
