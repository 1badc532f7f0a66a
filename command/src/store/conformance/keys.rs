//! Idempotency keys: what was done under one is not done again, and is answered as it was.

use std::time::Duration;

use tidelog_domain::{Append, AppendKey, ExpectedVersion, IdempotencyKey, StreamId, Version};

use super::StoreFactory;
use super::support::{
    Verdict, append, append_one, assert_conflict, event_of, events_of, exact, grow, open, part,
    stream, streams_of, whole_log, write,
};
use crate::store::{AppendError, MAX_EVENT_BYTES, Recorded};

/// The key `n`, as the request `request` brings it.
fn key(n: u16, request: u8) -> IdempotencyKey {
    let mut scoped = [0; 32];
    scoped[..2].copy_from_slice(&n.to_le_bytes());
    IdempotencyKey {
        scoped,
        fingerprint: [request; 32],
    }
}

/// The same append, looking its key up only.
fn looking(mut append: Append, key: IdempotencyKey) -> Append {
    append.key = Some(AppendKey {
        key,
        records: false,
    });
    append
}

/// Asserts that `verdict` is a replay of what left `streams` at these versions.
fn assert_replay(verdict: &Verdict, streams: &[(&StreamId, u64)], appended: bool) {
    let streams = streams.iter();
    let expected = Recorded {
        streams: streams
            .map(|(stream, version)| ((*stream).clone(), Version::new(*version)))
            .collect(),
        appended,
    };
    match verdict {
        Err(AppendError::Replayed(recorded)) => assert_eq!(*recorded, expected),
        other => panic!("expected a replay, got {other:?}"),
    }
}

/// A key that was used is answered by what it came to, whatever the stream is at by now.
///
/// # Panics
///
/// When the store does not.
pub async fn a_used_key_is_answered_by_what_it_came_to(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let one = stream("one");
    let first = write(&one, ExpectedVersion::NoStream, 2).with_key(key(1, 1));
    assert_eq!(
        append_one(&*store, first.clone()).await.unwrap()[0].version,
        Version::new(2)
    );
    assert_replay(&append_one(&*store, first).await, &[(&one, 2)], true);
    grow(&*store, &one, 3).await;
    for expected in [exact(5), exact(0), ExpectedVersion::Any] {
        let again = write(&one, expected, 1).with_key(key(1, 1));
        assert_replay(&append_one(&*store, again).await, &[(&one, 2)], true);
    }
    let looked = looking(write(&one, exact(4), 0), key(1, 1));
    assert_replay(&append_one(&*store, looked).await, &[(&one, 2)], true);
    assert_eq!(events_of(&*store, &one).await.len(), 5);
    whole_log(&*store).await;
}

/// A key that was used by one request is refused to another, which writes nothing.
///
/// # Panics
///
/// When the store does not.
pub async fn a_key_is_not_for_two_requests(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let (one, two) = (stream("one"), stream("two"));
    let first = write(&one, ExpectedVersion::Any, 1).with_key(key(1, 1));
    append_one(&*store, first).await.unwrap();
    for other in [
        write(&one, exact(1), 1).with_key(key(1, 2)),
        write(&two, exact(7), 1).with_key(key(1, 2)),
        write(&one, exact(1), 0).with_key(key(1, 2)),
        looking(write(&two, exact(0), 0), key(1, 2)),
    ] {
        let verdict = append_one(&*store, other).await;
        assert!(
            matches!(verdict, Err(AppendError::KeyReused)),
            "{verdict:?}"
        );
    }
    assert_eq!(events_of(&*store, &one).await.len(), 1);
    assert_eq!(events_of(&*store, &two).await.len(), 0);
}

/// An append that checks only, and one to several streams, are recorded as any other.
///
/// # Panics
///
/// When the store does not.
pub async fn checks_and_appends_to_several_streams_record_their_keys(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let (one, two, none) = (stream("one"), stream("two"), stream("none"));
    grow(&*store, &one, 3).await;
    let check = write(&one, exact(3), 0).with_key(key(1, 1));
    let nothing = write(&none, ExpectedVersion::NoStream, 0).with_key(key(2, 1));
    let several = Append::new(vec![
        part(&two, ExpectedVersion::NoStream, 2),
        part(&one, exact(3), 1),
        part(&none, ExpectedVersion::NoStream, 0),
    ])
    .with_key(key(3, 1));
    let batch = vec![check, nothing, several];
    for verdict in append(&*store, batch.clone()).await {
        verdict.unwrap();
    }
    grow(&*store, &one, 1).await;
    let again = append(&*store, batch).await;
    assert_replay(&again[0], &[(&one, 3)], false);
    assert_replay(&again[1], &[(&none, 0)], false);
    assert_replay(&again[2], &[(&two, 2), (&one, 4), (&none, 0)], true);
    assert_eq!(events_of(&*store, &one).await.len(), 5);
}

/// What is turned down records no key, and neither does what only looks one up.
///
/// # Panics
///
/// When the store does not.
pub async fn what_does_not_happen_records_no_key(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let one = stream("one");
    grow(&*store, &one, 1).await;
    let lost = write(&one, exact(0), 1).with_key(key(1, 1));
    assert_conflict(&append_one(&*store, lost).await, &one, 1);
    let oversized = Append::one(
        one.clone(),
        ExpectedVersion::Any,
        vec![event_of(&vec![b'x'; MAX_EVENT_BYTES + 1])],
    );
    let oversized = append_one(&*store, oversized.with_key(key(1, 1))).await;
    assert!(matches!(oversized, Err(AppendError::Unwritable { .. })));
    let looked = looking(write(&one, exact(1), 0), key(1, 1));
    append_one(&*store, looked).await.unwrap();
    // Another request may have it, then.
    let next = write(&one, exact(1), 1).with_key(key(1, 2));
    assert_eq!(
        append_one(&*store, next).await.unwrap()[0].version,
        Version::new(2)
    );
}

/// The second append of a batch that brings a key is answered by the first. What was decided on it is turned down.
///
/// # Panics
///
/// When the store does not.
pub async fn a_key_counts_once_in_a_batch(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let (one, two) = (stream("one"), stream("two"));
    let batch = vec![
        write(&one, exact(0), 1).with_key(key(1, 1)),
        write(&one, exact(1), 1).with_key(key(1, 1)),
        write(&one, exact(2), 1),
        write(&two, exact(0), 1).with_key(key(2, 1)),
        write(&two, exact(1), 1).with_key(key(1, 2)),
    ];
    let verdicts = append(&*store, batch).await;
    assert!(verdicts[0].is_ok() && verdicts[3].is_ok());
    assert_replay(&verdicts[1], &[(&one, 1)], true);
    assert!(matches!(&verdicts[2], Err(AppendError::Superseded { stream }) if *stream == one));
    assert!(matches!(&verdicts[4], Err(AppendError::KeyReused)));
    assert_eq!(events_of(&*store, &one).await.len(), 1);
    assert_eq!(events_of(&*store, &two).await.len(), 1);
}

/// Used keys in a large batch spoil none of its other appends; all of them are recorded.
///
/// # Panics
///
/// When the store does not.
pub async fn used_keys_spoil_no_other_append(factory: &dyn StoreFactory) {
    const COUNT: u16 = 300;
    let store = open(factory).await;
    let streams: Vec<_> = (0..COUNT).map(|n| stream(&format!("s{n}"))).collect();
    let keyed = |n: u16| {
        // Not in the order of the keys.
        let n = n * 7 % COUNT;
        write(&streams[usize::from(n)], exact(0), 1).with_key(key(n, 1))
    };
    for n in (0..COUNT).step_by(29) {
        append_one(&*store, keyed(n)).await.unwrap();
    }
    let verdicts = append(&*store, (0..COUNT).map(keyed).collect()).await;
    for (n, verdict) in (0..COUNT).zip(&verdicts) {
        let stream = &streams[usize::from(n * 7 % COUNT)];
        match n % 29 {
            0 => assert_replay(verdict, &[(stream, 1)], true),
            _ => assert_eq!(verdict.as_ref().unwrap()[0].version, Version::new(1)),
        }
    }
    let again = append(&*store, (0..COUNT).map(keyed).collect()).await;
    for (n, verdict) in (0..COUNT).zip(&again) {
        let stream = &streams[usize::from(n * 7 % COUNT)];
        assert_replay(verdict, &[(stream, 1)], true);
    }
    let events: usize = whole_log(&*store).await.iter().map(Vec::len).sum();
    assert_eq!(events, usize::from(COUNT));
}

/// Keys are forgotten when they are old, and a few at a time.
///
/// # Panics
///
/// When the store does not.
pub async fn old_keys_are_forgotten_a_few_at_a_time(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let one = stream("one");
    for n in 0..5 {
        let keyed = write(&one, exact(n.into()), 1).with_key(key(n, 1));
        append_one(&*store, keyed).await.unwrap();
    }
    let hour = Duration::from_secs(3600);
    assert_eq!(store.forget_keys(hour, 10).await.unwrap(), 0);
    let again = write(&one, exact(5), 1).with_key(key(0, 1));
    assert_replay(
        &append_one(&*store, again.clone()).await,
        &[(&one, 1)],
        true,
    );
    for forgotten in [2, 2, 1, 0] {
        assert_eq!(
            store.forget_keys(Duration::ZERO, 2).await.unwrap(),
            forgotten
        );
    }
    assert_eq!(
        append_one(&*store, again).await.unwrap()[0].version,
        Version::new(6)
    );
}

/// A key outlives its store.
///
/// # Panics
///
/// When it does not.
pub async fn a_key_survives_its_store(factory: &dyn StoreFactory) {
    let one = stream("one");
    let append = write(&one, exact(0), 1).with_key(key(1, 1));
    let store = open(factory).await;
    append_one(&*store, append.clone()).await.unwrap();
    drop(store);
    let store = open(factory).await;
    assert_replay(&append_one(&*store, append).await, &[(&one, 1)], true);
}

/// Of two stores that use the same keys at once, each key is used by one of them, and answered to the other; streams in
/// other partitions, where no head keeps them apart, included.
///
/// # Panics
///
/// When the stores do not.
pub async fn two_stores_use_each_key_once(factory: &dyn StoreFactory) {
    const ROUNDS: u16 = 20;
    const KEYS: u16 = 10;
    let stores = [open(factory).await, open(factory).await];
    let streams = [&streams_of(0, 1)[0], &streams_of(1, 1)[0]];
    for round in 0..ROUNDS {
        let batch = |side: usize| {
            let mut keys: Vec<_> = (0..KEYS).map(|n| round * KEYS + n).collect();
            if side == 1 {
                keys.reverse();
            }
            let keyed = keys.into_iter();
            keyed
                .map(|n| write(streams[side], ExpectedVersion::Any, 1).with_key(key(n, 1)))
                .collect()
        };
        let (ours, mut theirs) =
            tokio::join!(append(&*stores[0], batch(0)), append(&*stores[1], batch(1)));
        theirs.reverse();
        for pair in ours.iter().zip(&theirs) {
            let ((Ok(done), Err(AppendError::Replayed(recorded)))
            | (Err(AppendError::Replayed(recorded)), Ok(done))) = pair
            else {
                panic!("expected one append and one replay, got {pair:?}");
            };
            let first = (done[0].stream.clone(), done[0].version);
            assert_eq!(recorded.streams, [first]);
        }
    }
    let events: usize = whole_log(&*stores[0]).await.iter().map(Vec::len).sum();
    assert_eq!(events, usize::from(ROUNDS * KEYS));
}
