//! State records of subscriptions, by connections of the pool: they are no part of an append.

use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Row, query};
use tidelog_domain::Partition;

use super::error::is_duplicate;
use crate::store::failure::Failure;
use crate::store::states::{StoredState, stored};

const LOAD: &str = "SELECT partition_no,revision,record FROM subscriptions WHERE subscription=? ORDER BY partition_no";
const INSERT: &str =
    "INSERT INTO subscriptions (record,revision,subscription,partition_no) VALUES (?,?+1,?,?)";
const UPDATE: &str = "UPDATE subscriptions SET record=?,revision=?+1 WHERE subscription=? AND partition_no=? AND revision=?";

/// The records of `subscription`.
pub(super) async fn load(
    connection: &mut MySqlConnection,
    subscription: &str,
) -> Result<Vec<StoredState>, Failure> {
    let rows = query(LOAD)
        .bind(subscription.as_bytes())
        .fetch_all(connection)
        .await?;
    let state = |row: &MySqlRow| stored(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    rows.iter().map(state).collect()
}

/// Writes a record, if the one that is stored has the revision `expected`, in one statement that is its own transaction.
pub(super) async fn compare_and_set(
    connection: &mut MySqlConnection,
    subscription: &str,
    partition: Partition,
    expected: u64,
    record: Vec<u8>,
) -> Result<bool, Failure> {
    let write = query(if expected == 0 { INSERT } else { UPDATE })
        .bind(record)
        .bind(expected)
        .bind(subscription.as_bytes())
        .bind(partition.number());
    let write = if expected == 0 {
        write
    } else {
        write.bind(expected)
    };
    match write.execute(connection).await {
        Ok(done) => Ok(done.rows_affected() == 1),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
