//! A document as a row.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde_json::{Map, Value};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use tidelog_domain::{Partition, Position, Version};

use crate::store::storable::unwritable;
use crate::store::{Document, ReadError};

/// The columns of a collection's table, in the order in which [`from_row`] reads them.
pub(super) const COLUMNS: &str =
    "id, data, version, created_at, updated_at, deleted, applied, revision";

/// The columns as they are made. Data is the text of its JSON, whose fields keep their order and whose numbers keep
/// their digits; times are microseconds since 1970.
pub(super) const DEFINITION: &str = "
    id TEXT NOT NULL PRIMARY KEY COLLATE BINARY,
    data TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    applied TEXT NOT NULL,
    revision INTEGER NOT NULL";

/// A document in the form of its columns, `created_at` and `revision` aside.
pub(super) struct Columns {
    pub(super) data: String,
    pub(super) version: i64,
    pub(super) updated_at: i64,
    pub(super) applied: String,
}

impl Columns {
    /// The columns of a document that may be stored.
    pub(super) fn of(document: &Document) -> Result<Self, ReadError> {
        let refused = |error: serde_json::Error| unwritable(document, error.to_string());
        Ok(Self {
            data: serde_json::to_string(&document.data).map_err(refused)?,
            version: signed(document.version.number()),
            updated_at: document.updated_at.timestamp_micros(),
            applied: serde_json::to_string(&document.applied).map_err(refused)?,
        })
    }
}

/// The document in a row.
pub(super) fn from_row(row: &SqliteRow) -> Result<Document, ReadError> {
    let id: String = row.try_get(0).map_err(|error| ReadError::Corrupt {
        what: format!("the id of a document: {error}"),
    })?;
    read(row, &id).map_err(|error| ReadError::Corrupt {
        what: format!("the document {id:?}: {error}"),
    })
}

fn read(row: &SqliteRow, id: &str) -> Result<Document, Box<dyn std::error::Error>> {
    let data: Map<String, Value> = serde_json::from_str(row.try_get(1)?)?;
    let applied: BTreeMap<Partition, Position> = serde_json::from_str(row.try_get(6)?)?;
    let time = |column| -> Result<_, Box<dyn std::error::Error>> {
        DateTime::from_timestamp_micros(row.try_get(column)?).ok_or("a time is out of range".into())
    };
    Ok(Document {
        id: id.to_owned(),
        data,
        version: Version::new(row.try_get::<i64, _>(2)?.try_into()?),
        created_at: time(3)?,
        updated_at: time(4)?,
        deleted: row.try_get(5)?,
        applied,
        revision: row.try_get::<i64, _>(7)?.try_into()?,
    })
}

/// A number as SQLite has it. Versions, positions and revisions are far below the bound.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
