//! Looking for events and streams, for people.

use std::ops::RangeInclusive;

use futures_util::TryStreamExt;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Row, query};
use tidelog_domain::{Partition, Position, StreamId, Version};
use tidelog_eventbus::{EventQuery, Found};

use super::reader::stored;
use super::script::COLUMNS;
use crate::store::failure::Failure;
use crate::store::rows::{EventNames, stream_name};
use crate::store::search::{Search, after_all_with};

/// How many rows one statement looks at: some 50 ms of them.
const MAX_ROWS: u64 = 50_000;

/// The events of `partition` in a part of `range` that are `wanted`.
pub(super) async fn search(
    connection: &mut MySqlConnection,
    partition: Partition,
    range: RangeInclusive<Position>,
    wanted: &EventQuery,
    newest_first: bool,
    limit: usize,
) -> Result<Found, Failure> {
    let mut search = Search::new(&range, wanted, newest_first, limit, MAX_ROWS);
    let (first, last) = search.part();
    let parts = wanted.metadata_parts();
    let mut sql =
        format!("SELECT {COLUMNS} FROM events WHERE partition_no=? AND position BETWEEN ? AND ?");
    if wanted.event_type.is_some() {
        sql.push_str(" AND event_type=?");
    }
    if wanted.event_id.is_some() {
        sql.push_str(" AND event_id=?");
    }
    sql.push_str(&" AND LOCATE(?,metadata)>0".repeat(parts.len()));
    sql = format!("{sql} ORDER BY position {} LIMIT ?", search.order());
    let mut statement = query(AssertSqlSafe(sql))
        .bind(partition.number())
        .bind(first.number())
        .bind(last.number());
    if let Some(name) = &wanted.event_type {
        statement = statement.bind(name.as_bytes());
    }
    if let Some(id) = wanted.event_id {
        statement = statement.bind(id.uuid().into_bytes().to_vec());
    }
    for part in &parts {
        statement = statement.bind(part.as_bytes());
    }
    let limit = u64::try_from(search.limit()).unwrap_or(u64::MAX);
    let mut rows = statement.bind(limit).fetch(&mut *connection);
    let mut names = EventNames::default();
    while !search.is_full()
        && let Some(row) = rows.try_next().await?
    {
        let position = Position::new(row.try_get(1)?);
        let event = stored(&row, 0).map_err(Failure::from);
        let event = event.and_then(|row| Ok((row.event(&mut names)?, row.bytes())));
        search.push(position, event)?;
    }
    Ok(search.done())
}

/// Streams by name, with their last versions: by the index of streams and versions alone.
pub(super) async fn streams(
    connection: &mut MySqlConnection,
    prefix: &str,
    after: Option<&StreamId>,
    limit: usize,
) -> Result<Vec<(StreamId, Version)>, Failure> {
    let end = after_all_with(prefix);
    let below = if end.is_some() { " AND stream<?" } else { "" };
    let sql = format!(
        "SELECT stream,MAX(version) FROM events WHERE stream>? AND stream>=?{below} GROUP BY stream ORDER BY stream LIMIT ?"
    );
    let after = after.map_or("", StreamId::as_str);
    let mut statement = query(AssertSqlSafe(sql))
        .bind(after.as_bytes())
        .bind(prefix.as_bytes());
    if let Some(end) = &end {
        statement = statement.bind(end.as_bytes());
    }
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let rows = statement.bind(limit).fetch_all(connection).await?;
    let stream = |row: &MySqlRow| {
        let stream = stream_name(row.try_get(0)?)?;
        Ok((stream, Version::new(row.try_get(1)?)))
    };
    rows.iter().map(stream).collect()
}
