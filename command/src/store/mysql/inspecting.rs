//! Looking at the database without making, changing or locking anything.

use std::collections::BTreeMap;

use chrono::DateTime;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Connection, Row, raw_sql};
use tokio::time::timeout;

use super::MySqlOptions;
use super::opening::{MIGRATIONS, connect, identity};
use super::rights::may_change_events;
use crate::store::OpenError;
use crate::store::inspection::{InspectedLog, Inspection, MadeMigration, pending};
use crate::store::migrations::{TABLE, migrator};

/// The server's settings that matter.
const SETTINGS: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version','version_comment','log_bin','binlog_format',\
     'sync_binlog','innodb_flush_log_at_trx_commit','max_allowed_packet','wait_timeout','max_connections','read_only',\
     'super_read_only')";

/// How many connections there are now, beside its settings.
const STATUS: &str = "SHOW GLOBAL STATUS WHERE Variable_name='Threads_connected'";

/// What can be seen of the database.
pub(super) async fn inspect(options: &MySqlOptions) -> Result<Inspection, OpenError> {
    let mut connection = connect(options).await?;
    let looked = timeout(options.connect_timeout, look(&mut connection)).await;
    let looked = looked.map_err(|elapsed| OpenError::Unreachable(Box::new(elapsed)))?;
    let (settings, clock, made, log, may_change_events) =
        looked.map_err(|error| OpenError::Unreachable(Box::new(error)))?;
    // The work is done; the server notices a lost goodbye by itself.
    let _ = connection.close().await;
    Ok(Inspection {
        version: settings.get("version").cloned().unwrap_or_default(),
        settings,
        clock: DateTime::from_timestamp_micros(clock),
        pending: pending(&migrator(&MIGRATIONS), &made)?,
        log,
        may_change_events,
    })
}

/// The settings, the clock in microseconds since 1970, the migrations, the log, and whether the user may change its events.
type Looked = (
    BTreeMap<String, String>,
    i64,
    Vec<MadeMigration>,
    Option<InspectedLog>,
    bool,
);

async fn look(connection: &mut MySqlConnection) -> Result<Looked, sqlx::Error> {
    let mut settings = BTreeMap::new();
    for sql in [SETTINGS, STATUS] {
        for row in raw_sql(sql).fetch_all(&mut *connection).await? {
            settings.insert(text(&row, 0)?.to_ascii_lowercase(), text(&row, 1)?);
        }
    }
    let made = migrated(connection).await?;
    let log =
        match is_there(connection, "log_meta").await? && is_there(connection, "events").await? {
            true => log(connection).await?,
            false => None,
        };
    let may_change_events = log.is_some() && may_change_events(connection).await;
    // Last, so that nothing but its own way to the server stands between it and our clock.
    let clock = "SELECT TIMESTAMPDIFF(MICROSECOND,'1970-01-01',UTC_TIMESTAMP(6))";
    let clock = raw_sql(clock).fetch_one(connection).await?.try_get(0)?;
    Ok((settings, clock, made, log, may_change_events))
}

fn text(row: &MySqlRow, column: usize) -> Result<String, sqlx::Error> {
    let bytes: &[u8] = row.try_get_unchecked(column)?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

async fn is_there(connection: &mut MySqlConnection, table: &str) -> Result<bool, sqlx::Error> {
    let sql = format!(
        "SELECT 1 FROM information_schema.tables WHERE table_schema=DATABASE() AND table_name='{table}'"
    );
    let row = raw_sql(AssertSqlSafe(sql)).fetch_optional(connection);
    Ok(row.await?.is_some())
}

/// The migrations that were begun.
pub(super) async fn migrated(
    connection: &mut MySqlConnection,
) -> Result<Vec<MadeMigration>, sqlx::Error> {
    if !is_there(connection, TABLE).await? {
        return Ok(Vec::new());
    }
    let sql = format!("SELECT version,checksum,success FROM {TABLE} ORDER BY version");
    let rows = raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await?;
    let made = |row: &MySqlRow| {
        Ok(MadeMigration {
            number: row.try_get(0)?,
            checksum: row.try_get(1)?,
            whole: row.try_get(2)?,
        })
    };
    rows.iter().map(made).collect()
}

async fn log(connection: &mut MySqlConnection) -> Result<Option<InspectedLog>, sqlx::Error> {
    let identity = match identity(connection).await {
        // The tables are there, and the log was not made to its end.
        Err(sqlx::Error::RowNotFound) => return Ok(None),
        identity => identity?,
    };
    // The head first: an event that is appended in between is beyond it, and not the other way round.
    let heads = "SELECT next_position,CAST(COALESCE((SELECT MAX(position) FROM events WHERE partition_no=h.partition_no),0) AS UNSIGNED),\
                 TIMESTAMPDIFF(MICROSECOND,'1970-01-01',last_recorded_at) FROM log_head h ORDER BY partition_no";
    let rows = raw_sql(heads).fetch_all(connection).await?;
    let head = |row: &MySqlRow| Ok((row.try_get(0)?, row.try_get(1)?));
    let heads = rows.iter().map(head).collect::<Result<_, sqlx::Error>>()?;
    let recorded = |row: &MySqlRow| row.try_get::<i64, _>(2);
    let recorded = rows.iter().map(recorded).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(InspectedLog::of(
        &identity,
        heads,
        recorded.into_iter().max(),
    )))
}
