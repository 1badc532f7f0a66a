//! Views whose documents are needed before an event to know them after it.

use std::collections::{BTreeMap, HashMap};

use tidelog_domain::{Partition, Position, RecordedEvent, Version, ViewDefinition};
use tidelog_eventbus::HandlerError;

use super::batch::{Touched, by_document};
use super::cache::DocumentCache;
use super::error::KeptChanging;
use super::{MAX_ROUNDS, ProjectError, Projector};
use crate::store::{Document, DocumentWrite, Written};

impl Projector {
    /// Folds the batch into the documents that it touches, and writes each on condition of its revision.
    ///
    /// Where the condition does not hold, somebody else wrote the document: it is read and folded again. So it is where a document
    /// of the cache says that it has all of the batch: nothing would be written, so nothing would tell that it was changed meanwhile.
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
            let mut doubtful = Vec::new();
            for touched in todo {
                let (before, is_cached) = match stored.remove(&touched.key) {
                    Some(Seen {
                        document,
                        is_cached,
                    }) => (Some(document), is_cached),
                    None => (None, false),
                };
                match next(&*self.view, before, &touched, partition)? {
                    Next::Unchanged(_) if is_cached => doubtful.push(touched),
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
            todo = doubtful;
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
    ) -> Result<HashMap<String, Seen>, HandlerError> {
        let mut known = HashMap::with_capacity(touched.len());
        let mut unknown = Vec::new();
        for Touched { key, .. } in touched {
            match cache.take(key) {
                Some(document) => {
                    let is_cached = true;
                    known.insert(
                        key.clone(),
                        Seen {
                            document,
                            is_cached,
                        },
                    );
                }
                None => unknown.push(key.as_str()),
            }
        }
        if !unknown.is_empty() {
            let loaded = self.load(&unknown, events).await?.into_iter();
            let is_cached = false;
            known.extend(loaded.map(|(key, document)| {
                (
                    key,
                    Seen {
                        document,
                        is_cached,
                    },
                )
            }));
        }
        Ok(known)
    }
}

/// A document as it was last seen.
struct Seen {
    document: Document,
    /// Whether that was some time ago: others may have changed it.
    is_cached: bool,
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
    let mut document = match stored {
        // Nothing of it is the document's but the revision, on which it is written.
        Some(stored) if stored.is_of_no_event() => Some(Document {
            revision: stored.revision,
            ..unborn(touched)
        }),
        stored => stored,
    };
    let mut changed = false;
    for event in touched.events().filter(|event| event.position > applied) {
        let mut after = document.unwrap_or_else(|| unborn(touched));
        let before = (!after.deleted).then(|| after.data.clone());
        let state = view.project(before, &touched.key, event);
        let state = state
            .map_err(|source| ProjectError::unreadable(view.name(), event, source).at(event))?;
        after.deleted = state.is_none();
        if let Some(state) = state {
            after.data = state;
        }
        after.version = match view.category() {
            // As clients send it back in `If-Match`: also where the view passes over some events of the stream.
            Some(_) => event.version,
            None => after.version.next(),
        };
        // Over several partitions the first and the last event are those of the log's clock, whatever order they come in.
        after.created_at = after.created_at.min(event.recorded_at);
        after.updated_at = after.updated_at.max(event.recorded_at);
        after.applied.insert(partition, event.position);
        document = Some(after);
        changed = true;
    }
    Ok(match document {
        Some(document) if changed && is_new => Next::Write(DocumentWrite::Insert(document)),
        Some(document) if changed => Next::Write(DocumentWrite::Replace(document)),
        document => Next::Unchanged(document),
    })
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
