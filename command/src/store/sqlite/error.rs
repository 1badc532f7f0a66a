//! What the errors of SQLite mean.

use sqlx::error::DatabaseError;
use sqlx::sqlite::SqliteError;

use crate::store::failure::{Cause, Failure};

/// The primary result codes of what passes by itself: busy, locked, no memory, interrupted, I/O, full, protocol, schema changed.
const FOR_NOW: [i32; 8] = [5, 6, 7, 9, 10, 13, 15, 17];

/// The primary result codes that say that it cannot be done until somebody does something: permission, aborted, read-only, cannot open, out of
/// a limit of the system, authorisation.
const UNTIL_MENDED: [i32; 6] = [3, 4, 8, 14, 22, 23];

/// The primary result codes that say that the file is damaged or no database.
const DAMAGED: [i32; 2] = [11, 26];

/// The primary result code of a constraint that does not hold.
const CONSTRAINT: i32 = 19;

/// What `error` makes of a read or a transaction; gives it back when it is not SQLite's.
pub(in crate::store) fn failure(error: sqlx::Error) -> Result<Failure, sqlx::Error> {
    let Some(code) = primary_code(&error) else {
        return Err(error);
    };
    Ok(if FOR_NOW.contains(&code) || UNTIL_MENDED.contains(&code) {
        Failure::Unavailable(Cause::new(error))
    } else if DAMAGED.contains(&code) {
        Failure::Corrupt(format!(
            "the file of the database is damaged (SQLite's error {code})"
        ))
    } else if code == CONSTRAINT {
        // The versions were read in the same transaction: only a head that lags behind its events does this.
        Failure::Corrupt("the heads of the log do not fit its events".to_owned())
    } else {
        Failure::Refused(format!("the database refused it (SQLite's error {code})"))
    })
}

/// Whether SQLite's error passes by itself: the same may go well later.
pub(crate) fn passes(error: &sqlx::Error) -> bool {
    primary_code(error).is_some_and(|code| FOR_NOW.contains(&code))
}

/// The low byte of SQLite's result code.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let error = error
        .as_database_error()?
        .try_downcast_ref::<SqliteError>()?;
    let code = DatabaseError::code(error)?;
    Some(code.parse::<i32>().ok()? & 0xff)
}
