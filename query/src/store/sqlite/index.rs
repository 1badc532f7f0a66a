//! Indexes. SQLite makes one in a transaction: who reads goes on, who writes waits.

use sqlx::{AssertSqlSafe, Row};

use super::SqliteReadStore;
use super::error::unavailable;
use super::filter::expression;
use crate::store::condition::Subject;
use crate::store::index::PREFIX;
use crate::store::{Direction, Index, KeptIndex, ReadError};

impl SqliteReadStore {
    /// Makes those of `wanted` that are not there, each in a transaction of its own, and drops others of ours.
    pub(super) async fn make_indexes(
        &self,
        collection: &str,
        table: &str,
        wanted: &[Index],
    ) -> Result<(), ReadError> {
        let kept = self.list_indexes(collection).await?;
        let is_kept = |index: &&Index| kept.iter().any(|own| own.name == index.name());
        for index in wanted.iter().filter(|index| !is_kept(index)) {
            let name = named(&index.name(), collection);
            let by = by(index).ok_or_else(|| index.unusable())?;
            let sql = format!("CREATE INDEX IF NOT EXISTS {name} ON {table} ({by})");
            self.change_indexes(sql).await?;
        }
        let is_wanted = |own: &&KeptIndex| wanted.iter().any(|index| index.name() == own.name);
        for old in kept.iter().filter(|own| !is_wanted(own)) {
            let name = named(&old.name, collection);
            self.change_indexes(format!("DROP INDEX IF EXISTS {name}"))
                .await?;
        }
        Ok(())
    }

    async fn change_indexes(&self, sql: String) -> Result<(), ReadError> {
        let mut transaction = self.begin().await?;
        sqlx::query(AssertSqlSafe(sql))
            .execute(&mut *transaction)
            .await
            .map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)
    }

    /// The indexes of ours that the collection has.
    pub(super) async fn list_indexes(&self, collection: &str) -> Result<Vec<KeptIndex>, ReadError> {
        let sql = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ?1";
        let rows = sqlx::query(sql)
            .bind(format!("view_{collection}"))
            .fetch_all(&self.readers)
            .await
            .map_err(unavailable)?;
        let mut kept = Vec::new();
        for row in rows {
            let name: String = row.try_get(0).map_err(unavailable)?;
            let own = name.strip_suffix(&format!("_{collection}"));
            if let Some(own) = own.filter(|own| own.starts_with(PREFIX)) {
                kept.push(KeptIndex {
                    name: own.to_owned(),
                    is_ready: true,
                });
            }
        }
        Ok(kept)
    }
}

/// The quoted name of an index: the indexes of a file have one space of names.
fn named(index: &str, collection: &str) -> String {
    format!("\"{index}_{collection}\"")
}

/// What an index goes by: the expressions that a search has, to the letter.
fn by(index: &Index) -> Option<String> {
    let mut by = String::new();
    for sort in &index.fields {
        by.push_str(&expression(Subject::of(&sort.field)?)?);
        by.push_str(match sort.direction {
            Direction::Ascending => ", ",
            Direction::Descending => " DESC, ",
        });
    }
    Some(by + "id")
}
