//! State records of subscriptions, by connections of the pool: they are no part of an append.

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Row, query};
use tidelog_domain::Partition;

use super::reader::signed;
use crate::store::failure::Failure;
use crate::store::states::{StoredState, stored};

const LOAD: &str = "SELECT partition_no, revision, record FROM subscriptions WHERE subscription = ? ORDER BY partition_no";
const INSERT: &str = "INSERT INTO subscriptions (record, revision, subscription, partition_no) VALUES (?1, ?2 + 1, ?3, ?4) \
     ON CONFLICT DO NOTHING";
const UPDATE: &str = "UPDATE subscriptions SET record = ?1, revision = ?2 + 1 \
     WHERE subscription = ?3 AND partition_no = ?4 AND revision = ?2";

/// The records of `subscription`.
pub(super) async fn load(
    connection: &mut SqliteConnection,
    subscription: &str,
) -> Result<Vec<StoredState>, Failure> {
    let rows = query(LOAD).bind(subscription).fetch_all(connection).await?;
    let state = |row: &SqliteRow| stored(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    rows.iter().map(state).collect()
}

/// Writes a record, if the one that is stored has the revision `expected`, in one statement that is its own transaction.
pub(super) async fn compare_and_set(
    connection: &mut SqliteConnection,
    subscription: &str,
    partition: Partition,
    expected: u64,
    record: Vec<u8>,
) -> Result<bool, Failure> {
    let done = query(if expected == 0 { INSERT } else { UPDATE })
        .bind(record)
        .bind(signed(expected))
        .bind(subscription)
        .bind(partition.number())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}
