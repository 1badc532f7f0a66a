//! What becomes of a batch, given the versions that its streams have: pure, and the same for every adapter.
//!
//! An adapter asks for the versions (under the locks that keep them from changing), makes a [`Plan`], writes its rows
//! from the heads of the partitions on, and [settles](Plan::settle) it with the places that the rows got.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use tidelog_domain::{
    Append, Appended, ExpectedVersion, NewEvent, Partition, Partitions, Position, StreamId, Version,
};

use super::AppendError;
use super::keys::{KeyRow, Keys, Recorded, ScopedKey};

/// The most bytes that one event may have, name, payload and metadata together: 512 KiB.
pub const MAX_EVENT_BYTES: usize = 512 * 1024;

/// The most bytes that one append may have: 4 MiB. It must fit into one packet of the database with room to spare.
pub const MAX_APPEND_BYTES: usize = 4 * 1024 * 1024;

/// The most bytes that the name of an event may have.
pub const MAX_EVENT_TYPE_BYTES: usize = 128;

/// The streams of appends that were turned down: what was decided on them did not happen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taint(HashSet<StreamId>);

impl Taint {
    /// The first stream of `append` that it expects at an exact version, and that is tainted.
    fn of<'a>(&self, append: &'a Append) -> Option<&'a StreamId> {
        let decided_on = append
            .writes
            .iter()
            .filter(|write| matches!(write.expected, ExpectedVersion::Exact(_)));
        decided_on
            .map(|write| &write.stream)
            .find(|stream| self.0.contains(*stream))
    }

    /// `appends` were turned down.
    pub(crate) fn spread<'a>(&mut self, appends: impl IntoIterator<Item = &'a Append>) {
        let writes = appends.into_iter().flat_map(|append| &append.writes);
        self.0.extend(writes.map(|write| write.stream.clone()));
    }
}

/// One event and where it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    /// The partition of its stream.
    pub(crate) partition: Partition,
    /// How far it is from the partition's next position, from 0.
    pub(crate) offset: u64,
    /// Its stream.
    pub(crate) stream: &'a StreamId,
    /// Its version.
    pub(crate) version: Version,
    /// The event.
    pub(crate) event: &'a NewEvent,
}

/// Where the rows of a partition begin, and when they were recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The position of the row with offset 0.
    pub(crate) base: Position,
    /// The time of all rows.
    pub(crate) recorded_at: DateTime<Utc>,
}

/// What becomes of each append of a batch.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The events of the appends that happen, in order; within a partition by offset.
    pub(crate) rows: Vec<Row<'a>>,
    /// How many rows each partition gets.
    pub(crate) counts: BTreeMap<Partition, u64>,
    /// What is recorded under the keys of the appends that happen, in the order of the keys: everybody locks them in this one.
    pub(crate) keys: BTreeMap<ScopedKey, KeyRow>,
    /// What is tainted after this batch.
    pub(crate) taint: Taint,
    verdicts: Vec<Result<Vec<Planned>, AppendError>>,
}

/// What becomes of one write.
#[derive(Debug)]
struct Planned {
    stream: StreamId,
    partition: Partition,
    version: Version,
    last_offset: Option<u64>,
}

impl<'a> Plan<'a> {
    /// Looks at the appends in order, each on the result of those before it; `versions` has the versions of the streams
    /// in the log, [`Version::NONE`] for those that it leaves out; `used` has what the log has under the batch's keys.
    pub(crate) fn new(
        batch: &'a [Append],
        partitions: Partitions,
        versions: HashMap<&'a StreamId, Version>,
        used: &Keys,
        taint: Taint,
    ) -> Self {
        let mut plan = Self {
            rows: Vec::new(),
            counts: BTreeMap::new(),
            keys: BTreeMap::new(),
            taint,
            verdicts: Vec::with_capacity(batch.len()),
        };
        let mut versions = versions;
        for append in batch {
            let verdict = plan
                .replay(append, used)
                .or_else(|| plan.turn_down(append, &versions));
            match verdict {
                Some(error) => {
                    plan.taint.spread([append]);
                    plan.verdicts.push(Err(error));
                }
                None => {
                    let planned = plan.accept(append, partitions, &mut versions);
                    plan.record(append, &planned);
                    plan.verdicts.push(Ok(planned));
                }
            }
        }
        plan
    }

    /// What the key of `append` says, when it was used before: in the log, or earlier in the batch.
    fn replay(&self, append: &Append, used: &Keys) -> Option<AppendError> {
        let key = append.key?.key;
        let row = used
            .get(&key.scoped)
            .or_else(|| self.keys.get(&key.scoped))?;
        Some(row.verdict(&key))
    }

    /// Keeps what is recorded under the key of `append`.
    fn record(&mut self, append: &Append, planned: &[Planned]) {
        let Some(key) = append.key.filter(|key| key.records) else {
            return;
        };
        let streams = planned.iter();
        let recorded = Recorded {
            streams: streams
                .map(|planned| (planned.stream.clone(), planned.version))
                .collect(),
            appended: append.events() > 0,
        };
        let row = KeyRow {
            fingerprint: key.key.fingerprint,
            recorded,
        };
        self.keys.insert(key.key.scoped, row);
    }

    /// Why `append` does not happen, if it does not.
    fn turn_down(
        &self,
        append: &Append,
        versions: &HashMap<&StreamId, Version>,
    ) -> Option<AppendError> {
        if let Err(reason) = admissible(append) {
            return Some(AppendError::Unwritable { reason });
        }
        if let Some(stream) = self.taint.of(append) {
            return Some(AppendError::Superseded {
                stream: stream.clone(),
            });
        }
        append.writes.iter().find_map(|write| {
            let actual = versions.get(&write.stream).copied().unwrap_or_default();
            (!write.expected.allows(actual)).then(|| AppendError::Conflict {
                stream: write.stream.clone(),
                actual,
            })
        })
    }

    /// Gives the events of `append` their versions and offsets.
    fn accept(
        &mut self,
        append: &'a Append,
        partitions: Partitions,
        versions: &mut HashMap<&'a StreamId, Version>,
    ) -> Vec<Planned> {
        let mut planned = Vec::with_capacity(append.writes.len());
        for write in &append.writes {
            let partition = write.stream.partition(partitions);
            let version = versions.entry(&write.stream).or_default();
            let mut last_offset = None;
            for event in &write.events {
                let count = self.counts.entry(partition).or_default();
                *version = version.next();
                last_offset = Some(*count);
                self.rows.push(Row {
                    partition,
                    offset: *count,
                    stream: &write.stream,
                    version: *version,
                    event,
                });
                *count += 1;
            }
            planned.push(Planned {
                stream: write.stream.clone(),
                partition,
                version: *version,
                last_offset,
            });
        }
        planned
    }

    /// Whether there is nothing to write.
    #[cfg(feature = "mysql")]
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.keys.is_empty()
    }

    /// Whether every append happens.
    #[cfg(feature = "mysql")]
    pub(crate) fn accepts_all(&self) -> bool {
        self.verdicts.iter().all(Result::is_ok)
    }

    /// Whether a stream was not at the version expected.
    #[cfg(feature = "mysql")]
    pub(crate) fn has_conflict(&self) -> bool {
        let conflict = |verdict| matches!(verdict, &Err(AppendError::Conflict { .. }));
        self.verdicts.iter().any(conflict)
    }

    /// The result of the batch, now that its rows are in the log at `places`.
    pub(crate) fn settle(
        self,
        places: &BTreeMap<Partition, Place>,
    ) -> Vec<Result<Vec<Appended>, AppendError>> {
        let settle_one = |planned: Planned| {
            let place = planned
                .last_offset
                .and_then(|offset| Some((offset, places.get(&planned.partition)?)));
            Appended {
                stream: planned.stream,
                partition: planned.partition,
                version: planned.version,
                position: place.map(|(offset, place)| place.base.plus(offset)),
                recorded_at: place.map(|(_, place)| place.recorded_at),
            }
        };
        self.verdicts
            .into_iter()
            .map(|verdict| verdict.map(|planned| planned.into_iter().map(settle_one).collect()))
            .collect()
    }
}

/// The error of each append when the transaction of their batch failed: `failure`, but an append that can never be
/// written stays unwritable.
pub(crate) fn fail_all<T>(
    batch: &[Append],
    failure: impl Fn() -> AppendError,
) -> Vec<Result<T, AppendError>> {
    let verdict = |append| match admissible(append) {
        Ok(()) => failure(),
        Err(reason) => AppendError::Unwritable { reason },
    };
    batch.iter().map(|append| Err(verdict(append))).collect()
}

/// The partitions whose heads must be locked: those of each append that has events, its checks included.
pub(crate) fn partitions_to_lock(batch: &[Append], partitions: Partitions) -> BTreeSet<Partition> {
    batch
        .iter()
        .filter(|append| append.events() > 0)
        .flat_map(|append| &append.writes)
        .map(|write| write.stream.partition(partitions))
        .collect()
}

/// The streams that `batch` names, each once, in order.
pub(crate) fn streams(batch: &[Append]) -> BTreeSet<&StreamId> {
    batch
        .iter()
        .flat_map(|append| &append.writes)
        .map(|write| &write.stream)
        .collect()
}

/// Whether `append` can be written at all, or why not.
fn admissible(append: &Append) -> Result<(), String> {
    let mut named = HashSet::new();
    let mut writes = append.writes.iter();
    if append.writes.len() > 1
        && let Some(twice) = writes.find(|write| !named.insert(&write.stream))
    {
        return Err(format!(
            "the stream {} is named by two of its writes",
            twice.stream
        ));
    }
    for event in append.writes.iter().flat_map(|write| &write.events) {
        let name = event.event_type.len();
        if name == 0 || name > MAX_EVENT_TYPE_BYTES {
            return Err(format!(
                "the name of an event has {name} bytes; 1 to {MAX_EVENT_TYPE_BYTES} are allowed"
            ));
        }
        if event.size() > MAX_EVENT_BYTES {
            return Err(format!(
                "an event has {} bytes; at most {MAX_EVENT_BYTES} are allowed",
                event.size()
            ));
        }
    }
    if append.size() > MAX_APPEND_BYTES {
        return Err(format!(
            "its events have {} bytes together; at most {MAX_APPEND_BYTES} are allowed",
            append.size()
        ));
    }
    Ok(())
}
