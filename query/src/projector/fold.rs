//! Views whose documents are needed before an event to know them after it.

use std::collections::{BTreeMap, HashMap};

use tidelog_domain::{
    DecodeError, DocumentState, Folding, NotFolded, Partition, Position, RecordedEvent, Version,
    ViewDefinition,
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
    /// Where the condition does not hold, somebody else wrote the document: it is read and folded again. So it is where a document
    /// of the cache says that it has all of the batch: nothing would be written, so nothing would tell that it was changed meanwhile.
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

    /// The documents as they were last seen: from the cache, else from the store. At the first look one whose only stream begins in the
    /// batch is taken to be new: if it is there all the same (a redelivery), its insert says so.
    async fn stored(
        &self,
        touched: &[Touched<'_>],
        events: &[RecordedEvent],
        cache: &mut DocumentCache,
        is_first_look: bool,
    ) -> Result<HashMap<String, Seen>, HandlerError> {
        let may_begin = is_first_look && self.view.category().is_some();
        let mut known = HashMap::with_capacity(touched.len());
        let mut unknown = Vec::new();
        for own in touched {
            match cache.take(&own.key) {
                Some(document) => {
                    let is_cached = true;
                    known.insert(
                        own.key.clone(),
                        Seen {
                            document,
                            is_cached,
                        },
                    );
                }
                None if may_begin && own.begins() => {}
                None => unknown.push(&*own.key),
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
    let is_new_to_it = |event: &&RecordedEvent| event.position > applied;
    let events: Vec<&RecordedEvent> = touched.events().filter(is_new_to_it).collect();
    let Some(last) = events.last() else {
        return Ok(Next::Unchanged(stored));
    };
    let is_new = stored.is_none();
    let before = match stored {
        // Nothing of it is the document's but the revision, on which it is written.
        Some(stored) if stored.is_of_no_event() => Document {
            revision: stored.revision,
            ..unborn(&touched.key, touched.first)
        },
        Some(stored) => stored,
        None => unborn(&touched.key, touched.first),
    };
    let after = after_events(view, before, &events);
    let after = after.map_err(|NotFolded { index, source }| {
        let event = events.get(index).copied().unwrap_or(last);
        ProjectError::unreadable(view.name(), event, source).at(event)
    })?;
    Ok(Next::Write(if is_new {
        DocumentWrite::Insert(after)
    } else {
        DocumentWrite::Replace(after)
    }))
}

/// A document after `events` of one partition, which touch it and come after all that made it.
fn after_events(
    view: &dyn ViewDefinition,
    before: Document,
    events: &[&RecordedEvent],
) -> Result<Document, NotFolded> {
    let mut document = before;
    let state = DocumentState {
        data: std::mem::take(&mut document.data),
        deleted: document.deleted,
    };
    let state = view.fold(state, &document.id, events)?;
    (document.data, document.deleted) = (state.data, state.deleted);
    for event in events {
        document.version = match view.category() {
            // As clients send it back in `If-Match`: also where the view passes over some events of the stream.
            Some(_) => event.version,
            None => document.version.next(),
        };
        // Over several partitions the first and the last event are those of the log's clock, whatever order they come in.
        document.created_at = document.created_at.min(event.recorded_at);
        document.updated_at = document.updated_at.max(event.recorded_at);
        document.applied.insert(event.partition, event.position);
    }
    Ok(document)
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
    let before = before.unwrap_or_else(|| unborn(key, event));
    let after = after_events(view, before, &[event]);
    let mut after = after.map_err(|own| own.source)?;
    if after.deleted && view.folding() == Folding::FullState {
        // Only the event tells: what came before it is not looked at.
        after.data = view.last_state(event)?;
    }
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
