//! Comparing what was built with a fold of the log that has nothing in common with the projector: no batches, no conditions, no
//! cache.
//!
//! A pass folds the documents whose keys fall into one of `k` parts, by their hash, so that what is in memory at once is bounded; a full
//! comparison is `k` passes over the log, a sample is one of them.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidelog_domain::{Cursor, Folding, Partition, Position, RecordedEvent, ViewDefinition};
use twox_hash::XxHash64;
use uuid::Uuid;

use super::fold::{self, Folded};
use super::run::Run;
use super::{ReplayError, ReplayProgress};
use crate::store::{Document, Place, Query, ReadError};

/// How many documents a pass holds in memory, about.
const PASS_MAX_DOCUMENTS: u64 = 100_000;

/// How many documents are read at once.
const READ_DOCUMENTS: usize = 1_000;

/// How many of the documents that differ are named.
const MAX_NAMED: usize = 20;

/// How what was built is compared before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Not at all.
    Nothing,
    /// The documents of both versions are counted, which decides nothing: they may differ for good reasons.
    Counts,
    /// About so many documents, drawn anew each time, are compared with a fold of the log, which is read once more for it. A
    /// document that should not be there is not found.
    Sample(u32),
    /// All documents are compared with a fold of the log, which is read once more for every 100,000 of them.
    Full,
}

impl Compare {
    /// Whether it is a comparison with a fold of the log.
    pub(super) const fn reads_the_log(self) -> bool {
        matches!(self, Self::Sample(_) | Self::Full)
    }
}

/// What a comparison with a fold of the log came to, when nothing differed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// How many documents were compared, tombstones included.
    pub documents: u64,
    /// The hash of all of them, in hexadecimal: the same of what is stored and of the fold.
    pub hash: String,
    /// How many were left out, because they are set aside.
    pub left_out: u64,
}

/// What a comparison found.
#[derive(Default)]
struct Findings {
    documents: u64,
    hash: u64,
    /// How many of those that were looked for are there.
    stored: u64,
    left_out: u64,
    differing: u64,
    named: Vec<String>,
}

impl Findings {
    fn differs(&mut self, id: &str) {
        self.differing += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push(id.to_owned());
        }
    }
}

/// Which documents are compared: those whose hash leaves `rest` when divided by `parts`.
#[derive(Clone, Copy)]
struct Part {
    parts: u64,
    rest: u64,
}

impl Part {
    fn has(self, key: &str) -> bool {
        XxHash64::oneshot(0, key.as_bytes()) % self.parts == self.rest
    }
}

/// What the documents must be, by key.
type Expected = HashMap<String, Folded>;

/// What is built, as it stands while nobody works on it.
struct Built {
    /// Its checkpoints, by partition.
    at: Vec<Position>,
    /// The documents that are set aside.
    parked: HashSet<String>,
    /// How many documents it has, tombstones included.
    documents: u64,
}

impl Run<'_> {
    /// Compares what is built with a fold of the log, as [`ReplayOptions::compare`](super::ReplayOptions::compare) says.
    pub(super) async fn verify(&self) -> Result<Compared, ReplayError> {
        let per_pass = match self.replay.options.compare {
            Compare::Sample(documents) => u64::from(documents),
            _ => PASS_MAX_DOCUMENTS,
        };
        let built = self.persist(|| self.built()).await?;
        let parts = built
            .documents
            .div_ceil(per_pass.clamp(1, PASS_MAX_DOCUMENTS))
            .max(1);
        let passes = match self.replay.options.compare {
            Compare::Full => 0..parts,
            _ => {
                let drawn = Uuid::now_v7().as_u64_pair().1 % parts;
                drawn..drawn + 1
            }
        };
        let is_all = passes.end - passes.start == parts;
        let log = built.at.iter().map(|at| at.number()).sum::<u64>();
        self.meter
            .compare(log.saturating_mul(passes.end - passes.start));
        let mut found = Findings::default();
        for rest in passes {
            let part = Part { parts, rest };
            let expected = self.folded(part, &built).await?;
            self.compare(expected, &built, &mut found).await?;
        }
        if is_all {
            self.find_strangers(&built, &mut found).await?;
        }
        self.meter.build_on();
        if found.differing > 0 {
            return Err(ReplayError::Differs {
                documents: found.documents,
                differing: found.differing,
                named: found.named,
            });
        }
        Ok(Compared {
            documents: found.documents,
            hash: format!("{:016x}", found.hash),
            left_out: found.left_out,
        })
    }

    /// What there is to be compared.
    async fn built(&self) -> Result<Built, ReplayError> {
        let store = &self.replay.store;
        let collection = &self.claim.building.collection;
        let documents = self.stored().await?;
        let states = store.load_states(collection).await?;
        let at = states.iter().map(|(.., record)| record);
        let parked = states.iter().flat_map(|(.., record)| record.parked.iter());
        Ok(Built {
            at: at.map(|record| record.checkpoint.cursor.position).collect(),
            parked: parked.map(|parked| parked.sequence.clone()).collect(),
            documents,
        })
    }

    /// How many documents are stored, tombstones included: counted page by page where the store would take too long over all at once.
    async fn stored(&self) -> Result<u64, ReplayError> {
        let mut everything = Query {
            deleted: true,
            limit: READ_DOCUMENTS,
            ..Query::default()
        };
        let collection = &self.claim.building.collection;
        let store = &self.replay.store;
        match store.count(collection, &everything).await {
            Err(ReadError::TooSlow(_)) => {}
            counted => return Ok(counted?),
        }
        let mut counted = 0;
        loop {
            let page = store.find(collection, &everything).await?;
            let Some(last) = page.last() else {
                return Ok(counted);
            };
            counted += u64::try_from(page.len()).unwrap_or(u64::MAX);
            everything.after = Some(Place::behind(&last.id));
        }
    }

    /// The documents of `part` as the log makes them, up to where `built` is.
    async fn folded(&self, part: Part, built: &Built) -> Result<Expected, ReplayError> {
        let most = usize::try_from(PASS_MAX_DOCUMENTS * 2).unwrap_or(usize::MAX);
        let mut expected = Expected::new();
        for (partition, at) in (0..).map(Partition::new).zip(built.at.iter().copied()) {
            let mut cursor = Cursor::START;
            while cursor.position < at {
                let log = &self.replay.log;
                let limit = self.replay.options.page_max_events;
                let page = self.persist(|| async { Ok(log.read(partition, cursor, limit).await?) });
                let page = page.await?;
                let Some(last) = page.last() else { break };
                cursor = last.cursor();
                let events = page.iter().take_while(|event| event.position <= at);
                for event in events.filter(|event| self.view.filter().matches(event)) {
                    apply(&**self.view, event, part, &built.parked, &mut expected);
                }
                self.meter.compared(page.len());
                (self.progress)(ReplayProgress::Comparing(self.meter.progress()));
                if expected.len() > most {
                    // What is built has far fewer: that is found out at the first of them.
                    return Ok(expected);
                }
            }
        }
        Ok(expected)
    }

    /// Compares what is stored of `expected`.
    async fn compare(
        &self,
        expected: Expected,
        built: &Built,
        found: &mut Findings,
    ) -> Result<(), ReplayError> {
        let store = &self.replay.store;
        let collection = &self.claim.building.collection;
        let ids: Vec<&str> = expected.keys().map(String::as_str).collect();
        for ids in ids.chunks(READ_DOCUMENTS) {
            let stored = self.persist(|| async { Ok(store.get(collection, ids).await?) });
            let stored = stored.await?.into_iter();
            let stored: HashMap<String, Document> =
                stored.map(|doc| (doc.id.clone(), doc)).collect();
            for id in ids {
                let hash = stored.get(*id).map(|doc| self.hash(doc));
                let wanted = expected.get(*id).filter(|folded| folded.is_known);
                let wanted = wanted.map(|folded| self.hash(&folded.document));
                found.stored += u64::from(hash.is_some());
                // Who was thought dead has written what comes after the checkpoints.
                if stored.get(*id).is_some_and(|doc| is_ahead(doc, built)) {
                    found.left_out += 1;
                    continue;
                }
                found.documents += 1;
                match (hash, wanted) {
                    (Some(stored), Some(wanted)) if stored == wanted => found.hash ^= stored,
                    _ => found.differs(id),
                }
            }
        }
        Ok(())
    }

    /// Finds documents that should not be there, when all that should have been compared.
    async fn find_strangers(&self, built: &Built, found: &mut Findings) -> Result<(), ReplayError> {
        let store = &self.replay.store;
        let collection = &self.claim.building.collection;
        let parked: Vec<&str> = built.parked.iter().map(String::as_str).collect();
        let mut set_aside = 0;
        for ids in parked.chunks(READ_DOCUMENTS) {
            let stored = self.persist(|| async { Ok(store.get(collection, ids).await?) });
            set_aside += stored.await?.len();
        }
        let set_aside = u64::try_from(set_aside).unwrap_or(u64::MAX);
        found.left_out += set_aside;
        let known = found.stored.saturating_add(set_aside);
        let stored = self.persist(|| self.stored()).await?;
        let mut strangers = stored.saturating_sub(known);
        if strangers > 0 {
            strangers = strangers.saturating_sub(self.persist(|| self.of_no_event()).await?);
        }
        if strangers > 0 {
            found.differing += strangers;
            found
                .named
                .push(format!("({strangers} that should not be there)"));
        }
        Ok(())
    }

    /// How many documents stand, deleted, where some were found that no event had made.
    async fn of_no_event(&self) -> Result<u64, ReplayError> {
        let collection = &self.claim.building.collection;
        let mut everything = Query {
            deleted: true,
            limit: READ_DOCUMENTS,
            ..Query::default()
        };
        let mut found = 0;
        loop {
            let page = self.replay.store.find(collection, &everything).await?;
            let Some(last) = page.last() else {
                return Ok(found);
            };
            everything.after = Some(Place::behind(&last.id));
            found += page
                .iter()
                .filter(|doc| doc.is_of_no_event())
                .fold(0, |n, _| n + 1);
        }
    }

    /// The hash of all of `document` that must be equal.
    fn hash(&self, document: &Document) -> u64 {
        // The last state of a document over several partitions that is deleted depends on their order.
        let is_hidden = document.deleted && self.view.folding() == Folding::ReadAndFold;
        let mut text = String::new();
        canonical(&Value::String(document.id.clone()), &mut text);
        if !is_hidden {
            object(&document.data, &mut text);
        }
        let Document {
            version,
            created_at,
            updated_at,
            deleted,
            ..
        } = document;
        let (created, updated) = (created_at.timestamp_micros(), updated_at.timestamp_micros());
        text.push_str(&format!(
            "{deleted},{},{created},{updated}",
            version.number()
        ));
        XxHash64::oneshot(0, text.as_bytes())
    }
}

/// Folds `event` into the documents of `part` that it touches.
fn apply(
    view: &dyn ViewDefinition,
    event: &RecordedEvent,
    part: Part,
    parked: &HashSet<String>,
    expected: &mut Expected,
) {
    // An event of which it cannot be told what it touches is set aside by its stream, or the replay would not have come so far.
    let Ok(keys) = fold::keys(view, event) else {
        return;
    };
    for key in keys {
        if !part.has(&key) || parked.contains(&key) {
            continue;
        }
        let before = expected.remove(&key);
        let after = fold::next(view, before, &key, event);
        expected.insert(key, after);
    }
}

/// Whether `document` has an event that comes after the checkpoints.
fn is_ahead(document: &Document, built: &Built) -> bool {
    document.applied.iter().any(|(partition, applied)| {
        let at = built.at.get(partition.index()).copied();
        *applied > at.unwrap_or(Position::START)
    })
}

/// The JSON of `value`, the names of each object in order.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => object(map, text),
        Value::Array(items) => {
            text.push('[');
            for item in items {
                canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

fn object(map: &Map<String, Value>, text: &mut String) {
    let sorted: BTreeMap<&String, &Value> = map.iter().collect();
    text.push('{');
    for (name, value) in sorted {
        canonical(&Value::String(name.clone()), text);
        text.push(':');
        canonical(value, text);
        text.push(',');
    }
    text.push('}');
}
