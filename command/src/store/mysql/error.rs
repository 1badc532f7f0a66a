//! What the errors of MySQL and MariaDB mean, by their numbers. (SQLSTATE 23000 will not do: foreign keys and NOT NULL
//! share it with duplicate keys.)

use sqlx::mysql::MySqlDatabaseError;

use crate::store::failure::{Cause, Failure};

/// A duplicate key.
const DUPLICATE: [u16; 2] = [1062, 1586];

/// NULL where none may be.
const NULL: u16 = 1048;

/// What passes when the transaction is run again at once: a lock wait that timed out, a deadlock, a row that changed since it was
/// read, an interrupted statement, a connection that was killed or was idle for too long.
const TRANSIENT: [u16; 7] = [1205, 1213, 1020, 1317, 1927, 3169, 4031];

/// What cannot be done now, whatever the statement, and passes by itself: the server is short of something, is starting or stopping, is read-only
/// or changes its role, or the network fails.
const FOR_NOW: [u16; 22] = [
    1021, 1037, 1038, 1040, 1041, 1043, 1053, 1077, 1079, 1080, 1114, 1152, 1158, 1159, 1160, 1161,
    1180, 1203, 1226, 1290, 1836, 3100,
];

/// What cannot be done until somebody does something: the server does not let this user in, or has not what is asked for.
const UNTIL_MENDED: [u16; 22] = [
    1026, 1030, 1044, 1045, 1049, 1078, 1129, 1142, 1143, 1146, 1189, 1190, 1227, 1598, 1665, 1698,
    1792, 3024, 3032, 3101, 3168, 3796,
];

/// What an error of the server means for the transaction that it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The stream has that version already.
    Conflict,
    /// The idempotency key was used already.
    KeyUsed,
    /// The partition has that position already: its head lags behind.
    HeadBehind,
    /// Something that is never NULL is: the guard against a log that went back in time, or a head that is missing.
    Null,
    /// It may go well the next time.
    Transient,
    /// It cannot be done now.
    NotNow,
    /// The statement is refused because of what is in it.
    Refused(u16),
}

/// What `error` means, when the server sent it; `None` when the connection is at fault.
pub(super) fn meaning(error: &sqlx::Error) -> Option<Meaning> {
    let error = error
        .as_database_error()?
        .try_downcast_ref::<MySqlDatabaseError>()?;
    let number = error.number();
    Some(if DUPLICATE.contains(&number) {
        // 'events.stream_version' in MySQL, 'stream_version' in MariaDB. No name of a stream has a quote.
        let message = error.message().trim_end();
        if message.ends_with("stream_version'") {
            Meaning::Conflict
        } else if message.ends_with("idempotency_key'") {
            Meaning::KeyUsed
        } else {
            Meaning::HeadBehind
        }
    } else if number == NULL {
        Meaning::Null
    } else if TRANSIENT.contains(&number) {
        Meaning::Transient
    } else if FOR_NOW.contains(&number) || UNTIL_MENDED.contains(&number) {
        Meaning::NotNow
    } else {
        Meaning::Refused(number)
    })
}

/// The server's number of `error`, when the server sent it.
fn number(error: &sqlx::Error) -> Option<u16> {
    let error = error.as_database_error()?;
    Some(error.try_downcast_ref::<MySqlDatabaseError>()?.number())
}

/// Whether a row with this key is there already.
pub(super) fn is_duplicate(error: &sqlx::Error) -> bool {
    number(error).is_some_and(|number| DUPLICATE.contains(&number))
}

/// Whether the server's error passes by itself: the same may go well later.
pub(crate) fn passes(error: &sqlx::Error) -> bool {
    number(error).is_some_and(|number| TRANSIENT.contains(&number) || FOR_NOW.contains(&number))
}

/// What `error` makes of a read, or of a transaction that is not run again; gives it back when it is not the server's.
pub(in crate::store) fn failure(error: sqlx::Error) -> Result<Failure, sqlx::Error> {
    match meaning(&error) {
        None => Err(error),
        Some(Meaning::Transient | Meaning::NotNow) => Ok(Failure::Unavailable(Cause::new(error))),
        Some(Meaning::Refused(number)) => Ok(refused(number)),
        Some(Meaning::Conflict | Meaning::KeyUsed | Meaning::HeadBehind | Meaning::Null) => Ok(
            Failure::Corrupt("the heads of the log do not fit its events".to_owned()),
        ),
    }
}

/// A statement was refused. Its text may hold a payload, and the server's message a part of it: neither is repeated.
pub(super) fn refused(number: u16) -> Failure {
    Failure::Refused(format!("the database refused it with error {number}"))
}
