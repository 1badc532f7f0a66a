//! The read store in memory: for tests and examples, and the reference for what the port means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use tidelog_domain::Partition;
use tidelog_eventbus::{StateError, StateRecord, StateStore};

use super::filter::{matches, page};
use super::name::{checked, checked_for_state};
use super::storable;
use super::{
    Alias, Document, DocumentWrite, Index, KeptIndex, Query, ReadError, ReadStore, Written,
};

/// A read store in memory. It is gone with the process.
#[derive(Debug, Default)]
pub struct InMemoryReadStore {
    contents: RwLock<Contents>,
}

#[derive(Debug, Default)]
struct Contents {
    collections: BTreeMap<String, Collection>,
    aliases: BTreeMap<String, Alias>,
}

#[derive(Debug, Default)]
struct Collection {
    documents: BTreeMap<String, Document>,
    states: BTreeMap<Partition, (u64, StateRecord)>,
    /// The names of its indexes: nothing here is searched by them.
    indexes: BTreeSet<String>,
}

impl InMemoryReadStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is stored. A panic of another thread cannot have left it half-changed: each change is one assignment.
    fn read(&self) -> RwLockReadGuard<'_, Contents> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a document away, which nobody may do but by hand.
    #[cfg(test)]
    pub(crate) fn take_away(&self, collection: &str, id: &str) {
        let mut contents = self.write_access();
        let collection = contents.collections.get_mut(collection).unwrap();
        collection.documents.remove(id).unwrap();
    }

    fn write_access(&self) -> RwLockWriteGuard<'_, Contents> {
        self.contents
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ReadStore for InMemoryReadStore {
    async fn create_collection(&self, collection: &str) -> Result<(), ReadError> {
        let name = checked(collection)?.to_owned();
        self.write_access().collections.entry(name).or_default();
        Ok(())
    }

    async fn drop_collection(&self, collection: &str) -> Result<(), ReadError> {
        self.write_access().collections.remove(checked(collection)?);
        Ok(())
    }

    async fn get(&self, collection: &str, ids: &[&str]) -> Result<Vec<Document>, ReadError> {
        let contents = self.read();
        let Some(collection) = contents.collections.get(checked(collection)?) else {
            return Ok(Vec::new());
        };
        let found: BTreeMap<&str, &Document> = ids
            .iter()
            .filter_map(|id| collection.documents.get(*id))
            .map(|document| (document.id.as_str(), document))
            .collect();
        Ok(found.into_values().cloned().collect())
    }

    async fn write(
        &self,
        collection: &str,
        writes: &[DocumentWrite],
    ) -> Result<Vec<Written>, ReadError> {
        let name = checked(collection)?;
        storable::check(writes)?;
        let mut contents = self.write_access();
        let documents = &mut contents
            .collections
            .entry(name.to_owned())
            .or_default()
            .documents;
        Ok(writes.iter().map(|write| apply(documents, write)).collect())
    }

    async fn find(&self, collection: &str, query: &Query) -> Result<Vec<Document>, ReadError> {
        let contents = self.read();
        let Some(collection) = contents.collections.get(checked(collection)?) else {
            return Ok(Vec::new());
        };
        let found = page(collection.documents.values(), query);
        Ok(found.into_iter().cloned().collect())
    }

    async fn count(&self, collection: &str, query: &Query) -> Result<u64, ReadError> {
        let contents = self.read();
        let collection = contents.collections.get(checked(collection)?);
        let documents = collection.into_iter().flat_map(|c| c.documents.values());
        let fits = documents
            .filter(|document| query.deleted || !document.deleted)
            .filter(|document| matches(document, &query.filter));
        Ok(u64::try_from(fits.count()).unwrap_or(u64::MAX))
    }

    async fn ensure_indexes(&self, collection: &str, wanted: &[Index]) -> Result<(), ReadError> {
        let name = checked(collection)?.to_owned();
        let mut contents = self.write_access();
        let collection = contents.collections.entry(name).or_default();
        collection.indexes = wanted.iter().map(Index::name).collect();
        Ok(())
    }

    async fn indexes(&self, collection: &str) -> Result<Vec<KeptIndex>, ReadError> {
        let contents = self.read();
        let collection = contents.collections.get(checked(collection)?);
        let names = collection.into_iter().flat_map(|it| it.indexes.iter());
        let kept = names.map(|name| KeptIndex {
            name: name.clone(),
            is_ready: true,
        });
        Ok(kept.collect())
    }

    async fn load_alias(&self, view: &str) -> Result<Option<Alias>, ReadError> {
        Ok(self.read().aliases.get(checked(view)?).cloned())
    }

    async fn compare_and_set_alias(
        &self,
        view: &str,
        expected: u64,
        alias: &Alias,
    ) -> Result<bool, ReadError> {
        let view = checked(view)?;
        let mut contents = self.write_access();
        let stored = contents.aliases.get(view).map_or(0, |alias| alias.revision);
        if stored != expected {
            return Ok(false);
        }
        let alias = Alias {
            revision: expected.saturating_add(1),
            ..alias.clone()
        };
        contents.aliases.insert(view.to_owned(), alias);
        Ok(true)
    }
}

#[async_trait]
impl StateStore for InMemoryReadStore {
    async fn load_states(
        &self,
        subscription: &str,
    ) -> Result<Vec<(Partition, u64, StateRecord)>, StateError> {
        let contents = self.read();
        let states = contents
            .collections
            .get(checked_for_state(subscription)?)
            .map(|collection| &collection.states);
        Ok(states
            .into_iter()
            .flatten()
            .map(|(partition, (revision, record))| (*partition, *revision, record.clone()))
            .collect())
    }

    async fn compare_and_set_state(
        &self,
        subscription: &str,
        partition: Partition,
        expected: u64,
        record: &StateRecord,
    ) -> Result<bool, StateError> {
        let name = checked_for_state(subscription)?.to_owned();
        let mut contents = self.write_access();
        let states = &mut contents.collections.entry(name).or_default().states;
        let stored = states.get(&partition).map_or(0, |(revision, _)| *revision);
        if stored != expected {
            return Ok(false);
        }
        states.insert(partition, (expected.saturating_add(1), record.clone()));
        Ok(true)
    }
}

/// Makes one write, if its condition holds.
fn apply(documents: &mut BTreeMap<String, Document>, write: &DocumentWrite) -> Written {
    let id = &write.document().id;
    match write.applied_to(documents.get(id)) {
        Some(document) => {
            documents.insert(id.clone(), document);
            Written::Applied
        }
        None => Written::Unmet,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::conformance::ReadStoreFactory;

    struct Memory;

    #[async_trait]
    impl ReadStoreFactory for Memory {
        async fn store(&self) -> Arc<dyn ReadStore> {
            Arc::new(InMemoryReadStore::new())
        }
    }

    crate::read_store_conformance!(conformance, Memory);
    crate::replay_conformance!(replay, Memory);
}
