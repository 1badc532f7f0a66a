//! One batch: decides commands in order, each on its predecessor's result, and sorts out what became of them.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tidelog_domain::{
    Append, Appended, Context, EventDraft, EventId, ExpectedVersion, Lifecycle, NewEvent,
    Partition, Partitions, Position, State, StreamId, StreamWrite, Version,
};
use uuid::Uuid;

use crate::store::{AppendError, MAX_APPEND_BYTES, MAX_EVENT_BYTES};

use super::MAX_ATTEMPTS;
use super::cache::{Held, StateCache};
use super::error::CommandError;
use super::load::{Basis, Known};
use super::replay::Replay;
use super::snapshotter::Snapshotter;
use super::work::{Job, Outcome, Reply, StreamOutcome, Target};

/// The commands of one transaction, decided but not yet appended.
pub(super) struct Batch {
    partitions: Partitions,
    max_bytes: usize,
    now: DateTime<Utc>,
    known: HashMap<StreamId, Known>,
    appends: Vec<Append>,
    /// One item an append, in their order.
    pending: Vec<Pending>,
    /// What did not fit, in order.
    left_over: Vec<Job>,
    bytes: usize,
}

/// The commands whose append is under way, and what to answer when it happens.
pub(super) struct Pending {
    job: Job,
    verdict: Verdict,
}

/// What a decision came to, provided that what it rests on holds.
enum Verdict {
    /// The streams are in these states afterwards.
    Done {
        /// Their versions before it.
        before: Vec<Version>,
        after: Vec<Held>,
        appended: bool,
    },
    /// Nothing happens.
    Refused(CommandError),
}

/// What a decision gives for each target, in their order: the events, and the stream after them.
type Changes = Vec<(Vec<NewEvent>, Held)>;

/// What became of a batch.
#[derive(Default)]
pub(super) struct Settled {
    /// The commands that are to be decided again, in order; then those that did not fit.
    pub(super) again: Vec<Job>,
    /// How far the partitions are that were appended to.
    pub(super) heads: BTreeMap<Partition, Position>,
    /// How many events were appended.
    pub(super) events: u64,
}

impl Batch {
    /// An empty batch on what is `known` of the streams of its commands, decided at `now`. It takes commands until it has
    /// `max_bytes`.
    pub(super) const fn new(
        known: HashMap<StreamId, Known>,
        partitions: Partitions,
        max_bytes: usize,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            partitions,
            max_bytes,
            now,
            known,
            appends: Vec::new(),
            pending: Vec::new(),
            left_over: Vec::new(),
            bytes: 0,
        }
    }

    /// Decides a command. It is answered at once if that rests on nothing but what the log just said.
    pub(super) fn decide(&mut self, job: Job) {
        if self.bytes >= self.max_bytes {
            self.left_over.push(job);
            return;
        }
        let (held, read) = match self.held(&job.work.targets) {
            Ok(held) => held,
            Err(error) => return job.answer(Err(error)),
        };
        let decided = judge(&job, &held, self.now).and_then(|drafts| changes(&job, &held, drafts));
        let verdict = match decided {
            Ok(changes) if changes.iter().any(|(events, _)| !events.is_empty()) => {
                return self.append(job, &held, changes);
            }
            Ok(_) if creates(&job) => {
                let what = "a command that creates decided on no event".to_owned();
                Verdict::Refused(CommandError::defect(what))
            }
            Ok(_) => Verdict::Done {
                before: versions(&held),
                after: held.clone(),
                appended: false,
            },
            Err(error) => Verdict::Refused(error),
        };
        // What a key was used for comes before what the command would do now.
        if read && job.work.key.is_none() {
            self.answer(job, verdict);
        } else {
            self.check(job, &held, verdict);
        }
    }

    /// What is known of the targets, and whether all of it was just read from the log.
    fn held(&self, targets: &[Target]) -> Result<(Vec<Held>, bool), CommandError> {
        let mut read = true;
        let held = targets
            .iter()
            .map(|target| match self.known.get(&target.stream) {
                Some(Known::State(held, basis)) => {
                    read &= *basis == Basis::Read;
                    Ok(held.clone())
                }
                Some(Known::Failed(failure)) => Err(failure.to_error()),
                None => Err(CommandError::defect(format!(
                    "the store did not answer for {}",
                    target.stream
                ))),
            });
        Ok((held.collect::<Result<_, _>>()?, read))
    }

    /// The command has events: later ones of the batch are decided on what they make of the streams.
    fn append(&mut self, job: Job, before: &[Held], changes: Changes) {
        let mut writes = Vec::with_capacity(changes.len());
        let mut after = Vec::with_capacity(changes.len());
        for ((target, before), (events, held)) in job.work.targets.iter().zip(before).zip(changes) {
            if !events.is_empty() {
                let presumed = Known::State(held.clone(), Basis::Presumed);
                self.known.insert(target.stream.clone(), presumed);
            }
            writes.push(at_version(target, before, events));
            after.push(held);
        }
        let append = Append {
            writes,
            key: job.key(true),
        };
        self.bytes += append.size();
        self.appends.push(append);
        let verdict = Verdict::Done {
            before: versions(before),
            after,
            appended: true,
        };
        self.pending.push(Pending { job, verdict });
    }

    /// The command appends nothing, which is answered once the versions that it was decided on are known to be the log's.
    fn check(&mut self, job: Job, held: &[Held], verdict: Verdict) {
        let checks = job.work.targets.iter().zip(held);
        let writes = checks.map(|(target, held)| at_version(target, held, Vec::new()));
        // A command that changes nothing is recorded; one that is turned down is decided again.
        let records = matches!(verdict, Verdict::Done { .. });
        self.appends.push(Append {
            writes: writes.collect(),
            key: job.key(records),
        });
        self.pending.push(Pending { job, verdict });
    }

    /// Takes the appends out, to give them to the store.
    pub(super) fn take_appends(&mut self) -> Arc<[Append]> {
        std::mem::take(&mut self.appends).into()
    }

    /// Answers the commands by what became of their appends.
    pub(super) fn settle(
        mut self,
        results: Vec<Result<Vec<Appended>, AppendError>>,
        cache: &StateCache,
        snapshotter: &Snapshotter,
    ) -> Settled {
        let mut settled = Settled::default();
        for (pending, result) in std::mem::take(&mut self.pending).into_iter().zip(results) {
            match result {
                Ok(appended) => {
                    let pending = self.happened(pending, &appended, cache, &mut settled.heads);
                    settled.events += pending.count_events();
                    pending.take_snapshots(snapshotter);
                    self.answer(pending.job, pending.verdict);
                }
                Err(error) => settled.again.extend(turned_down(pending.job, error, cache)),
            }
        }
        settled.again.append(&mut self.left_over);
        settled
    }

    /// The append of a command happened, or its check held.
    fn happened(
        &mut self,
        Pending { job, mut verdict }: Pending,
        appended: &[Appended],
        cache: &StateCache,
        heads: &mut BTreeMap<Partition, Position>,
    ) -> Pending {
        if let Verdict::Done { after, .. } = &mut verdict {
            for (held, appended) in after.iter_mut().zip(appended) {
                let Some(position) = appended.position else {
                    // Nothing of its own: the position is that of the last event, maybe of this very batch.
                    held.position = self.position(&appended.stream).unwrap_or(held.position);
                    continue;
                };
                held.position = position;
                if let Some(Known::State(known, _)) = self.known.get_mut(&appended.stream) {
                    known.position = position;
                }
                heads.insert(appended.partition, position);
                cache.keep(appended.stream.clone(), held.clone());
            }
        }
        Pending { job, verdict }
    }

    fn position(&self, stream: &StreamId) -> Option<Position> {
        match self.known.get(stream) {
            Some(Known::State(held, _)) => Some(held.position),
            _ => None,
        }
    }

    fn answer(&self, job: Job, verdict: Verdict) {
        let (after, appended) = match verdict {
            Verdict::Done {
                after, appended, ..
            } => (after, appended),
            Verdict::Refused(error) => return job.answer(Err(error)),
        };
        let streams = job.work.targets.iter().zip(after);
        let streams = streams.map(|(target, held)| StreamOutcome {
            stream: target.stream.clone(),
            partition: target.stream.partition(self.partitions),
            version: held.version,
            position: held.position,
            state: held.state,
        });
        let outcome = Outcome {
            streams: streams.collect(),
            appended,
            replayed: false,
        };
        job.answer(Ok(Reply::Done(outcome)));
    }
}

impl Pending {
    /// How many events it appended, which its span tells too.
    fn count_events(&self) -> u64 {
        let Verdict::Done {
            before,
            after,
            appended: true,
        } = &self.verdict
        else {
            return 0;
        };
        let of_each = before.iter().zip(after);
        let of_each =
            of_each.map(|(before, after)| after.version.number().saturating_sub(before.number()));
        let events = of_each.sum();
        self.job.span.record("events", events);
        events
    }

    /// Has snapshots taken of what is in the log now, where they are due.
    fn take_snapshots(&self, snapshotter: &Snapshotter) {
        if let Verdict::Done { before, after, .. } = &self.verdict {
            for ((target, before), after) in self.job.work.targets.iter().zip(before).zip(after) {
                snapshotter.appended(&target.stream, &target.decider, *before, after);
            }
        }
    }
}

/// The versions of streams.
fn versions(held: &[Held]) -> Vec<Version> {
    held.iter().map(|held| held.version).collect()
}

/// Whether the command makes an aggregate, which takes an event.
fn creates(job: &Job) -> bool {
    let mut targets = job.work.targets.iter();
    targets.any(|target| target.required == Lifecycle::Missing)
}

/// A write to a target that is expected at the version that was decided on.
fn at_version(target: &Target, held: &Held, events: Vec<NewEvent>) -> StreamWrite {
    StreamWrite {
        stream: target.stream.clone(),
        expected: ExpectedVersion::Exact(held.version),
        events,
    }
}

/// The append of a command did not happen. Gives the command back if it is to be decided again.
fn turned_down(mut job: Job, error: AppendError, cache: &StateCache) -> Option<Job> {
    match &error {
        AppendError::Conflict { .. } | AppendError::Superseded { .. } | AppendError::InDoubt(_) => {
            for target in &job.work.targets {
                cache.forget(&target.stream);
            }
        }
        AppendError::Diverged => cache.forget_all(),
        _ => {}
    }
    let (stream, actual) = match error {
        AppendError::Conflict { stream, actual } => (stream, Some(actual)),
        AppendError::Superseded { stream } => (stream, None),
        AppendError::Replayed(recorded) => {
            let targets = std::mem::take(&mut job.work.targets);
            job.answer(Ok(Reply::Before(Replay { targets, recorded })));
            return None;
        }
        error => {
            job.answer(Err(error.into()));
            return None;
        }
    };
    let unexpected = actual.filter(|actual| {
        let mut targets = job.work.targets.iter();
        targets.any(|target| target.stream == stream && !target.precondition.holds(*actual))
    });
    if let Some(actual) = unexpected {
        job.answer(Err(CommandError::PreconditionFailed { stream, actual }));
        return None;
    }
    job.attempts += 1;
    if job.attempts >= MAX_ATTEMPTS {
        let attempts = job.attempts;
        job.answer(Err(CommandError::Conflict { stream, attempts }));
        return None;
    }
    Some(job)
}

/// Decides a command on the states of its targets: first whether it may be decided at all.
fn judge(
    job: &Job,
    held: &[Held],
    now: DateTime<Utc>,
) -> Result<Vec<Vec<EventDraft>>, CommandError> {
    let refused = |target: &Target, refusal| CommandError::Refused {
        stream: target.stream.clone(),
        refusal,
    };
    let targets = &job.work.targets;
    for (target, held) in targets.iter().zip(held) {
        let admitted = held.state.admit(target.required);
        admitted.map_err(|refusal| refused(target, refusal))?;
    }
    for (target, held) in targets.iter().zip(held) {
        if !target.precondition.holds(held.version) {
            return Err(CommandError::PreconditionFailed {
                stream: target.stream.clone(),
                actual: held.version,
            });
        }
    }
    let states: Vec<&State> = held.iter().map(|held| &held.state).collect();
    let context = Context::new(job.work.command_id, now, job.work.metadata.clone());
    let decided = guarded(|| job.work.decide.decide(&states, &context));
    match (decided.map_err(CommandError::defect)?, targets.first()) {
        (Err(refusal), Some(first)) => Err(refused(first, refusal)),
        (Ok(drafts), _) if drafts.len() == targets.len() => Ok(drafts),
        _ => Err(CommandError::defect(
            "a decision did not name its streams".to_owned(),
        )),
    }
}

/// What the drafts make of the targets.
fn changes(
    job: &Job,
    held: &[Held],
    drafts: Vec<Vec<EventDraft>>,
) -> Result<Changes, CommandError> {
    let targets = job.work.targets.iter().zip(held).zip(drafts);
    let changes: Changes = targets
        .map(|((target, held), drafts)| change(job, target, held, drafts))
        .collect::<Result<_, _>>()?;
    let events = changes.iter().flat_map(|(events, _)| events);
    let bytes = events.map(NewEvent::size).sum();
    match job.work.targets.first() {
        Some(first) if bytes > MAX_APPEND_BYTES => Err(CommandError::TooLarge {
            stream: first.stream.clone(),
            bytes,
            limit: MAX_APPEND_BYTES,
        }),
        _ => Ok(changes),
    }
}

/// What the drafts make of one target.
fn change(
    job: &Job,
    target: &Target,
    before: &Held,
    drafts: Vec<EventDraft>,
) -> Result<(Vec<NewEvent>, Held), CommandError> {
    let mut after = before.clone();
    let mut events = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let event = NewEvent {
            id: EventId::new(Uuid::now_v7()),
            event_type: draft.event_type,
            schema_version: draft.schema_version,
            payload: draft.payload,
            metadata: job.metadata.clone(),
        };
        if event.size() > MAX_EVENT_BYTES {
            return Err(CommandError::TooLarge {
                stream: target.stream.clone(),
                bytes: event.size(),
                limit: MAX_EVENT_BYTES,
            });
        }
        let evolved = guarded(|| {
            let (kind, shape) = (&event.event_type, event.schema_version);
            target
                .decider
                .evolve(after.state, kind, shape, &event.payload)
        });
        let state = evolved.map_err(CommandError::defect)?;
        after = Held {
            version: after.version.next(),
            last: Some(event.id),
            state: state.map_err(|error| {
                CommandError::defect(format!(
                    "{} cannot read its own event: {error}",
                    target.stream
                ))
            })?,
            ..after
        };
        after.weigh(target.decider.as_ref(), &event.payload);
        events.push(event);
    }
    Ok((events, after))
}

/// Runs an aggregate's own code, whose panic must not end the lane.
pub(super) fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        format!(
            "an aggregate panicked: {}",
            text.unwrap_or("without a text")
        )
    })
}
