//! Trying again what was set aside, by itself and on request, and skipping.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::DateTime;
use tidelog_domain::Position;
use tidelog_eventbus::{Ask, Parked, ParkedState, Request, SkippedEvent, Step};
use uuid::Uuid;

use crate::consumer::{Work, why_failed};
use crate::system::{Skips, System};
use crate::world::{World, spend};

/// Going through the log with some sequences.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Run {
    members: BTreeSet<String>,
    /// Everything up to here was looked at.
    after: Position,
    /// The event to pass over.
    skip: Option<Position>,
    /// The requests that are done when it ends.
    requests: Vec<Uuid>,
}

/// What comes of looking for the next event to be tried again.
enum Next {
    /// There is none: the run is over.
    End,
    /// This one is to be handled.
    Try(Position, Vec<String>),
}

impl System {
    /// A process goes on with what is being tried again, or begins to: up to the next event that is to be handled. Live events come
    /// in between.
    pub(crate) fn retry(&self, world: &mut World, process: usize) -> bool {
        let is_mended = world.is_mended;
        let Some(work) = world.idle_work(process) else {
            return false;
        };
        let is_skip_open = work.progress.skipped != work.lease.record.skipped;
        if is_skip_open && self.rules.skips == Skips::WrittenFirst {
            return false;
        }
        if work.run.is_none() && !work.begin_run() {
            return false;
        }
        let Some(mut run) = work.run.take() else {
            return true;
        };
        let cursor = work.cursor();
        let progress = Arc::make_mut(&mut work.progress);
        let parked = &mut progress.parked;
        let Next::Try(position, names) = self.next_to_try(&mut run, parked, cursor) else {
            parked.set_free(&run.members);
            progress.done.extend(run.requests);
            return true;
        };
        if run.skip == Some(position) {
            parked.applied(position, &names);
            progress.skip(SkippedEvent {
                position,
                sequences: names,
                reason: String::new(),
                at: DateTime::UNIX_EPOCH,
            });
        } else if self.script.is_poison(position) && !is_mended {
            let tried = names.iter().filter_map(|name| parked.get(name));
            let attempts = tried.map(|own| own.attempts).max().unwrap_or(0);
            parked.failed(&mut run.members, position, &names, &why_failed(attempts));
        } else {
            work.run = Some(run);
            return self.apply(world, process, position, true);
        }
        run.after = position;
        work.run = Some(run);
        true
    }

    /// Goes through the log up to the next event of the run that is to be handled.
    fn next_to_try(&self, run: &mut Run, parked: &mut Parked, cursor: Position) -> Next {
        while !run.members.is_empty() && run.after < cursor {
            let position = run.after.next();
            let names = self.sequences(position);
            match parked.step(&run.members, position, &names) {
                Step::Pass => {}
                Step::Apply => {
                    parked.join(&mut run.members, &names);
                    return Next::Try(position, names);
                }
                Step::Blocked { behind } => {
                    parked.wait_behind(&mut run.members, position, &names, &behind);
                }
            }
            run.after = position;
        }
        Next::End
    }

    /// An event that had been set aside is applied.
    pub(crate) fn applied_again(&self, work: &mut Work, position: Position) {
        let names = self.sequences(position);
        let progress = Arc::make_mut(&mut work.progress);
        progress.parked.applied(position, &names);
        if let Some(run) = &mut work.run {
            run.after = position;
        }
    }

    /// An operator asks for all to be tried again: now and then in vain, and once after the code was mended.
    pub(crate) fn ask_for_retry(world: &mut World) -> bool {
        if world.record.parked.is_empty() || !world.record.requests.is_empty() {
            return false;
        }
        let may = if world.is_mended {
            !std::mem::replace(&mut world.asked_after_mending, true)
        } else {
            spend(&mut world.left.requests)
        };
        may && ask(world, Ask::RetryAll)
    }

    /// An operator asks for one document to be tried again.
    pub(crate) fn ask_for_retry_of(&self, world: &mut World, document: usize) -> bool {
        let sequence = self.script.documents()[document].to_owned();
        world.record.parked.get(&sequence).is_some()
            && spend(&mut world.left.requests)
            && ask(world, Ask::Retry { sequence })
    }

    /// An operator asks for the first event of a document to be skipped.
    pub(crate) fn ask_for_skip(&self, world: &mut World, document: usize) -> bool {
        let sequence = self.script.documents()[document].to_owned();
        let Some(position) = world.record.parked.get(&sequence).map(|own| own.first) else {
            return false;
        };
        spend(&mut world.left.skips)
            && ask(
                world,
                Ask::Skip {
                    sequence,
                    position,
                    reason: String::new(),
                },
            )
    }
}

fn ask(world: &mut World, what: Ask) -> bool {
    world.requests += 1;
    let request = Request {
        id: Uuid::from_u128(u128::from(world.requests)),
        what,
        at: DateTime::UNIX_EPOCH,
    };
    world.change_record(|record| record.asked(request).expect("there is room for it"));
    true
}

impl Work {
    /// Begins to try what is asked for, and what is due; says whether there was anything. What the run before came to is written
    /// first, as in the code.
    fn begin_run(&mut self) -> bool {
        if !self.progress.done.is_empty() {
            return false;
        }
        let progress = Arc::make_mut(&mut self.progress);
        let parked = &progress.parked;
        let mut run = Run::default();
        let mut refused = Vec::new();
        for request in &self.lease.record.requests {
            match &request.what {
                Ask::RetryAll => {
                    let all = parked.iter().map(|own| own.sequence.clone());
                    run.members.extend(all);
                }
                Ask::Retry { sequence } if parked.get(sequence).is_some() => {
                    run.members.insert(sequence.clone());
                }
                Ask::Skip { .. } if run.skip.is_some() => continue,
                Ask::Skip {
                    sequence, position, ..
                } if parked
                    .get(sequence)
                    .is_some_and(|own| own.first == *position) =>
                {
                    run.members.insert(sequence.clone());
                    run.skip = Some(*position);
                }
                _ => {
                    refused.push(request.id);
                    continue;
                }
            }
            run.requests.push(request.id);
        }
        let due = parked.iter().filter(|own| match &own.state {
            ParkedState::Retrying => true,
            ParkedState::Waiting { .. } => !parked.waits_for_another(own),
            _ => false,
        });
        run.members.extend(due.map(|own| own.sequence.clone()));
        let members = run.members.iter().filter_map(|name| parked.get(name));
        let first = members.map(|own| own.first).min();
        progress.done = refused;
        match first {
            Some(first) => {
                run.after = Position::new(first.number() - 1);
                self.run = Some(run);
            }
            None => progress.done.extend(run.requests),
        }
        self.run.is_some() || !progress.done.is_empty()
    }
}
