//! The state of everything: what the search hashes.

use std::sync::Arc;

use tidelog_domain::{HistoryId, Position};
use tidelog_eventbus::StateRecord;
use uuid::Uuid;

use crate::bus::Bus;
use crate::consumer::Process;
use crate::system::System;

/// The log, the bus, the view with its state record, and all processes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    /// What is committed.
    pub(crate) head: Position,
    /// How far anybody knows that the log is: by a writer's signal, by a poll, or by what the bus brought. (It is one for all:
    /// who does not know yet is who has not moved yet.)
    pub(crate) told: Position,
    pub(crate) bus: Bus,
    /// How far each relay is; nothing before it asked the bus. Relays are alike, so they are kept sorted.
    pub(crate) relays: Vec<Option<Position>>,
    /// The state record of the subscription, beside the documents.
    pub(crate) record: Arc<StateRecord>,
    pub(crate) processes: Vec<Process>,
    /// What was applied to each document, in the order in which that happened.
    pub(crate) documents: Vec<Vec<Position>>,
    /// Whether the code that fails was mended.
    pub(crate) is_mended: bool,
    /// How many requests an operator has made.
    pub(crate) requests: u8,
    /// Whether one of them was made after the code was mended.
    pub(crate) asked_after_mending: bool,
    pub(crate) left: Faults,
}

/// How often each of what can go wrong may still happen. What is lost or taken for dead for ever proves nothing, and without
/// a bound the search would not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Faults {
    /// A writer dies between commit and signal: only a poll tells of the event.
    pub(crate) silent_commits: u8,
    /// The bus loses everything.
    pub(crate) losses: u8,
    /// The bus drops its oldest entry.
    pub(crate) trims: u8,
    /// The bus loses its last entry and does not know it.
    pub(crate) tail_losses: u8,
    /// A consumer dies.
    pub(crate) crashes: u8,
    /// A living consumer is taken for dead, and goes on acting.
    pub(crate) steals: u8,
    /// A record is written, and who wrote it does not hear so.
    pub(crate) lost_answers: u8,
    /// A process asks for the partition, as a newcomer does.
    pub(crate) hand_overs: u8,
    /// An operator has something tried again, before the code is mended or only one document.
    pub(crate) requests: u8,
    /// An operator has an event skipped.
    pub(crate) skips: u8,
}

impl Faults {
    /// Nothing goes wrong.
    pub(crate) const NONE: Self = Self {
        silent_commits: 0,
        losses: 0,
        trims: 0,
        tail_losses: 0,
        crashes: 0,
        steals: 0,
        lost_answers: 0,
        hand_overs: 0,
        requests: 0,
        skips: 0,
    };
}

/// Takes one away; whether there was one left.
pub(crate) const fn spend(left: &mut u8) -> bool {
    let had = *left > 0;
    *left = left.saturating_sub(1);
    had
}

impl World {
    /// Nothing is written yet, and the first process has the partition. (Which one has it first makes no difference.)
    pub(crate) fn at_start(system: &System) -> Self {
        let history = HistoryId::new(Uuid::from_u128(1));
        let mut world = Self {
            head: system.bounds.written_before,
            told: system.bounds.written_before,
            bus: Bus::default(),
            relays: vec![None; system.bounds.relays],
            record: Arc::new(StateRecord::at_start(history)),
            processes: vec![Process::default(); system.bounds.processes],
            documents: vec![Vec::new(); system.script.documents().len()],
            is_mended: false,
            requests: 0,
            asked_after_mending: false,
            left: system.bounds.faults,
        };
        world.take(0);
        world
    }

    /// A writer commits the next event.
    pub(crate) fn commit(&mut self, end: Position) -> bool {
        if self.head >= end {
            return false;
        }
        self.head = self.head.next();
        true
    }

    /// A poll of the log's head, or a signal that comes at last.
    pub(crate) fn poll(&mut self) -> bool {
        self.told = self.head;
        true
    }

    /// The code that fails is mended.
    pub(crate) fn mend(&mut self) -> bool {
        !std::mem::replace(&mut self.is_mended, true)
    }

    /// Writes to a document, on condition that it has not come so far, unless the model is to go without.
    pub(crate) fn write_document(&mut self, document: usize, position: Position, always: bool) {
        let applied = &mut self.documents[document];
        if always || applied.last().is_none_or(|last| *last < position) {
            applied.push(position);
        }
    }
}
