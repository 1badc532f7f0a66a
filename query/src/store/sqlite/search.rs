//! Searches, which end in time whether somebody waits for them or not.

use std::time::Instant;

use futures_util::TryStreamExt;
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Row, Sqlite};

use super::error::{failed_search, is_missing_table, unavailable};
use super::filter::{Search, Sql};
use super::{SqliteReadStore, document};
use crate::store::filter::matches;
use crate::store::gathered::Gathered;
use crate::store::{Document, Query, ReadError};

/// How many steps of its virtual machine SQLite makes between two looks at the time.
const STEPS_BETWEEN_LOOKS: i32 = 1_000;

impl SqliteReadStore {
    /// The documents of `table` that fit `query`.
    pub(super) async fn search(
        &self,
        table: &str,
        query: &Query,
    ) -> Result<Vec<Document>, ReadError> {
        let Some(search) = Search::of(query) else {
            return Ok(Vec::new());
        };
        let mut gathered = Gathered::new(query, search.is_wider(), search.is_sorted());
        let go_on = |document: Document| {
            gathered.add(document);
            gathered.has_room()
        };
        self.walk(search.find(table), go_on).await?;
        Ok(gathered.into_page())
    }

    /// How many documents of `table` fit the filter of `query`.
    pub(super) async fn search_count(&self, table: &str, query: &Query) -> Result<u64, ReadError> {
        let query = Query {
            sort: Vec::new(),
            after: None,
            limit: usize::MAX,
            ..query.clone()
        };
        let Some(search) = Search::of(&query) else {
            return Ok(0);
        };
        let Some(sql) = search.count(table) else {
            let mut count = 0;
            let go_on = |document: Document| {
                count += u64::from(matches(&document, &query.filter));
                true
            };
            self.walk(search.find(table), go_on).await?;
            return Ok(count);
        };
        let mut connection = self.searcher().await?;
        let text = AssertSqlSafe(sql.text.clone());
        let counted = sql.bind(sqlx::query(text)).fetch_one(&mut *connection);
        match counted.await {
            Ok(row) => {
                let count: i64 = row.try_get(0).map_err(unavailable)?;
                Ok(u64::try_from(count).unwrap_or_default())
            }
            Err(error) if is_missing_table(&error) => Ok(0),
            Err(error) => Err(failed_search(error)),
        }
    }

    /// Reads the documents that a statement finds, as long as `go_on` wants more.
    async fn walk(
        &self,
        sql: Sql,
        mut go_on: impl FnMut(Document) -> bool,
    ) -> Result<(), ReadError> {
        let mut connection = self.searcher().await?;
        let text = AssertSqlSafe(sql.text.clone());
        let mut rows = sql.bind(sqlx::query(text)).fetch(&mut *connection);
        loop {
            match rows.try_next().await {
                Ok(Some(row)) if go_on(document::from_row(&row)?) => {}
                Ok(_) => return Ok(()),
                Err(error) if is_missing_table(&error) => return Ok(()),
                Err(error) => return Err(failed_search(error)),
            }
        }
    }

    /// A connection whose statements are broken off when the time of a search is over.
    async fn searcher(&self) -> Result<PoolConnection<Sqlite>, ReadError> {
        let mut connection = self.searchers.acquire().await.map_err(unavailable)?;
        let end = Instant::now() + self.search_timeout;
        // The last search's end is overwritten: no connection of this pool does anything else.
        connection
            .lock_handle()
            .await
            .map_err(unavailable)?
            .set_progress_handler(STEPS_BETWEEN_LOOKS, move || Instant::now() < end);
        Ok(connection)
    }
}
