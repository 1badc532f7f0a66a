//! Two stores on one log, as two processes have them.

use std::sync::Arc;

use tidelog_domain::{ExpectedVersion, MAX_ID_BYTES, StreamId, Version};
use tokio::task::JoinSet;

use super::StoreFactory;
use super::ordering::follow_while_writing;
use super::support::{
    append, append_one, assert_conflict, events_of, exact, grow, open, stream, whole_log, write,
};
use crate::store::{AppendError, ReadFrom, StreamRead};

/// Both append to the same streams, each at the version that it last saw: of two at one version just one wins, and whoever
/// loses is told the version.
///
/// # Panics
///
/// When the store does not.
pub async fn two_stores_on_one_log_never_both_win(factory: &dyn StoreFactory) {
    let stores = [open(factory).await, open(factory).await];
    let mut tasks = JoinSet::new();
    for (n, store) in stores.iter().cycle().take(6).enumerate() {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            let contested = stream(&format!("contested-{}", n % 3));
            let mut wins = 0;
            let mut seen = 0;
            while wins < 20 {
                match append_one(&*store, write(&contested, exact(seen), 1)).await {
                    Ok(appended) => {
                        wins += 1;
                        seen = appended[0].version.number();
                    }
                    Err(AppendError::Conflict { actual, .. }) => {
                        assert!(actual.number() > seen, "a conflict names a newer version");
                        seen = actual.number();
                    }
                    Err(other) => panic!("{other:?}"),
                }
            }
        });
    }
    tasks.join_all().await;
    for n in 0..3 {
        let contested = stream(&format!("contested-{n}"));
        assert_eq!(events_of(&*stores[n % 2], &contested).await.len(), 40);
    }
    assert_eq!(whole_log(&*stores[0]).await, whole_log(&*stores[1]).await);
}

/// What a store remembers of a stream does not outlive what another store appends to it: every kind of expectation
/// is checked against the log.
///
/// # Panics
///
/// When the store does not.
pub async fn a_store_notices_what_another_appended(factory: &dyn StoreFactory) {
    let (ours, theirs) = (open(factory).await, open(factory).await);
    let (a, b, c) = (stream("a"), stream("b"), stream("c"));
    for one in [&a, &b] {
        grow(&*ours, one, 2).await;
        grow(&*theirs, one, 3).await;
    }
    let batch = vec![
        write(&a, exact(2), 1),
        write(&b, ExpectedVersion::Any, 1),
        write(&c, ExpectedVersion::NoStream, 1),
        write(&a, ExpectedVersion::Exists, 1),
    ];
    let verdicts = append(&*ours, batch).await;
    assert_conflict(&verdicts[0], &a, 5);
    for (n, version) in [(1, 6), (2, 1), (3, 6)] {
        let appended = verdicts[n].as_ref().unwrap();
        assert_eq!(appended[0].version, Version::new(version), "append {n}");
    }
    let check = append_one(&*theirs, write(&a, exact(5), 0)).await;
    assert_conflict(&check, &a, 6);
    let read = StreamRead {
        stream: a.clone(),
        from: ReadFrom::Last,
    };
    let last = theirs.read_streams(&[read], 1).await.unwrap();
    assert_eq!(last[0].events[0].version, Version::new(6));
    let next = append_one(&*theirs, write(&a, exact(6), 1)).await;
    assert_eq!(next.unwrap()[0].version, Version::new(7));
    whole_log(&*ours).await;
}

/// A conflict with the other store is one, whatever the stream is called; a store may know it only by the name in its
/// database's message.
///
/// # Panics
///
/// When the store does not.
pub async fn a_conflict_is_named_whatever_the_stream_is_called(factory: &dyn StoreFactory) {
    let (ours, theirs) = (open(factory).await, open(factory).await);
    let longest = StreamId::new(&"c".repeat(64), &"x".repeat(MAX_ID_BYTES)).unwrap();
    for contested in [longest, stream("PRIMARY"), stream("events.stream_version")] {
        grow(&*ours, &contested, 1).await;
        grow(&*theirs, &contested, 1).await;
        let verdict = append_one(&*ours, write(&contested, exact(1), 1)).await;
        assert_conflict(&verdict, &contested, 2);
        assert_eq!(events_of(&*ours, &contested).await.len(), 2);
    }
    whole_log(&*ours).await;
}

/// While both append, a follower sees every event in order.
///
/// # Panics
///
/// When the store does not.
pub async fn two_stores_keep_the_order_of_commits(factory: &dyn StoreFactory) {
    let stores = [open(factory).await, open(factory).await];
    follow_while_writing(&stores, &stores[0]).await;
}

/// The history is read from the log each time, so that an operator's renewal is seen.
///
/// # Panics
///
/// When the store does not.
pub async fn a_renewed_history_is_seen_by_the_other_store(factory: &dyn StoreFactory) {
    let (ours, theirs) = (open(factory).await, open(factory).await);
    grow(&*theirs, &stream("thing"), 1).await;
    let renewed = ours.renew_history().await.unwrap();
    assert_eq!(theirs.identity().await.unwrap().history, renewed);
    grow(&*theirs, &stream("thing"), 1).await;
    whole_log(&*ours).await;
}
