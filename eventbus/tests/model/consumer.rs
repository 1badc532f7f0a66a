//! A process that consumes: events from the bus and from the log, through the gate, into the documents.

use std::sync::Arc;

use chrono::DateTime;
use tidelog_domain::Position;
use tidelog_eventbus::{Gate, ParkedState, Progress, StateRecord, Why, gate};

use crate::record::Lease;
use crate::retry::Run;
use crate::script::cursor_at;
use crate::system::{Checkpoints, Closure, Sequences, System, Writes};
use crate::world::World;

/// How often an event is tried before its sequences are parked.
const ATTEMPTS: u32 = 2;

/// A process of the subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    /// The id of the last entry that it read from the bus; nothing before it asked where the bus is.
    pub(crate) heard: Option<Position>,
    /// Its work on the partition, as long as it takes the partition to be its own.
    pub(crate) work: Option<Arc<Work>>,
}

/// What a process has in memory of the partition that it works on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Work {
    pub(crate) lease: Lease,
    /// What is done; the record may be behind.
    pub(crate) progress: Arc<Progress>,
    /// The event that is being applied.
    pub(crate) in_hand: Option<InHand>,
    /// What is being tried again.
    pub(crate) run: Option<Run>,
}

/// An event some of whose documents are written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct InHand {
    pub(crate) position: Position,
    /// The documents that are not written yet. There is no transaction over several.
    missing: Vec<usize>,
    /// Whether it had been set aside, and is tried again.
    is_retry: bool,
}

impl Work {
    /// Begins with what the record says.
    pub(crate) fn from(record: &Arc<StateRecord>) -> Self {
        Self {
            lease: Lease {
                record: Arc::clone(record),
                is_current: true,
            },
            progress: Arc::new(record.progress()),
            in_hand: None,
            run: None,
        }
    }

    /// Requests that are done and no longer in the record need not be remembered.
    pub(crate) fn forget_requests_that_are_gone(&mut self) {
        let requests = &self.lease.record.requests;
        let is_there = |id| requests.iter().any(|request| request.id == id);
        if self.progress.done.iter().any(|id| !is_there(*id)) {
            let progress = Arc::make_mut(&mut self.progress);
            progress.done.retain(|id| is_there(*id));
        }
    }

    pub(crate) fn cursor(&self) -> Position {
        self.progress.cursor.position
    }
}

impl World {
    /// The work of a process.
    pub(crate) fn work(&mut self, process: usize) -> Option<&mut Work> {
        self.processes[process].work.as_mut().map(Arc::make_mut)
    }

    /// The work of a process that has nothing in hand.
    pub(crate) fn idle_work(&mut self, process: usize) -> Option<&mut Work> {
        let work = self.processes[process].work.as_mut();
        work.filter(|work| work.in_hand.is_none())
            .map(Arc::make_mut)
    }

    /// How far a process is that has nothing in hand.
    fn idle_at(&self, process: usize) -> Option<Position> {
        let work = self.processes[process].work.as_ref();
        work.filter(|work| work.in_hand.is_none())
            .map(|work| work.cursor())
    }
}

impl System {
    /// A process reads the next entry of the bus, and asks the gate what to do with it. First of all it asks where the bus is.
    pub(crate) fn hear(&self, world: &mut World, process: usize) -> bool {
        let Some(cursor) = world.idle_at(process) else {
            return false;
        };
        let Some(heard) = world.processes[process].heard else {
            let last = world.bus.last().unwrap_or(Position::START);
            world.processes[process].heard = Some(last);
            return true;
        };
        let Some(entry) = world.bus.after(heard) else {
            return false;
        };
        world.processes[process].heard = Some(entry.id);
        match (self.rules.gate)(cursor, entry.position) {
            Gate::Apply => {
                // At the cap it is not taken, and read from the log later.
                self.handle(world, process, entry.position);
            }
            // Done, or something is missing before it: that is read from the log.
            Gate::Skip | Gate::ReadLog => {}
        }
        true
    }

    /// A process reads the next event from the log, when it knows that there is one: after a jump, when the bus stalls, and
    /// at its start.
    pub(crate) fn read_log(&self, world: &mut World, process: usize) -> bool {
        let told = world.told;
        let Some(cursor) = world.idle_at(process) else {
            return false;
        };
        let next = cursor.next();
        cursor < told && gate(cursor, next) == Gate::Apply && self.handle(world, process, next)
    }

    /// A process handles an event that the gate let in: it is set aside, or applied. Not at the cap: there it waits.
    fn handle(&self, world: &mut World, process: usize, position: Position) -> bool {
        let names = self.sequences(position);
        let fails = self.fails(world, position);
        let Some(work) = world.idle_work(process) else {
            return false;
        };
        let why = match work.progress.parked.behind(position, &names) {
            Some(behind) => Some(Why::behind(&behind.sequence, DateTime::UNIX_EPOCH)),
            None => fails.then(|| why_failed(0)),
        };
        match why {
            Some(why) => self.set_aside(work, position, &names, &why),
            None => self.apply(world, process, position, false),
        }
    }

    /// Sets an event aside, and passes it.
    fn set_aside(&self, work: &mut Work, position: Position, names: &[String], why: &Why) -> bool {
        let progress = Arc::make_mut(&mut work.progress);
        let parked = &mut progress.parked;
        let growth = parked.growth(names);
        if growth > 0 && parked.len() + growth > self.bounds.max_parked {
            return false;
        }
        let waits = |name: &&String| {
            self.rules.closure == Closure::OverAllSequences
                || why.counts
                || parked.get(name).is_some()
        };
        let names: Vec<_> = names.iter().filter(waits).cloned().collect();
        parked.set_aside(position, &names, why);
        progress.cursor = cursor_at(position);
        true
    }

    /// Begins to apply an event. With one document that is one step.
    pub(crate) fn apply(
        &self,
        world: &mut World,
        process: usize,
        position: Position,
        is_retry: bool,
    ) -> bool {
        let missing: Vec<_> = self.script.touched(position).collect();
        let only = (missing.len() == 1).then(|| missing[0]);
        let Some(work) = world.idle_work(process) else {
            return false;
        };
        work.in_hand = Some(InHand {
            position,
            missing,
            is_retry,
        });
        if let Some(document) = only {
            self.write_document(world, process, document);
        }
        true
    }

    /// Writes one document of the event in hand. With the last of them it is done.
    pub(crate) fn write_document(
        &self,
        world: &mut World,
        process: usize,
        document: usize,
    ) -> bool {
        let Some(work) = world.work(process) else {
            return false;
        };
        let checkpoint = work.lease.record.checkpoint.cursor.position;
        let Some(in_hand) = &mut work.in_hand else {
            return false;
        };
        let position = in_hand.position;
        let must_wait =
            self.rules.checkpoint == Checkpoints::BeforeTheEffect && checkpoint < position;
        if must_wait || !in_hand.missing.contains(&document) {
            return false;
        }
        in_hand.missing.retain(|missing| *missing != document);
        if in_hand.missing.is_empty() {
            let is_retry = in_hand.is_retry;
            work.in_hand = None;
            if is_retry {
                self.applied_again(work, position);
            } else {
                Arc::make_mut(&mut work.progress).cursor = cursor_at(position);
            }
        }
        let always = self.rules.writes == Writes::Always;
        world.write_document(document, position, always);
        true
    }

    /// What the event at `position` belongs to, by the names that sequences have.
    pub(crate) fn sequences(&self, position: Position) -> Vec<String> {
        let event = self.script.event(position);
        match self.rules.sequences {
            Sequences::Documents => event.documents.iter().map(ToString::to_string).collect(),
            Sequences::Streams => vec![event.stream.to_owned()],
        }
    }

    /// Whether handling the event at `position` fails.
    pub(crate) fn fails(&self, world: &World, position: Position) -> bool {
        self.script.is_poison(position) && !world.is_mended
    }
}

/// Why an event is set aside that failed after so many attempts before.
pub(crate) fn why_failed(attempts_before: u32) -> Why {
    Why {
        error: "poison".to_owned(),
        counts: true,
        state: if attempts_before + 1 < ATTEMPTS {
            ParkedState::Retrying
        } else {
            ParkedState::Parked
        },
        not_before: None,
        at: DateTime::UNIX_EPOCH,
    }
}
