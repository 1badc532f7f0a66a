//! A document as the index keeps it.

use std::collections::BTreeMap;

use chrono::serde::ts_microseconds;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidelog::read_store::{Document, Partition, Position, Version};

/// The fields of [`Document`], for serde: one that is missing here does not compile.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Document")]
struct Stored {
    id: String,
    data: Map<String, Value>,
    version: Version,
    #[serde(with = "ts_microseconds")]
    created_at: DateTime<Utc>,
    #[serde(with = "ts_microseconds")]
    updated_at: DateTime<Utc>,
    deleted: bool,
    applied: BTreeMap<Partition, Position>,
    revision: u64,
}

/// `document` as JSON.
pub(crate) fn to_bytes(document: &Document) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    Stored::serialize(document, &mut serde_json::Serializer::new(&mut bytes))?;
    Ok(bytes)
}

/// The document that this JSON is.
pub(crate) fn from_bytes(bytes: &[u8]) -> serde_json::Result<Document> {
    Stored::deserialize(&mut serde_json::Deserializer::from_slice(bytes))
}
