//! What an error of MongoDB means.

use std::time::Duration;

use crate::store::ReadError;

/// Why MongoDB did not answer, without the server's reply: that can hold a part of a document.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Fault {
    /// No answer in time. What was asked may have been done.
    #[error("MongoDB did not answer within {0:?}")]
    Timeout(Duration),
    /// The driver or the server reported an error.
    #[error("{0}")]
    Reported(String),
}

impl From<mongodb::error::Error> for Fault {
    fn from(error: mongodb::error::Error) -> Self {
        Self::Reported(error.kind.to_string())
    }
}

impl From<Fault> for ReadError {
    /// Nothing that a command as a whole can meet is for good: servers come back, elections end, disks are emptied.
    fn from(fault: Fault) -> Self {
        Self::Unavailable(Box::new(fault))
    }
}

/// An error of the driver, as the port tells it.
pub(super) fn unavailable(error: mongodb::error::Error) -> ReadError {
    Fault::from(error).into()
}

/// The same of a search, which the server breaks off when it takes too much.
pub(super) fn failed_search(error: mongodb::error::Error) -> ReadError {
    match code_of(&error) {
        Some(code) if code::TOO_SLOW.contains(&code) => {
            ReadError::TooSlow(Box::new(Fault::from(error)))
        }
        _ => unavailable(error),
    }
}

/// The server's codes that mean something of their own here.
pub(super) mod code {
    /// A collection is not there (`drop`).
    pub(in super::super) const NAMESPACE_NOT_FOUND: i32 = 26;
    /// An index is not there, or its collection (`dropIndexes`).
    pub(in super::super) const NO_INDEX: [i32; 2] = [26, 27];
    /// A collection is there already (`create`).
    pub(in super::super) const NAMESPACE_EXISTS: i32 = 48;
    /// The caller may not do this.
    pub(in super::super) const UNAUTHORIZED: i32 = 13;
    /// A query exceeds its time, or the memory that sorting may take.
    pub(in super::super) const TOO_SLOW: [i32; 2] = [50, 292];
    /// An update would change `_id`.
    pub(in super::super) const IMMUTABLE_FIELD: i32 = 66;
    /// A value of a unique index is taken.
    pub(in super::super) const DUPLICATE_KEY: i32 = 11_000;
    /// A document is what the server never stores: a bad name of a field, a key too long for an index, against the
    /// collection's validator, nested too deeply, too large (three codes), an array where an index takes none (two).
    pub(in super::super) const UNWRITABLE: [i32; 12] = [
        2, 15, 52, 54, 55, 56, 57, 121, 10_334, 17_280, 17_419, 17_420,
    ];
}

/// The code of a command that the server refused.
pub(super) fn code_of(error: &mongodb::error::Error) -> Option<i32> {
    match error.kind.as_ref() {
        mongodb::error::ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}
