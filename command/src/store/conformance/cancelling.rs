//! Callers that go away.

use std::sync::Arc;

use futures_util::FutureExt;
use tidelog_domain::{Append, ExpectedVersion};

use super::StoreFactory;
use super::support::{
    append_one, event, events_of, open, partitions, stream, streams_of, whole_log,
};

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
