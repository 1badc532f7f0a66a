//! The read store in a SQLite file.

mod collation;
mod document;
mod error;
mod filter;
mod index;
mod search;
mod state;
mod write;

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Executor, SqliteConnection};

use self::error::{is_missing_table, unavailable};
use self::write::Writes;
use super::name::checked;
use super::storable;
use super::{
    Alias, Document, DocumentWrite, Index, KeptIndex, Query, ReadError, ReadStore, Written,
};

/// How many connections read at once. Reading does not wait for writing.
const READERS: u32 = 4;
/// How many connections search at once, apart from those: a slow search keeps nobody from reading by id.
const SEARCHERS: u32 = 4;
/// How long a search may take: less than a reader waits, so that it can still be said why there is no answer.
const SEARCH_TIMEOUT: Duration = Duration::from_millis(4_500);
/// How long a connection waits for another one's transaction to end.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// The most writes in one transaction: between two, the log's appender gets its turn.
const TRANSACTION_MAX_WRITES: usize = 500;

/// A read store in a SQLite file, which may be the log's own.
///
/// A collection is the table `view_<name>`; state records and aliases have a table each. The adapter makes its tables
/// by itself: views come back from the log, so they need no migrations.
///
/// What it says is written outlives the process, but (`synchronous=NORMAL`) not surely a power failure: after one, the file is as
/// it was at some earlier commit. That is right for views: documents, state records and aliases go back *together*, and the log, where
/// it is in the same file, syncs all that was written before each of its own commits. So a view can be behind the log
/// after a power failure, as after any stop, and never ahead of it.
#[derive(Clone, Debug)]
pub struct SqliteReadStore {
    writer: SqlitePool,
    readers: SqlitePool,
    searchers: SqlitePool,
    search_timeout: Duration,
}

impl SqliteReadStore {
    /// Opens the file at `path`, or makes it.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`] when it cannot be opened or made; [`ReadError::Corrupt`] when it is no database.
    pub async fn open(path: &Path) -> Result<Self, ReadError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .synchronous(SqliteSynchronous::Normal)
            // Indexes are ordered by it: who writes needs it too.
            .collation(collation::NAME, collation::compare)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = || {
            SqlitePoolOptions::new()
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
        };
        let creating = options
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal);
        let store = Self {
            writer: pool().max_connections(1).connect_lazy_with(creating),
            searchers: pool()
                .max_connections(SEARCHERS)
                .connect_lazy_with(options.clone()),
            readers: pool().max_connections(READERS).connect_lazy_with(options),
            search_timeout: SEARCH_TIMEOUT,
        };
        let mut transaction = store.begin().await?;
        transaction
            .execute(state::TABLES)
            .await
            .map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)?;
        Ok(store)
    }

    /// Closes the connections, once the calls that are running have ended.
    pub async fn close(&self) {
        self.searchers.close().await;
        self.readers.close().await;
        self.writer.close().await;
    }

    /// A transaction that has the right to write from its start, so that it never fails half-way because of another.
    async fn begin(&self) -> Result<sqlx::Transaction<'static, sqlx::Sqlite>, ReadError> {
        self.writer
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(unavailable)
    }

    /// Makes a part of a batch, in one transaction.
    async fn write_part(
        &self,
        statements: &Writes,
        part: &[DocumentWrite],
        written: &mut Vec<Written>,
    ) -> Result<(), ReadError> {
        let mut transaction = self.begin().await?;
        statements.make_table(&mut transaction).await?;
        for write in part {
            written.push(statements.write(&mut transaction, write).await?);
        }
        transaction.commit().await.map_err(unavailable)
    }
}

#[async_trait]
impl ReadStore for SqliteReadStore {
    async fn create_collection(&self, collection: &str) -> Result<(), ReadError> {
        let statements = Writes::to(&table(collection)?);
        let mut transaction = self.begin().await?;
        statements.make_table(&mut transaction).await?;
        transaction.commit().await.map_err(unavailable)
    }

    async fn drop_collection(&self, collection: &str) -> Result<(), ReadError> {
        let table = table(collection)?;
        let mut transaction = self.begin().await?;
        drop_all(&mut transaction, collection, &table)
            .await
            .map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)
    }

    async fn get(&self, collection: &str, ids: &[&str]) -> Result<Vec<Document>, ReadError> {
        let table = table(collection)?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids = serde_json::Value::from(ids).to_string();
        let sql = format!(
            "SELECT {} FROM {table} WHERE id IN (SELECT value FROM json_each(?1))",
            document::COLUMNS
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(ids)
            .fetch_all(&self.readers)
            .await;
        match rows {
            Ok(rows) => rows.iter().map(document::from_row).collect(),
            Err(error) if is_missing_table(&error) => Ok(Vec::new()),
            Err(error) => Err(unavailable(error)),
        }
    }

    async fn write(
        &self,
        collection: &str,
        writes: &[DocumentWrite],
    ) -> Result<Vec<Written>, ReadError> {
        let statements = Writes::to(&table(collection)?);
        storable::check(writes)?;
        let mut written = Vec::with_capacity(writes.len());
        for part in writes.chunks(TRANSACTION_MAX_WRITES) {
            self.write_part(&statements, part, &mut written).await?;
        }
        Ok(written)
    }

    async fn find(&self, collection: &str, query: &Query) -> Result<Vec<Document>, ReadError> {
        self.search(&table(collection)?, query).await
    }

    async fn count(&self, collection: &str, query: &Query) -> Result<u64, ReadError> {
        self.search_count(&table(collection)?, query).await
    }

    async fn ensure_indexes(&self, collection: &str, wanted: &[Index]) -> Result<(), ReadError> {
        let table = table(collection)?;
        self.create_collection(collection).await?;
        self.make_indexes(collection, &table, wanted).await
    }

    async fn indexes(&self, collection: &str) -> Result<Vec<KeptIndex>, ReadError> {
        self.list_indexes(checked(collection)?).await
    }

    async fn load_alias(&self, view: &str) -> Result<Option<Alias>, ReadError> {
        state::load_alias(&self.readers, checked(view)?).await
    }

    async fn compare_and_set_alias(
        &self,
        view: &str,
        expected: u64,
        alias: &Alias,
    ) -> Result<bool, ReadError> {
        state::set_alias(&self.writer, checked(view)?, expected, alias).await
    }
}

/// The table of a collection, quoted. No other table of the file begins with `view_`.
fn table(collection: &str) -> Result<String, ReadError> {
    Ok(format!("\"view_{}\"", checked(collection)?))
}

/// Drops a collection's table and state records.
async fn drop_all(
    connection: &mut SqliteConnection,
    collection: &str,
    table: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(AssertSqlSafe(format!("DROP TABLE IF EXISTS {table}")))
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM read_states WHERE collection = ?1")
        .bind(collection)
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests;
