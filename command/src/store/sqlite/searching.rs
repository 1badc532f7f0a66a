//! Looking for events and streams, for people.

use std::ops::RangeInclusive;

use futures_util::TryStreamExt;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row, query};
use tidelog_domain::{Partition, Position, StreamId, Version};
use tidelog_eventbus::{EventQuery, Found};

use super::reader::{signed, stored};
use crate::store::failure::Failure;
use crate::store::rows::{EventNames, stream_name};
use crate::store::search::{Search, Statement, Value};

/// How many rows one statement looks at. A reader keeps no append waiting, but has the processor.
const MAX_ROWS: u64 = 20_000;

const COLUMNS: &str = "partition_no, position, stream, version, event_id, event_type, schema_version, payload, metadata, recorded_at";

/// Whether the metadata contains some bytes: of two blobs, `instr` compares those.
const CONTAINS: &str = "instr(metadata, ?) > 0";

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
    let statement = search.statement(partition, COLUMNS, CONTAINS);
    let mut rows = bound(statement).fetch(connection);
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

/// Streams by name, with their last versions.
pub(super) async fn streams(
    connection: &mut SqliteConnection,
    prefix: &str,
    after: Option<&StreamId>,
    limit: usize,
) -> Result<Vec<(StreamId, Version)>, Failure> {
    let statement = Statement::of_streams(prefix, after, limit);
    let rows = bound(statement).fetch_all(connection).await?;
    let stream = |row: &SqliteRow| {
        let name = row.try_get::<&str, _>(0)?;
        Ok((stream_name(name.as_bytes())?, Version::new(row.try_get(1)?)))
    };
    rows.iter().map(stream).collect()
}

/// The statement with its values.
fn bound(statement: Statement) -> Query<'static, Sqlite, SqliteArguments> {
    let values = statement.values.into_iter();
    values.fold(
        query(AssertSqlSafe(statement.sql)),
        |query, value| match value {
            Value::Number(number) => query.bind(signed(number)),
            Value::Text(text) => query.bind(text),
            Value::Bytes(bytes) => query.bind(bytes),
        },
    )
}
