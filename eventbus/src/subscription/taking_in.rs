//! What a handler said of a batch, event by event.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::Utc;
use tidelog_domain::{Position, RecordedEvent, causes};

use super::delivery::sequences;
use super::handler::{EventFailure, Handled};
use super::observed::Occasion;
use super::sorting::{Aside, Sorted};
use super::work::{Leave, Work};
use crate::failure::{Failure, FailureKind};
use crate::parking::Why;

impl Work {
    /// Takes in what became of `portion`. What failed for good is to be set aside when the cursor passes it, with what comes after it in
    /// its sequences; what something unavailable stood in the way of is handled here, however long it takes: then nothing that
    /// was handled is handled again.
    pub(super) async fn take_in(
        &mut self,
        sorted: &mut Sorted<'_>,
        portion: &[RecordedEvent],
        handled: Handled,
    ) -> Result<TakenIn, Leave> {
        self.note_skipped(portion, &handled);
        if handled.failed.is_empty() {
            return Ok(TakenIn::Handled);
        }
        let mut aside: Vec<Aside> = Vec::new();
        let mut unkeyed = None;
        let mut failed = handled;
        let mut open: Vec<RecordedEvent> = portion.to_vec();
        loop {
            let judged = self.judge(&open, failed, &mut aside);
            unkeyed = judged.unkeyed.or(unkeyed);
            let (again, Some(reason)) = (judged.again, judged.reason) else {
                break;
            };
            open = again;
            self.back_off(&reason).await?;
            failed = loop {
                match self.handle(&open, Occasion::Again).await {
                    Ok(handled) => break handled.unwrap_or_default(),
                    Err(failure) if failure.is_transient() => {
                        self.back_off(&causes(&failure)).await?;
                    }
                    Err(_) => break self.handle_singly(&open).await?,
                }
            };
            self.note_skipped(&open, &failed);
        }
        if let Some(own) = &unkeyed {
            aside.retain(|aside| aside.position < own.position);
        }
        let is_any = !aside.is_empty();
        aside.sort_by_key(|own| own.position);
        for own in aside {
            // Everything before it is handled or set aside: it is passed, so that there is room for what fits.
            let before = portion.partition_point(|event| event.position < own.position);
            if let Some(last) = before.checked_sub(1).and_then(|last| portion.get(last)) {
                self.pass(sorted, last.cursor());
            }
            let growth = self.progress.parked.growth(&own.sequences);
            self.wait_for_room(growth).await?;
            sorted.add(own);
        }
        Ok(match unkeyed {
            Some(unkeyed) => TakenIn::UpTo(unkeyed),
            None if is_any => TakenIn::MoreWaits,
            None => TakenIn::Handled,
        })
    }

    /// Sorts `open` into what is set aside, and what is to be tried again with the reason for it.
    fn judge(
        &mut self,
        open: &[RecordedEvent],
        handled: Handled,
        aside: &mut Vec<Aside>,
    ) -> Judged {
        let running = Arc::clone(&self.running);
        let policy = &running.options.policy;
        let mut failed: HashMap<Position, Failure> = handled
            .failed
            .into_iter()
            .map(|failed| (failed.position, failed.failure))
            .collect();
        let first_failed = failed.keys().min().copied();
        let mut judged = Judged::default();
        let mut again: HashSet<String> = HashSet::new();
        // From where on they wait.
        let mut behind: HashMap<String, Position> = HashMap::new();
        for own in aside.iter() {
            wait_from(&mut behind, own.position, &own.sequences);
        }
        for event in open {
            let failure = failed.remove(&event.position);
            let names = match sequences(&*running.handler, event) {
                Ok(Some(names)) => names,
                Ok(None) => continue,
                // Handled, whatever it belongs to.
                Err(_) if first_failed.is_none_or(|first| event.position < first) => continue,
                Err(unkeyed) => {
                    judged.unkeyed = Some(Unkeyed {
                        position: event.position,
                        reason: causes(&unkeyed),
                    });
                    break;
                }
            };
            let kind = failure.as_ref().map(|failure| policy.judge(failure));
            let waits = |name: &&String| behind.get(*name).is_some_and(|at| *at < event.position);
            let why = match (names.iter().find(waits), failure, kind) {
                // Before all else: what something unavailable stands in the way of, too, waits with the others.
                (Some(name), ..) => Why::behind(name, Utc::now()),
                (None, failure, kind)
                    if kind == Some(FailureKind::Transient)
                        || names.iter().any(|name| again.contains(name)) =>
                {
                    if let Some(failure) = failure {
                        judged.reason.get_or_insert(causes(&*failure.cause));
                    }
                    again.extend(names);
                    judged.again.push(event.clone());
                    continue;
                }
                (None, Some(failure), Some(_)) if names.is_empty() => {
                    self.pass_over_alone(event, &causes(&*failure.cause));
                    continue;
                }
                (None, Some(failure), Some(kind)) => {
                    let why = self.why(kind, causes(&*failure.cause), 0);
                    self.tell_set_aside(event, &names, &why);
                    self.retries.schedule(&names, kind, policy, 1);
                    why
                }
                _ => continue,
            };
            wait_from(&mut behind, event.position, &names);
            aside.push(Aside {
                position: event.position,
                sequences: names,
                why,
            });
        }
        judged
    }

    /// Handles events one by one that cannot be handled together, but for those that wait behind one that failed.
    async fn handle_singly(&mut self, open: &[RecordedEvent]) -> Result<Handled, Leave> {
        let running = Arc::clone(&self.running);
        let mut handled = Handled::default();
        let mut behind: HashSet<String> = HashSet::new();
        for event in open {
            let names = match sequences(&*running.handler, event) {
                Ok(Some(names)) => Some(names),
                Ok(None) => continue,
                // Whether it waits for one of those that failed cannot be told.
                Err(_) if !handled.failed.is_empty() => break,
                Err(_) => None,
            };
            let known = names.iter().flatten();
            if known.clone().any(|name| behind.contains(name)) {
                behind.extend(known.cloned());
                continue;
            }
            if let Some((kind, reason)) = self.try_until_known(event).await? {
                behind.extend(known.cloned());
                let cause = reason.into();
                handled.failed.push(EventFailure {
                    position: event.position,
                    failure: Failure { kind, cause },
                });
                if names.is_none() {
                    break;
                }
            }
        }
        Ok(handled)
    }

    /// Remembers what the handler skipped.
    fn note_skipped(&mut self, portion: &[RecordedEvent], handled: &Handled) {
        for (position, reason) in &handled.skipped {
            let mut events = portion.iter();
            if let Some(event) = events.find(|event| event.position == *position) {
                self.pass_over(event, &[event.stream.to_string()], reason.clone());
            }
        }
    }
}

/// From `position` on these sequences wait, unless they do already.
fn wait_from(behind: &mut HashMap<String, Position>, position: Position, sequences: &[String]) {
    for name in sequences {
        let first = behind.entry(name.clone()).or_insert(position);
        *first = position.min(*first);
    }
}

/// What became of a portion.
pub(super) enum TakenIn {
    /// All of it is handled.
    Handled,
    /// All of it is handled or set aside.
    MoreWaits,
    /// What comes before this event is handled or set aside.
    UpTo(Unkeyed),
}

/// An event of which it cannot be told whether it waits with another one, or another one with it: nobody passes it before that can be.
pub(super) struct Unkeyed {
    /// Where it is.
    pub(super) position: Position,
    /// Why it cannot be told.
    pub(super) reason: String,
}

/// What becomes of events that were not handled.
#[derive(Default)]
struct Judged {
    /// The first one that nothing can be said of, nor of what comes after it.
    unkeyed: Option<Unkeyed>,
    /// Those that are tried again at once, in order.
    again: Vec<RecordedEvent>,
    /// What stood in the way; nothing when there are none.
    reason: Option<String>,
}
