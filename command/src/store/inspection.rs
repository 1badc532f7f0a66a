//! What can be seen of a log's database without making, changing or locking anything.

use std::borrow::Cow;
use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
#[cfg(any(feature = "mysql", feature = "sqlite"))]
use sqlx::migrate::Migrator;

#[cfg(any(feature = "mysql", feature = "sqlite"))]
use super::OpenError;
use super::open::StoredIdentity;

/// What can be seen of a log's database without making, changing or locking anything: for `doctor`, and for `migrate --dry-run`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// What the server calls its version; SQLite's own.
    pub version: String,
    /// The server's settings, by name; empty on SQLite.
    pub settings: BTreeMap<String, String>,
    /// The database's clock; `None` where it is this machine's.
    pub clock: Option<DateTime<Utc>>,
    /// The migrations that are due, in order.
    pub pending: Vec<PendingMigration>,
    /// The log, where it was made.
    pub log: Option<InspectedLog>,
    /// Whether a server lets the user change or delete events; `false` where there is no server, or no log.
    pub may_change_events: bool,
}

/// A migration that was not made yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingMigration {
    /// Its number.
    pub number: i64,
    /// What it is about, in a word or two.
    pub description: Cow<'static, str>,
    /// Its statements.
    pub sql: String,
}

/// What a log says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InspectedLog {
    /// Its history, if it is one.
    pub history: Option<tidelog_domain::HistoryId>,
    /// How many partitions it has.
    pub partitions: u32,
    /// The name of the hash that it spreads its streams by.
    pub hash: String,
    /// Of each partition the position that the next event gets, and the position of the last event there is.
    pub heads: Vec<(u64, u64)>,
    /// When the last event was recorded, by the log.
    pub last_recorded_at: Option<DateTime<Utc>>,
}

/// A row of the table of migrations.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
#[derive(Clone, Debug)]
pub(crate) struct MadeMigration {
    pub(crate) number: i64,
    pub(crate) checksum: Vec<u8>,
    /// Whether it was made to its end.
    pub(crate) whole: bool,
}

impl InspectedLog {
    /// The log that says this of itself, and has these heads.
    #[cfg_attr(
        not(any(feature = "mysql", feature = "sqlite")),
        allow(dead_code, reason = "the databases use it")
    )]
    pub(crate) fn of(
        identity: &StoredIdentity,
        heads: Vec<(u64, u64)>,
        last_recorded_at: Option<i64>,
    ) -> Self {
        let recorded = last_recorded_at.filter(|micros| *micros > 0);
        Self {
            history: identity.history().ok(),
            partitions: identity.partitions,
            hash: String::from_utf8_lossy(&identity.hash).into_owned(),
            heads,
            last_recorded_at: recorded.and_then(DateTime::from_timestamp_micros),
        }
    }
}

/// The migrations of `all` that are due where `made` were made.
///
/// # Errors
///
/// [`OpenError::Newer`] and [`OpenError::Changed`], as when the log is opened.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub(crate) fn pending(
    all: &Migrator,
    made: &[MadeMigration],
) -> Result<Vec<PendingMigration>, OpenError> {
    for own in made {
        let known = all.iter().find(|known| known.version == own.number);
        let version = own.number;
        let known = known.ok_or(OpenError::Newer { version })?;
        if own.whole && *known.checksum != *own.checksum {
            return Err(OpenError::Changed { version });
        }
    }
    let is_due = |number: i64| {
        let mut whole = made.iter().filter(|own| own.whole);
        !whole.any(|own| own.number == number)
    };
    let due = all.iter().filter(|known| is_due(known.version));
    Ok(due
        .map(|known| PendingMigration {
            number: known.version,
            description: known.description.clone(),
            sql: known.sql.as_str().to_owned(),
        })
        .collect())
}

#[cfg(all(test, any(feature = "mysql", feature = "sqlite")))]
mod tests {
    use super::*;
    use crate::store::migrations::migrator;

    #[test]
    fn what_was_not_made_to_its_end_is_due() {
        let all = migrator(&[(1, "log", "SELECT 1"), (2, "keys", "SELECT 2")]);
        let made = |number, checksum: &[u8], whole| MadeMigration {
            number,
            checksum: checksum.to_vec(),
            whole,
        };
        let right: Vec<_> = all.iter().map(|own| own.checksum.to_vec()).collect();
        let due = |made: &[MadeMigration]| {
            let due = pending(&all, made).unwrap().into_iter();
            due.map(|own| own.number).collect::<Vec<_>>()
        };
        assert_eq!(due(&[]), [1, 2]);
        assert_eq!(due(&[made(1, &right[0], true)]), [2]);
        let half = [made(1, &right[0], true), made(2, b"", false)];
        assert_eq!(due(&half), [2]);
        let whole = [made(1, &right[0], true), made(2, &right[1], true)];
        assert_eq!(due(&whole), [0; 0]);
        let changed = pending(&all, &[made(1, b"other", true)]);
        assert!(matches!(changed, Err(OpenError::Changed { version: 1 })));
        let newer = pending(&all, &[made(3, b"", true)]);
        assert!(matches!(newer, Err(OpenError::Newer { version: 3 })));
    }
}
