//! Several appends in one batch: they build on each other, and lose one by one.

use tidelog_domain::{Append, ExpectedVersion, StreamWrite, Version};

use super::StoreFactory;
use super::support::{
    append, append_one, assert_conflict, event_of, events_of, exact, grow, open, part, stream,
    whole_log, write,
};
use crate::store::{AppendError, MAX_EVENT_BYTES};

/// An append of a batch sees what those before it did.
///
/// # Panics
///
/// When the store does not.
pub async fn the_appends_of_a_batch_build_on_each_other(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let (one, two) = (stream("one"), stream("two"));
    let batch = vec![
        write(&one, ExpectedVersion::NoStream, 1),
        write(&one, exact(1), 2),
        write(&two, ExpectedVersion::NoStream, 1),
        write(&one, exact(3), 0),
        write(&one, ExpectedVersion::Exists, 1),
        write(&one, ExpectedVersion::NoStream, 1),
    ];
    let ids: Vec<_> = batch
        .iter()
        .flat_map(|append| &append.writes)
        .filter(|write| write.stream == one)
        .flat_map(|write| write.events.iter().map(|event| event.id))
        .collect();
    let verdicts = append(&*store, batch).await;
    let versions: Vec<_> = verdicts[..5]
        .iter()
        .map(|verdict| verdict.as_ref().unwrap()[0].version.number())
        .collect();
    assert_eq!(versions, [1, 3, 1, 3, 4]);
    assert_conflict(&verdicts[5], &one, 4);
    let stored = events_of(&*store, &one).await;
    let stored: Vec<_> = stored.into_iter().map(|event| event.id).collect();
    assert_eq!(stored, ids[..4]);
    let log = whole_log(&*store).await;
    for appended in verdicts.into_iter().flatten().flatten() {
        let Some(position) = appended.position else {
            continue;
        };
        let there =
            &log[appended.partition.index()][usize::try_from(position.number() - 1).unwrap()];
        assert_eq!(
            (&there.stream, there.version),
            (&appended.stream, appended.version)
        );
        assert_eq!(Some(there.recorded_at), appended.recorded_at);
    }
}

/// An append that is turned down does not touch the others of its batch.
///
/// # Panics
///
/// When the store does not.
pub async fn the_losers_of_a_batch_are_named_one_by_one(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let streams: Vec<_> = (0..10).map(|n| stream(&format!("s{n}"))).collect();
    for taken in streams.iter().step_by(3) {
        grow(&*store, taken, 1).await;
    }
    let batch = streams
        .iter()
        .map(|stream| write(stream, ExpectedVersion::NoStream, 1))
        .collect();
    let verdicts = append(&*store, batch).await;
    for (n, (verdict, stream)) in verdicts.iter().zip(&streams).enumerate() {
        if n % 3 == 0 {
            assert_conflict(verdict, stream, 1);
        } else {
            assert_eq!(verdict.as_ref().unwrap()[0].version, Version::new(1));
        }
        assert_eq!(events_of(&*store, stream).await.len(), 1);
    }
    whole_log(&*store).await;
}

/// After an append is turned down, what expects an exact version of one of its streams, later in the batch, is turned down
/// too, and so on from there; what expects no exact version goes on.
///
/// # Panics
///
/// When the store does not.
pub async fn what_was_decided_on_a_loser_loses_too(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let (hot, side, far) = (stream("hot"), stream("side"), stream("far"));
    grow(&*store, &hot, 2).await;
    let batch = vec![
        write(&hot, exact(1), 1),
        write(&hot, exact(2), 1),
        Append::new(vec![
            part(&hot, exact(3), 1),
            part(&side, ExpectedVersion::NoStream, 1),
        ]),
        write(&side, exact(0), 1),
        write(&side, ExpectedVersion::NoStream, 1),
        write(&far, exact(0), 1),
        write(&hot, ExpectedVersion::Any, 1),
        write(&hot, exact(3), 1),
    ];
    let verdicts = append(&*store, batch).await;
    assert_conflict(&verdicts[0], &hot, 2);
    for (n, named) in [(1, &hot), (2, &hot), (3, &side), (7, &hot)] {
        match &verdicts[n] {
            Err(AppendError::Superseded { stream }) => assert_eq!(stream, named),
            other => panic!("append {n}: expected it to be superseded, got {other:?}"),
        }
    }
    for (n, version) in [(4, 1), (5, 1), (6, 3)] {
        let appended = verdicts[n].as_ref().unwrap();
        assert_eq!(appended[0].version, Version::new(version), "append {n}");
    }
    let next = append_one(&*store, write(&hot, exact(3), 1)).await;
    assert_eq!(
        next.unwrap()[0].version,
        Version::new(4),
        "nothing is tainted in the next batch"
    );
    whole_log(&*store).await;
}

/// One event that is too large in a batch of 256 appends.
///
/// # Panics
///
/// When the store does not.
pub async fn an_oversized_event_spoils_no_other_append(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let streams: Vec<_> = (0..256).map(|n| stream(&format!("s{n}"))).collect();
    let mut batch: Vec<_> = streams
        .iter()
        .map(|stream| write(stream, ExpectedVersion::NoStream, 1))
        .collect();
    let oversized = event_of(&vec![b'x'; MAX_EVENT_BYTES + 1]);
    batch[77] = Append::one(
        streams[77].clone(),
        ExpectedVersion::NoStream,
        vec![oversized],
    );
    let verdicts = append(&*store, batch).await;
    for (n, verdict) in verdicts.iter().enumerate() {
        match (n, verdict) {
            (77, Err(AppendError::Unwritable { .. })) => {}
            (77, other) => panic!("the oversized event got {other:?}"),
            (_, verdict) => assert!(verdict.is_ok(), "append {n}: {verdict:?}"),
        }
    }
    assert_eq!(whole_log(&*store).await.concat().len(), 255);
}

/// A stream that is named twice, an event without a name, a name that is too long.
///
/// # Panics
///
/// When the store does not.
pub async fn a_malformed_append_is_turned_down_by_itself(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let good = stream("good");
    let mut nameless = part(&stream("nameless"), ExpectedVersion::Any, 1);
    nameless.events[0].event_type = "".into();
    let mut long = part(&stream("long"), ExpectedVersion::Any, 1);
    long.events[0].event_type = "x".repeat(129).into();
    let malformed: [Vec<StreamWrite>; 3] = [
        vec![
            part(&good, ExpectedVersion::Any, 1),
            part(&good, ExpectedVersion::Any, 1),
        ],
        vec![nameless],
        vec![long],
    ];
    let mut batch: Vec<_> = malformed.into_iter().map(Append::new).collect();
    batch.push(write(&good, ExpectedVersion::NoStream, 1));
    let verdicts = append(&*store, batch).await;
    for verdict in &verdicts[..3] {
        assert!(
            matches!(verdict, Err(AppendError::Unwritable { .. })),
            "{verdict:?}"
        );
    }
    assert_eq!(verdicts[3].as_ref().unwrap()[0].version, Version::new(1));
    assert_eq!(whole_log(&*store).await.concat().len(), 1);
}

/// Nothing to do is no error.
///
/// # Panics
///
/// When the store does not.
pub async fn an_append_without_writes_and_a_batch_without_appends_are_fine(
    factory: &dyn StoreFactory,
) {
    let store = open(factory).await;
    assert!(append(&*store, Vec::new()).await.is_empty());
    let empty = Append::new(Vec::new());
    assert!(append_one(&*store, empty.clone()).await.unwrap().is_empty());
    let verdicts = append(
        &*store,
        vec![empty, write(&stream("one"), ExpectedVersion::NoStream, 1)],
    )
    .await;
    assert!(verdicts[0].as_ref().unwrap().is_empty());
    assert_eq!(verdicts[1].as_ref().unwrap()[0].version, Version::new(1));
}
