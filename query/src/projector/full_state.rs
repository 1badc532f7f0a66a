//! Views whose events carry the full state: nothing is read before it is written.

use std::collections::{BTreeMap, HashMap};

use tidelog_domain::{Partition, Position, RecordedEvent, Version};
use tidelog_eventbus::HandlerError;

use super::batch::{Touched, by_document};
use super::error::KeptChanging;
use super::{MAX_ROUNDS, ProjectError, Projector};
use crate::store::{Document, DocumentWrite, Written};

/// What a batch makes of one document.
struct Change<'e> {
    touched: Touched<'e>,
    /// The document after the batch.
    document: Document,
    /// Whether its state is in the batch: not so when the batch has nothing of it but its deletion.
    complete: bool,
    /// Whether it is to be made, or to be there already.
    insert: bool,
}

impl Change<'_> {
    /// Whether the first event of the document's stream is in the batch.
    fn is_born_here(&self) -> bool {
        self.touched.first.version == Version::new(1)
    }

    /// Whether `stored` has what the batch would make of it already.
    fn is_in(&self, stored: &Document, partition: Partition) -> bool {
        let stored = stored.applied.get(&partition);
        stored.copied().unwrap_or(Position::START) >= self.touched.last().position
    }

    fn write(&self, partition: Partition) -> DocumentWrite {
        let document = self.document.clone();
        if self.insert {
            DocumentWrite::Insert(document)
        } else {
            DocumentWrite::Advance {
                document,
                partition,
            }
        }
    }
}

impl Projector {
    /// Overwrites each document with its last state in the batch, if the stored one is older.
    ///
    /// A document whose stream begins in the batch is inserted, any other advanced. Where that condition does not hold,
    /// the stored document says why: it has the batch already (a redelivery), or has to be advanced after all. A
    /// document that is missing although its stream began earlier stops the view: see [`ProjectError::Damaged`].
    pub(super) async fn overwrite(
        &self,
        partition: Partition,
        events: &[RecordedEvent],
    ) -> Result<(), HandlerError> {
        let mut todo = Vec::new();
        for touched in by_document(&*self.view, events)? {
            todo.push(self.last_state(touched, partition)?);
        }
        let (complete, incomplete) = todo.into_iter().partition(|change| change.complete);
        let mut todo: Vec<Change<'_>> = complete;
        if !incomplete.is_empty() {
            todo.extend(self.look(incomplete, partition, events).await?);
        }
        for _ in 0..MAX_ROUNDS {
            if todo.is_empty() {
                return Ok(());
            }
            let writes: Vec<_> = todo.iter().map(|change| change.write(partition)).collect();
            let last = |id: &str| {
                let change = todo.iter().find(|change| change.document.id == id)?;
                Some(change.touched.last())
            };
            let written = self.write(&writes, events, last).await?;
            let mut outcomes = written.into_iter();
            todo.retain(|_| outcomes.next() != Some(Written::Applied));
            todo = self.look(todo, partition, events).await?;
        }
        if todo.is_empty() {
            return Ok(());
        }
        Err(HandlerError::transient(KeptChanging {
            documents: todo.len(),
            collection: self.collection.clone(),
        }))
    }

    /// What is left to do of `changes`, now that the stored documents are known.
    async fn look<'e>(
        &self,
        changes: Vec<Change<'e>>,
        partition: Partition,
        events: &[RecordedEvent],
    ) -> Result<Vec<Change<'e>>, HandlerError> {
        if changes.is_empty() {
            return Ok(changes);
        }
        let ids: Vec<&str> = changes.iter().map(|c| c.document.id.as_str()).collect();
        let mut stored: HashMap<String, Document> = self.load(&ids, events).await?;
        let mut left = Vec::with_capacity(changes.len());
        for mut change in changes {
            match stored.remove(&change.document.id) {
                Some(stored) if change.is_in(&stored, partition) => continue,
                Some(stored) => {
                    change.insert = false;
                    if !change.complete {
                        change.document.data = stored.data;
                        change.complete = true;
                    }
                }
                None if change.is_born_here() => change.insert = true,
                None => return Err(self.damaged(&change.touched)),
            }
            left.push(change);
        }
        Ok(left)
    }

    /// The document as the batch leaves it: its last state, which is all that a full-state event needs.
    fn last_state<'e>(
        &self,
        touched: Touched<'e>,
        partition: Partition,
    ) -> Result<Change<'e>, HandlerError> {
        let last = touched.last();
        let mut data = None;
        let mut deleted = false;
        for event in touched.events().rev() {
            let state = self.view.project(None, &touched.key, event);
            let state = state.map_err(|source| {
                ProjectError::unreadable(self.view.name(), event, source).at(event)
            })?;
            match state {
                // A tombstone keeps the state before it.
                None if event.position == last.position => deleted = true,
                None => {}
                Some(state) => {
                    data = Some(state);
                    break;
                }
            }
        }
        let born = touched.first.version == Version::new(1);
        let complete = data.is_some() || born;
        Ok(Change {
            document: Document {
                id: touched.key.clone(),
                version: last.version,
                created_at: touched.first.recorded_at,
                updated_at: last.recorded_at,
                deleted,
                applied: BTreeMap::from([(partition, last.position)]),
                revision: 0,
                data: data.unwrap_or_default(),
            },
            complete,
            insert: born,
            touched,
        })
    }

    fn damaged(&self, touched: &Touched<'_>) -> HandlerError {
        ProjectError::Damaged {
            view: self.view.name().to_owned(),
            collection: self.collection.clone(),
            document: touched.key.clone(),
            version: touched.first.version.number(),
        }
        .at(touched.first)
    }
}
