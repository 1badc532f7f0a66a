//! Reading the log, by connections of the pool.

use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Row, query};
use tidelog_domain::{Cursor, HistoryId, Partition, Position, RecordedEvent, StreamId, Version};

use super::snapshots;
use crate::store::failure::Failure;
use crate::store::open::random_history;
use crate::store::page::{Page, STREAM_PAGE_MAX_BYTES, after_cursor, first_position, rows_to_read};
use crate::store::rows::{EventNames, StoredEvent};
use crate::store::{ReadFrom, StreamPage, StreamRead};

/// A page of a partition, by its primary key.
const PAGE: &str = "SELECT partition_no, position, stream, version, event_id, event_type, schema_version, payload, \
     metadata, recorded_at FROM events WHERE partition_no = ? AND position >= ? ORDER BY position LIMIT ?";

/// The events of a stream after a version.
const AFTER: &str = "SELECT partition_no, position, stream, version, event_id, event_type, schema_version, payload, \
     metadata, recorded_at FROM events WHERE stream = ? AND version > ? ORDER BY version LIMIT ?";

/// The last event of a stream.
const LAST: &str = "SELECT partition_no, position, stream, version, event_id, event_type, schema_version, payload, \
     metadata, recorded_at FROM events WHERE stream = ? ORDER BY version DESC LIMIT ?";

/// The events of `partition` after `cursor`.
pub(super) async fn page(
    connection: &mut SqliteConnection,
    partition: Partition,
    cursor: Cursor,
    limit: usize,
) -> Result<Vec<RecordedEvent>, Failure> {
    let mut rows = query(PAGE)
        .bind(partition.number())
        .bind(signed(first_position(cursor).number()))
        .bind(count(rows_to_read(cursor, limit)))
        .fetch(connection);
    let mut names = EventNames::default();
    let mut page = Page::default();
    while !page.is_full()
        && let Some(row) = rows.try_next().await?
    {
        let stored = stored(&row).map_err(Failure::from);
        page.push(stored.and_then(|row| Ok((row.event(&mut names)?, row.bytes()))));
    }
    after_cursor(partition, cursor, page)
}

/// A page of one stream, after a version.
pub(super) async fn stream_page(
    connection: &mut SqliteConnection,
    stream: &StreamId,
    after: Version,
    limit: usize,
) -> Result<Vec<RecordedEvent>, Failure> {
    let mut rows = query(AFTER)
        .bind(stream.as_str())
        .bind(signed(after.number()))
        .bind(count(limit))
        .fetch(connection);
    let mut names = EventNames::default();
    let (mut events, mut bytes) = (Vec::new(), 0);
    while bytes < STREAM_PAGE_MAX_BYTES
        && let Some(row) = rows.try_next().await?
    {
        let row = stored(&row)?;
        bytes += row.bytes();
        events.push(row.event(&mut names)?);
    }
    Ok(events)
}

/// The events of several streams, one query each: there is no way to the server to save.
pub(super) async fn streams(
    connection: &mut SqliteConnection,
    reads: &[StreamRead],
    limit: usize,
) -> Result<Vec<StreamPage>, Failure> {
    let mut found = Vec::with_capacity(reads.len());
    for read in reads {
        found.push(stream(connection, read, limit).await?);
    }
    Ok(found)
}

/// The events of one stream, after its snapshot where that is asked for. (What is kept between the two is a later one, and in the
/// events.)
async fn stream(
    connection: &mut SqliteConnection,
    read: &StreamRead,
    limit: usize,
) -> Result<StreamPage, Failure> {
    let name = read.stream.as_str();
    let snapshot = match &read.from {
        ReadFrom::Snapshot(fingerprint) => {
            snapshots::find(connection, &read.stream, fingerprint).await?
        }
        _ => None,
    };
    let after = |version: Version| {
        let version = signed(version.number());
        query(AFTER).bind(name).bind(version).bind(count(limit))
    };
    let rows = match read.from {
        ReadFrom::After(version) => after(version),
        ReadFrom::Snapshot(_) => after(
            snapshot
                .as_ref()
                .map_or(Version::NONE, |(one, _)| one.version),
        ),
        ReadFrom::Last => query(LAST).bind(name).bind(count(limit.min(1))),
    };
    Ok(StreamPage {
        events: events(rows.fetch(&mut *connection)).await?,
        snapshot,
    })
}

/// The last position of each partition.
pub(super) async fn heads(connection: &mut SqliteConnection) -> Result<Vec<Position>, Failure> {
    let rows = query("SELECT next_position FROM log_head ORDER BY partition_no")
        .fetch_all(connection)
        .await?;
    let head = |row: &SqliteRow| Ok(Position::new(row.try_get::<u64, _>(0)?.saturating_sub(1)));
    rows.iter().map(head).collect()
}

/// The history of the log.
pub(super) async fn history(connection: &mut SqliteConnection) -> Result<HistoryId, Failure> {
    let row = query("SELECT history FROM log_meta")
        .fetch_one(connection)
        .await?;
    let bytes: &[u8] = row.try_get(0)?;
    uuid::Uuid::from_slice(bytes)
        .map(HistoryId::new)
        .map_err(|_| Failure::Corrupt("the history of the log is not a UUID".to_owned()))
}

/// Gives the log a new history.
pub(super) async fn renew_history(connection: &mut SqliteConnection) -> Result<HistoryId, Failure> {
    let history = random_history();
    query("UPDATE log_meta SET history = ?")
        .bind(history.uuid().into_bytes().to_vec())
        .execute(connection)
        .await?;
    Ok(history)
}

/// The events of `rows`.
async fn events(
    mut rows: impl futures_util::Stream<Item = Result<SqliteRow, sqlx::Error>> + Unpin,
) -> Result<Vec<RecordedEvent>, Failure> {
    let mut events = Vec::new();
    let mut names = EventNames::default();
    while let Some(row) = rows.try_next().await? {
        events.push(stored(&row)?.event(&mut names)?);
    }
    Ok(events)
}

/// The columns of a row, in the order that all three queries have.
pub(super) fn stored(row: &SqliteRow) -> Result<StoredEvent<'_>, sqlx::Error> {
    Ok(StoredEvent {
        partition: Partition::new(row.try_get(0)?),
        position: Position::new(row.try_get(1)?),
        stream: row.try_get::<&str, _>(2)?.as_bytes(),
        version: Version::new(row.try_get(3)?),
        id: row.try_get(4)?,
        event_type: row.try_get::<&str, _>(5)?.as_bytes(),
        schema_version: row.try_get(6)?,
        payload: row.try_get(7)?,
        metadata: row.try_get(8)?,
        recorded_at: row.try_get(9)?,
    })
}

/// SQLite's integers are signed; no version or position comes near their end.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number of rows.
pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
