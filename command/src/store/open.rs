//! Opening a log: what an adapter needs to know, and why it may refuse.

use std::path::PathBuf;

use tidelog_domain::{HistoryId, Partitions};
use uuid::Builder;

/// Why a log could not be opened or migrated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL cannot be understood. It is not repeated here: it may hold a password.
    #[error("the URL of the database cannot be used: {reason}")]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing answers at the address, or not in time.
    #[error("the database cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Something listens at the address, but it does not speak the protocol.
    #[error("something listens there, but it does not answer as {expected} does")]
    OtherServer {
        /// What was expected to answer.
        expected: &'static str,
    },
    /// The server refuses the user, the password, or the database.
    #[error("the database refuses the user, the password or the name of the database")]
    Denied(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another process has the file.
    #[error(
        "another process uses this database (it holds the lock on {}): stop it first, or give this one another file",
        lock.display()
    )]
    InUse {
        /// The lock file.
        lock: PathBuf,
    },
    /// The database was migrated by a newer program.
    #[error(
        "the database has migration {version}, which this program does not know: it belongs to a newer one"
    )]
    Newer {
        /// The migration's number.
        version: i64,
    },
    /// A migration that was made does not look as this program knows it.
    #[error("migration {version} of the database is not the one that this program knows")]
    Changed {
        /// The migration's number.
        version: i64,
    },
    /// A migration failed, or another process is at it for too long.
    #[error("the database could not be migrated")]
    Migration(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Something of the log is to be made or migrated, which this user may not.
    #[error(
        "{}, and this user may not make that: run `migrate` with a user that may (deploy/mysql/users.sql), then give this one its \
         rights (deploy/mysql/grants.sql)",
        missing(due)
    )]
    MayNotMigrate {
        /// The migrations that are due, each by its number and what it is about; empty where only the log itself is not made.
        due: String,
        /// What the server says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The log was never made, and was not to be made now.
    #[error("there is no log in the database yet: run `migrate`")]
    Missing,
    /// The log was made with another number of partitions, which can never change.
    #[error("the log has {stored} partitions, but this program is configured for {configured}")]
    Partitions {
        /// How many it has.
        stored: u32,
        /// How many were asked for.
        configured: u16,
    },
    /// The log spreads its streams by another hash.
    #[error(
        "the log spreads its streams by the hash {stored:?}, but this program by {:?}",
        Partitions::HASH
    )]
    Hash {
        /// The name of its hash.
        stored: String,
    },
    /// The server is set up in a way that the log cannot work on.
    #[error("the database's setting {setting} cannot be worked with: {reason}")]
    Setting {
        /// The name of the server's variable.
        setting: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// What is stored about the log cannot be understood.
    #[error("what the database says of the log cannot be understood: {what}")]
    Corrupt {
        /// What, and why.
        what: String,
    },
}

/// What is missing of a log of which `due` is.
fn missing(due: &str) -> String {
    match due {
        "" => "the log is not made yet".to_owned(),
        due => format!("the log's database lacks the migrations {due}"),
    }
}

/// A new history id.
pub(crate) fn random_history() -> HistoryId {
    HistoryId::new(Builder::from_random_bytes(rand::random()).into_uuid())
}

/// What the table `log_meta` says.
#[derive(Debug)]
pub(crate) struct StoredIdentity {
    pub(crate) history: Vec<u8>,
    pub(crate) partitions: u32,
    pub(crate) hash: Vec<u8>,
}

impl StoredIdentity {
    /// The history, if it is one.
    pub(crate) fn history(&self) -> Result<HistoryId, String> {
        uuid::Uuid::from_slice(&self.history)
            .map(HistoryId::new)
            .map_err(|_| "the history id does not have 16 bytes".to_owned())
    }

    /// Checks that the log is the one that this program is configured for.
    pub(crate) fn check(&self, configured: Partitions) -> Result<HistoryId, OpenError> {
        if self.hash != Partitions::HASH.as_bytes() {
            let stored = String::from_utf8_lossy(&self.hash).into_owned();
            return Err(OpenError::Hash { stored });
        }
        if self.partitions != u32::from(configured.count()) {
            return Err(OpenError::Partitions {
                stored: self.partitions,
                configured: configured.count(),
            });
        }
        self.history().map_err(|what| OpenError::Corrupt { what })
    }
}
