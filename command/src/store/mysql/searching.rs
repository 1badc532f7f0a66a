//! Looking for events and streams, for people.

use std::ops::RangeInclusive;

use futures_util::TryStreamExt;
use sqlx::mysql::{MySql, MySqlArguments, MySqlConnection, MySqlRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Row, query};
use tidelog_domain::{Partition, Position, StreamId, Version};
use tidelog_eventbus::{EventQuery, Found};

use super::reader::stored;
use super::script::COLUMNS;
use crate::store::failure::Failure;
use crate::store::rows::{EventNames, stream_name};
use crate::store::search::{Search, Statement, Value};

/// How many rows one statement looks at: some 50 ms of them.
const MAX_ROWS: u64 = 50_000;

/// Whether the metadata contains some bytes.
const CONTAINS: &str = "LOCATE(?,metadata)>0";

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
    let statement = search.statement(partition, COLUMNS, CONTAINS);
    let mut rows = bound(statement).fetch(&mut *connection);
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

/// Streams by name, with their last versions.
pub(super) async fn streams(
    connection: &mut MySqlConnection,
    prefix: &str,
    after: Option<&StreamId>,
    limit: usize,
) -> Result<Vec<(StreamId, Version)>, Failure> {
    let statement = Statement::of_streams(prefix, after, limit);
    let rows = bound(statement).fetch_all(connection).await?;
    let stream = |row: &MySqlRow| {
        let stream = stream_name(row.try_get(0)?)?;
        Ok((stream, Version::new(row.try_get(1)?)))
    };
    rows.iter().map(stream).collect()
}

/// The statement with its values. Names are kept as bytes here.
fn bound(statement: Statement) -> Query<'static, MySql, MySqlArguments> {
    let values = statement.values.into_iter();
    values.fold(
        query(AssertSqlSafe(statement.sql)),
        |query, value| match value {
            Value::Number(number) => query.bind(number),
            Value::Text(text) => query.bind(text.into_bytes()),
            Value::Bytes(bytes) => query.bind(bytes),
        },
    )
}
