//! The state record of a subscription: one a partition, changed by compare-and-set only.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tidelog_domain::{Cursor, HistoryId, Partition, Position};
use uuid::Uuid;

use crate::parking::{Parked, shortened};
use crate::retry::Retry;

/// How many skipped events a record remembers: the latest.
pub const MAX_SKIPPED: usize = 100;

/// How many requests a record may have that its owner has not executed. More are turned down.
pub const MAX_REQUESTS: usize = 100;

/// All that is known of one partition of a subscription: who works on it, how far it is, what is parked.
///
/// It is one record, changed by compare-and-set only, so that owner, progress and parking can never disagree. It
/// lives beside the effect: with a view's documents for a projection, in the log's database for a reaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StateRecord {
    /// The process that works on it; `None` when nobody does.
    pub owner: Option<String>,
    /// Goes up at each change of the owner: a zombie is told by it.
    pub epoch: u64,
    /// The process that it is to be handed to: its owner finishes the batch in flight and gives it back, and nobody else takes
    /// it for a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted_by: Option<String>,
    /// How far it is.
    pub checkpoint: Checkpoint,
    /// The sequences that are set aside here, as pointers into the log. A replay starts with none.
    #[serde(default, skip_serializing_if = "Parked::is_empty")]
    pub parked: Parked,
    /// The events that were skipped, the oldest first; at most [`MAX_SKIPPED`], of which the latest stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedEvent>,
    /// What the owner is asked to do with what is set aside. It takes them away when they are done; at most [`MAX_REQUESTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<Request>,
    /// Whether a replay that is about to take over has stopped it.
    #[serde(default)]
    pub paused: bool,
    /// Whether an operator has stopped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Why its owner does not get on, if it does not: for people who ask from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
}

/// Why the owner of a partition does not get on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Trouble {
    /// What it does about that.
    pub kind: TroubleKind,
    /// Why, for people; at most [`MAX_ERROR_CHARS`](crate::MAX_ERROR_CHARS).
    pub reason: String,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// What the owner of a partition does that does not get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TroubleKind {
    /// Something is unavailable: it tries again, without end.
    BackingOff,
    /// As many sequences are set aside as may be: it waits until there is room.
    Full,
    /// It waits at an event that cannot be handled, and of which cannot be told what it belongs to.
    Failed,
}

/// A stop that an operator asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pause {
    /// Why, for people; may be empty.
    pub reason: String,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// An event that was passed over, because a person or the handler said so.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SkippedEvent {
    /// Where it is.
    pub position: Position,
    /// The sequences that it belongs to.
    pub sequences: Vec<String>,
    /// Why.
    pub reason: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// Something that the owner of a partition is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Request {
    /// Which request it is.
    pub id: Uuid,
    /// What is asked for.
    pub what: Ask,
    /// When it was asked for.
    pub at: DateTime<Utc>,
}

impl Request {
    /// Asks for this, now.
    #[must_use]
    pub fn now(what: Ask) -> Self {
        Self {
            id: Uuid::now_v7(),
            what,
            at: Utc::now(),
        }
    }
}

/// What the owner of a partition may be asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
#[non_exhaustive]
pub enum Ask {
    /// Try a sequence that is set aside again, in order.
    Retry {
        /// Which.
        sequence: String,
    },
    /// Try all of them again.
    RetryAll,
    /// Pass over the first event of a sequence that is set aside, and go on with it.
    Skip {
        /// Which.
        sequence: String,
        /// Where its first event is: a skip of any other is not done.
        position: Position,
        /// Why, for the record.
        reason: String,
    },
}

/// How far the owner of a partition is: what only it changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Progress {
    /// The last event that was applied, set aside or passed over.
    pub cursor: Cursor,
    /// The sequences that are set aside.
    pub parked: Parked,
    /// The events that were skipped.
    pub skipped: Vec<SkippedEvent>,
    /// The requests that are done.
    pub done: Vec<Uuid>,
    /// Why it does not get on, if it does not.
    pub trouble: Option<Trouble>,
}

impl Progress {
    /// Remembers why it does not get on, since now unless that is known.
    pub fn trouble(&mut self, kind: TroubleKind, reason: &str) {
        let reason = shortened(reason);
        let known = self.trouble.as_ref();
        if known.is_none_or(|known| (known.kind, &known.reason) != (kind, &reason)) {
            let since = Utc::now();
            self.trouble = Some(Trouble {
                kind,
                reason,
                since,
            });
        }
    }

    /// Remembers an event that is skipped, with at most [`MAX_ERROR_CHARS`](crate::MAX_ERROR_CHARS) of the reason.
    pub fn skip(&mut self, mut skipped: SkippedEvent) {
        skipped.reason = shortened(&skipped.reason);
        if self.skipped.len() >= MAX_SKIPPED {
            self.skipped.remove(0);
        }
        self.skipped.push(skipped);
    }
}

/// Everything up to here was applied or parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The history that the cursor belongs to.
    pub history: HistoryId,
    /// The last event that was applied, parked or passed over by a filter.
    pub cursor: Cursor,
}

impl StateRecord {
    /// Nobody's, at the start of `history`.
    #[must_use]
    pub fn at_start(history: HistoryId) -> Self {
        Self::beginning_at(history, Cursor::START)
    }

    /// Nobody's, with everything up to `cursor` left to others.
    #[must_use]
    pub fn beginning_at(history: HistoryId, cursor: Cursor) -> Self {
        Self {
            owner: None,
            epoch: 0,
            wanted_by: None,
            checkpoint: Checkpoint { history, cursor },
            parked: Parked::default(),
            skipped: Vec::new(),
            requests: Vec::new(),
            paused: false,
            pause: None,
            trouble: None,
        }
    }

    /// Taken by `owner`, who may work on it from now on.
    #[must_use]
    pub fn taken_by(&self, owner: &str) -> Self {
        Self {
            owner: Some(owner.to_owned()),
            epoch: self.epoch.saturating_add(1),
            wanted_by: None,
            trouble: None,
            ..self.clone()
        }
    }

    /// Asked for by `process`.
    #[must_use]
    pub fn wanted_by(&self, process: &str) -> Self {
        Self {
            wanted_by: Some(process.to_owned()),
            ..self.clone()
        }
    }

    /// Given back: anybody may take it at once, or only who asked for it.
    #[must_use]
    pub fn released(&self) -> Self {
        Self {
            owner: None,
            ..self.clone()
        }
    }

    /// With the owner's progress, and everything else as it is.
    #[must_use]
    pub fn with_progress(&self, progress: &Progress) -> Self {
        let open = |request: &&Request| !progress.done.contains(&request.id);
        Self {
            checkpoint: Checkpoint {
                cursor: progress.cursor,
                ..self.checkpoint
            },
            parked: progress.parked.clone(),
            skipped: progress.skipped.clone(),
            requests: self.requests.iter().filter(open).cloned().collect(),
            trouble: progress.trouble.clone(),
            ..self.clone()
        }
    }

    /// How far its owner is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            cursor: self.checkpoint.cursor,
            parked: self.parked.clone(),
            skipped: self.skipped.clone(),
            done: Vec::new(),
            trouble: self.trouble.clone(),
        }
    }

    /// With everything up to `cursor` done, and nothing set aside on the way.
    #[must_use]
    pub fn advanced_to(&self, cursor: Cursor) -> Self {
        self.with_progress(&Progress {
            cursor,
            ..self.progress()
        })
    }

    /// With one more request; `None` when it has as many as it may.
    #[must_use]
    pub fn asked(&self, request: Request) -> Option<Self> {
        let mut record = self.clone();
        record.requests.push(request);
        (record.requests.len() <= MAX_REQUESTS).then_some(record)
    }

    /// Stopped by an operator, or let go on.
    #[must_use]
    pub fn with_pause(&self, pause: Option<Pause>) -> Self {
        Self {
            pause,
            ..self.clone()
        }
    }

    /// Whether it is stopped. Its owner finishes the batch in flight and gives the record back: a record that is stopped
    /// and has no owner is at rest.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.paused || self.pause.is_some()
    }

    /// Stopped by a replay that is about to take over, or let go on.
    #[must_use]
    pub fn with_paused(&self, paused: bool) -> Self {
        Self {
            paused,
            ..self.clone()
        }
    }

    /// Whether it still is what `owner` took in `epoch`.
    #[must_use]
    pub fn is_held_by(&self, owner: &str, epoch: u64) -> bool {
        self.epoch == epoch && self.owner.as_deref() == Some(owner)
    }

    /// Whether `owner` may take it, when it has not changed for `unchanged` on its own monotonic clock and a lease
    /// lasts `lease`.
    #[must_use]
    pub fn claim(&self, owner: &str, unchanged: Duration, lease: Duration) -> Claim {
        let is_mine = |process: &Option<String>| process.as_deref() == Some(owner);
        let is_for_another =
            self.owner.is_none() && self.wanted_by.is_some() && !is_mine(&self.wanted_by);
        let is_held = self.owner.is_some() && !is_mine(&self.owner);
        if self.is_paused() {
            Claim::Paused
        } else if (is_held || is_for_another) && unchanged < lease {
            Claim::Held
        } else {
            Claim::Free
        }
    }
}

/// Whether a record can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It can: nobody has it, or its owner has not been heard of for a whole lease.
    Free,
    /// Somebody else has it.
    Held,
    /// Nobody may work on it.
    Paused,
}

/// Keeps state records. Implemented by read stores (for views) and event stores (for reactions).
#[async_trait]
pub trait StateStore: Send + Sync {
    /// The records of `subscription`, each with its revision (from 1), ordered by partition.
    ///
    /// # Errors
    ///
    /// [`StateError::Unavailable`].
    async fn load_states(
        &self,
        subscription: &str,
    ) -> Result<Vec<(Partition, u64, StateRecord)>, StateError>;

    /// Writes `record` if the stored one still has the revision `expected` (0: there is none), and says whether
    /// it did. The new revision is `expected + 1`.
    ///
    /// MUST be atomic, and durable when it returns true.
    ///
    /// # Errors
    ///
    /// [`StateError::Unavailable`], after which the record may or may not have been written.
    async fn compare_and_set_state(
        &self,
        subscription: &str,
        partition: Partition,
        expected: u64,
        record: &StateRecord,
    ) -> Result<bool, StateError>;
}

/// Why a state record could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The store cannot be reached, or cannot answer now.
    #[error("the store of the subscription's state is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A stored record cannot be understood.
    #[error("a state record cannot be understood: {what}")]
    Corrupt {
        /// Which, and why.
        what: String,
    },
}

impl StateError {
    /// What a caller may do.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Unavailable(_) => Retry::AfterBackoff,
            Self::Corrupt { .. } => Retry::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(5);

    fn record() -> StateRecord {
        StateRecord::at_start(HistoryId::new(uuid::Uuid::from_u128(1)))
    }

    #[test]
    fn a_lease_ends_by_silence_or_by_giving_it_back() {
        let taken = record().taken_by("a");
        let silent = |for_ms| Duration::from_millis(for_ms);
        assert_eq!(record().claim("a", silent(0), LEASE), Claim::Free);
        assert_eq!(taken.claim("b", silent(4_999), LEASE), Claim::Held);
        assert_eq!(taken.claim("b", silent(5_000), LEASE), Claim::Free);
        assert_eq!(taken.claim("a", silent(0), LEASE), Claim::Free);
        assert_eq!(taken.released().claim("b", silent(0), LEASE), Claim::Free);
    }

    #[test]
    fn what_is_handed_over_is_for_who_asked_for_it_as_long_as_he_lives() {
        let handed = record().taken_by("a").wanted_by("b").released();
        assert_eq!(handed.claim("b", Duration::ZERO, LEASE), Claim::Free);
        assert_eq!(handed.claim("c", Duration::ZERO, LEASE), Claim::Held);
        assert_eq!(handed.claim("c", LEASE, LEASE), Claim::Free);
        assert_eq!(handed.taken_by("b").wanted_by, None);
    }

    #[test]
    fn what_others_changed_stays_when_the_owner_writes() {
        let request = |n| Request {
            id: Uuid::from_u128(n),
            what: Ask::RetryAll,
            at: DateTime::UNIX_EPOCH,
        };
        let taken = record().taken_by("a");
        let asked = taken.asked(request(1)).unwrap().asked(request(2)).unwrap();
        let progress = Progress {
            done: vec![Uuid::from_u128(1)],
            ..taken.progress()
        };
        let written = asked.wanted_by("b").with_progress(&progress);
        assert_eq!(written.requests, [request(2)]);
        assert_eq!(written.wanted_by.as_deref(), Some("b"));
        let full = (0..100).try_fold(taken, |record, n| record.asked(request(n)));
        assert_eq!(full.unwrap().asked(request(100)), None);
    }

    #[test]
    fn the_reasons_of_skips_are_kept_as_far_as_there_is_room() {
        let mut progress = record().progress();
        for position in 0..=MAX_SKIPPED {
            progress.skip(SkippedEvent {
                position: Position::new(u64::try_from(position).unwrap()),
                sequences: Vec::new(),
                reason: "é".repeat(200_000),
                at: DateTime::UNIX_EPOCH,
            });
        }
        assert_eq!(progress.skipped.len(), MAX_SKIPPED);
        assert_eq!(progress.skipped[0].position, Position::new(1));
        let reasons = progress
            .skipped
            .iter()
            .map(|own| own.reason.chars().count());
        assert_eq!(reasons.max(), Some(crate::MAX_ERROR_CHARS));
    }

    #[test]
    fn nobody_takes_what_is_paused() {
        let paused = record().with_paused(true);
        assert_eq!(paused.claim("a", LEASE * 2, LEASE), Claim::Paused);
        assert_eq!(
            paused.with_paused(false).claim("a", LEASE, LEASE),
            Claim::Free
        );
    }

    #[test]
    fn a_zombie_does_not_hold_what_was_taken_again() {
        let first = record().taken_by("a");
        assert!(first.is_held_by("a", first.epoch));
        let second = first.taken_by("b");
        assert!(!second.is_held_by("a", first.epoch));
        // Not even when the same process took it again.
        assert!(!second.taken_by("a").is_held_by("a", first.epoch));
        assert!(!first.released().is_held_by("a", first.epoch));
    }
}
