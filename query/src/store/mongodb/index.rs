//! Indexes. MongoDB makes them while the collection is read and written.

use std::time::Duration;

use mongodb::bson::{Bson, Document, doc};

use super::MongoReadStore;
use super::error::{Fault, code, code_of, unavailable};
use super::filter::path;
use crate::store::condition::Subject;
use crate::store::index::PREFIX;
use crate::store::{Direction, Index, KeptIndex, ReadError};

/// How long an index may take to be made, of however many documents, before it is asked for again: the server goes on with it.
const MAKE_TIMEOUT: Duration = Duration::from_secs(600);

/// How many indexes are told of; MongoDB keeps 64 of a collection at most.
const MAX_INDEXES: i32 = 100;

impl MongoReadStore {
    /// Makes those of `wanted` that are not there, and drops others of ours.
    pub(super) async fn make_indexes(
        &self,
        collection: &str,
        wanted: &[Index],
    ) -> Result<(), ReadError> {
        let kept = self.list_indexes(collection).await?;
        let is_kept = |index: &&Index| {
            kept.iter()
                .any(|own| own.is_ready && own.name == index.name())
        };
        let missing: Vec<&Index> = wanted.iter().filter(|index| !is_kept(index)).collect();
        if !missing.is_empty() {
            let specs = missing.into_iter().map(|index| {
                let key = key(index).ok_or_else(|| index.unusable())?;
                Ok(doc! { "key": key, "name": index.name() }.into())
            });
            let indexes = specs.collect::<Result<Vec<Bson>, ReadError>>()?;
            let command = doc! {
                "createIndexes": collection, "indexes": indexes, "writeConcern": { "w": "majority" }
            };
            let making = self.database.run_command(command);
            match tokio::time::timeout(MAKE_TIMEOUT, making).await {
                Ok(made) => made.map(drop).map_err(unavailable)?,
                Err(_) => return Err(Fault::Timeout(MAKE_TIMEOUT).into()),
            }
        }
        let is_wanted = |own: &&KeptIndex| wanted.iter().any(|index| index.name() == own.name);
        for old in kept.iter().filter(|own| !is_wanted(own)) {
            self.drop_index(collection, &old.name).await?;
        }
        Ok(())
    }

    async fn drop_index(&self, collection: &str, name: &str) -> Result<(), ReadError> {
        let command = doc! {
            "dropIndexes": collection, "index": name, "writeConcern": { "w": "majority" }
        };
        let dropped = self.database.run_command(command);
        let dropped = async {
            match dropped.await {
                Err(error) if code_of(&error).is_some_and(|it| code::NO_INDEX.contains(&it)) => {
                    Ok(())
                }
                other => other.map(drop),
            }
        };
        Ok(self.bounded(dropped).await?)
    }

    /// The indexes of ours that the collection has.
    pub(super) async fn list_indexes(&self, collection: &str) -> Result<Vec<KeptIndex>, ReadError> {
        let command = doc! {
            "listIndexes": collection, "cursor": { "batchSize": MAX_INDEXES }, "includeBuildUUIDs": true
        };
        let listed = self.database.run_command(command);
        let listed = async {
            match listed.await {
                Err(error) if code_of(&error) == Some(code::NAMESPACE_NOT_FOUND) => {
                    Ok(Document::new())
                }
                other => other,
            }
        };
        let listed = self.bounded(listed).await?;
        let batch = listed.get_document("cursor").ok();
        let batch = batch.and_then(|cursor| cursor.get_array("firstBatch").ok());
        let indexes = batch.into_iter().flatten().filter_map(Bson::as_document);
        Ok(indexes.filter_map(kept).collect())
    }
}

/// An index of ours, as the server lists it; one that is being made is listed with what it will be and the id of that.
fn kept(listed: &Document) -> Option<KeptIndex> {
    let spec = listed.get_document("spec").unwrap_or(listed);
    let name = spec.get_str("name").ok()?;
    let is_ready = !listed.contains_key("buildUUID") && !listed.contains_key("indexBuildInfo");
    name.starts_with(PREFIX).then(|| KeptIndex {
        name: name.to_owned(),
        is_ready,
    })
}

/// What an index goes by: what is compared and sorted in a search, in the same words.
fn key(index: &Index) -> Option<Document> {
    let mut key = Document::new();
    for sort in &index.fields {
        let direction = match sort.direction {
            Direction::Ascending => 1,
            Direction::Descending => -1,
        };
        key.insert(path(Subject::of(&sort.field)?), direction);
    }
    key.entry("_id".to_owned()).or_insert(Bson::Int32(1));
    Some(key)
}
