//! Trying again what was set aside: event by event and batch by batch, as the log has them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::{Position, RecordedEvent, causes};
use tokio::time::Instant;

use super::delivery::sequences;
use super::handler::Handled;
use super::observed::Occasion;
use super::retrying::{Run, Skip};
use super::work::{Leave, Work};
use crate::failure::FailureKind;
use crate::parking::{ParkedSequence, Step};

/// How many events are tried again at a time, at most.
const MAX_TRIED_AT_ONCE: usize = 100;

/// How long events are tried again before the live ones have their turn; what is at the handler then is finished.
const ROUND_LASTS: Duration = Duration::from_millis(100);

/// What is to be done with an event while sequences are tried again.
enum Turn {
    /// Nothing: it is none of theirs.
    Pass,
    /// It comes next for all of these, its sequences.
    Try(Vec<String>),
    /// Its sequences wait with it, as `behind` does since earlier.
    Wait { names: Vec<String>, behind: String },
    /// These sequences are parked at it, because of this error: it cannot be given to the handler.
    Park(Vec<String>, String),
}

impl Work {
    /// Tries what there is of the run's page up to `end`, for a while.
    pub(super) async fn try_page(&mut self, run: &mut Run, end: Position) -> Result<(), Leave> {
        let until = Instant::now() + ROUND_LASTS;
        let mut portion = Vec::new();
        while !run.members.is_empty()
            && let Some(event) = run.page.pop_front_if(|event| event.position <= end)
        {
            run.after = event.position;
            let skipped = run.skip.as_ref().map(|skip| skip.position);
            let is_skipped = skipped == Some(event.position);
            match self.turn(run, &event) {
                Turn::Pass => {}
                Turn::Try(names) if !is_skipped => {
                    self.progress.parked.join(&mut run.members, &names);
                    portion.push((event, names));
                    if portion.len() >= run.size {
                        self.try_portion(run, std::mem::take(&mut portion)).await?;
                        if Instant::now() >= until || self.is_interrupted() {
                            return Ok(());
                        }
                    }
                }
                // Nothing is moved past events that are not handled yet, and what becomes of those may change what is to be done.
                _ => {
                    self.try_portion(run, std::mem::take(&mut portion)).await?;
                    if is_skipped && let Some(sequence) = self.parks_at(run, &event) {
                        self.skip(run, &event, &[sequence]).await?;
                    }
                    if let Some(names) = self.take_turn(run, &event) {
                        if is_skipped && run.skip.is_some() {
                            self.skip(run, &event, &names).await?;
                        } else {
                            portion.push((event, names));
                        }
                    }
                }
            }
        }
        self.try_portion(run, portion).await
    }

    /// What is to be done with an event.
    fn turn(&self, run: &Run, event: &RecordedEvent) -> Turn {
        let names = match sequences(&*self.running.handler, event) {
            Ok(Some(names)) => names,
            Ok(None) => return Turn::Pass,
            Err(failure) => {
                // Whose it is cannot be told: none of those that wait since it may pass it.
                let waits = |name: &&String| {
                    let own = self.progress.parked.get(name);
                    own.is_some_and(|own| own.first <= event.position)
                };
                let names: Vec<_> = run.members.iter().filter(waits).cloned().collect();
                return match names.is_empty() {
                    true => Turn::Pass,
                    false => Turn::Park(names, causes(&failure)),
                };
            }
        };
        let parked = &self.progress.parked;
        let others = run.members.iter().filter(|name| {
            let waits_here =
                |own: &ParkedSequence| own.first_is_known() && own.first == event.position;
            !names.contains(name) && parked.get(name).is_some_and(waits_here)
        });
        let others: Vec<_> = others.cloned().collect();
        // One that belongs to nothing any more is passed over, as a live one is.
        if !others.is_empty() && !names.is_empty() {
            let error = format!(
                "the event was set aside as one of {others:?}, and belongs to {names:?} now, which later events may have changed \
                 already: replay the view, or skip the event"
            );
            return Turn::Park(others, error);
        }
        match parked.step(&run.members, event.position, &names) {
            Step::Pass => Turn::Pass,
            Step::Apply => Turn::Try(names),
            Step::Blocked { behind } => Turn::Wait { names, behind },
        }
    }

    /// The sequences of an event that is to be handled now; nothing when it is none of what is tried, or stays where it is.
    /// Everything before it is handled, or set aside again.
    fn take_turn(&mut self, run: &mut Run, event: &RecordedEvent) -> Option<Vec<String>> {
        loop {
            let turn = self.turn(run, event);
            let parked = &mut self.progress.parked;
            match turn {
                Turn::Pass => return None,
                Turn::Try(names) => {
                    parked.join(&mut run.members, &names);
                    return Some(names);
                }
                Turn::Wait { names, behind } => {
                    parked.wait_behind(&mut run.members, event.position, &names, &behind);
                    return None;
                }
                // They are tried no more; it may be the turn of those that it belongs to.
                Turn::Park(names, error) => self.stays_parked(run, event, &names, error),
            }
        }
    }

    /// The sequence that is asked to pass over `event`, where it waits at one that cannot be given to the handler.
    fn parks_at(&self, run: &Run, event: &RecordedEvent) -> Option<String> {
        let skip = run.skip.as_ref()?;
        match self.turn(run, event) {
            Turn::Park(names, _) if names.contains(&skip.sequence) => Some(skip.sequence.clone()),
            _ => None,
        }
    }

    /// Parks sequences that are tried at `event`, which cannot be given to the handler.
    fn stays_parked(
        &mut self,
        run: &mut Run,
        event: &RecordedEvent,
        names: &[String],
        error: String,
    ) {
        let why = self.why(FailureKind::Park, error, 0);
        self.tell_set_aside(event, names, &why);
        let parked = &mut self.progress.parked;
        parked.failed(&mut run.members, event.position, names, &why);
    }

    /// Passes over the event that somebody asked to be skipped.
    async fn skip(
        &mut self,
        run: &mut Run,
        event: &RecordedEvent,
        names: &[String],
    ) -> Result<(), Leave> {
        let Some(Skip { reason, .. }) = run.skip.take() else {
            return Ok(());
        };
        let running = Arc::clone(&self.running);
        // Written before it has an effect, so that only the owner does it, and whoever takes over cannot but do it too.
        self.write_checkpoint().await?;
        while let Err(error) = running.handler.skip(event).await {
            self.back_off(&causes(&error)).await?;
        }
        run.handled += 1;
        self.progress.parked.applied(event.position, names);
        self.pass_over(event, names, reason);
        // Written before a later event is applied: then nobody tries any more what was passed over.
        self.write_checkpoint().await
    }

    /// Gives events to the handler together, and one by one what it does not say of whether it was handled.
    async fn try_portion(
        &mut self,
        run: &mut Run,
        portion: Vec<(RecordedEvent, Vec<String>)>,
    ) -> Result<(), Leave> {
        let began = Instant::now();
        let mut open = portion;
        if open.len() > 1 {
            let events: Vec<_> = open.iter().map(|(event, _)| event.clone()).collect();
            if let Ok(handled) = self.handle(&events, Occasion::Again).await {
                open = self.take_in_again(run, open, handled.unwrap_or_default());
            }
        }
        let is_slow = began.elapsed() > ROUND_LASTS / 2;
        run.size = match open.len() {
            0 | 1 if !is_slow => (run.size * 2).min(MAX_TRIED_AT_ONCE),
            0 | 1 => (run.size / 2).max(1),
            _ => 1,
        };
        for (event, _) in open {
            // What failed before it may be of its sequences.
            if let Some(names) = self.take_turn(run, &event) {
                run.handled += 1;
                match self.try_until_known(&event).await? {
                    None => self.progress.parked.applied(event.position, &names),
                    Some((kind, reason)) => self.fails_again(run, &event, &names, kind, reason),
                }
            }
        }
        Ok(())
    }

    /// Takes in what became of a portion that was tried again; gives what is still to be tried.
    fn take_in_again(
        &mut self,
        run: &mut Run,
        portion: Vec<(RecordedEvent, Vec<String>)>,
        handled: Handled,
    ) -> Vec<(RecordedEvent, Vec<String>)> {
        let running = Arc::clone(&self.running);
        let failed = handled.failed.into_iter();
        let mut failed: HashMap<_, _> = failed.map(|own| (own.position, own.failure)).collect();
        let mut skipped: HashMap<_, _> = handled.skipped.into_iter().collect();
        let mut behind: HashSet<String> = HashSet::new();
        let mut open = Vec::new();
        for (event, names) in portion {
            let failure = failed.remove(&event.position);
            let failure = failure.map(|own| (running.options.policy.judge(&own), own.cause));
            let waits = names.iter().any(|name| behind.contains(name));
            match failure {
                None if !waits => {
                    run.handled += 1;
                    if let Some(reason) = skipped.remove(&event.position) {
                        self.pass_over(&event, &[event.stream.to_string()], reason);
                    }
                    self.progress.parked.applied(event.position, &names);
                    continue;
                }
                Some((kind, cause)) if !waits && kind != FailureKind::Transient => {
                    run.handled += 1;
                    self.fails_again(run, &event, &names, kind, causes(&*cause));
                    behind.extend(names);
                }
                _ => {
                    behind.extend(names.iter().cloned());
                    open.push((event, names));
                }
            }
        }
        open
    }

    /// Its sequences wait at an event that cannot be handled this time either.
    fn fails_again(
        &mut self,
        run: &mut Run,
        event: &RecordedEvent,
        names: &[String],
        kind: FailureKind,
        reason: String,
    ) {
        let tried = names
            .iter()
            .filter_map(|name| self.progress.parked.get(name));
        let attempts = tried.map(|own| own.attempts).max().unwrap_or(0);
        let why = self.why(kind, reason, attempts);
        self.tell_set_aside(event, names, &why);
        let attempts = attempts.saturating_add(1);
        let policy = &self.running.options.policy;
        self.retries.schedule(names, kind, policy, attempts);
        let parked = &mut self.progress.parked;
        parked.failed(&mut run.members, event.position, names, &why);
    }

    /// Handles one event, waiting for what is unavailable; says why, if it cannot be handled.
    pub(super) async fn try_until_known(
        &mut self,
        event: &RecordedEvent,
    ) -> Result<Option<(FailureKind, String)>, Leave> {
        let running = Arc::clone(&self.running);
        let policy = &running.options.policy;
        loop {
            let one = std::slice::from_ref(event);
            let (kind, reason) = match self.handle(one, Occasion::Again).await {
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
