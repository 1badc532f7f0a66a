//! Where an event is: its version in its stream, its position in its partition, the log's history.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::EventId;

/// The version of a stream: the number of events in it. Dense, from 1; 0 says that there is no stream.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Version(u64);

/// The position of an event in its partition: dense, from 1, in the order of commits; 0 is before the first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(u64);

macro_rules! counted {
    ($name:ident, $zero:ident, $zero_doc:literal) => {
        impl $name {
            #[doc = $zero_doc]
            pub const $zero: Self = Self(0);

            /// The number `number`.
            #[must_use]
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The number itself.
            #[must_use]
            pub const fn number(self) -> u64 {
                self.0
            }

            /// The one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                self.plus(1)
            }

            /// The one that is `count` after this.
            #[must_use]
            pub const fn plus(self, count: u64) -> Self {
                Self(self.0.saturating_add(count))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counted!(
    Version,
    NONE,
    "The version of a stream that has no event yet."
);
counted!(Position, START, "Before the first event of a partition.");

/// One partition of the log, numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(u16);

impl Partition {
    /// The partition numbered `number`.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// Its number, from 0.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Its number as an index into a list with one item a partition.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many partitions a log has: 1 to [`Partitions::MAX`], fixed when the log is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partitions(u16);

impl Partitions {
    /// What a new log gets unless it is told otherwise.
    pub const DEFAULT: Self = Self(16);
    /// The most partitions that a log may have.
    pub const MAX: u16 = 1024;
    /// The name of the hash that spreads streams over partitions, as it is stored in the log.
    pub const HASH: &'static str = "xxh64";

    /// `count` partitions, or `None` when that is 0 or above [`Partitions::MAX`].
    #[must_use]
    pub const fn new(count: u16) -> Option<Self> {
        if count == 0 || count > Self::MAX {
            None
        } else {
            Some(Self(count))
        }
    }

    /// How many they are.
    #[must_use]
    pub const fn count(self) -> u16 {
        self.0
    }

    /// All of them, ascending.
    pub fn iter(self) -> impl Iterator<Item = Partition> + Clone {
        (0..self.0).map(Partition)
    }

    /// The partition of a stream whose name hashes to `hash`.
    pub(crate) fn of_hash(self, hash: u64) -> Partition {
        let remainder = hash % u64::from(self.0);
        Partition(u16::try_from(remainder).unwrap_or_default())
    }
}

impl Default for Partitions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The identity of one history of the log: drawn at random when the log is made, and anew when an operator
/// declares that positions were issued again (a restore, a failover to a stale replica).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HistoryId(Uuid);

impl HistoryId {
    /// The history known as `id`.
    #[must_use]
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// The identity as a UUID.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for HistoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

/// How far a reader has come in one partition: a position, and the event that it saw there.
///
/// The event's id is what lets a reader notice that the log went back in time and issued the position again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cursor {
    /// The last position read; [`Position::START`] before the first.
    pub position: Position,
    /// The id of the event at that position; `None` at the start.
    pub event_id: Option<EventId>,
}

impl Cursor {
    /// Before the first event.
    pub const START: Self = Self {
        position: Position::START,
        event_id: None,
    };

    /// At the event `event_id`, which is at `position`.
    #[must_use]
    pub const fn at(position: Position, event_id: EventId) -> Self {
        Self {
            position,
            event_id: Some(event_id),
        }
    }
}
