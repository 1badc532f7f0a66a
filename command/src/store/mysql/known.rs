//! What this process knows of the log: so that most appends need not ask for versions, and a log that went back in time is noticed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use moka::sync::Cache;
use tidelog_domain::{
    Append, Cursor, ExpectedVersion, HistoryId, Partition, Partitions, RecordedEvent, StreamId,
    StreamWrite, Version,
};

use super::super::failure::Failure;
use super::super::keys::Keys;
use super::super::plan::{Place, Plan, Taint};

/// For how many batches after a conflict the versions are asked for: conflicts come in bursts, and each one that is found
/// too late costs a transaction.
const WARY_BATCHES: u32 = 32;

/// What is known of the log. It may lag behind the log, but was true once.
#[derive(Debug)]
pub(super) struct Known {
    /// The versions of streams that were appended to or read lately.
    versions: Cache<StreamId, Version>,
    /// The last event that was seen in each partition.
    seen: Vec<Mutex<Option<Cursor>>>,
    /// How many more batches ask for the versions.
    wary: AtomicU32,
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
            wary: AtomicU32::new(0),
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
        if self.wary.load(Ordering::Relaxed) > 0 {
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
    }

    /// `plan` was committed at `places`.
    pub(super) fn committed(
        &self,
        plan: &Plan<'_>,
        places: &std::collections::BTreeMap<Partition, Place>,
    ) {
        for row in &plan.rows {
            self.is_at(row.stream, row.version);
            if let Some(place) = places.get(&row.partition) {
                let position = place.base.plus(row.offset);
                self.saw(row.partition, Cursor::at(position, row.event.id));
            }
        }
    }

    /// `events` were read.
    pub(super) fn read(&self, events: &[RecordedEvent]) {
        for event in events {
            self.saw(event.partition, event.cursor());
        }
    }

    /// The event at `cursor` was seen in `partition`.
    pub(super) fn saw(&self, partition: Partition, cursor: Cursor) {
        if let Some(seen) = self.seen.get(partition.index()) {
            let mut seen = unpoisoned(seen);
            if seen.is_none_or(|seen| seen.position < cursor.position) {
                *seen = Some(cursor);
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
        self.wary.store(WARY_BATCHES, Ordering::Relaxed);
    }

    /// A batch that asked for its versions had no conflict.
    pub(super) fn be_less_wary(&self) {
        let less = |wary: u32| wary.checked_sub(1);
        // Nothing to do where it is 0.
        let _ = self
            .wary
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
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

/// The value behind `mutex`, which no panic can leave half changed.
fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
