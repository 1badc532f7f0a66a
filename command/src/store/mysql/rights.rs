//! What the user may do that it should not.

use sqlx::Executor;
use sqlx::mysql::MySqlConnection;

/// What is said of a user that may change what was recorded.
pub(super) const MAY_CHANGE_EVENTS: &str =
    "the user may change or delete events, which a service never does: see deploy/mysql/grants.sql";

/// Statements that change no row. To have one explained takes the rights to run it.
const CHANGES: [&str; 2] = [
    "EXPLAIN UPDATE events SET payload=payload WHERE partition_no=0 AND position=0",
    "EXPLAIN DELETE FROM events WHERE partition_no=0 AND position=0",
];

/// Whether the user may change or delete events, in whichever way it got that right. Where the server does not tell, it may not.
pub(super) async fn may_change_events(connection: &mut MySqlConnection) -> bool {
    for change in CHANGES {
        if connection.fetch_all(change).await.is_ok() {
            return true;
        }
    }
    false
}
