//! Watching the state records of a subscription: one look for all of its partitions.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::{Partition, Partitions};
use tokio::sync::watch;
use tokio::time::Instant;

use super::lease::Records;
use super::status::SubscriptionStatus;
use crate::backoff::Backoff;
use crate::group::Share;
use crate::outage::Outage;
use crate::state::{StateError, StateRecord};
use tidelog_domain::causes;

/// The longest wait before another look while the records cannot be read.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// What was seen of one record.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Its revision; 0 when there is none.
    pub(super) revision: u64,
    /// The record.
    pub(super) record: Option<Arc<StateRecord>>,
    /// Since when its owner has not written it, as far as it was looked: on this process' own clock.
    pub(super) unchanged_since: Instant,
}

/// Looks at all records of a subscription again and again.
pub(super) struct Observer {
    records: Records,
    partitions: Box<[watch::Sender<Option<Seen>>]>,
    interval: Duration,
}

impl Observer {
    pub(super) fn new(records: Records, partitions: Partitions, interval: Duration) -> Self {
        Self {
            records,
            partitions: partitions
                .iter()
                .map(|_| watch::Sender::default())
                .collect(),
            interval,
        }
    }

    /// What is seen of `partition`; nothing before the first look.
    pub(super) fn watch(&self, partition: Partition) -> Option<watch::Receiver<Option<Seen>>> {
        self.partitions
            .get(partition.index())
            .map(watch::Sender::subscribe)
    }

    /// What is seen of all partitions, if all were looked at: each with whether its record changed within a `lease`.
    pub(super) fn all(&self, lease: Duration) -> Option<Vec<(Seen, bool)>> {
        let seen = self.partitions.iter().map(|seen| seen.borrow().clone());
        let with_life = |seen: Seen| {
            let is_alive = seen.unchanged_since.elapsed() < lease;
            (seen, is_alive)
        };
        seen.map(|seen| seen.map(with_life)).collect()
    }

    /// Looks for ever.
    pub(super) async fn run(&self, outage: &Outage, status: &SubscriptionStatus) -> Infallible {
        let mut backoff = Backoff::new(self.interval, BACKOFF_MAX);
        loop {
            match self.look(status).await {
                Ok(()) => {
                    outage.recovered(None);
                    backoff.reset();
                    tokio::time::sleep(self.interval).await;
                }
                Err(error) => {
                    let reason = causes(&error);
                    outage.failed(None, &reason);
                    let wait = backoff.next_wait();
                    status.waits_for_records(&reason, backoff.attempts());
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    async fn look(&self, status: &SubscriptionStatus) -> Result<(), StateError> {
        let Records {
            states,
            subscription,
            ..
        } = &self.records;
        let stored = states.load_states(subscription).await?;
        // After the look: a lease must not seem to have been silent for longer than it was.
        let now = Instant::now();
        let mut stored = stored.into_iter().peekable();
        for (number, seen) in (0..).map(Partition::new).zip(&self.partitions) {
            while stored
                .next_if(|(partition, ..)| *partition < number)
                .is_some()
            {}
            let (revision, record) = stored
                .next_if(|(partition, ..)| *partition == number)
                .map_or((0, None), |(_, revision, record)| {
                    (revision, Some(Arc::new(record)))
                });
            seen.send_if_modified(|seen| {
                if seen.as_ref().is_some_and(|seen| seen.revision == revision) {
                    return false;
                }
                let unchanged_since = match seen.as_ref() {
                    Some(before) if !is_by_owner(before.record.as_deref(), record.as_deref()) => {
                        before.unchanged_since
                    }
                    _ => now,
                };
                let owner = record.as_ref().and_then(|record| record.owner.as_deref());
                status.heard_of(number, owner, unchanged_since.into_std());
                *seen = Some(Seen {
                    revision,
                    record,
                    unchanged_since,
                });
                true
            });
        }
        Ok(())
    }
}

/// Whether a change of a record is a sign of life of its owner. What others ask of him is none: otherwise each process that comes would
/// give a dead owner another lease.
fn is_by_owner(before: Option<&StateRecord>, after: Option<&StateRecord>) -> bool {
    let (Some(before), Some(after)) = (before, after) else {
        return true;
    };
    let of_others = |record: &StateRecord| StateRecord {
        wanted_by: None,
        requests: Vec::new(),
        paused: false,
        pause: None,
        ..record.clone()
    };
    let is_asked = before.wanted_by != after.wanted_by
        || before.requests != after.requests
        || before.is_paused() != after.is_paused();
    before.owner.is_none() || !is_asked || of_others(before) != of_others(after)
}

/// What was seen of all partitions, as the group's rules want it.
pub(super) fn shares(seen: &[(Seen, bool)]) -> Vec<Share<'_>> {
    let seen = (0..).map(Partition::new).zip(seen);
    seen.map(|(partition, (seen, is_alive))| Share {
        partition,
        record: seen.record.as_deref(),
        is_alive: *is_alive,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use tidelog_domain::{Cursor, HistoryId, Position};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_others_ask_of_an_owner_is_no_sign_of_life_of_his() {
        let begun = StateRecord::at_start(HistoryId::new(Uuid::from_u128(1))).taken_by("a");
        let is_alive = |after: &StateRecord| is_by_owner(Some(&begun), Some(after));
        assert!(!is_alive(&begun.wanted_by("b")));
        assert!(!is_alive(&begun.with_paused(true)));
        assert!(is_alive(&begun), "a renewal changes the revision alone");
        let cursor = Cursor {
            position: Position::new(1),
            event_id: None,
        };
        assert!(is_alive(&begun.wanted_by("b").advanced_to(cursor)));
        assert!(is_alive(&begun.wanted_by("b").released()));
        assert!(is_alive(&begun.taken_by("b")));
        // One that is nobody's stays another one's for a lease from when it was given back.
        let free = begun.released();
        assert!(is_by_owner(Some(&free), Some(&free.wanted_by("c"))));
        assert!(is_by_owner(None, Some(&begun)));
    }
}
