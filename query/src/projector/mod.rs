//! Projecting: the events of the log, folded into the documents of one version of a view.
//!
//! A batch of one partition is folded in memory and written in bulk, each document on a condition, so that an event counts once
//! however often it arrives and whoever brings it: a redelivery after a crash, or a zombie that lost its partition,
//! changes nothing. The subscription writes the checkpoint after [`Handler::handle`] returned, so a checkpoint never
//! passes data that was not written.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tidelog_domain::{Folding, Partition, RecordedEvent, ViewDefinition};
use tidelog_eventbus::{Handled, Handler, HandlerError, Retry};

use crate::store::{Document, DocumentWrite, ReadError, ReadStore, Written};

mod batch;
mod cache;
mod error;
mod fold;
mod full_state;
#[cfg(test)]
mod tests;

pub use error::ProjectError;
pub(crate) use fold::after_event;

use cache::DocumentCache;
pub(crate) use full_state::stand_in;

/// The most bytes that the key of a document may have.
pub const MAX_KEY_BYTES: usize = 1024;

/// How many documents go into one write at most.
const WRITE_MAX_DOCUMENTS: usize = 1_000;

/// How often a batch is looked at again when others change its documents, before it is left to the subscription's
/// back-off.
const MAX_ROUNDS: usize = 8;

/// Folds events into the documents of one collection: one version of a view.
pub struct Projector {
    view: Arc<dyn ViewDefinition>,
    store: Arc<dyn ReadStore>,
    collection: String,
    /// What was last written, a partition; taken out while its partition is worked on.
    caches: Mutex<HashMap<Partition, DocumentCache>>,
}

impl Projector {
    /// Projects `view` into `collection` of `store`.
    #[must_use]
    pub fn new(
        view: Arc<dyn ViewDefinition>,
        store: Arc<dyn ReadStore>,
        collection: impl Into<String>,
    ) -> Self {
        Self {
            view,
            store,
            collection: collection.into(),
            caches: Mutex::default(),
        }
    }

    /// The documents of `ids`, by id; missing ones are left out.
    async fn load(
        &self,
        ids: &[&str],
        events: &[RecordedEvent],
    ) -> Result<HashMap<String, Document>, HandlerError> {
        let mut found = HashMap::with_capacity(ids.len());
        for chunk in ids.chunks(WRITE_MAX_DOCUMENTS) {
            let documents = self.store.get(&self.collection, chunk).await;
            let documents = documents.map_err(|error| self.refused(error, events, |_| None))?;
            found.extend(documents.into_iter().map(|doc| (doc.id.clone(), doc)));
        }
        Ok(found)
    }

    /// Writes, in bounded bulks, and says of each whether it was made. `last` gives the last event of a document.
    async fn write<'e>(
        &self,
        writes: &[DocumentWrite],
        events: &'e [RecordedEvent],
        last: impl Fn(&str) -> Option<&'e RecordedEvent>,
    ) -> Result<Vec<Written>, HandlerError> {
        let mut written = Vec::with_capacity(writes.len());
        for chunk in writes.chunks(WRITE_MAX_DOCUMENTS) {
            let outcome = self.store.write(&self.collection, chunk).await;
            written.extend(outcome.map_err(|error| self.refused(error, events, &last))?);
        }
        Ok(written)
    }

    /// What the subscription makes of the store's error: to be tried again, or a stop at the event that is to blame.
    fn refused<'e>(
        &self,
        error: ReadError,
        events: &'e [RecordedEvent],
        last: impl Fn(&str) -> Option<&'e RecordedEvent>,
    ) -> HandlerError {
        if error.retry() != Retry::Never {
            return HandlerError::transient(error);
        }
        let document = match &error {
            ReadError::Unwritable { id, .. } => id.clone(),
            _ => String::from("(any)"),
        };
        // Where it cannot be told which event it was, it is the first that has not been handled.
        match last(&document).or_else(|| events.first()) {
            Some(event) => ProjectError::Store {
                collection: self.collection.clone(),
                document,
                source: error,
            }
            .at(event),
            None => HandlerError::transient(error),
        }
    }

    fn take_cache(&self, partition: Partition) -> DocumentCache {
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        caches.remove(&partition).unwrap_or_default()
    }

    fn return_cache(&self, partition: Partition, cache: DocumentCache) {
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        caches.insert(partition, cache);
    }
}

#[async_trait]
impl Handler for Projector {
    /// The view: its subscription is called by the collection, of which each version has one of its own.
    fn watched_as(&self) -> Option<&str> {
        Some(self.view.name())
    }

    fn wants(&self, event: &RecordedEvent) -> bool {
        self.view.filter().matches(event)
    }

    /// The documents that it touches: what keeps its order is the document.
    fn sequences(&self, event: &RecordedEvent) -> Result<Vec<String>, HandlerError> {
        batch::keys(&*self.view, event)
    }

    async fn handle(
        &self,
        partition: Partition,
        events: &[RecordedEvent],
    ) -> Result<Handled, HandlerError> {
        match self.view.folding() {
            Folding::FullState => self.overwrite(partition, events).await?,
            Folding::ReadAndFold => {
                let mut cache = self.take_cache(partition);
                self.fold(partition, events, &mut cache).await?;
                // After an error the cache is not put back: what it had may not be what is stored.
                self.return_cache(partition, cache);
            }
        }
        Ok(Handled::default())
    }

    async fn skip(&self, event: &RecordedEvent) -> Result<(), HandlerError> {
        match self.view.folding() {
            Folding::FullState => self.stand_in(event).await,
            Folding::ReadAndFold => Ok(()),
        }
    }
}
