//! Replay of one document, or of the documents of one aggregate, in the version that is read: nothing is built beside it, nothing
//! rests, no lease is taken.
//!
//! # The protocol
//!
//! | step | what happens | if the replayer dies here |
//! |---|---|---|
//! | D1 fold | the events of the document are folded from the log, up to the checkpoints of the version that is read | nothing has happened |
//! | D2 read | the document is read, *then* the checkpoints; the fold goes on to them, and to what the document itself has applied | nothing has happened |
//! | D3 write | where the two differ: the fold is written on condition that the document still is what was read | before: nothing; after: it is right |
//! | D4 again | D2; where the two are equal, it is done | it is right, but for the rare case below |
//!
//! - *Beside the subscription.* What is written says up to where it has applied each partition, as every document does: its owner
//!   passes over what it has, and folds what comes after. An owner that wrote the document meanwhile makes the condition of D3
//!   fail; one that had it in memory finds its own condition failing, and reads it anew.
//! - *Nothing is lost.* The document is read before the checkpoints are: what it had by then is at or below them, or in what it says of itself.
//!   (That may be wrong in a document that is damaged, so that its owner passed over an event on the way: then the
//!   checkpoints of D4 are past that event, and D4 finds it out.)
//! - A document that should not be there is not taken away, but overwritten by one that is deleted and has applied nothing: its revision goes on, so that no condition of
//!   others that is still on its way can hold again by chance.
//! - What waits because it is set aside is folded too, if it can be: then it was set aside because of the damage, and it is asked for it
//!   to be tried again, which finds it applied. If it cannot be folded, nothing is written. What was skipped stays so.

mod reading;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidelog_domain::{Folding, Partition, Position, RecordedEvent, Version, ViewDefinition};
use tidelog_eventbus::{LogIdentity, OperationError, Operations, StateStore};
use tokio_util::sync::CancellationToken;

use super::fold::Folded;
use super::progress::Meter;
use super::run::persist;
use super::{OnProgress, Replay, ReplayError};
use crate::store::{Alias, Document, DocumentWrite, Written};
use reading::Fold;

/// How often a document is looked at again that others write at the same time.
const MAX_ROUNDS: usize = 64;

/// How often it begins anew because readers were led to another version meanwhile.
const MAX_SWITCHES: usize = 4;

/// What of a view is replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Only {
    /// The document of this key.
    Document(String),
    /// The documents that the events of an aggregate touch: its id, or its stream (`post/7f3a`) where aggregates of several kinds
    /// may have the same.
    Aggregate(String),
}

/// A replay of some documents that went well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayedOnly {
    /// The view.
    pub view: String,
    /// The collection that is read.
    pub collection: String,
    /// The number of that version.
    #[serde(rename = "version")]
    pub number: u64,
    /// How many events of the log were read.
    pub events: u64,
    /// The documents, by key.
    pub documents: Vec<ReplayedDocument>,
}

/// A document that was replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayedDocument {
    /// Its key.
    pub id: String,
    /// What became of it.
    pub mended: Mended,
}

/// What became of a document that was replayed. It is what the log says now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Mended {
    /// Nothing: it was right.
    Unchanged,
    /// It was there, and was not what the log says.
    Corrected,
    /// It was missing.
    Restored,
    /// It was there, and the log has no event of it: it is deleted now.
    Removed,
    /// It is not there, and the log has no event of it.
    Absent,
}

impl Replay {
    /// Folds the documents of `only` anew from the log, and writes those that are not what they should be, in the version of `view`
    /// that is read. It can be done at any time, beside anything; whatever it is cut off at, each document is as it was or right.
    ///
    /// Where the documents of the view are of one stream each, it reads one partition of the log, else all of it.
    ///
    /// Something unavailable is tried again until `cancel`.
    ///
    /// # Errors
    ///
    /// [`ReplayError`]; some documents may have been written.
    pub async fn run_only(
        &self,
        view: &Arc<dyn ViewDefinition>,
        only: &Only,
        progress: OnProgress<'_>,
        cancel: &CancellationToken,
    ) -> Result<ReplayedOnly, ReplayError> {
        let meter = Meter::new();
        let mut read = persist(progress, cancel, || self.read_version(&**view)).await?;
        for _ in 0..MAX_SWITCHES {
            let identity = || async { Ok(self.log.identity().await?) };
            let mending = Mending {
                replay: self,
                view: &**view,
                collection: read.collection.clone(),
                log: persist(progress, cancel, identity).await?,
                meter: &meter,
                progress,
                cancel,
            };
            let documents = mending.run(only).await?;
            let now = persist(progress, cancel, || self.read_version(&**view)).await?;
            if now.collection == read.collection {
                return Ok(ReplayedOnly {
                    view: view.name().to_owned(),
                    collection: now.collection,
                    number: now.number,
                    events: meter.folded(),
                    documents,
                });
            }
            // Readers were led elsewhere meanwhile: what they see there is looked at too.
            read = now;
        }
        Err(ReplayError::Superseded)
    }

    /// The version of `view` that is read, if it has this program's definition.
    async fn read_version(&self, view: &dyn ViewDefinition) -> Result<Alias, ReplayError> {
        let name = || view.name().to_owned();
        let alias = self.store.load_alias(view.name()).await?;
        let alias = alias.filter(|alias| alias.built);
        let alias = alias.ok_or_else(|| ReplayError::NotBuilt { view: name() })?;
        if alias.fingerprint != view.fingerprint() {
            return Err(ReplayError::OtherDefinition { view: name() });
        }
        Ok(alias)
    }
}

/// Documents of one version, on their way to be right.
struct Mending<'a> {
    replay: &'a Replay,
    view: &'a dyn ViewDefinition,
    collection: String,
    log: LogIdentity,
    meter: &'a Meter,
    progress: OnProgress<'a>,
    cancel: &'a CancellationToken,
}

/// How far the version is that is read.
struct Reached {
    at: HashMap<Partition, Position>,
    parked: HashSet<String>,
    skipped: HashSet<(Partition, Position)>,
}

impl Mending<'_> {
    /// Makes all documents of `only` what they should be.
    async fn run(&self, only: &Only) -> Result<Vec<ReplayedDocument>, ReplayError> {
        let reached = self.reached().await?;
        let keys = self.keys(only, &reached).await?;
        let mut fold = Fold::of(&keys, self.partitions_of(&keys));
        self.fold_to(&mut fold, &reached.at, &reached).await?;
        let mut documents = Vec::with_capacity(keys.len());
        for id in keys {
            let mended = self.mend(&id, &mut fold).await?;
            documents.push(ReplayedDocument { id, mended });
        }
        Ok(documents)
    }

    /// Steps D2 to D4, until the document is right.
    async fn mend(&self, key: &str, fold: &mut Fold) -> Result<Mended, ReplayError> {
        let mut mended = None;
        for _ in 0..MAX_ROUNDS {
            let stored = self.stored(key).await?;
            let reached = self.reached().await?;
            self.fold_to(fold, &reached.at, &reached).await?;
            let expected = self.expected(key, fold, stored.as_ref(), &reached).await?;
            let Some((write, what)) = self.correction(key, stored, expected) else {
                if reached.parked.contains(key) {
                    self.retry(key).await?;
                }
                let was = if fold.document(key).is_some() {
                    Mended::Unchanged
                } else {
                    Mended::Absent
                };
                return Ok(mended.unwrap_or(was));
            };
            let store = &self.replay.store;
            let writes = [write];
            let written =
                self.persist(|| async { Ok(store.write(&self.collection, &writes).await?) });
            if written.await?.contains(&Written::Applied) {
                mended = mended.or(Some(what));
            }
        }
        Err(ReplayError::KeptChanging {
            view: self.view.name().to_owned(),
            document: key.to_owned(),
        })
    }

    /// The document as it should be: up to the checkpoints, and to what `stored` says that it has of what is after them.
    async fn expected(
        &self,
        key: &str,
        fold: &Fold,
        stored: Option<&Document>,
        reached: &Reached,
    ) -> Result<Option<Document>, ReplayError> {
        let applied = stored.iter().flat_map(|document| &document.applied);
        let is_past = |partition: &Partition, position: Position| {
            fold.cursors
                .get(partition)
                .is_some_and(|cursor| position > cursor.position)
        };
        let ahead: HashMap<Partition, Position> = applied
            .filter(|(partition, position)| is_past(partition, **position))
            .map(|(partition, position)| (*partition, *position))
            .collect();
        let mut further = fold.only(key);
        // It ends where the log does, however much a damaged document says that it has.
        self.fold_to(&mut further, &ahead, reached).await?;
        let folded = further.documents.remove(key).flatten();
        match folded {
            Some(Folded {
                unreadable: Some(reason),
                is_known,
                ..
            }) if !is_known || reached.parked.contains(key) => Err(self.set_aside(key, reason)),
            folded => Ok(folded.map(|folded| folded.document)),
        }
    }

    /// What has to be written so that the document is `expected`, and what that makes of it; `None` when it is.
    fn correction(
        &self,
        key: &str,
        stored: Option<Document>,
        expected: Option<Document>,
    ) -> Option<(DocumentWrite, Mended)> {
        match (stored, expected) {
            (None, None) => None,
            (None, Some(expected)) => Some((DocumentWrite::Insert(expected), Mended::Restored)),
            (Some(stored), None) if stored.is_of_no_event() => None,
            (Some(stored), None) => {
                let nothing = Document {
                    id: key.to_owned(),
                    data: serde_json::Map::new(),
                    version: Version::NONE,
                    deleted: true,
                    applied: BTreeMap::new(),
                    ..stored
                };
                Some((DocumentWrite::Replace(nothing), Mended::Removed))
            }
            (Some(stored), Some(expected)) if self.is_same(&stored, &expected) => None,
            (Some(stored), Some(expected)) => {
                let corrected = Document {
                    revision: stored.revision,
                    ..expected
                };
                let mended = if stored.is_of_no_event() {
                    Mended::Restored
                } else {
                    Mended::Corrected
                };
                Some((DocumentWrite::Replace(corrected), mended))
            }
        }
    }

    /// Whether `stored` is `expected`, the revision aside.
    fn is_same(&self, stored: &Document, expected: &Document) -> bool {
        // The last state of a document over several partitions that is deleted depends on their order.
        let hides_data = expected.deleted && self.view.folding() == Folding::ReadAndFold;
        let times = |document: &Document| {
            let Document {
                created_at,
                updated_at,
                ..
            } = document;
            [created_at.timestamp_micros(), updated_at.timestamp_micros()]
        };
        (hides_data || stored.data == expected.data)
            && (stored.version, stored.deleted) == (expected.version, expected.deleted)
            && times(stored) == times(expected)
            && stored.applied == expected.applied
    }

    /// Asks for what was set aside to be tried again, now that the document is right.
    async fn retry(&self, key: &str) -> Result<(), ReplayError> {
        let states: Arc<dyn StateStore> = self.replay.store.clone();
        let operations = Operations::new(&*self.collection, states, self.replay.log.clone());
        self.persist(|| async {
            match operations.retry(key).await {
                // Somebody else did it.
                Ok(_) | Err(OperationError::NotParked { .. }) => Ok(()),
                Err(OperationError::States(error)) => Err(error.into()),
                Err(error) => {
                    // The document is right; the operator sees that something is set aside still.
                    tracing::warn!(document = key, %error, "what was set aside could not be asked for again");
                    Ok(())
                }
            }
        })
        .await
    }

    /// How far the version is now.
    async fn reached(&self) -> Result<Reached, ReplayError> {
        let store = &self.replay.store;
        let states = self.persist(|| async { Ok(store.load_states(&self.collection).await?) });
        let mut reached = Reached {
            at: HashMap::new(),
            parked: HashSet::new(),
            skipped: HashSet::new(),
        };
        for (partition, _, record) in states.await? {
            if record.checkpoint.history != self.log.history {
                return Err(ReplayError::OtherHistory {
                    view: self.view.name().to_owned(),
                });
            }
            let position = record.checkpoint.cursor.position;
            reached.at.insert(partition, position);
            let parked = record.parked.iter().map(|parked| parked.sequence.clone());
            reached.parked.extend(parked);
            let skipped = record.skipped.iter().map(|own| (partition, own.position));
            reached.skipped.extend(skipped);
        }
        self.meter
            .aim_at(reached.at.values().map(|at| at.number()).sum());
        Ok(reached)
    }

    /// The document as it is stored.
    async fn stored(&self, key: &str) -> Result<Option<Document>, ReplayError> {
        let store = &self.replay.store;
        let found = self.persist(|| async { Ok(store.get(&self.collection, &[key]).await?) });
        Ok(found.await?.pop())
    }

    fn set_aside(&self, document: &str, reason: String) -> ReplayError {
        ReplayError::SetAside {
            view: self.view.name().to_owned(),
            document: document.to_owned(),
            reason,
        }
    }

    async fn persist<T, F: Future<Output = Result<T, ReplayError>>>(
        &self,
        step: impl Fn() -> F,
    ) -> Result<T, ReplayError> {
        persist(self.progress, self.cancel, step).await
    }
}

impl Reached {
    fn position(&self, partition: Partition) -> Position {
        self.at.get(&partition).copied().unwrap_or(Position::START)
    }

    fn skips(&self, event: &RecordedEvent) -> bool {
        self.skipped.contains(&(event.partition, event.position))
    }
}
