//! Reading the log, by connections of the pool.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Row, query, raw_sql};
use tidelog_domain::{
    Cursor, EventId, HistoryId, Partition, Payload, Position, RecordedEvent, StreamId, Version,
};
use uuid::Uuid;

use super::script::{COLUMNS, Script};
use crate::store::failure::Failure;
use crate::store::open::random_history;
use crate::store::page::{Page, STREAM_PAGE_MAX_BYTES, after_cursor, first_position, rows_to_read};
use crate::store::rows::{EventNames, StoredEvent};
use crate::store::snapshots::{Snapshot, StreamPage};
use crate::store::{ReadFrom, StreamRead};

/// How many streams one query reads: so few that its text, with names of usual length, fits into one TLS record (see the writer's
/// session).
const STREAMS_A_QUERY: usize = 32;

/// How many streams are so few where their snapshots are read too.
const SNAPSHOTS_A_QUERY: usize = 12;

/// How long a read of a page of the log may take.
pub(super) const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long any other read may take: a command may wait for it.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The events of `partition` after `cursor`.
pub(super) async fn page(
    connection: &mut MySqlConnection,
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
        .fetch(&mut *connection);
    let mut names = EventNames::default();
    let mut page = Page::default();
    while !page.is_full()
        && let Some(row) = rows.try_next().await?
    {
        let stored = stored(&row, 0).map_err(Failure::from);
        page.push(stored.and_then(|row| Ok((row.event(&mut names)?, row.bytes()))));
    }
    after_cursor(partition, cursor, page)
}

/// A page of one stream, after a version.
pub(super) async fn stream_page(
    connection: &mut MySqlConnection,
    stream: &StreamId,
    after: Version,
    limit: usize,
) -> Result<Vec<RecordedEvent>, Failure> {
    let sql = format!(
        "SELECT {COLUMNS} FROM events WHERE stream=? AND version>? ORDER BY version LIMIT ?"
    );
    let mut rows = query(AssertSqlSafe(sql))
        .bind(stream.as_str().as_bytes())
        .bind(after.number())
        .bind(u64::try_from(limit).unwrap_or(u64::MAX))
        .fetch(&mut *connection);
    let mut names = EventNames::default();
    let (mut events, mut bytes) = (Vec::new(), 0);
    while bytes < STREAM_PAGE_MAX_BYTES
        && let Some(row) = rows.try_next().await?
    {
        let row = stored(&row, 0)?;
        bytes += row.bytes();
        events.push(row.event(&mut names)?);
    }
    Ok(events)
}

/// The events of several streams.
pub(super) async fn streams(
    connection: &mut MySqlConnection,
    reads: Vec<StreamRead>,
    limit: usize,
) -> Result<Vec<StreamPage>, Failure> {
    let with_snapshots = |read: &StreamRead| matches!(read.from, ReadFrom::Snapshot(_));
    let at_once = if reads.iter().any(with_snapshots) {
        SNAPSHOTS_A_QUERY
    } else {
        STREAMS_A_QUERY
    };
    let mut found = Vec::with_capacity(reads.len());
    let mut names = EventNames::default();
    for some in reads.chunks(at_once) {
        let mut pages = vec![StreamPage::default(); some.len()];
        let mut script = Script::default();
        script.streams(some, limit);
        let mut rows = raw_sql(AssertSqlSafe(script.into_text())).fetch(&mut *connection);
        while let Some(row) = rows.try_next().await? {
            let n = row.try_get::<i64, _>(0)?;
            let stored = stored(&row, 1)?;
            let is_snapshot = n < 0;
            let n = usize::try_from(if is_snapshot { -1 - n } else { n }).unwrap_or(usize::MAX);
            let (Some(page), Some(read)) = (pages.get_mut(n), some.get(n)) else {
                continue;
            };
            if is_snapshot {
                page.snapshot = Some((snapshot(read, &stored)?, stored.position));
            } else {
                page.events.push(stored.event(&mut names)?);
            }
        }
        found.append(&mut pages);
    }
    for page in &mut found {
        // They come in this order; the sort makes it certain, and costs nothing then.
        page.events.sort_by_key(|event| event.version);
    }
    Ok(found)
}

/// The snapshot that `read` asked for, out of its row.
fn snapshot(read: &StreamRead, row: &StoredEvent<'_>) -> Result<Snapshot, Failure> {
    let ReadFrom::Snapshot(fingerprint) = &read.from else {
        return Err(Failure::Corrupt(format!("{} has two answers", read.stream)));
    };
    let id = Uuid::from_slice(row.id)
        .map_err(|_| Failure::Corrupt(format!("the snapshot of {} names no event", read.stream)))?;
    Ok(Snapshot {
        stream: read.stream.clone(),
        version: row.version,
        event_id: EventId::new(id),
        fingerprint: Arc::clone(fingerprint),
        state: Payload::from_stored(row.payload),
    })
}

/// The last position of each partition.
pub(super) async fn heads(connection: &mut MySqlConnection) -> Result<Vec<Position>, Failure> {
    let rows = query("SELECT next_position FROM log_head ORDER BY partition_no")
        .fetch_all(connection)
        .await?;
    let head = |row: &MySqlRow| Ok(Position::new(row.try_get::<u64, _>(0)?.saturating_sub(1)));
    rows.iter().map(head).collect()
}

/// The history of the log.
pub(super) async fn history(connection: &mut MySqlConnection) -> Result<HistoryId, Failure> {
    let row = query("SELECT history FROM log_meta")
        .fetch_one(connection)
        .await?;
    let bytes: &[u8] = row.try_get(0)?;
    Uuid::from_slice(bytes)
        .map(HistoryId::new)
        .map_err(|_| Failure::Corrupt("the history of the log is not a UUID".to_owned()))
}

/// Gives the log a new history.
pub(super) async fn renew_history(connection: &mut MySqlConnection) -> Result<HistoryId, Failure> {
    let history = random_history();
    query("UPDATE log_meta SET history=?")
        .bind(history.uuid().into_bytes().to_vec())
        .execute(connection)
        .await?;
    Ok(history)
}

/// Forgets at most `limit` keys that are older than `age`, and says how many.
pub(super) async fn forget_keys(
    connection: &mut MySqlConnection,
    age: Duration,
    limit: usize,
) -> Result<usize, Failure> {
    let forgotten = query(
        "DELETE FROM idempotency_keys WHERE recorded_at<UTC_TIMESTAMP(6)-INTERVAL ? MICROSECOND ORDER BY recorded_at LIMIT ?",
    )
    .bind(u64::try_from(age.as_micros()).unwrap_or(u64::MAX))
    .bind(u64::try_from(limit).unwrap_or(u64::MAX))
    .execute(connection)
    .await?;
    Ok(usize::try_from(forgotten.rows_affected()).unwrap_or(usize::MAX))
}

/// The columns of [`COLUMNS`], from `first` on.
pub(super) fn stored(row: &MySqlRow, first: usize) -> Result<StoredEvent<'_>, sqlx::Error> {
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
