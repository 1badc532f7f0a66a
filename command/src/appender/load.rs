//! Loads the states that a batch is decided on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tidelog_domain::{
    Decider, DecodeError, Lifecycle, Loading, Payload, Position, RecordedEvent, StreamId, Version,
};
use tidelog_eventbus::Retry;

use crate::store::{AppendError, EventStore, ReadFrom, Snapshot, StreamPage, StreamRead};

use super::batch::guarded;
use super::cache::{Held, StateCache};
use super::error::CommandError;
use super::snapshotter::Snapshotter;
use super::work::{Job, Target};

/// How many events are read at once at most, over all streams of a batch. Longer streams take several reads.
const LOAD_MAX_EVENTS: usize = 16 * 1024;

/// What a batch knows of a stream.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// Its state, and what that knowledge rests on.
    State(Held, Basis),
    /// It could not be read.
    Failed(LoadFailure),
}

/// What the knowledge of a stream rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Basis {
    /// It was read from the log within this batch.
    Read,
    /// It was cached, or is taken to be new, or an append of this batch is still to make it true.
    Presumed,
}

/// Why a stream could not be read. Several commands may have to be told.
#[derive(Clone, Debug)]
pub(super) enum LoadFailure {
    Store(Arc<AppendError>),
    Unreadable {
        event: Box<RecordedEvent>,
        source: Arc<DecodeError>,
    },
    Defect(String),
}

impl LoadFailure {
    /// What a command that needs the stream is answered.
    pub(super) fn to_error(&self) -> CommandError {
        match self {
            Self::Store(error) => match error.as_ref() {
                AppendError::Diverged => CommandError::Diverged,
                AppendError::Corrupt { what } => CommandError::Corrupt { what: what.clone() },
                _ => CommandError::Unavailable(Arc::clone(error) as _),
            },
            Self::Unreadable { event, source } => CommandError::Unreadable {
                stream: event.stream.clone(),
                version: event.version,
                partition: event.partition,
                position: event.position,
                event_type: Arc::clone(&event.event_type),
                source: Arc::clone(source),
            },
            Self::Defect(what) => CommandError::defect(what.clone()),
        }
    }
}

/// A stream that is being read.
struct Reading {
    stream: StreamId,
    decider: Arc<dyn Decider>,
    held: Held,
    /// How many events were read, those before a snapshot aside.
    events: u64,
    /// The fingerprint of the snapshot that reading may begin at.
    snapshot: Option<Arc<str>>,
}

/// What is known of the streams of `jobs`: from the cache, else from the log, in one read for all.
///
/// A stream that a command is to create is taken to be new without a look: the append finds out. A command that is
/// decided again (those come first) gets what the log has.
pub(super) async fn load(
    jobs: &[Job],
    store: &dyn EventStore,
    cache: &StateCache,
    snapshotter: &Snapshotter,
) -> HashMap<StreamId, Known> {
    let mut known = HashMap::with_capacity(jobs.len());
    let mut reading: HashMap<&StreamId, Reading> = HashMap::new();
    for job in jobs {
        for target in &job.work.targets {
            if known.contains_key(&target.stream) || reading.contains_key(&target.stream) {
                continue;
            }
            match presumed(job, target, cache) {
                Some(held) => {
                    known.insert(target.stream.clone(), Known::State(held, Basis::Presumed));
                }
                None => {
                    let snapshot = snapshotter.fingerprint(target.decider.as_ref());
                    reading.insert(&target.stream, Reading::new(target, snapshot));
                }
            }
        }
    }
    for (stream, found) in read(reading.into_values().collect(), store, snapshotter).await {
        if let Known::State(held, _) = &found
            && held.version > Version::NONE
        {
            cache.keep(stream.clone(), held.clone());
        }
        known.insert(stream, found);
    }
    known
}

/// What can be said of a target without a look into the log.
fn presumed(job: &Job, target: &Target, cache: &StateCache) -> Option<Held> {
    if job.attempts > 0 {
        return None;
    }
    cache.get(&target.stream).or_else(|| {
        let new = target.required == Lifecycle::Missing;
        new.then(|| Held::nothing(target.decider.as_ref()))
    })
}

/// Reads streams from the log, all at once, and folds them.
async fn read(
    mut reading: Vec<Reading>,
    store: &dyn EventStore,
    snapshotter: &Snapshotter,
) -> Vec<(StreamId, Known)> {
    let begin = Instant::now();
    let mut found = Vec::with_capacity(reading.len());
    // Each round takes at least one event further (or finds out once that a snapshot cannot be read), and a stream has an end.
    while !reading.is_empty() {
        let limit = (LOAD_MAX_EVENTS / reading.len()).max(1);
        let reads: Vec<StreamRead> = reading.iter().map(Reading::next).collect();
        let pages = match store.read_streams(&reads, limit).await {
            Ok(pages) => pages,
            Err(error) if error.retry() == Retry::Never && reading.len() > 1 => {
                // One stream that cannot be read spoils no other.
                for one in reading {
                    found.extend(Box::pin(read(vec![one], store, snapshotter)).await);
                }
                return found;
            }
            Err(error) => {
                let error = Arc::new(error);
                found.extend(reading.into_iter().map(|one| {
                    let failure = LoadFailure::Store(Arc::clone(&error));
                    (one.stream, Known::Failed(failure))
                }));
                return found;
            }
        };
        let mut more = Vec::new();
        for (mut one, page) in reading.into_iter().zip(pages) {
            let StreamPage { snapshot, events } = page;
            if !one.resume(snapshot, snapshotter) {
                more.push(one);
                continue;
            }
            let stream = one.stream.clone();
            let ended = one.decider.loading() == Loading::LastEvent || events.len() < limit;
            match one.fold(&events) {
                Err(failure) => found.push((stream, Known::Failed(failure))),
                Ok(one) if ended => {
                    let (events, took) = (one.events, begin.elapsed());
                    snapshotter.loaded(&stream, &one.decider, &one.held, events, took);
                    found.push((stream, Known::State(one.held, Basis::Read)));
                }
                Ok(one) => more.push(one),
            }
        }
        reading = more;
    }
    found
}

/// The state that `target` had at `version`, from the log.
pub(super) async fn at(
    target: &Target,
    version: Version,
    store: &dyn EventStore,
) -> Result<Held, CommandError> {
    let mut reading = Reading::new(target, None);
    if target.decider.loading() == Loading::LastEvent {
        reading.held.version = Version::new(version.number().saturating_sub(1));
    }
    // Each round takes at least one event further.
    while reading.held.version < version {
        let next = StreamRead {
            stream: target.stream.clone(),
            from: ReadFrom::After(reading.held.version),
        };
        let left = version.number() - reading.held.version.number();
        let limit = usize::try_from(left).map_or(LOAD_MAX_EVENTS, |left| left.min(LOAD_MAX_EVENTS));
        let read = store.read_streams(&[next], limit).await;
        let events = read
            .map_err(|error| LoadFailure::Store(Arc::new(error)).to_error())?
            .pop()
            .unwrap_or_default()
            .events;
        if events.is_empty() {
            return Err(CommandError::Corrupt {
                what: format!(
                    "{} has no event {version}, which it had once",
                    target.stream
                ),
            });
        }
        reading = reading
            .fold(&events)
            .map_err(|failure| failure.to_error())?;
    }
    Ok(reading.held)
}

impl Reading {
    fn new(target: &Target, snapshot: Option<Arc<str>>) -> Self {
        Self {
            stream: target.stream.clone(),
            decider: Arc::clone(&target.decider),
            held: Held::nothing(target.decider.as_ref()),
            events: 0,
            snapshot,
        }
    }

    /// What is to be read next.
    fn next(&self) -> StreamRead {
        StreamRead {
            stream: self.stream.clone(),
            from: match (self.decider.loading(), &self.snapshot) {
                (Loading::LastEvent, _) => ReadFrom::Last,
                (Loading::AllEvents, Some(fingerprint)) => {
                    ReadFrom::Snapshot(Arc::clone(fingerprint))
                }
                (Loading::AllEvents, None) => ReadFrom::After(self.held.version),
            },
        }
    }

    /// Goes on from a snapshot, if there is one. False if it cannot be read: then what comes after it is of no use either, and
    /// reading begins at the first event.
    fn resume(
        &mut self,
        snapshot: Option<(Snapshot, Position)>,
        snapshotter: &Snapshotter,
    ) -> bool {
        self.snapshot = None;
        let Some((snapshot, position)) = snapshot else {
            return true;
        };
        match snapshotter.thaw(self.decider.as_ref(), &snapshot, position) {
            Some(held) => {
                self.held = held;
                true
            }
            None => false,
        }
    }

    /// Takes `events` into the state.
    fn fold(mut self, events: &[RecordedEvent]) -> Result<Self, LoadFailure> {
        self.events += u64::try_from(events.len()).unwrap_or(u64::MAX);
        for event in events {
            let Held { state, bytes, .. } = self.held;
            let evolved = guarded(|| {
                let (kind, shape) = (&event.event_type, event.schema_version);
                self.decider.evolve(state, kind, shape, &event.payload)
            });
            let state = evolved.map_err(LoadFailure::Defect)?;
            self.held = Held {
                version: event.version,
                position: event.position,
                last: Some(event.id),
                state: state.map_err(|source| LoadFailure::Unreadable {
                    event: Box::new(event.clone()),
                    source: Arc::new(source),
                })?,
                bytes,
            };
            self.held.weigh(self.decider.as_ref(), &event.payload);
        }
        Ok(self)
    }
}

/// The bytes of a payload, as far as they can be counted.
pub(super) fn payload_bytes(payload: &Payload) -> u32 {
    u32::try_from(payload.as_bytes().len()).unwrap_or(u32::MAX)
}
