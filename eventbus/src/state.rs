//! The state record of a subscription: one a partition, changed by compare-and-set only.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tidelog_domain::{Cursor, HistoryId, Partition, Position};

use crate::retry::Retry;

/// All that is known of one partition of a subscription: who works on it, how far it is, what is parked.
///
/// It is one record, changed by compare-and-set only, so that owner, progress and parking can never disagree. It
/// lives beside the effect: with a view's documents for a projection, in the log's database for a reaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRecord {
    /// The process that works on it; `None` when nobody does.
    pub owner: Option<String>,
    /// Goes up at each change of the owner: a zombie is told by it.
    pub epoch: u64,
    /// How far it is.
    pub checkpoint: Checkpoint,
    /// The sequences that are parked here, as pointers into the log. A replay starts with none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parked: Vec<ParkedSequence>,
    /// Whether an operator, or a replay that is about to take over, has stopped it.
    #[serde(default)]
    pub paused: bool,
}

/// Everything up to here was applied or parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The history that the cursor belongs to.
    pub history: HistoryId,
    /// The last event that was applied, parked or passed over by a filter.
    pub cursor: Cursor,
}

/// A sequence that stopped at an event: it and all later ones of the sequence wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedSequence {
    /// The sequence: a stream for a reaction, a document for a projection.
    pub sequence: String,
    /// The first event that waits.
    pub first: Position,
    /// What happened, for people.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
}

impl StateRecord {
    /// Nobody's, at the start of `history`.
    #[must_use]
    pub const fn at_start(history: HistoryId) -> Self {
        Self {
            owner: None,
            epoch: 0,
            checkpoint: Checkpoint {
                history,
                cursor: Cursor::START,
            },
            parked: Vec::new(),
            paused: false,
        }
    }

    /// Taken by `owner`, who may work on it from now on.
    #[must_use]
    pub fn taken_by(&self, owner: &str) -> Self {
        Self {
            owner: Some(owner.to_owned()),
            epoch: self.epoch.saturating_add(1),
            ..self.clone()
        }
    }

    /// Given back: anybody may take it at once.
    #[must_use]
    pub fn released(&self) -> Self {
        Self {
            owner: None,
            ..self.clone()
        }
    }

    /// With everything up to `cursor` done.
    #[must_use]
    pub fn advanced_to(&self, cursor: Cursor) -> Self {
        let mut record = self.clone();
        record.checkpoint.cursor = cursor;
        record
    }

    /// Paused, or not. Its owner finishes the batch in flight and gives the record back: a record that is paused and
    /// has no owner is at rest.
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
        match self.owner.as_deref() {
            _ if self.paused => Claim::Paused,
            None => Claim::Free,
            Some(holder) if holder == owner => Claim::Free,
            Some(_) if unchanged >= lease => Claim::Free,
            Some(_) => Claim::Held,
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
