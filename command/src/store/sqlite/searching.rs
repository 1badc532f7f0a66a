//! Looking for events and streams, for people.

use std::ops::RangeInclusive;

use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row, query};
use tidelog_domain::{Partition, Position, StreamId, Version};
use tidelog_eventbus::{EventQuery, Found};

use super::reader::{count, signed, stored};
use crate::store::failure::Failure;
use crate::store::rows::{EventNames, stream_name};
use crate::store::search::{Search, after_all_with};

/// How many rows one statement looks at. A reader keeps no append waiting, but has the processor.
const MAX_ROWS: u64 = 20_000;

/// What each statement that looks for events begins with.
const EVENTS: &str = "SELECT partition_no, position, stream, version, event_id, event_type, schema_version, payload, \
     metadata, recorded_at FROM events WHERE partition_no = ? AND position BETWEEN ? AND ?";

/// The events of `partition` in a part of `range` that are `wanted`.
pub(super) async fn search(
    connection: &mut SqliteConnection,
    partition: Partition,
    range: RangeInclusive<Position>,
    wanted: &EventQuery,
    newest_first: bool,
    limit: usize,
) -> Result<Found, Failure> {
    let mut search = Search::new(&range, wanted, newest_first, limit, MAX_ROWS);
    let (first, last) = search.part();
    let parts = wanted.metadata_parts();
    let mut sql = EVENTS.to_owned();
    if wanted.event_type.is_some() {
        sql.push_str(" AND event_type = ?");
    }
    if wanted.event_id.is_some() {
        sql.push_str(" AND event_id = ?");
    }
    // Of two blobs it compares the bytes.
    sql.push_str(&" AND instr(metadata, ?) > 0".repeat(parts.len()));
    sql = format!("{sql} ORDER BY position {} LIMIT ?", search.order());
    let mut statement = query(AssertSqlSafe(sql))
        .bind(partition.number())
        .bind(signed(first.number()))
        .bind(signed(last.number()));
    if let Some(name) = &wanted.event_type {
        statement = statement.bind(name);
    }
    if let Some(id) = wanted.event_id {
        statement = statement.bind(id.uuid().into_bytes().to_vec());
    }
    for part in &parts {
        statement = statement.bind(part.as_bytes());
    }
    let mut rows = statement.bind(count(search.limit())).fetch(connection);
    let mut names = EventNames::default();
    while !search.is_full()
        && let Some(row) = rows.try_next().await?
    {
        let position = Position::new(row.try_get(1)?);
        let event = stored(&row).map_err(Failure::from);
        let event = event.and_then(|row| Ok((row.event(&mut names)?, row.bytes())));
        search.push(position, event)?;
    }
    Ok(search.done())
}

/// Streams by name, with their last versions: by the index of streams and versions alone.
pub(super) async fn streams(
    connection: &mut SqliteConnection,
    prefix: &str,
    after: Option<&StreamId>,
    limit: usize,
) -> Result<Vec<(StreamId, Version)>, Failure> {
    let end = after_all_with(prefix);
    let below = if end.is_some() { " AND stream < ?" } else { "" };
    let sql = format!(
        "SELECT stream, MAX(version) FROM events WHERE stream > ? AND stream >= ?{below} GROUP BY stream ORDER BY stream \
         LIMIT ?"
    );
    let mut statement = query(AssertSqlSafe(sql))
        .bind(after.map_or("", StreamId::as_str))
        .bind(prefix);
    if let Some(end) = &end {
        statement = statement.bind(end);
    }
    let rows = statement.bind(count(limit)).fetch_all(connection).await?;
    let stream = |row: &SqliteRow| {
        let name = row.try_get::<&str, _>(0)?;
        Ok((stream_name(name.as_bytes())?, Version::new(row.try_get(1)?)))
    };
    rows.iter().map(stream).collect()
}
