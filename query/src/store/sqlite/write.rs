//! Conditional writes.

use sqlx::{AssertSqlSafe, SqliteConnection};
use tidelog_domain::Position;

use super::document::{COLUMNS, Columns, DEFINITION, signed};
use super::error::{is_too_big, unavailable};
use crate::store::storable::unwritable;
use crate::store::{DocumentWrite, ReadError, Written};

/// The statements that write to one collection. A condition that does not hold changes no row.
pub(super) struct Writes {
    make_table: String,
    insert: String,
    replace: String,
    advance: String,
}

impl Writes {
    /// Those for `table`, a quoted name.
    pub(super) fn to(table: &str) -> Self {
        Self {
            make_table: format!("CREATE TABLE IF NOT EXISTS {table} ({DEFINITION})"),
            insert: format!(
                "INSERT INTO {table} ({COLUMNS}) VALUES (?1, ?2, ?3, ?7, ?4, ?5, ?6, 1)
                 ON CONFLICT (id) DO NOTHING"
            ),
            replace: format!(
                "UPDATE {table} SET data = ?2, version = ?3, updated_at = ?4, deleted = ?5, applied = ?6,
                     created_at = ?7, revision = revision + 1
                 WHERE id = ?1 AND revision = ?8"
            ),
            advance: format!(
                "UPDATE {table} SET data = ?2, version = ?3, updated_at = ?4, deleted = ?5, applied = ?6,
                     revision = revision + 1
                 WHERE id = ?1 AND coalesce(json_extract(applied, ?7), 0) < ?8"
            ),
        }
    }

    /// Makes the table, if it is not there.
    pub(super) async fn make_table(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<(), ReadError> {
        sqlx::query(AssertSqlSafe(self.make_table.as_str()))
            .execute(connection)
            .await
            .map_err(unavailable)?;
        Ok(())
    }

    /// Makes one write, if its condition holds.
    pub(super) async fn write(
        &self,
        connection: &mut SqliteConnection,
        write: &DocumentWrite,
    ) -> Result<Written, ReadError> {
        let document = write.document();
        let sql = match write {
            DocumentWrite::Insert(_) => &self.insert,
            DocumentWrite::Replace(_) => &self.replace,
            DocumentWrite::Advance { .. } => &self.advance,
        };
        let columns = Columns::of(document)?;
        let common = sqlx::query(AssertSqlSafe(sql.as_str()))
            .bind(&document.id)
            .bind(columns.data)
            .bind(columns.version)
            .bind(columns.updated_at)
            .bind(document.deleted)
            .bind(columns.applied);
        let created_at = document.created_at.timestamp_micros();
        let bound = match write {
            DocumentWrite::Insert(_) => common.bind(created_at),
            DocumentWrite::Replace(_) => common.bind(created_at).bind(signed(document.revision)),
            DocumentWrite::Advance { partition, .. } => {
                let position = document.applied.get(partition).unwrap_or(&Position::START);
                common
                    .bind(format!("$.\"{partition}\""))
                    .bind(signed(position.number()))
            }
        };
        match bound.execute(connection).await {
            Ok(done) if done.rows_affected() == 1 => Ok(Written::Applied),
            Ok(_) => Ok(Written::Unmet),
            Err(error) if is_too_big(&error) => {
                Err(unwritable(document, "it is larger than SQLite takes"))
            }
            Err(error) => Err(unavailable(error)),
        }
    }
}
