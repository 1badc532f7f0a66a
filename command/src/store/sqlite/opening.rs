//! Opening the file: the lock, the connections, the migrations, the look at what the log is.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::Utc;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Row};
use tidelog_domain::Partitions;

use super::SqliteOptions;
use crate::store::migrations::{migrate, migration_error, migrator};
use crate::store::open::{OpenError, StoredIdentity, random_history};

/// All migrations, in order.
pub(super) const MIGRATIONS: [(i64, &str, &str); 5] = [
    (
        1,
        "log",
        include_str!("../../../../migrations/sqlite/0001_log.sql"),
    ),
    (
        2,
        "idempotency",
        include_str!("../../../../migrations/sqlite/0002_idempotency.sql"),
    ),
    (
        3,
        "snapshots",
        include_str!("../../../../migrations/sqlite/0003_snapshots.sql"),
    ),
    (
        4,
        "subscriptions",
        include_str!("../../../../migrations/sqlite/0004_subscriptions.sql"),
    ),
    (
        5,
        "tenants",
        include_str!("../../../../migrations/sqlite/0005_tenants.sql"),
    ),
];

/// How long an opening waits for a process that is just ending.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// How often it looks.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// How long a use of the pool waits for a connection. Each is given back when its use has ended, whoever asked for it; what comes before
/// one in the queue is pages of readers, some for each partition and subscription, which a slow disk takes its time for.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// An open log.
pub(super) struct Opened {
    /// Held for as long as the log is open.
    pub(super) lock: File,
    /// The one connection that appends.
    pub(super) connection: SqliteConnection,
    /// The connections that read.
    pub(super) pool: SqlitePool,
}

/// Opens the log, makes or migrates it, and checks that it is the one that `options` mean.
pub(super) async fn open(options: &SqliteOptions) -> Result<Opened, OpenError> {
    let lock = lock(&options.path).await?;
    let settings = SqliteConnectOptions::new()
        .filename(&options.path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(options.busy_timeout)
        .disable_statement_logging();
    let mut connection = settings.connect().await.map_err(unreachable)?;
    migrate(&migrator(&MIGRATIONS), &mut connection)
        .await
        .map_err(migration_error)?;
    make(&mut connection, options.partitions)
        .await
        .map_err(|error| OpenError::Migration(Box::new(error)))?;
    identity(&mut connection)
        .await
        .map_err(unreachable)?
        .check(options.partitions)?;
    let pool = SqlitePoolOptions::new()
        .max_connections(options.read_connections.max(1))
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .connect_with(settings)
        .await
        .map_err(unreachable)?;
    Ok(Opened {
        lock,
        connection,
        pool,
    })
}

/// Takes the lock beside the database, if need be after a process that is ending has given it back.
async fn lock(database: &Path) -> Result<File, OpenError> {
    let path = lock_path(database);
    let unreachable = |error: std::io::Error| OpenError::Unreachable(Box::new(error));
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(unreachable)?;
    let give_up = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < give_up => {
                tokio::time::sleep(LOCK_INTERVAL).await;
            }
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { lock: path }),
            Err(TryLockError::Error(error)) => return Err(unreachable(error)),
        }
    }
}

/// `<file>.lock`.
fn lock_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

pub(super) fn unreachable(error: sqlx::Error) -> OpenError {
    OpenError::Unreachable(Box::new(error))
}

/// Says what the log is and sets its heads, all in one transaction, unless that was done before.
async fn make(
    connection: &mut SqliteConnection,
    partitions: Partitions,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let made = sqlx::query(
        "INSERT INTO log_meta (only_row, history, partitions, hash, created_at) VALUES (1, ?, ?, ?, ?) \
         ON CONFLICT DO NOTHING",
    )
    .bind(random_history().uuid().into_bytes().to_vec())
    .bind(partitions.count())
    .bind(Partitions::HASH)
    .bind(Utc::now().timestamp_micros())
    .execute(&mut *transaction)
    .await?;
    if made.rows_affected() == 1 {
        for partition in partitions.iter() {
            sqlx::query("INSERT INTO log_head (partition_no, next_position, last_recorded_at) VALUES (?, 1, 0)")
                .bind(partition.number())
                .execute(&mut *transaction)
                .await?;
        }
    }
    transaction.commit().await
}

/// What the log says that it is.
pub(super) async fn identity(
    connection: &mut SqliteConnection,
) -> Result<StoredIdentity, sqlx::Error> {
    let row = sqlx::query("SELECT history, partitions, hash FROM log_meta")
        .fetch_one(connection)
        .await?;
    Ok(StoredIdentity {
        history: row.try_get(0)?,
        partitions: row.try_get(1)?,
        hash: row.try_get::<String, _>(2)?.into_bytes(),
    })
}
