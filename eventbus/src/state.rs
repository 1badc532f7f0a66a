//! The state record of a subscription: one a partition, changed by compare-and-set only.

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
