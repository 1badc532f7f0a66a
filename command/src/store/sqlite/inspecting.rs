//! Looking at the file without making, changing or locking anything.

use std::collections::BTreeMap;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, query};

use super::SqliteOptions;
use super::opening::{MIGRATIONS, identity, unreachable};
use crate::store::OpenError;
use crate::store::inspection::{InspectedLog, Inspection, MadeMigration, pending};
use crate::store::migrations::{TABLE, migrator};

/// What can be seen of the file; also while another process has it.
pub(super) async fn inspect(options: &SqliteOptions) -> Result<Inspection, OpenError> {
    if !options.path.exists() {
        return Ok(Inspection {
            version: String::new(),
            settings: BTreeMap::new(),
            clock: None,
            pending: pending(&migrator(&MIGRATIONS), &[])?,
            log: None,
            may_change_events: false,
        });
    }
    let settings = SqliteConnectOptions::new()
        .filename(&options.path)
        .read_only(true)
        .busy_timeout(options.busy_timeout)
        .disable_statement_logging();
    let mut connection = settings.connect().await.map_err(unreachable)?;
    let (version, made, log) = look(&mut connection).await.map_err(unreachable)?;
    // It was only read.
    let _ = connection.close().await;
    Ok(Inspection {
        version,
        settings: BTreeMap::new(),
        clock: None,
        pending: pending(&migrator(&MIGRATIONS), &made)?,
        log,
        may_change_events: false,
    })
}

async fn look(
    connection: &mut SqliteConnection,
) -> Result<(String, Vec<MadeMigration>, Option<InspectedLog>), sqlx::Error> {
    let version = query("SELECT sqlite_version()").fetch_one(&mut *connection);
    let version = version.await?.try_get(0)?;
    let made = match is_there(connection, TABLE).await? {
        true => made(connection).await?,
        false => Vec::new(),
    };
    let log = match is_there(connection, "log_meta").await? {
        true => log(connection).await?,
        false => None,
    };
    Ok((version, made, log))
}

async fn is_there(connection: &mut SqliteConnection, table: &str) -> Result<bool, sqlx::Error> {
    let row = query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?");
    let row = row.bind(table).fetch_optional(connection);
    Ok(row.await?.is_some())
}

async fn made(connection: &mut SqliteConnection) -> Result<Vec<MadeMigration>, sqlx::Error> {
    let sql = format!("SELECT version, checksum, success FROM {TABLE} ORDER BY version");
    let rows = query(AssertSqlSafe(sql)).fetch_all(connection).await?;
    let made = |row: &SqliteRow| {
        Ok(MadeMigration {
            number: row.try_get(0)?,
            checksum: row.try_get(1)?,
            whole: row.try_get(2)?,
        })
    };
    rows.iter().map(made).collect()
}

async fn log(connection: &mut SqliteConnection) -> Result<Option<InspectedLog>, sqlx::Error> {
    let identity = match identity(connection).await {
        // The tables are there, and the log was not made to its end.
        Err(sqlx::Error::RowNotFound) => return Ok(None),
        identity => identity?,
    };
    let heads = "SELECT next_position, COALESCE((SELECT MAX(position) FROM events WHERE partition_no = h.partition_no), 0), \
                 last_recorded_at FROM log_head h ORDER BY partition_no";
    let rows = query(heads).fetch_all(connection).await?;
    let head = |row: &SqliteRow| Ok((row.try_get(0)?, row.try_get(1)?));
    let heads = rows.iter().map(head).collect::<Result<_, sqlx::Error>>()?;
    let recorded = |row: &SqliteRow| row.try_get::<i64, _>(2);
    let recorded = rows.iter().map(recorded).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(InspectedLog::of(
        &identity,
        heads,
        recorded.into_iter().max(),
    )))
}
