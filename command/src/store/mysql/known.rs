//! What this process knows of the log: so that most appends need not ask for versions, and a log that went back in time is noticed.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use moka::sync::Cache;
use tidelog_domain::{
    Append, Cursor, ExpectedVersion, HistoryId, Partition, Partitions, Position, RecordedEvent,
    StreamId, StreamWrite, Version,
};

use super::super::failure::Failure;
use super::super::keys::Keys;
use super::super::plan::{Place, Plan, Taint};

/// For how many batches after a conflict the versions are asked for, and after a head was moved by another process the heads:
/// both come in bursts, and each one that is found too late costs a transaction.
const WARY_BATCHES: u32 = 32;

/// The heads of some partitions.
pub(super) type Heads = BTreeMap<Partition, Head>;

/// Where a partition ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The position of its next event.
    pub(super) next: Position,
    /// When its last event was recorded.
    pub(super) recorded_at: DateTime<Utc>,
}

/// The last event that was seen in a partition.
#[derive(Clone, Copy, Debug)]
struct Seen {
    cursor: Cursor,
    recorded_at: DateTime<Utc>,
    /// Whether this process wrote it, by a session that is still there, at a later time than that of the event before it. Then no
    /// other event at its position has its time: whoever writes one there after a restore does so later.
    is_told_by_time: bool,
}

/// What is known of the log. It may lag behind the log, but was true once.
#[derive(Debug)]
pub(super) struct Known {
    /// The versions of streams that were appended to or read lately.
    versions: Cache<StreamId, Version>,
    /// The last event that was seen in each partition.
    seen: Vec<Mutex<Option<Seen>>>,
    /// Whether the versions are asked for.
    wary: Wariness,
    /// Whether the heads are asked for.
    wary_of_heads: Wariness,
    /// The history of the log that all of this is known of.
    history: Mutex<HistoryId>,
    /// How that log was found to have lost events, if it was.
    diverged: Mutex<Option<Failure>>,
}

impl Known {
    /// Nothing yet of the log of `history`; remembers the versions of at most `streams` streams.
    pub(super) fn new(partitions: Partitions, streams: u64, history: HistoryId) -> Self {
        Self {
            versions: Cache::new(streams),
            seen: partitions.iter().map(|_| Mutex::new(None)).collect(),
            wary: Wariness::default(),
            wary_of_heads: Wariness::default(),
            history: Mutex::new(history),
            diverged: Mutex::new(None),
        }
    }

    /// The plan of `batch` when what is known decides all of it, and every append happens.
    ///
    /// A stream that is not known but is expected to have no event is taken at its word: its first version cannot leave a gap, and
    /// the unique key finds it when it is there. So it does with a key that was used.
    pub(super) fn plan<'a>(
        &self,
        batch: &'a [Append],
        partitions: Partitions,
        taint: &Taint,
    ) -> Option<Plan<'a>> {
        if self.wary.is_there() {
            return None;
        }
        // A key that is not recorded has no row that the unique key could find: it is asked for.
        let only_asks = |append: &Append| append.key.is_some_and(|key| !key.records);
        if batch.iter().any(only_asks) {
            return None;
        }
        let mut versions = HashMap::new();
        for write in batch.iter().flat_map(|append| &append.writes) {
            if write.events.is_empty() {
                return None;
            }
            if !versions.contains_key(&write.stream) {
                versions.insert(&write.stream, self.version(write)?);
            }
        }
        let plan = Plan::new(batch, partitions, versions, &Keys::new(), taint.clone());
        Some(plan).filter(Plan::accepts_all)
    }

    /// The version of the stream of `write`, as far as it is known.
    fn version(&self, write: &StreamWrite) -> Option<Version> {
        let expects_none = matches!(
            write.expected,
            ExpectedVersion::NoStream | ExpectedVersion::Exact(Version::NONE)
        );
        self.versions
            .get(&write.stream)
            .or_else(|| expects_none.then_some(Version::NONE))
    }

    /// The last event that was seen in `partition`.
    pub(super) fn seen(&self, partition: Partition) -> Option<Cursor> {
        self.seen
            .get(partition.index())
            .and_then(|seen| *unpoisoned(seen))
            .map(|seen| seen.cursor)
    }

    /// The heads of `partitions`, when this process was the last that moved them, as far as it knows.
    ///
    /// A partition whose head is where this says, position and time, still has the event that was seen last in it.
    pub(super) fn heads<'a>(
        &self,
        partitions: impl IntoIterator<Item = &'a Partition>,
    ) -> Option<Heads> {
        if self.wary_of_heads.is_there() {
            return None;
        }
        let head = |partition: &Partition| {
            let seen = *unpoisoned(self.seen.get(partition.index())?);
            let seen = seen.filter(|seen| seen.is_told_by_time)?;
            let head = Head {
                next: seen.cursor.position.next(),
                recorded_at: seen.recorded_at,
            };
            Some((*partition, head))
        };
        partitions.into_iter().map(head).collect()
    }

    /// `plan` was committed at `places`.
    pub(super) fn committed(&self, plan: &Plan<'_>, places: &BTreeMap<Partition, Place>) {
        for row in &plan.rows {
            self.is_at(row.stream, row.version);
            let is_last = plan.counts.get(&row.partition) == Some(&(row.offset + 1));
            if let (true, Some(place)) = (is_last, places.get(&row.partition)) {
                let cursor = Cursor::at(place.base.plus(row.offset), row.event.id);
                self.saw(row.partition, cursor, place.recorded_at, Some(place.base));
            }
        }
    }

    /// `events` were read.
    pub(super) fn read<'a>(&self, events: impl IntoIterator<Item = &'a RecordedEvent>) {
        for event in events {
            self.saw(event.partition, event.cursor(), event.recorded_at, None);
        }
    }

    /// The event at `cursor` was seen in `partition`; when this process wrote it, then by a batch that began at `written_from`.
    fn saw(
        &self,
        partition: Partition,
        cursor: Cursor,
        recorded_at: DateTime<Utc>,
        written_from: Option<Position>,
    ) {
        let Some(seen) = self.seen.get(partition.index()) else {
            return;
        };
        let mut seen = unpoisoned(seen);
        if seen.is_none_or(|seen| seen.cursor.position < cursor.position) {
            let is_later = |before: Seen| {
                Some(before.cursor.position.next()) == written_from
                    && before.recorded_at < recorded_at
            };
            *seen = Some(Seen {
                cursor,
                recorded_at,
                is_told_by_time: seen.is_some_and(is_later),
            });
        }
    }

    /// There is a new session. Maybe its server is another, or has other data: no head is taken to be where it was.
    pub(super) fn ask_for_heads(&self) {
        for seen in &self.seen {
            if let Some(seen) = unpoisoned(seen).as_mut() {
                seen.is_told_by_time = false;
            }
        }
    }

    /// `stream` is at `version`, or further.
    pub(super) fn is_at(&self, stream: &StreamId, version: Version) {
        if version > Version::NONE
            && self
                .versions
                .get(stream)
                .is_none_or(|known| known < version)
        {
            self.versions.insert(stream.clone(), version);
        }
    }

    /// A conflict was found: ask for the versions for a while.
    pub(super) fn be_wary(&self) {
        self.wary.begin();
    }

    /// A batch that asked for its versions had no conflict.
    pub(super) fn be_less_wary(&self) {
        self.wary.lessen();
    }

    /// A head was not where it was known to be: ask for the heads for a while.
    pub(super) fn be_wary_of_heads(&self) {
        self.wary_of_heads.begin();
    }

    /// A batch asked for its heads.
    pub(super) fn be_less_wary_of_heads(&self) {
        self.wary_of_heads.lessen();
    }

    /// The history of the log that all of this is known of.
    pub(super) fn history(&self) -> HistoryId {
        *unpoisoned(&self.history)
    }

    /// How the log lost events, if it was found to.
    pub(super) fn diverged(&self) -> Option<Failure> {
        unpoisoned(&self.diverged).clone()
    }

    /// The log lost events: nothing is appended until it has a new history.
    pub(super) fn set_diverged(&self, how: Failure) {
        *unpoisoned(&self.diverged) = Some(how);
    }

    /// The log has the history `history`. When that is a new one, nothing is known of it.
    ///
    /// The history changes before what was known of the old one goes: who finds the same history before a look at the
    /// versions and after one at the events has looked at one log.
    pub(super) fn begin(&self, history: HistoryId) {
        let before = std::mem::replace(&mut *unpoisoned(&self.history), history);
        if before == history {
            return;
        }
        self.versions.invalidate_all();
        for seen in &self.seen {
            *unpoisoned(seen) = None;
        }
        *unpoisoned(&self.diverged) = None;
    }
}

/// For how many more batches it is better to ask.
#[derive(Debug, Default)]
struct Wariness(AtomicU32);

impl Wariness {
    fn is_there(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn begin(&self) {
        self.0.store(WARY_BATCHES, Ordering::Relaxed);
    }

    fn lessen(&self) {
        let less = |left: u32| left.checked_sub(1);
        // Nothing to do where it is 0.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// The value behind `mutex`, which no panic can leave half changed.
fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
