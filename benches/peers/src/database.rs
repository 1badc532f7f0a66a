//! A database for one run: fresh before it, looked at and dropped after it.

use std::path::PathBuf;

use anyhow::Context;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, SqliteConnection};
use tempfile::TempDir;
use tidelog_test_support::{Server, fresh_mysql_database};

/// Where a contender keeps its events.
pub(crate) enum Database {
    /// A database on the server, by its URL.
    MySql(String),
    /// A file in a directory that goes with it.
    Sqlite(TempDir),
}

impl Database {
    /// A fresh database on `server`. All contenders speak with it unencrypted.
    pub(crate) async fn on(server: &Server) -> Self {
        let url = fresh_mysql_database(server).await;
        Self::MySql(format!("{url}?ssl-mode=disabled"))
    }

    /// A fresh file, in the directory for temporary files.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made.
    pub(crate) fn in_file() -> anyhow::Result<Self> {
        Ok(Self::Sqlite(tempfile::tempdir()?))
    }

    /// The URL, where it is on the server.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub(crate) fn mysql(&self) -> anyhow::Result<&str> {
        match self {
            Self::MySql(url) => Ok(url),
            Self::Sqlite(_) => anyhow::bail!("this contender needs MySQL"),
        }
    }

    /// The file of an SQLite database in `directory`.
    pub(crate) fn file(directory: &TempDir) -> PathBuf {
        directory.path().join("events.db")
    }

    /// How many rows `table` has.
    ///
    /// # Errors
    ///
    /// When it cannot be asked.
    pub(crate) async fn rows(&self, table: &str) -> anyhow::Result<u64> {
        let count = AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
        let rows: i64 = match self {
            Self::MySql(url) => {
                let mut connection = MySqlConnection::connect(url).await?;
                sqlx::query_scalar(count).fetch_one(&mut connection).await?
            }
            Self::Sqlite(directory) => {
                let url = format!("sqlite:{}", Self::file(directory).display());
                let mut connection = SqliteConnection::connect(&url).await?;
                sqlx::query_scalar(count).fetch_one(&mut connection).await?
            }
        };
        Ok(u64::try_from(rows)?)
    }

    /// Drops it, so that the next run has the server to itself.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub(crate) async fn drop(self) -> anyhow::Result<()> {
        if let Self::MySql(url) = self {
            let path = url.split('?').next().unwrap_or_default();
            let name = path.rsplit('/').next().context("a URL names a database")?;
            let mut connection = MySqlConnection::connect(&url).await?;
            let drop = format!("DROP DATABASE {name}");
            connection.execute(AssertSqlSafe(drop)).await?;
            connection.close().await?;
        }
        Ok(())
    }
}
