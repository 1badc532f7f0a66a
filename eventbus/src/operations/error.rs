//! Why an operation was not done.

use tidelog_domain::{Partition, Position};

use crate::log::LogError;
use crate::state::{MAX_REQUESTS, StateError};

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperationError {
    /// The subscription has no records: nobody has run it yet.
    #[error("the subscription has never run")]
    NotStarted,
    /// No such sequence is set aside: there never was one, or it goes on by now.
    #[error("no sequence {sequence:?} is set aside, or not any more")]
    NotParked {
        /// The sequence that was asked for.
        sequence: String,
    },
    /// The sequence is set aside in several partitions, and only one can be meant.
    #[error("the sequence {sequence:?} is set aside in several partitions: name one of them")]
    Ambiguous {
        /// The sequence that was asked for.
        sequence: String,
        /// Where it is set aside.
        partitions: Vec<Partition>,
    },
    /// The first event of the sequence is another one than was meant.
    #[error(
        "the first event of the sequence {sequence:?} that waits is at position {first} now: look at it again"
    )]
    Moved {
        /// The sequence.
        sequence: String,
        /// Where its first event is.
        first: Position,
    },
    /// The reason is missing, or too long.
    #[error("the reason {why}")]
    Reason {
        /// What is wrong with it.
        why: &'static str,
    },
    /// So much is asked for already that nobody has done yet.
    #[error(
        "{MAX_REQUESTS} requests wait in partition {partition} already: let a process that runs the subscription work them off"
    )]
    TooManyRequests {
        /// Where.
        partition: Partition,
    },
    /// The record changed all the time. Do it again.
    #[error(
        "the record of partition {partition} changed each time that it was about to be changed"
    )]
    Contended {
        /// Which.
        partition: Partition,
    },
    /// The records cannot be read or written. After a write it may have been done: it can be done again.
    #[error(transparent)]
    States(#[from] StateError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
}
