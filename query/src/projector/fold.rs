//! Views whose documents are needed before an event to know them after it.

use std::collections::{BTreeMap, HashMap};

use tidelog_domain::{
    DecodeError, Folding, Partition, Position, RecordedEvent, Version, ViewDefinition,
};
use tidelog_eventbus::HandlerError;

use super::batch::{Touched, by_document};
use super::cache::DocumentCache;
use super::error::KeptChanging;
use super::{MAX_ROUNDS, ProjectError, Projector};
use crate::store::{Document, DocumentWrite, Written};

impl Projector {
    /// Folds the batch into the documents that it touches, and writes each on condition of its revision.
    ///
    /// Where the condition does not hold, somebody else wrote the document: it is read and folded again.
    pub(super) async fn fold(
        &self,
        partition: Partition,
        events: &[RecordedEvent],
        cache: &mut DocumentCache,
    ) -> Result<(), HandlerError> {
        let mut todo = by_document(&*self.view, events)?;
        for _ in 0..MAX_ROUNDS {
            let mut stored = self.stored(&todo, events, cache).await?;
            let mut folded = Vec::with_capacity(todo.len());
            let mut writes = Vec::with_capacity(todo.len());
            for touched in todo {
                let before = stored.remove(&touched.key);
                match next(&*self.view, before, &touched, partition)? {
                    Next::Unchanged(Some(document)) => cache.put(document),
                    Next::Unchanged(None) => {}
                    Next::Write(write) => {
                        writes.push(write);
                        folded.push(touched);
                    }
                }
            }
            let last = |id: &str| {
                let touched = folded.iter().find(|touched| touched.key == id)?;
                Some(touched.last())
            };
            let written = self.write(&writes, events, last).await?;
            todo = Vec::new();
            for ((write, touched), written) in writes.into_iter().zip(folded).zip(written) {
                match written {
                    Written::Applied => cache.put(as_stored(write)),
                    Written::Unmet => todo.push(touched),
                }
            }
            if todo.is_empty() {
                return Ok(());
            }
        }
        Err(HandlerError::transient(KeptChanging {
            documents: todo.len(),
            collection: self.collection.clone(),
        }))
    }

    /// The documents as they were last seen: from the cache, else from the store.
    async fn stored(
        &self,
        touched: &[Touched<'_>],
        events: &[RecordedEvent],
        cache: &mut DocumentCache,
    ) -> Result<HashMap<String, Document>, HandlerError> {
        let mut known = HashMap::with_capacity(touched.len());
        let mut unknown = Vec::new();
        for Touched { key, .. } in touched {
            match cache.take(key) {
                Some(document) => {
                    known.insert(key.clone(), document);
                }
                None => unknown.push(key.as_str()),
            }
        }
        if !unknown.is_empty() {
            known.extend(self.load(&unknown, events).await?);
        }
        Ok(known)
    }
}

/// What a batch makes of a document.
enum Next {
    /// Nothing: it has the batch already.
    Unchanged(Option<Document>),
    /// This.
    Write(DocumentWrite),
}

/// Folds the events of `touched` that the document has not applied.
fn next(
    view: &dyn ViewDefinition,
    stored: Option<Document>,
    touched: &Touched<'_>,
    partition: Partition,
) -> Result<Next, HandlerError> {
    let applied = stored.as_ref().and_then(|doc| doc.applied.get(&partition));
    let applied = applied.copied().unwrap_or(Position::START);
    let is_new = stored.is_none();
    let mut document = stored;
    let mut changed = false;
    for event in touched.events().filter(|event| event.position > applied) {
        let after = after_event(view, document, &touched.key, event);
        let after = after
            .map_err(|source| ProjectError::unreadable(view.name(), event, source).at(event))?;
        document = Some(after);
        changed = true;
    }
    Ok(match document {
        Some(document) if changed && is_new => Next::Write(DocumentWrite::Insert(document)),
        Some(document) if changed => Next::Write(DocumentWrite::Replace(document)),
        document => Next::Unchanged(document),
    })
}

/// The document `key` after `event`, which touches it and comes after all that made it `before`.
///
/// # Errors
///
/// [`DecodeError`] when the event or the document before it cannot be read.
pub(crate) fn after_event(
    view: &dyn ViewDefinition,
    before: Option<Document>,
    key: &str,
    event: &RecordedEvent,
) -> Result<Document, DecodeError> {
    let mut after = before.unwrap_or_else(|| unborn(key, event));
    let before = (!after.deleted).then(|| after.data.clone());
    let state = view.project(before, key, event)?;
    after.deleted = state.is_none();
    match state {
        Some(state) => after.data = state,
        // Only the event tells: what came before it is not looked at.
        None if view.folding() == Folding::FullState => after.data = view.last_state(event)?,
        None => {}
    }
    after.version = match view.category() {
        // As clients send it back in `If-Match`: also where the view passes over some events of the stream.
        Some(_) => event.version,
        None => after.version.next(),
    };
    // Over several partitions the first and the last event are those of the log's clock, whatever order they come in.
    after.created_at = after.created_at.min(event.recorded_at);
    after.updated_at = after.updated_at.max(event.recorded_at);
    after.applied.insert(event.partition, event.position);
    Ok(after)
}

/// The document before any event: as good as deleted.
fn unborn(key: &str, event: &RecordedEvent) -> Document {
    Document {
        id: key.to_owned(),
        data: serde_json::Map::new(),
        version: Version::NONE,
        created_at: event.recorded_at,
        updated_at: event.recorded_at,
        deleted: true,
        applied: BTreeMap::new(),
        revision: 0,
    }
}

/// The document as it is stored after `write` was made.
fn as_stored(write: DocumentWrite) -> Document {
    match write {
        DocumentWrite::Insert(document) => Document {
            revision: 1,
            ..document
        },
        DocumentWrite::Replace(document) | DocumentWrite::Advance { document, .. } => Document {
            revision: document.revision + 1,
            ..document
        },
    }
}
