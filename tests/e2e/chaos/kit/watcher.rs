//! Looks at the state records while processes fight for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::Partition;
use tidelog_eventbus::{StateRecord, StateStore};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Ground;
use super::ground::{SUBSCRIPTIONS, States};

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(20);

/// Looks until it is told to stop.
pub(crate) struct Watcher {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<Watched>>,
}

/// What was seen of one subscription.
#[derive(Default)]
struct Watched {
    looks: usize,
    last: BTreeMap<Partition, (u64, StateRecord)>,
    owners: BTreeMap<(Partition, u64), String>,
}

impl Watcher {
    /// Looks from the moment on when there is something to look at.
    pub(crate) async fn start(ground: &Ground) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = Vec::new();
        for subscription in SUBSCRIPTIONS {
            let states = ground.states_of(subscription).await;
            tasks.push(tokio::spawn(watch(subscription, states, stop.clone())));
        }
        Self { stop, tasks }
    }

    /// Ends it. Fails where anything was wrong.
    pub(crate) async fn finish(self) {
        self.stop.cancel();
        for (task, subscription) in self.tasks.into_iter().zip(SUBSCRIPTIONS) {
            let watched = task.await.unwrap();
            let owners: BTreeSet<_> = watched.owners.values().collect();
            assert!(watched.looks > 0, "nobody looked at {subscription}");
            eprintln!(
                "{subscription}: {} looks, {} changes of owner, {} owners",
                watched.looks,
                watched.owners.len(),
                owners.len()
            );
        }
    }
}

async fn watch(
    subscription: &str,
    (states, name): (Arc<dyn StateStore>, String),
    stop: CancellationToken,
) -> Watched {
    let mut watched = Watched::default();
    while !stop.is_cancelled() {
        // While its database is down there is nothing to see.
        if let Ok(states) = states.load_states(&name).await {
            watched.see(subscription, states);
        }
        sleep(INTERVAL).await;
    }
    watched
}

impl Watched {
    fn see(&mut self, subscription: &str, states: States) {
        self.looks += 1;
        for (partition, revision, record) in states {
            let before = self.last.get(&partition);
            if let Some((old_revision, old)) = before {
                let told = format!(
                    "{subscription}, partition {partition}: {old:?} ({old_revision}), then {record:?} ({revision})"
                );
                assert!(revision >= *old_revision, "a record went back: {told}");
                assert!(
                    revision > *old_revision || record == *old,
                    "a record changed in place: {told}"
                );
                assert!(record.epoch >= old.epoch, "an epoch went back: {told}");
                assert!(
                    record.checkpoint.cursor.position >= old.checkpoint.cursor.position,
                    "a checkpoint went back: {told}"
                );
            }
            if let Some(owner) = &record.owner {
                let known = self.owners.entry((partition, record.epoch));
                let known = known.or_insert_with(|| owner.clone());
                assert_eq!(
                    known, owner,
                    "two owners of partition {partition} of {subscription} in epoch {}",
                    record.epoch
                );
            }
            self.last.insert(partition, (revision, record));
        }
    }
}
