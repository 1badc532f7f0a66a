//! Opening the log: who answers, the migrations, the look at what the log is.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::migrate::Migrate;
use sqlx::mysql::{MySqlConnection, MySqlDatabaseError, MySqlPool, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row, raw_sql};
use tidelog_domain::{HistoryId, Partitions};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::rights::MAY_CHANGE_EVENTS;
use super::session::SETTINGS;
use super::{MySqlOptions, inspecting, rights};
use crate::store::inspection::{PendingMigration, pending};
use crate::store::migrations::{self, migrate, migration_error, migrator};
use crate::store::open::{OpenError, StoredIdentity, random_history};

/// All migrations, in order.
pub(super) const MIGRATIONS: [(i64, &str, &str); 5] = [
    (
        1,
        "log",
        include_str!("../../../../migrations/mysql/0001_log.sql"),
    ),
    (
        2,
        "idempotency",
        include_str!("../../../../migrations/mysql/0002_idempotency.sql"),
    ),
    (
        3,
        "snapshots",
        include_str!("../../../../migrations/mysql/0003_snapshots.sql"),
    ),
    (
        4,
        "subscriptions",
        include_str!("../../../../migrations/mysql/0004_subscriptions.sql"),
    ),
    (
        5,
        "tenants",
        include_str!("../../../../migrations/mysql/0005_tenants.sql"),
    ),
];

/// How long a program waits for another that migrates the same database, in seconds.
const MIGRATION_PATIENCE_S: u32 = 60;

/// What the server says to who lacks a right: for a database, a table, a column, or a statement.
const DENIED: [u16; 4] = [1044, 1142, 1143, 1227];

/// How long a read waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the server says of itself.
#[derive(Debug)]
pub(super) struct ServerFacts {
    /// As in `SELECT VERSION()`.
    pub(super) version: String,
    /// What an operator should know.
    pub(super) warnings: Vec<String>,
}

/// Makes or migrates the log where that is due, checks that it is the one that `options` mean, and says who keeps it, and its
/// history.
pub(super) async fn open(options: &MySqlOptions) -> Result<(ServerFacts, HistoryId), OpenError> {
    let mut connection = connect(options).await?;
    // A server that greets and then says no more is not there. What comes after may wait for other programs.
    let facts = timeout(options.connect_timeout, facts(&mut connection)).await;
    let mut facts = facts.map_err(|elapsed| OpenError::Unreachable(Box::new(elapsed)))??;
    let log = match found(&mut connection).await? {
        Ok(log) => log,
        Err(due) => made(&mut connection, options.partitions)
            .await
            .map_err(|error| denied(error, &due))?,
    };
    let history = log.check(options.partitions)?;
    if rights::may_change_events(&mut connection).await {
        facts.warnings.push(MAY_CHANGE_EVENTS.to_owned());
    }
    // The work is done; the server notices a lost goodbye by itself.
    let _ = connection.close().await;
    Ok((facts, history))
}

/// Connects, or says who or what is in the way.
pub(super) async fn connect(options: &MySqlOptions) -> Result<MySqlConnection, OpenError> {
    let connecting = async {
        let mut connection = options.address.0.connect().await?;
        raw_sql(SETTINGS).execute(&mut connection).await?;
        Ok(connection)
    };
    match timeout(options.connect_timeout, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(sqlx::Error::Protocol(_))) => Err(OpenError::OtherServer { expected: "MySQL" }),
        Ok(Err(error)) => Err(refusal(error)),
        Err(_) if listens(options).await => Err(OpenError::OtherServer { expected: "MySQL" }),
        Err(elapsed) => Err(OpenError::Unreachable(Box::new(elapsed))),
    }
}

/// Whether anything takes connections there.
async fn listens(options: &MySqlOptions) -> bool {
    let address = (options.address.0.get_host(), options.address.0.get_port());
    matches!(
        timeout(Duration::from_secs(1), TcpStream::connect(address)).await,
        Ok(Ok(_))
    )
}

/// Why the server did not let us in.
fn refusal(error: sqlx::Error) -> OpenError {
    match number(&error) {
        Some(1044 | 1045 | 1049 | 1698) => OpenError::Denied(Box::new(error)),
        _ => OpenError::Unreachable(Box::new(error)),
    }
}

/// The server's number of `error`, if it is the server's.
fn number(error: &sqlx::Error) -> Option<u16> {
    let error = error.as_database_error()?;
    let error = error.try_downcast_ref::<MySqlDatabaseError>()?;
    Some(error.number())
}

/// Asks the server about itself.
async fn facts(connection: &mut MySqlConnection) -> Result<ServerFacts, OpenError> {
    let rows = raw_sql(
        "SHOW GLOBAL VARIABLES WHERE Variable_name IN \
         ('version','log_bin','binlog_format','sync_binlog','innodb_flush_log_at_trx_commit')",
    )
    .fetch_all(connection)
    .await
    .map_err(refusal)?;
    let text = |row: &sqlx::mysql::MySqlRow, n| {
        let bytes: Result<&[u8], _> = row.try_get_unchecked(n);
        bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    let variables: HashMap<String, String> = rows
        .iter()
        .map(|row| Ok((text(row, 0)?, text(row, 1)?)))
        .collect::<Result<_, sqlx::Error>>()
        .map_err(refusal)?;
    let value = |name: &str| variables.get(name).map_or("", String::as_str);
    if value("log_bin") == "ON" && value("binlog_format") == "STATEMENT" {
        return Err(OpenError::Setting {
            setting: "binlog_format",
            reason: "STATEMENT cannot log transactions that are READ COMMITTED; set it to ROW"
                .to_owned(),
        });
    }
    Ok(ServerFacts {
        version: value("version").to_owned(),
        warnings: warnings(value),
    })
}

/// The settings of the server under which a reader can see what a crash takes back.
fn warnings<'a>(value: impl Fn(&str) -> &'a str) -> Vec<String> {
    let mut warnings = Vec::new();
    if value("log_bin") != "ON" {
        warnings.push(
            "log_bin is off: without a binary log there is no restore to a point in time, and no replica".to_owned(),
        );
    } else if value("sync_binlog") != "1" {
        warnings.push(format!(
            "sync_binlog is {}, not 1: after a crash of the machine acknowledged events can be missing",
            value("sync_binlog")
        ));
    }
    if value("innodb_flush_log_at_trx_commit") != "1" {
        warnings.push(format!(
            "innodb_flush_log_at_trx_commit is {}, not 1: after a crash acknowledged events can be missing",
            value("innodb_flush_log_at_trx_commit")
        ));
    }
    warnings
}

/// What the log is where it is whole, else the migrations that are due, none where only the log is not made yet. It asks for no
/// right but to read.
async fn found(
    connection: &mut MySqlConnection,
) -> Result<Result<StoredIdentity, Vec<PendingMigration>>, OpenError> {
    let migrated = inspecting::migrated(connection).await;
    let migrated = migrated.map_err(unreadable)?;
    let due = pending(&migrator(&MIGRATIONS), &migrated)?;
    if !due.is_empty() {
        return Ok(Err(due));
    }
    match identity(connection).await {
        Err(sqlx::Error::RowNotFound) => Ok(Err(due)),
        log => Ok(Ok(log.map_err(unreadable)?)),
    }
}

/// Why it cannot be told what the log is.
fn unreadable(error: sqlx::Error) -> OpenError {
    match number(&error) {
        Some(code) if DENIED.contains(&code) => OpenError::Denied(Box::new(error)),
        _ => failed(error),
    }
}

/// Says what is due, where `error` is that the user may not do it.
fn denied(error: OpenError, due: &[PendingMigration]) -> OpenError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(own) = cause {
        let number = own.downcast_ref::<sqlx::Error>().and_then(number);
        if number.is_some_and(|number| DENIED.contains(&number)) {
            let name = |own: &PendingMigration| format!("{} ({})", own.number, own.description);
            let due: Vec<_> = due.iter().map(name).collect();
            return OpenError::MayNotMigrate {
                due: due.join(", "),
                source: Box::new(error),
            };
        }
        cause = own.source();
    }
    error
}

/// Makes and migrates the log, one program at a time, and gives what it is.
async fn made(
    connection: &mut MySqlConnection,
    partitions: Partitions,
) -> Result<StoredIdentity, OpenError> {
    lock(connection).await?;
    let done = async {
        forget_half_done(connection)
            .await
            .map_err(migration_error)?;
        migrate(&migrator(&MIGRATIONS), connection)
            .await
            .map_err(migration_error)?;
        make(connection, partitions).await.map_err(failed)?;
        identity(connection).await.map_err(failed)
    };
    // The server frees the lock when the connection ends, which after an error it does.
    let identity = done.await?;
    raw_sql("DO RELEASE_LOCK(CONCAT('tidelog-migrate-',CRC32(DATABASE())))")
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(identity)
}

/// Waits until no other program migrates this database. (Not sqlx's own lock: it waits for a negative time, which MariaDB takes
/// for no lock at all.)
async fn lock(connection: &mut MySqlConnection) -> Result<(), OpenError> {
    let sql = format!(
        "SELECT CAST(GET_LOCK(CONCAT('tidelog-migrate-',CRC32(DATABASE())),{MIGRATION_PATIENCE_S}) AS SIGNED)"
    );
    let row = raw_sql(AssertSqlSafe(sql))
        .fetch_one(connection)
        .await
        .map_err(failed)?;
    match row.try_get::<Option<i64>, _>(0).map_err(failed)? {
        Some(1) => Ok(()),
        _ => Err(OpenError::Migration(
            format!(
                "another program has been migrating this database for {MIGRATION_PATIENCE_S} s"
            )
            .into(),
        )),
    }
}

/// Lets a migration that was cut off run again: MySQL commits each statement by itself, and all of ours may be repeated. One of
/// a newer program is left for that.
async fn forget_half_done(
    connection: &mut MySqlConnection,
) -> Result<(), sqlx::migrate::MigrateError> {
    connection
        .ensure_migrations_table(migrations::TABLE)
        .await?;
    let numbers: Vec<_> = MIGRATIONS.iter().map(|(n, _, _)| n.to_string()).collect();
    let sql = format!(
        "DELETE FROM {} WHERE success=FALSE AND version IN ({})",
        migrations::TABLE,
        numbers.join(",")
    );
    connection.execute(AssertSqlSafe(sql)).await?;
    Ok(())
}

/// Says what the log is and sets its heads, all in one transaction, unless that was done before.
async fn make(connection: &mut MySqlConnection, partitions: Partitions) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let made = sqlx::query(
        "INSERT INTO log_meta (only_row,history,partitions,hash,created_at) \
         SELECT 1,?,?,?,UTC_TIMESTAMP(6) FROM (SELECT COUNT(*) AS n FROM log_meta) AS there WHERE there.n=0",
    )
    .bind(random_history().uuid().into_bytes().to_vec())
    .bind(partitions.count())
    .bind(Partitions::HASH.as_bytes())
    .execute(&mut *transaction)
    .await?;
    if made.rows_affected() == 1 {
        let rows: Vec<_> = partitions
            .iter()
            .map(|partition| format!("({partition},1,'1970-01-01')"))
            .collect();
        let sql = format!(
            "INSERT INTO log_head (partition_no,next_position,last_recorded_at) VALUES {}",
            rows.join(",")
        );
        transaction.execute(AssertSqlSafe(sql)).await?;
    }
    transaction.commit().await
}

/// What the log says that it is.
pub(super) async fn identity(
    connection: &mut MySqlConnection,
) -> Result<StoredIdentity, sqlx::Error> {
    let row = raw_sql("SELECT history,partitions,hash FROM log_meta")
        .fetch_one(connection)
        .await?;
    Ok(StoredIdentity {
        history: row.try_get(0)?,
        partitions: row.try_get::<u16, _>(1)?.into(),
        hash: row.try_get(2)?,
    })
}

fn failed(error: sqlx::Error) -> OpenError {
    OpenError::Migration(Box::new(error))
}

/// The connections that read. They are made when they are needed.
pub(super) fn pool(options: &MySqlOptions) -> MySqlPool {
    MySqlPoolOptions::new()
        .max_connections(options.read_connections.max(1))
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(|connection, _| {
            Box::pin(async move {
                raw_sql(SETTINGS).execute(connection).await?;
                Ok(())
            })
        })
        .connect_lazy_with(options.address.0.clone())
}
