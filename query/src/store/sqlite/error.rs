//! What an error of SQLite means.

use sqlx::Error;

use crate::store::ReadError;

/// SQLite's primary result codes: a statement was broken off, the file is damaged, a value is too long, the file is no database.
const INTERRUPT: i64 = 9;
const CORRUPT: i64 = 11;
const TOO_BIG: i64 = 18;
const NOT_A_DATABASE: i64 = 26;

/// What to tell of an error that is not about one document: all pass (a lock, a full disk), except for a damaged file.
pub(super) fn unavailable(error: Error) -> ReadError {
    match code(&error) {
        Some(CORRUPT | NOT_A_DATABASE) => ReadError::Corrupt {
            what: format!("the SQLite file: {error}"),
        },
        _ => ReadError::Unavailable(Box::new(error)),
    }
}

/// What to tell of an error of a search, which is broken off when its time is over.
pub(super) fn failed_search(error: Error) -> ReadError {
    match code(&error) {
        Some(INTERRUPT) => ReadError::TooSlow(Box::new(error)),
        _ => unavailable(error),
    }
}

/// Whether a row is larger than SQLite takes.
pub(super) fn is_too_big(error: &Error) -> bool {
    code(error) == Some(TOO_BIG)
}

/// Whether a collection is not there. There is no code for it.
pub(super) fn is_missing_table(error: &Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.message().starts_with("no such table: view_"))
}

/// The primary result code: the low byte of what sqlx tells.
fn code(error: &Error) -> Option<i64> {
    let code: i64 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}
