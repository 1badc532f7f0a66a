//! Trying again what was set aside: page by page, between live batches.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tidelog_domain::{Cursor, Position, RecordedEvent, causes};
use tokio::time::Instant;
use uuid::Uuid;

use super::delivery::sequences;
use super::work::{LOG_BEHIND, Leave, Work};
use crate::failure::{FailureKind, FailurePolicy};
use crate::parking::{Parked, ParkedSequence, ParkedState, Step, Why};
use crate::state::Ask;

/// How many events are tried again at a time, at most, before the live ones have their turn.
const MAX_TRIED_AT_ONCE: usize = 100;

/// When sequences that are set aside are tried again, and what is being tried.
#[derive(Default)]
pub(super) struct Retries {
    /// When each that waits for its next try is due.
    due: HashMap<String, Instant>,
    /// What is being tried.
    run: Option<Run>,
}

/// Going through the log with some sequences.
struct Run {
    /// Those that are tried.
    members: BTreeSet<String>,
    /// Everything up to here was looked at.
    after: Position,
    /// The event to pass over, and why.
    skip: Option<(Position, String)>,
    /// The requests that are done when it ends.
    requests: Vec<Uuid>,
    /// How many events it handled.
    handled: usize,
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
                Some(*due.or_insert_with(|| now + policy.delay(own.attempts)))
            }
            ParkedState::Waiting { behind } => {
                let waits = *behind != own.sequence && parked.get(behind).is_some();
                // What it waits for is gone.
                (!waits).then_some(now)
            }
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
        let from = Cursor {
            position: run.after,
            event_id: None,
        };
        let page = if run.members.is_empty() || run.after >= end {
            Vec::new()
        } else {
            self.read_log(from).await?
        };
        let enough = run.handled + MAX_TRIED_AT_ONCE;
        for event in page.iter().filter(|event| event.position <= end) {
            if run.members.is_empty() || run.handled >= enough {
                break;
            }
            self.try_again(&mut run, event).await?;
            run.after = event.position;
        }
        if run.members.is_empty() || run.after >= end {
            self.end_run(run);
        } else {
            self.retries.run = Some(run);
            if page.is_empty() {
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
                    .is_some_and(|own| own.first == position) =>
                {
                    run.members.insert(sequence);
                    run.skip = Some((position, reason));
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
                let next = now + policy.delay(own.attempts.saturating_add(1));
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
        if let Some((position, _)) = &run.skip {
            tracing::warn!(
                subscription = %self.running.records.subscription, partition = %self.partition, %position,
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

    /// Tries one event again, if it belongs to what is being tried.
    async fn try_again(&mut self, run: &mut Run, event: &RecordedEvent) -> Result<(), Leave> {
        let running = Arc::clone(&self.running);
        let names = match sequences(&*running.handler, event) {
            Ok(None) => return Ok(()),
            Ok(Some(names)) => names,
            Err(failure) => {
                // Whose it is cannot be told: nobody may pass it.
                let names: Vec<_> = run.members.iter().cloned().collect();
                let why = self.why(FailureKind::Park, causes(&failure), 0);
                self.tell_set_aside(event, &names, &why);
                let parked = &mut self.progress.parked;
                parked.failed(&mut run.members, event.position, &names, &why);
                return Ok(());
            }
        };
        let parked = &mut self.progress.parked;
        if parked.step(&mut run.members, event.position, &names) != Step::Apply {
            return Ok(());
        }
        run.handled += 1;
        if let Some((_, reason)) = run.skip.take_if(|(at, _)| *at == event.position) {
            // Written before it has an effect, so that only the owner does it, and whoever takes over cannot but do it too.
            self.write_checkpoint().await?;
            while let Err(error) = running.handler.skip(event).await {
                self.back_off(&causes(&error)).await?;
            }
            self.progress.parked.applied(event.position, &names);
            self.pass_over(event, &names, reason);
            // Written before a later event is applied: then nobody tries any more what was passed over.
            return self.write_checkpoint().await;
        }
        match self.try_until_known(event).await? {
            None => self.progress.parked.applied(event.position, &names),
            Some((kind, reason)) => {
                let tried = names
                    .iter()
                    .filter_map(|name| self.progress.parked.get(name));
                let attempts = tried.map(|own| own.attempts).max().unwrap_or(0);
                let why: Why = self.why(kind, reason, attempts);
                self.tell_set_aside(event, &names, &why);
                let attempts = attempts.saturating_add(1);
                self.retries
                    .schedule(&names, kind, &running.options.policy, attempts);
                let parked = &mut self.progress.parked;
                parked.failed(&mut run.members, event.position, &names, &why);
            }
        }
        Ok(())
    }

    /// Handles one event, waiting for what is unavailable; says why, if it cannot be handled.
    async fn try_until_known(
        &mut self,
        event: &RecordedEvent,
    ) -> Result<Option<(FailureKind, String)>, Leave> {
        let running = Arc::clone(&self.running);
        let policy = &running.options.policy;
        loop {
            let (kind, reason) = match self.handle(std::slice::from_ref(event)).await {
                Ok(handled) => {
                    let mut handled = handled.unwrap_or_default();
                    if let Some((_, reason)) = handled.skipped.pop() {
                        self.pass_over(event, &[event.stream.to_string()], reason);
                    }
                    let Some(failed) = handled.failed.pop() else {
                        return Ok(None);
                    };
                    let failure = failed.failure;
                    (policy.judge(&failure), causes(&*failure.cause))
                }
                Err(failure) if failure.is_transient() => {
                    (FailureKind::Transient, causes(&failure))
                }
                Err(failure) => (policy.kind_of(failure.cause()), causes(&failure)),
            };
            if kind != FailureKind::Transient {
                return Ok(Some((kind, reason)));
            }
            self.back_off(&reason).await?;
        }
    }
}
