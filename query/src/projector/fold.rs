//! Views whose documents are needed before an event to know them after it.

use std::collections::{BTreeMap, HashMap};

use tidelog_domain::{
    DocumentState, NotFolded, Partition, Position, RecordedEvent, Version, ViewDefinition,
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
        for round in 0..MAX_ROUNDS {
            let mut stored = self.stored(&todo, events, cache, round == 0).await?;
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

    /// The documents as they were last seen: from the cache, else from the store. At the first look one whose only stream begins in the
    /// batch is taken to be new: if it is there all the same (a redelivery), its insert says so.
    async fn stored(
        &self,
        touched: &[Touched<'_>],
        events: &[RecordedEvent],
        cache: &mut DocumentCache,
        is_first_look: bool,
    ) -> Result<HashMap<String, Document>, HandlerError> {
        let may_begin = is_first_look && self.view.category().is_some();
        let mut known = HashMap::with_capacity(touched.len());
        let mut unknown = Vec::new();
        for document in touched {
            match cache.take(&document.key) {
                Some(stored) => {
                    known.insert(document.key.clone(), stored);
                }
                None if may_begin && document.begins() => {}
                None => unknown.push(&*document.key),
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
    let is_new_to_it = |event: &&RecordedEvent| event.position > applied;
    let events: Vec<&RecordedEvent> = touched.events().filter(is_new_to_it).collect();
    let Some(last) = events.last() else {
        return Ok(Next::Unchanged(stored));
    };
    let is_new = stored.is_none();
    let mut document = stored.unwrap_or_else(|| unborn(touched));
    let before = DocumentState {
        data: std::mem::take(&mut document.data),
        deleted: document.deleted,
    };
    let after = view.fold(before, &touched.key, &events);
    let after = after.map_err(|NotFolded { index, source }| {
        let event = events.get(index).copied().unwrap_or(last);
        ProjectError::unreadable(view.name(), event, source).at(event)
    })?;
    (document.data, document.deleted) = (after.data, after.deleted);
    document.version = match view.category() {
        // As clients send it back in `If-Match`: also where the view passes over some events of the stream.
        Some(_) => last.version,
        None => events
            .iter()
            .fold(document.version, |version, _| version.next()),
    };
    // Over several partitions the first and the last event are those of the log's clock, whatever order they come in.
    for event in &events {
        document.created_at = document.created_at.min(event.recorded_at);
        document.updated_at = document.updated_at.max(event.recorded_at);
    }
    document.applied.insert(partition, last.position);
    Ok(Next::Write(if is_new {
        DocumentWrite::Insert(document)
    } else {
        DocumentWrite::Replace(document)
    }))
}

/// The document before any event: as good as deleted.
fn unborn(touched: &Touched<'_>) -> Document {
    Document {
        id: touched.key.clone(),
        data: serde_json::Map::new(),
        version: Version::NONE,
        created_at: touched.first.recorded_at,
        updated_at: touched.first.recorded_at,
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
