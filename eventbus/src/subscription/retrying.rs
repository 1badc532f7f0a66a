//! When what was set aside is tried again, and what of it: page by page, between live batches.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use chrono::Utc;
use tidelog_domain::{Cursor, Position, RecordedEvent};
use tokio::time::Instant;
use uuid::Uuid;

use super::work::{LOG_BEHIND, Leave, Work};
use crate::failure::{FailureKind, FailurePolicy};
use crate::parking::{Parked, ParkedSequence, ParkedState};
use crate::state::Ask;

/// The longest wait for the next try.
const LONGEST_DELAY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// When sequences that are set aside are tried again, and what is being tried.
#[derive(Default)]
pub(super) struct Retries {
    /// When each that waits for its next try is due.
    due: HashMap<String, Instant>,
    /// What is being tried.
    run: Option<Run>,
}

/// Going through the log with some sequences.
pub(super) struct Run {
    /// Those that are tried.
    pub(super) members: BTreeSet<String>,
    /// Everything up to here was looked at.
    pub(super) after: Position,
    /// What comes after that, as far as it was read.
    pub(super) page: VecDeque<RecordedEvent>,
    /// How many events are given to the handler at once: more and more while that goes well.
    pub(super) size: usize,
    /// The event to pass over, if somebody asked for that.
    pub(super) skip: Option<Skip>,
    /// The requests that are done when it ends.
    pub(super) requests: Vec<Uuid>,
    /// How many events it handled.
    pub(super) handled: usize,
}

/// An event is to be passed over.
pub(super) struct Skip {
    /// The sequence that waits at it.
    pub(super) sequence: String,
    /// Where it is.
    pub(super) position: Position,
    /// Why.
    pub(super) reason: String,
}

impl Retries {
    /// Has `sequences` tried again by the policy, after `attempts` of them; unless they are parked now.
    pub(super) fn schedule(
        &mut self,
        sequences: &[String],
        kind: FailureKind,
        policy: &FailurePolicy,
        attempts: u32,
    ) {
        let delay = match kind {
            FailureKind::RetryAfter(delay) => delay,
            _ => policy.delay(attempts),
        };
        let delay = delay.min(LONGEST_DELAY);
        for sequence in sequences {
            self.due.insert(sequence.clone(), Instant::now() + delay);
        }
    }

    /// When one of what is set aside is due; never where it waits for an operator, or for another one.
    fn due(
        &mut self,
        own: &ParkedSequence,
        parked: &Parked,
        policy: &FailurePolicy,
        now: Instant,
    ) -> Option<Instant> {
        match &own.state {
            ParkedState::Parked => None,
            ParkedState::Retrying => {
                let due = self.due.entry(own.sequence.clone());
                // Another process set it aside: its clock is not ours.
                Some(*due.or_insert_with(|| {
                    let wanted = own.not_before.map(|at| (at - Utc::now()).to_std());
                    let delay = wanted.map(Result::unwrap_or_default);
                    let delay = delay.unwrap_or_else(|| policy.delay(own.attempts));
                    now + delay.min(LONGEST_DELAY)
                }))
            }
            // Should what it waits for be gone, it goes on.
            ParkedState::Waiting { .. } => (!parked.waits_for_another(own)).then_some(now),
        }
    }
}

impl Work {
    /// When something is to be tried again; never where nothing is.
    pub(super) fn retry_at(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let is_open = |id| !self.progress.done.contains(id);
        let is_asked = self.lease.requests().iter().any(|own| is_open(&own.id));
        if self.retries.run.is_some() || is_asked {
            return Some(now);
        }
        if self.progress.parked.is_empty() {
            return None;
        }
        let policy = &self.running.options.policy;
        let (parked, retries) = (&self.progress.parked, &mut self.retries);
        let times = parked
            .iter()
            .filter_map(|own| retries.due(own, parked, policy, now));
        times.min()
    }

    /// Tries some of what is due or asked for again, if anything is.
    pub(super) async fn retry_some(&mut self) -> Result<(), Leave> {
        let due = self.retry_at();
        let now = Instant::now();
        if due.is_none_or(|due| due > now) {
            return Ok(());
        }
        let Some(mut run) = self.retries.run.take().or_else(|| self.begin_run(now)) else {
            // Only requests that cannot be followed.
            return self.write_checkpoint().await;
        };
        let end = self.progress.cursor.position;
        if run.page.is_empty() && !run.members.is_empty() && run.after < end {
            let from = Cursor {
                position: run.after,
                event_id: None,
            };
            run.page = self.read_log(from).await?.into();
        }
        let is_missing = run.page.is_empty();
        self.try_page(&mut run, end).await?;
        if run.members.is_empty() || run.after >= end {
            self.end_run(run);
        } else {
            self.retries.run = Some(run);
            if is_missing {
                // The log had more than this: what reads it from the checkpoint finds out.
                self.pause_for(LOG_BEHIND).await?;
            }
        }
        self.write_checkpoint().await
    }

    /// What is due or asked for; nothing when that is nothing.
    fn begin_run(&mut self, now: Instant) -> Option<Run> {
        let mut run = Run {
            members: BTreeSet::new(),
            after: Position::START,
            page: VecDeque::new(),
            size: 1,
            skip: None,
            requests: Vec::new(),
            handled: 0,
        };
        let requests = self.lease.requests().to_vec();
        for request in requests {
            if self.progress.done.contains(&request.id) {
                continue;
            }
            let parked = &self.progress.parked;
            match request.what {
                Ask::RetryAll => run
                    .members
                    .extend(parked.iter().map(|own| own.sequence.clone())),
                Ask::Retry { sequence } if parked.get(&sequence).is_some() => {
                    run.members.insert(sequence);
                }
                // One at a time; the others come after it.
                Ask::Skip { .. } if run.skip.is_some() => continue,
                Ask::Skip {
                    sequence,
                    position,
                    reason,
                } if parked
                    .get(&sequence)
                    // The place after its last one may be an event of another sequence.
                    .is_some_and(|own| own.first == position && own.first_is_known()) =>
                {
                    run.members.insert(sequence.clone());
                    run.skip = Some(Skip {
                        sequence,
                        position,
                        reason,
                    });
                }
                // It is free already, or its first event is another one by now.
                Ask::Retry { .. } | Ask::Skip { .. } => {
                    self.progress.done.push(request.id);
                    continue;
                }
            }
            run.requests.push(request.id);
        }
        let policy = &self.running.options.policy;
        let parked = &self.progress.parked;
        for own in parked.iter() {
            let due = self.retries.due(own, parked, policy, now);
            if due.is_some_and(|due| due <= now) {
                run.members.insert(own.sequence.clone());
                // Should the try not come to an end, the next one is not at once.
                let delay = policy.delay(own.attempts.saturating_add(1));
                let next = now + delay.min(LONGEST_DELAY);
                self.retries.due.insert(own.sequence.clone(), next);
            }
        }
        let firsts = run.members.iter().filter_map(|name| {
            let own: &ParkedSequence = self.progress.parked.get(name)?;
            Some(own.first.number())
        });
        match firsts.min() {
            Some(first) => {
                run.after = Position::new(first.saturating_sub(1));
                Some(run)
            }
            None => {
                self.progress.done.extend(run.requests);
                None
            }
        }
    }

    /// The run has come to where the subscription is, or none of its sequences can go on.
    fn end_run(&mut self, run: Run) {
        if let Some(skip) = &run.skip {
            tracing::warn!(
                subscription = %self.running.records.subscription, partition = %self.partition, position = %skip.position,
                "an event was not skipped as somebody asked: it waits behind another sequence, which is to be retried or skipped first"
            );
        }
        if !run.members.is_empty() {
            tracing::info!(
                subscription = %self.running.records.subscription, partition = %self.partition,
                sequences = ?run.members, events = run.handled,
                "sequences that were set aside have caught up"
            );
        }
        self.progress.parked.set_free(&run.members);
        self.progress.done.extend(run.requests);
        let parked = &self.progress.parked;
        self.retries
            .due
            .retain(|name, _| parked.get(name).is_some());
    }
}
