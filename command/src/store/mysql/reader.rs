//! Reading the log, by connections of the pool.

use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::mysql::{MySqlPool, MySqlRow};
use sqlx::{AssertSqlSafe, Row, query, raw_sql};
use tidelog_domain::{Cursor, HistoryId, Partition, Position, RecordedEvent, Version};
use tokio::time::timeout;

use super::script::{COLUMNS, Script};
use crate::store::StreamRead;
use crate::store::failure::{Cause, Failure};
use crate::store::open::random_history;
use crate::store::page::{after_cursor, first_position, rows_to_read};
use crate::store::rows::{EventNames, StoredEvent};

/// How many streams one query reads.
const STREAMS_A_QUERY: usize = 128;

/// How long a read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a read to its end, even when whoever asked for it goes away: a connection whose query was cut off in the middle
/// cannot be used again.
pub(super) async fn to_its_end<T: Send + 'static>(
    read: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    let in_time = async {
        let done = timeout(READ_TIMEOUT, read).await;
        done.unwrap_or_else(|elapsed| Err(Failure::Unavailable(Cause::new(elapsed))))
    };
    let done = tokio::spawn(in_time).await;
    done.unwrap_or_else(|ended| Err(Failure::Unavailable(Cause::new(ended))))
}

/// The events of `partition` after `cursor`.
pub(super) async fn page(
    pool: MySqlPool,
    partition: Partition,
    cursor: Cursor,
    limit: usize,
) -> Result<Vec<RecordedEvent>, Failure> {
    let sql = format!(
        "SELECT {COLUMNS} FROM events WHERE partition_no=? AND position>=? ORDER BY position LIMIT ?"
    );
    let mut rows = query(AssertSqlSafe(sql))
        .bind(partition.number())
        .bind(first_position(cursor).number())
        .bind(u64::try_from(rows_to_read(cursor, limit)).unwrap_or(u64::MAX))
        .fetch(&pool);
    let mut names = EventNames::default();
    let mut events = Vec::new();
    while let Some(row) = rows.try_next().await? {
        events.push(stored(&row, 0)?.event(&mut names)?);
    }
    after_cursor(partition, cursor, events)
}

/// The events of several streams.
pub(super) async fn streams(
    pool: MySqlPool,
    reads: Vec<StreamRead>,
    limit: usize,
) -> Result<Vec<Vec<RecordedEvent>>, Failure> {
    let mut found = Vec::with_capacity(reads.len());
    let mut names = EventNames::default();
    for some in reads.chunks(STREAMS_A_QUERY) {
        let first = found.len();
        found.resize_with(first + some.len(), Vec::new);
        let mut script = Script::default();
        script.streams(some, limit);
        let mut rows = raw_sql(AssertSqlSafe(script.into_text())).fetch(&pool);
        while let Some(row) = rows.try_next().await? {
            let n = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
            let event = stored(&row, 1)?.event(&mut names)?;
            if let Some(events) = found.get_mut(first.saturating_add(n)) {
                events.push(event);
            }
        }
    }
    for events in &mut found {
        // They come in this order; the sort makes it certain, and costs nothing then.
        events.sort_by_key(|event| event.version);
    }
    Ok(found)
}

/// The last position of each partition.
pub(super) async fn heads(pool: MySqlPool) -> Result<Vec<Position>, Failure> {
    let rows = query("SELECT next_position FROM log_head ORDER BY partition_no")
        .fetch_all(&pool)
        .await?;
    let head = |row: &MySqlRow| Ok(Position::new(row.try_get::<u64, _>(0)?.saturating_sub(1)));
    rows.iter().map(head).collect()
}

/// The history of the log.
pub(super) async fn history(pool: MySqlPool) -> Result<HistoryId, Failure> {
    let row = query("SELECT history FROM log_meta")
        .fetch_one(&pool)
        .await?;
    let bytes: &[u8] = row.try_get(0)?;
    uuid::Uuid::from_slice(bytes)
        .map(HistoryId::new)
        .map_err(|_| Failure::Corrupt("the history of the log is not a UUID".to_owned()))
}

/// Gives the log a new history.
pub(super) async fn renew_history(pool: MySqlPool) -> Result<HistoryId, Failure> {
    let history = random_history();
    query("UPDATE log_meta SET history=?")
        .bind(history.uuid().into_bytes().to_vec())
        .execute(&pool)
        .await?;
    Ok(history)
}

/// The columns of [`COLUMNS`], from `first` on.
fn stored(row: &MySqlRow, first: usize) -> Result<StoredEvent<'_>, sqlx::Error> {
    Ok(StoredEvent {
        partition: Partition::new(row.try_get(first)?),
        position: Position::new(row.try_get(first + 1)?),
        stream: row.try_get(first + 2)?,
        version: Version::new(row.try_get(first + 3)?),
        id: row.try_get(first + 4)?,
        event_type: row.try_get(first + 5)?,
        schema_version: row.try_get(first + 6)?,
        payload: row.try_get(first + 7)?,
        metadata: row.try_get(first + 8)?,
        recorded_at: row.try_get(first + 9)?,
    })
}
