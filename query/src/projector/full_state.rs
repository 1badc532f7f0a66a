//! Views whose events carry the full state: nothing is read before it is written.

use std::collections::BTreeMap;

use serde_json::Map;
use tidelog_domain::{Partition, Position, RecordedEvent, Version};
use tidelog_eventbus::HandlerError;

use super::batch::{Touched, by_document};
use super::error::KeptChanging;
use super::{MAX_ROUNDS, ProjectError, Projector};
use crate::store::{Document, DocumentWrite, Written};

impl Projector {
    /// Overwrites each document with its last state in the batch, if the stored one is older.
    ///
    /// The last event of a document is all that is read of it: what it says replaces everything before, so that an event
    /// in between that cannot be read does no harm.
    ///
    /// A document whose stream begins in the batch is inserted, any other advanced. Where that condition does not hold,
    /// the stored document says why: it has the batch already (a redelivery), or has to be advanced after all. A
    /// document that is missing although its stream began earlier stops the view: see [`ProjectError::Damaged`].
    pub(super) async fn overwrite(
        &self,
        partition: Partition,
        events: &[RecordedEvent],
    ) -> Result<(), HandlerError> {
        let mut touched = by_document(&*self.view, events)?;
        let mut writes = touched
            .iter()
            .map(|touched| self.last_state(touched, partition))
            .collect::<Result<Vec<_>, _>>()?;
        for _ in 0..MAX_ROUNDS {
            if touched.is_empty() {
                return Ok(());
            }
            let last = |id: &str| Some(touched.iter().find(|document| document.key == id)?.last());
            let written = self.write(&writes, events, last).await?;
            let unmet = touched
                .into_iter()
                .zip(writes)
                .zip(written)
                .filter(|(_, written)| *written == Written::Unmet)
                .map(|(change, _)| change);
            (touched, writes) = self.left(unmet.collect(), partition, events).await?;
        }
        if touched.is_empty() {
            return Ok(());
        }
        Err(HandlerError::transient(KeptChanging {
            documents: touched.len(),
            collection: self.collection.clone(),
        }))
    }

    /// What is left to do of writes whose condition did not hold, now that the stored documents are looked at.
    async fn left<'e>(
        &self,
        unmet: Vec<(Touched<'e>, DocumentWrite)>,
        partition: Partition,
        events: &[RecordedEvent],
    ) -> Result<(Vec<Touched<'e>>, Vec<DocumentWrite>), HandlerError> {
        if unmet.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let ids: Vec<&str> = unmet.iter().map(|(document, _)| &*document.key).collect();
        let stored = self.load(&ids, events).await?;
        let mut left = Vec::with_capacity(unmet.len());
        for (touched, write) in unmet {
            let document = match write {
                DocumentWrite::Insert(document)
                | DocumentWrite::Replace(document)
                | DocumentWrite::Advance { document, .. } => document,
            };
            let write = match stored.get(&touched.key) {
                Some(stored) if has(stored, partition, touched.last()) => continue,
                Some(stored) if stored.is_of_no_event() && touched.begins() => {
                    DocumentWrite::Replace(Document {
                        revision: stored.revision,
                        ..document
                    })
                }
                Some(_) => DocumentWrite::Advance {
                    document,
                    partition,
                },
                None if touched.begins() => DocumentWrite::Insert(document),
                None => return Err(self.damaged(&touched)),
            };
            left.push((touched, write));
        }
        Ok(left.into_iter().unzip())
    }

    /// Lets a stream go on whose first event is skipped: a document that nobody sees stands in for the one that the event
    /// would have made, so that it does not look damaged. The next event makes it a document like any other.
    pub(super) async fn stand_in(&self, event: &RecordedEvent) -> Result<(), HandlerError> {
        if event.version != Version::new(1) {
            return Ok(());
        }
        let writes = super::batch::keys(&*self.view, event)?.into_iter();
        let writes: Vec<_> = writes
            .map(|key| DocumentWrite::Insert(stand_in(key, event)))
            .collect();
        // Where it is there already, it has been told before.
        self.write(&writes, std::slice::from_ref(event), |_| Some(event))
            .await?;
        Ok(())
    }

    /// The document as the batch leaves it.
    fn last_state(
        &self,
        touched: &Touched<'_>,
        partition: Partition,
    ) -> Result<DocumentWrite, HandlerError> {
        let event = touched.last();
        let unreadable =
            |source| ProjectError::unreadable(self.view.name(), event, source).at(event);
        let state = self.view.project(None, &touched.key, event);
        let (data, deleted) = match state.map_err(unreadable)? {
            Some(state) => (state, false),
            None => (self.view.last_state(event).map_err(unreadable)?, true),
        };
        let document = Document {
            id: touched.key.clone(),
            data,
            version: event.version,
            created_at: touched.first.recorded_at,
            updated_at: event.recorded_at,
            deleted,
            applied: BTreeMap::from([(partition, event.position)]),
            revision: 0,
        };
        Ok(if touched.begins() {
            DocumentWrite::Insert(document)
        } else {
            DocumentWrite::Advance {
                document,
                partition,
            }
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

/// The document that nobody sees, in place of the one that `event` would have made, had it not been skipped.
pub(crate) fn stand_in(key: String, event: &RecordedEvent) -> Document {
    Document {
        id: key,
        data: Map::new(),
        version: event.version,
        created_at: event.recorded_at,
        updated_at: event.recorded_at,
        deleted: true,
        applied: BTreeMap::from([(event.partition, event.position)]),
        revision: 0,
    }
}

/// Whether `stored` has applied `event`.
fn has(stored: &Document, partition: Partition, event: &RecordedEvent) -> bool {
    let applied = stored.applied.get(&partition).copied();
    applied.unwrap_or(Position::START) >= event.position
}
