//! Callers that go away, and callers that leave a call alone.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tidelog_domain::{Append, Cursor, ExpectedVersion, Partition};
use tidelog_eventbus::StateRecord;

use super::StoreFactory;
use super::support::{
    append_one, event, events_of, grow, open, partitions, stream, streams_of, whole_log,
};

/// How many reads, and how many changes of state records, are left alone: many more than a store has connections.
const LEFT_ALONE: u16 = 64;

/// Appends whose futures are dropped, after some steps or none, happen or do not; those after them are not held up, and the
/// log stays whole.
///
/// # Panics
///
/// When the store does not.
pub async fn a_dropped_append_leaves_nothing_open(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    for round in 0..40_usize {
        let batch: Arc<[Append]> = (0..partitions().count())
            .map(|partition| {
                let stream = streams_of(partition, 1).remove(0);
                Append::one(stream, ExpectedVersion::Any, vec![event()])
            })
            .collect();
        let mut appending = store.append(round % store.lanes(), batch).boxed();
        for _ in 0..round % 8 {
            if (&mut appending).now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(appending);
    }
    let after = stream("after");
    for lane in 0..store.lanes() {
        let last = Append::one(after.clone(), ExpectedVersion::Any, vec![event()]);
        let mut verdicts = store.append(lane, vec![last].into()).await;
        verdicts.remove(0).unwrap();
    }
    let one = Append::one(after.clone(), ExpectedVersion::Exists, vec![event()]);
    append_one(&*store, one).await.unwrap();
    assert_eq!(events_of(&*store, &after).await.len(), store.lanes() + 1);
    whole_log(&*store).await;
}

/// Calls that were begun and that nobody polls any more hold up no other, and end when somebody does: a loop over many reads at once,
/// which does something else between two events, is such a caller.
///
/// # Panics
///
/// When one holds up another.
pub async fn calls_that_nobody_polls_hold_up_no_other(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let thing = stream("thing");
    for partition in partitions().iter() {
        grow(&*store, &streams_of(partition.number(), 1)[0], 3).await;
    }
    let start = StateRecord::at_start(store.identity().await.unwrap().history);
    let mut reads = Vec::new();
    let mut changes = Vec::new();
    for n in 0..LEFT_ALONE {
        let partition = Partition::new(n % partitions().count());
        let mut read = store.read(partition, Cursor::START, 100);
        let subscription = format!("left-alone-{n}");
        let (states, record) = (Arc::clone(&store), start.clone());
        let mut change = async move {
            let set = states.compare_and_set_state(&subscription, partition, 0, &record);
            set.await
        }
        .boxed();
        // Each is left at another point.
        let (mut has_read, mut has_changed) = (None, None);
        for _ in 0..=n % 8 {
            has_read = has_read.or_else(|| (&mut read).now_or_never());
            has_changed = has_changed.or_else(|| (&mut change).now_or_never());
            tokio::task::yield_now().await;
        }
        reads.push((read, has_read));
        changes.push((change, has_changed));
    }
    for _ in 0..8 {
        events_of(&*store, &thing).await;
        grow(&*store, &thing, 1).await;
        store.heads().await.unwrap();
        store.identity().await.unwrap();
        store.keep_snapshots(&[]).await.unwrap();
        store.load_states("mailer").await.unwrap();
        store
            .forget_keys(Duration::from_hours(1), 10)
            .await
            .unwrap();
    }
    let taken = store.compare_and_set_state("mailer", Partition::new(1), 0, &start);
    assert!(taken.await.unwrap());
    for (read, has_read) in reads {
        let events = match has_read {
            Some(events) => events,
            None => read.await,
        };
        assert!(events.unwrap().len() >= 3);
    }
    for (change, has_changed) in changes {
        let changed = match has_changed {
            Some(changed) => changed,
            None => change.await,
        };
        assert!(changed.unwrap());
    }
}
