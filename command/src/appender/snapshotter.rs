//! Taking snapshots, off the way of commands.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidelog_domain::{Decider, Position, StreamId, Version, causes};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::store::{EventStore, MAX_SNAPSHOT_BYTES, Snapshot};

use super::AppenderSettings;
use super::batch::guarded;
use super::cache::Held;
use super::load::payload_bytes;

/// How many states wait to be written at most. What comes when so many wait is left out: the next one will do.
const QUEUE_MAX: usize = 256;

/// How many are written together at most.
const WRITE_MAX: usize = 16;

/// A stream of fewer events than this is not slow to read: the store is.
const SLOW_MIN_EVENTS: u64 = 64;

/// What fails: taking, writing or reading.
const TAKE: &str = "no snapshot can be taken of a state; it is made from its events";
const WRITE: &str = "snapshots cannot be written; states are made from more events";
const READ: &str = "a snapshot cannot be read; its state is made from all events";

/// What became of snapshots since the appender was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotCounts {
    /// Were given to the store, which keeps each unless it has a later one.
    pub written: u64,
    /// Were due and not taken: too many were waiting, or the state is larger than [`MAX_SNAPSHOT_BYTES`].
    pub left_out: u64,
    /// Could not be taken, written or read; the log says why, once for each reason. Commands went on without them.
    pub failed: u64,
}

/// Takes snapshots. Cloning gives another handle.
#[derive(Clone)]
pub(super) struct Snapshotter {
    every_events: u64,
    slow_load: Duration,
    queue: mpsc::Sender<Draft>,
    tally: Arc<Tally>,
}

/// A state that is to be written.
struct Draft {
    stream: StreamId,
    decider: Arc<dyn Decider>,
    held: Held,
}

impl Snapshotter {
    /// Writes to `store` by a task of `tasks`, which ends when the last handle is gone.
    pub(super) fn start(
        store: Arc<dyn EventStore>,
        settings: &AppenderSettings,
        tasks: &TaskTracker,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let tally = Arc::<Tally>::default();
        tasks.spawn(write(store, waiting, Arc::clone(&tally)));
        Self {
            every_events: settings.snapshot_every_events,
            slow_load: Duration::from_millis(settings.snapshot_slow_load_ms),
            queue,
            tally,
        }
    }

    /// What became of those so far.
    pub(super) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// The fingerprint of the snapshots that may be used for the states of `decider`.
    pub(super) fn fingerprint(&self, decider: &dyn Decider) -> Option<Arc<str>> {
        let snapshots = decider.snapshots().filter(|_| self.every_events > 0)?;
        Some(snapshots.fingerprint().into())
    }

    /// Takes a snapshot of a stream that was appended to after `before`, if that made one due.
    pub(super) fn appended(
        &self,
        stream: &StreamId,
        decider: &Arc<dyn Decider>,
        before: Version,
        held: &Held,
    ) {
        let times = |version: Version| version.number().checked_div(self.every_events);
        if times(before) < times(held.version) {
            self.offer(stream, decider, held);
        }
    }

    /// Takes a snapshot of a stream if one is due after `events` of its events were read and reading took so long.
    pub(super) fn loaded(
        &self,
        stream: &StreamId,
        decider: &Arc<dyn Decider>,
        held: &Held,
        events: u64,
        took: Duration,
    ) {
        let is_slow = took >= self.slow_load && events >= SLOW_MIN_EVENTS;
        if self.every_events > 0 && (events >= self.every_events || is_slow) {
            self.offer(stream, decider, held);
        }
    }

    /// Gives a state that is in the log to the task, unless that has enough to do.
    fn offer(&self, stream: &StreamId, decider: &Arc<dyn Decider>, held: &Held) {
        if decider.snapshots().is_none() {
            return;
        }
        let draft = Draft {
            stream: stream.clone(),
            decider: Arc::clone(decider),
            held: held.clone(),
        };
        if self.queue.try_send(draft).is_err() {
            self.tally.left_out();
        }
    }

    /// What is known of a stream from its snapshot, unless that cannot be read.
    pub(super) fn thaw(
        &self,
        decider: &dyn Decider,
        snapshot: &Snapshot,
        position: Position,
    ) -> Option<Held> {
        let snapshots = decider.snapshots()?;
        match guarded(|| snapshots.thaw(&snapshot.state)) {
            Ok(Ok(state)) => Some(Held {
                version: snapshot.version,
                position,
                last: Some(snapshot.event_id),
                state,
                bytes: payload_bytes(&snapshot.state),
            }),
            // The error is not said, as it may quote the state.
            Ok(Err(_)) | Err(_) => {
                let why = format_args!("that of {}", snapshot.stream);
                self.tally.failed(READ, decider.category(), &why);
                None
            }
        }
    }
}

/// Writes what comes, until nobody can send any more. What then is left is given up when the store fails.
async fn write(store: Arc<dyn EventStore>, mut waiting: mpsc::Receiver<Draft>, tally: Arc<Tally>) {
    let mut drafts = Vec::with_capacity(WRITE_MAX);
    while waiting.recv_many(&mut drafts, WRITE_MAX).await > 0 {
        // Of a stream that is there twice, one is enough.
        let frozen = drafts.drain(..).filter_map(|draft| draft.freeze(&tally));
        let latest: BTreeMap<StreamId, Snapshot> = frozen
            .map(|snapshot| (snapshot.stream.clone(), snapshot))
            .collect();
        let snapshots: Vec<_> = latest.into_values().collect();
        match store.keep_snapshots(&snapshots).await {
            Ok(()) => tally.written(snapshots.len()),
            Err(error) => {
                tally.failed(WRITE, "", &causes(&error));
                if waiting.is_closed() {
                    return;
                }
            }
        }
    }
}

impl Draft {
    /// The snapshot, unless the state cannot be one.
    fn freeze(self, tally: &Tally) -> Option<Snapshot> {
        let snapshots = self.decider.snapshots()?;
        let category = self.decider.category();
        let frozen = guarded(|| snapshots.freeze(&self.held.state));
        let frozen = frozen.and_then(|frozen| frozen.map_err(|error| error.to_string()));
        let state = frozen
            .inspect_err(|why| tally.failed(TAKE, category, why))
            .ok()?;
        if state.as_bytes().len() > MAX_SNAPSHOT_BYTES {
            tally.left_out();
            return None;
        }
        Some(Snapshot {
            version: self.held.version,
            event_id: self.held.last?,
            fingerprint: snapshots.fingerprint().into(),
            state,
            stream: self.stream,
        })
    }
}

/// Counts what becomes of snapshots.
#[derive(Default)]
pub(super) struct Tally {
    written: AtomicU64,
    left_out: AtomicU64,
    failed: AtomicU64,
    /// What failed, for which aggregate, and was said: not again.
    said: Mutex<HashSet<(&'static str, String)>>,
}

impl Tally {
    /// The numbers so far.
    pub(super) fn counts(&self) -> SnapshotCounts {
        SnapshotCounts {
            written: self.written.load(Ordering::Relaxed),
            left_out: self.left_out.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    /// So many were written. When that fails again, it is said again.
    fn written(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.written.fetch_add(count, Ordering::Relaxed);
        self.said().remove(&(WRITE, String::new()));
    }

    fn left_out(&self) {
        self.left_out.fetch_add(1, Ordering::Relaxed);
    }

    /// Something failed, with states of the aggregate `category`. It is said the first time.
    fn failed(&self, what: &'static str, category: &str, why: &dyn Display) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        if self.said().insert((what, category.to_owned())) {
            tracing::warn!(category, why = %why, "{what}");
        }
    }

    fn said(&self) -> MutexGuard<'_, HashSet<(&'static str, String)>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
