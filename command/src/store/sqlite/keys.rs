//! Forgetting idempotency keys, by a connection of the pool.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use sqlx::query;
use sqlx::sqlite::SqliteConnection;

use crate::store::failure::Failure;

/// Forgets at most `limit` keys that are older than `age`, and says how many.
pub(super) async fn forget(
    connection: &mut SqliteConnection,
    age: Duration,
    limit: usize,
) -> Result<usize, Failure> {
    let age = TimeDelta::from_std(age).unwrap_or(TimeDelta::MAX);
    let Some(before) = Utc::now().checked_sub_signed(age) else {
        return Ok(0);
    };
    let forgotten = query(
        "DELETE FROM idempotency_keys WHERE scoped_key IN (SELECT scoped_key FROM idempotency_keys \
         WHERE recorded_at < ? ORDER BY recorded_at LIMIT ?)",
    )
    .bind(before.timestamp_micros())
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .execute(connection)
    .await?;
    Ok(usize::try_from(forgotten.rows_affected()).unwrap_or(usize::MAX))
}
