//! Bringing the version that is read to rest while the next one takes over, and waking it when it does not.

use std::collections::HashMap;
use std::time::Duration;

use tidelog_domain::Partition;
use tidelog_eventbus::StateRecord;
use tokio::time::{Instant, sleep};

use super::claim::Claim;
use crate::store::{Alias, ReadError, ReadStore};

/// How often the state records are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How often a record is tried to be written that its owner writes at the same time.
const MAX_TRIES: usize = 64;

/// Pauses all of `collection` and waits until nobody works on it: each record has been given back by its owner after the
/// batch in flight, or its owner has not been heard of for `lease`.
///
/// Returns false, some records paused, when the replay of `claim` was taken over or given up by others. That is asked after the
/// records were read and before one is paused, and who takes a replay over writes all records anew *after* that (see [`wake`]): so a
/// replay that was thought dead never pauses anything again.
pub(super) async fn bring_to_rest(
    claim: &Claim,
    collection: &str,
    lease: Duration,
) -> Result<bool, ReadError> {
    let mut seen: HashMap<Partition, (u64, Instant)> = HashMap::new();
    loop {
        let records = claim.store.load_states(collection).await?;
        if !claim.is_held().await? {
            return Ok(false);
        }
        let mut at_work = false;
        for (partition, revision, record) in records {
            if !record.paused {
                let paused = StateRecord {
                    paused: true,
                    ..record
                };
                let store = &claim.store;
                store
                    .compare_and_set_state(collection, partition, revision, &paused)
                    .await?;
                at_work = true;
                continue;
            }
            let (known, since) = seen.entry(partition).or_insert((revision, Instant::now()));
            if *known != revision {
                (*known, *since) = (revision, Instant::now());
            }
            at_work |= record.owner.is_some() && since.elapsed() < lease;
        }
        if !at_work {
            return Ok(true);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Lets `collection` go on, as long as `is_ours` holds of the alias of `view`. Every record is written anew, paused or not.
///
/// The alias is asked after the records were read and before one is written: so who was slow wakes nothing that was paused
/// after somebody else took the replay over.
pub(super) async fn wake(
    store: &dyn ReadStore,
    view: &str,
    collection: &str,
    is_ours: impl Fn(&Alias) -> bool + Sync,
) -> Result<(), ReadError> {
    let mut left: Vec<Partition> = all(store, collection).await?;
    for _ in 0..MAX_TRIES {
        let records = store.load_states(collection).await?;
        if !store
            .load_alias(view)
            .await?
            .is_some_and(|now| is_ours(&now))
        {
            return Ok(());
        }
        for (partition, revision, record) in records {
            if !left.contains(&partition) {
                continue;
            }
            let awake = StateRecord {
                paused: false,
                ..record
            };
            let written = store
                .compare_and_set_state(collection, partition, revision, &awake)
                .await?;
            if written {
                left.retain(|waiting| *waiting != partition);
            }
        }
        if left.is_empty() {
            return Ok(());
        }
    }
    Err(ReadError::Unavailable(
        format!("the state records of {collection} kept changing").into(),
    ))
}

async fn all(store: &dyn ReadStore, collection: &str) -> Result<Vec<Partition>, ReadError> {
    let records = store.load_states(collection).await?;
    Ok(records
        .into_iter()
        .map(|(partition, ..)| partition)
        .collect())
}
