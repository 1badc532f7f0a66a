//! State records and aliases: one row each, changed by compare-and-set in one statement.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use tidelog_domain::Partition;
use tidelog_eventbus::{StateError, StateRecord, StateStore};

use super::SqliteReadStore;
use super::document::signed;
use super::error::unavailable;
use crate::store::name::checked_for_state;
use crate::store::{Alias, ReadError};

/// The tables for both.
pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS read_states (
        collection TEXT NOT NULL,
        partition INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        record TEXT NOT NULL,
        PRIMARY KEY (collection, partition)
    );
    CREATE TABLE IF NOT EXISTS read_aliases (
        view TEXT NOT NULL PRIMARY KEY,
        revision INTEGER NOT NULL,
        record TEXT NOT NULL
    );";

const INSERT_STATE: &str = "INSERT INTO read_states (record, revision, collection, partition)
    VALUES (?1, ?2 + 1, ?3, ?4) ON CONFLICT DO NOTHING";
const UPDATE_STATE: &str = "UPDATE read_states SET record = ?1, revision = ?2 + 1
    WHERE revision = ?2 AND collection = ?3 AND partition = ?4";
const INSERT_ALIAS: &str = "INSERT INTO read_aliases (record, revision, view)
    VALUES (?1, ?2 + 1, ?3) ON CONFLICT DO NOTHING";
const UPDATE_ALIAS: &str = "UPDATE read_aliases SET record = ?1, revision = ?2 + 1
    WHERE revision = ?2 AND view = ?3";

#[async_trait]
impl StateStore for SqliteReadStore {
    async fn load_states(
        &self,
        subscription: &str,
    ) -> Result<Vec<(Partition, u64, StateRecord)>, StateError> {
        let collection = checked_for_state(subscription)?;
        let rows = sqlx::query(
            "SELECT partition, revision, record FROM read_states WHERE collection = ?1 ORDER BY partition",
        )
        .bind(collection)
        .fetch_all(&self.readers)
        .await
        .map_err(state_unavailable)?;
        rows.iter()
            .map(|row| {
                read_state(row).map_err(|error| StateError::Corrupt {
                    what: format!("the state of {collection}: {error}"),
                })
            })
            .collect()
    }

    async fn compare_and_set_state(
        &self,
        subscription: &str,
        partition: Partition,
        expected: u64,
        record: &StateRecord,
    ) -> Result<bool, StateError> {
        let collection = checked_for_state(subscription)?;
        let json = serde_json::to_string(record).map_err(|error| StateError::Corrupt {
            what: error.to_string(),
        })?;
        let sql = if expected == 0 {
            INSERT_STATE
        } else {
            UPDATE_STATE
        };
        let done = sqlx::query(sql)
            .bind(json)
            .bind(signed(expected))
            .bind(collection)
            .bind(partition.number())
            .execute(&self.writer)
            .await
            .map_err(state_unavailable)?;
        Ok(done.rows_affected() == 1)
    }
}

fn read_state(
    row: &SqliteRow,
) -> Result<(Partition, u64, StateRecord), Box<dyn std::error::Error>> {
    let partition = Partition::new(row.try_get(0)?);
    let revision = row.try_get::<i64, _>(1)?.try_into()?;
    Ok((partition, revision, serde_json::from_str(row.try_get(2)?)?))
}

fn state_unavailable(error: sqlx::Error) -> StateError {
    match unavailable(error) {
        ReadError::Unavailable(source) => StateError::Unavailable(source),
        other => StateError::Corrupt {
            what: other.to_string(),
        },
    }
}

/// The alias of `view`.
pub(super) async fn load_alias(
    readers: &SqlitePool,
    view: &str,
) -> Result<Option<Alias>, ReadError> {
    let row = sqlx::query("SELECT revision, record FROM read_aliases WHERE view = ?1")
        .bind(view)
        .fetch_optional(readers)
        .await
        .map_err(unavailable)?;
    let read = |row: &SqliteRow| -> Result<Alias, Box<dyn std::error::Error>> {
        let revision = row.try_get::<i64, _>(0)?.try_into()?;
        let alias: Alias = serde_json::from_str(row.try_get(1)?)?;
        Ok(Alias { revision, ..alias })
    };
    row.map(|row| {
        read(&row).map_err(|error| ReadError::Corrupt {
            what: format!("the alias of {view}: {error}"),
        })
    })
    .transpose()
}

/// Changes the alias of `view`, if its revision is `expected`.
pub(super) async fn set_alias(
    writer: &SqlitePool,
    view: &str,
    expected: u64,
    alias: &Alias,
) -> Result<bool, ReadError> {
    let json = serde_json::to_string(alias).map_err(|error| ReadError::Corrupt {
        what: error.to_string(),
    })?;
    let sql = if expected == 0 {
        INSERT_ALIAS
    } else {
        UPDATE_ALIAS
    };
    let done = sqlx::query(sql)
        .bind(json)
        .bind(signed(expected))
        .bind(view)
        .execute(writer)
        .await
        .map_err(unavailable)?;
    Ok(done.rows_affected() == 1)
}
