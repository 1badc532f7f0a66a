//! State records and aliases: one record each, changed by compare-and-set in one statement.
//!
//! The state records of a collection are *in* it, so that they are dropped and restored together with its documents. Their
//! `_id` is a document, `{"partition": 3}`, where that of a view's document is a text.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use mongodb::bson::raw::{RawDocument, RawDocumentBuf, cstr};
use mongodb::bson::{Bson, RawBson, doc, rawdoc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidelog_domain::Partition;
use tidelog_eventbus::{StateError, StateRecord, StateStore};

use super::MongoReadStore;
use super::document::{fields, object, signed};
use super::error::{Fault, unavailable};
use super::write::{Failure, Kind, update};
use crate::store::name::checked_for_state;
use crate::store::{Alias, ReadError};

/// The collection of the aliases. No view's is called so.
const ALIASES: &str = "tidelog_views";

#[async_trait]
impl StateStore for MongoReadStore {
    async fn load_states(
        &self,
        subscription: &str,
    ) -> Result<Vec<(Partition, u64, StateRecord)>, StateError> {
        let collection = checked_for_state(subscription)?;
        let filter = doc! {
            "_id": { "$gte": { "partition": Bson::MinKey }, "$lte": { "partition": Bson::MaxKey } },
        };
        let read = async {
            let mut found = Vec::new();
            let cursor = self.collection(collection).find(filter).await;
            let mut cursor = cursor.map_err(unavailable)?;
            while let Some(bson) = cursor.try_next().await.map_err(unavailable)? {
                found.push(read_state(&bson).map_err(|error| corrupt(collection, &*error))?);
            }
            Ok(found)
        };
        let mut found = self.in_time(read).await.map_err(state_error)?;
        found.sort_unstable_by_key(|(partition, ..)| *partition);
        Ok(found)
    }

    async fn compare_and_set_state(
        &self,
        subscription: &str,
        partition: Partition,
        expected: u64,
        record: &StateRecord,
    ) -> Result<bool, StateError> {
        let collection = checked_for_state(subscription)?;
        let id = rawdoc! { "partition": i32::from(partition.number()) };
        self.compare_and_set(collection, id.into(), expected, record)
            .await
            .map_err(state_error)
    }
}

impl MongoReadStore {
    /// The alias of `view`.
    pub(super) async fn read_alias(&self, view: &str) -> Result<Option<Alias>, ReadError> {
        let aliases = self.collection(ALIASES);
        let read = async {
            aliases
                .find_one(doc! { "_id": view })
                .await
                .map_err(unavailable)
        };
        let Some(bson) = self.in_time(read).await? else {
            return Ok(None);
        };
        let (revision, alias) = record::<Alias>(&bson).map_err(|error| corrupt(view, &*error))?;
        Ok(Some(Alias { revision, ..alias }))
    }

    /// Changes the alias of `view`, if its revision is `expected`.
    pub(super) async fn set_alias(
        &self,
        view: &str,
        expected: u64,
        alias: &Alias,
    ) -> Result<bool, ReadError> {
        self.compare_and_set(ALIASES, view.into(), expected, alias)
            .await
    }

    /// Writes a record, if the one that is stored has the revision `expected`.
    async fn compare_and_set(
        &self,
        collection: &str,
        id: RawBson,
        expected: u64,
        record: &impl Serialize,
    ) -> Result<bool, ReadError> {
        let record = serde_json::to_value(record).map_err(|error| error.to_string());
        let record = record.and_then(|record| match record {
            Value::Object(map) => object(&map).map_err(str::to_owned),
            _ => Err("it is no object".to_owned()),
        });
        let record = record.map_err(|reason| ReadError::Corrupt {
            what: format!("a record for {collection} cannot be stored: {reason}"),
        })?;
        let (kind, statement) = if expected == 0 {
            let statement = rawdoc! { "_id": id, "revision": 1_i64, "record": record };
            (Kind::Insert, statement)
        } else {
            let condition = rawdoc! { "_id": id, "revision": signed(expected) };
            let mut values = RawDocumentBuf::new();
            values.append(cstr!("record"), record);
            (Kind::Update, update(&condition, &values))
        };
        let failures = self.run(kind, collection, vec![statement]).await?;
        match failures.first() {
            None => Ok(true),
            Some((_, Failure::Unmet)) => Ok(false),
            Some((_, failure)) => {
                Err(Fault::Reported(format!("a record was refused: {failure:?}")).into())
            }
        }
    }
}

type Unreadable = Box<dyn std::error::Error + Send + Sync>;

fn read_state(bson: &RawDocument) -> Result<(Partition, u64, StateRecord), Unreadable> {
    let partition = bson.get_document("_id")?.get_i32("partition")?;
    let (revision, record) = record(bson)?;
    Ok((Partition::new(partition.try_into()?), revision, record))
}

/// A record and its revision.
fn record<T: DeserializeOwned>(bson: &RawDocument) -> Result<(u64, T), Unreadable> {
    let revision = bson.get_i64("revision")?.try_into()?;
    let record = fields(bson.get_document("record")?)?;
    Ok((revision, serde_json::from_value(Value::Object(record))?))
}

fn corrupt(of: &str, error: &(dyn std::error::Error + Send + Sync)) -> ReadError {
    ReadError::Corrupt {
        what: format!("a record of {of}: {error}"),
    }
}

fn state_error(error: ReadError) -> StateError {
    match error {
        ReadError::Unavailable(source) => StateError::Unavailable(source),
        ReadError::Corrupt { what } => StateError::Corrupt { what },
        other => StateError::Corrupt {
            what: other.to_string(),
        },
    }
}
