//! What the errors of SQLite mean.

use crate::store::failure::{Cause, Failure};

/// The primary result codes that say that it cannot be done now: permission, aborted, busy, locked, no memory, read-only,
/// interrupted, I/O, full, cannot open, protocol, schema changed, out of a limit of the system, authorisation.
const NOT_NOW: [i32; 14] = [3, 4, 5, 6, 7, 8, 9, 10, 13, 14, 15, 17, 22, 23];

/// The primary result codes that say that the file is damaged or no database.
const DAMAGED: [i32; 2] = [11, 26];

/// The primary result code of a constraint that does not hold.
const CONSTRAINT: i32 = 19;

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let Some(code) = primary_code(&error) else {
            return match error {
                sqlx::Error::Decode(_)
                | sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::TypeNotFound { .. } => Self::Corrupt(error.to_string()),
                other => Self::Unavailable(Cause::new(other)),
            };
        };
        if NOT_NOW.contains(&code) {
            Self::Unavailable(Cause::new(error))
        } else if DAMAGED.contains(&code) {
            Self::Corrupt(format!(
                "the file of the database is damaged (SQLite's error {code})"
            ))
        } else if code == CONSTRAINT {
            // The versions were read in the same transaction: only a head that lags behind its events does this.
            Self::Corrupt("the heads of the log do not fit its events".to_owned())
        } else {
            Self::Refused(format!("the database refused it (SQLite's error {code})"))
        }
    }
}

/// The low byte of SQLite's result code.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    Some(code.parse::<i32>().ok()? & 0xff)
}
