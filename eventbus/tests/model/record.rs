//! The state record and its holders: taking it, writing it by compare-and-set, losing it.

use std::sync::Arc;
use std::time::Duration;

use tidelog_eventbus::{Claim, StateRecord};

use crate::consumer::Work;
use crate::script::cursor_at;
use crate::system::{Checkpoints, Renewal, SettingAside, System};
use crate::world::{World, spend};

const LEASE: Duration = Duration::from_secs(5);

/// What a process knows of the record that it holds.
///
/// Revisions only go up, so all that matters of one is whether it still is the stored one: `is_current`. That is exactly when
/// a compare-and-set succeeds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lease {
    pub(crate) record: Arc<StateRecord>,
    pub(crate) is_current: bool,
}

/// The name of a process.
pub(crate) const fn name(process: usize) -> &'static str {
    ["one", "two", "three"][process]
}

impl World {
    /// Stores a record: what anybody knew of it is old now.
    fn store(&mut self, record: StateRecord) {
        self.record = Arc::new(record);
        for process in 0..self.processes.len() {
            if let Some(work) = self.work(process) {
                work.lease.is_current = false;
            }
        }
    }

    /// A process takes the record.
    pub(crate) fn take(&mut self, process: usize) {
        self.store(self.record.taken_by(name(process)));
        self.processes[process].work = Some(Arc::new(Work::from(&self.record)));
    }

    /// A process takes the record if it may: at once when it is free, else when it has been silent for a lease. A living
    /// owner is silent for that long only when something is wrong.
    pub(crate) fn take_if_free(&mut self, process: usize) -> bool {
        let claim = |unchanged| self.record.claim(name(process), unchanged, LEASE);
        if self.processes[process].work.is_some() || claim(LEASE) != Claim::Free {
            return false;
        }
        let is_patient = claim(Duration::ZERO) != Claim::Free;
        let may_live = self.record.owner.is_none() || self.holder().is_some();
        if is_patient && may_live && !spend(&mut self.left.steals) {
            return false;
        }
        self.take(process);
        true
    }

    /// The process that works on what it took last.
    pub(crate) fn holder(&self) -> Option<usize> {
        let mut processes = self.processes.iter().enumerate();
        processes.find_map(|(number, process)| {
            let epoch = process.work.as_ref()?.lease.record.epoch;
            let is_owner = self.record.is_held_by(name(number), epoch);
            is_owner.then_some(number)
        })
    }

    /// A process looks what became of its record. It goes on when it is still the owner: somebody asked for something, or a
    /// write of its own was not answered.
    pub(crate) fn notice(&mut self, process: usize) -> bool {
        let Some(work) = &mut self.processes[process].work else {
            return false;
        };
        if work.lease.is_current {
            return false;
        }
        if self
            .record
            .is_held_by(name(process), work.lease.record.epoch)
        {
            let work = Arc::make_mut(work);
            work.lease = Lease {
                record: Arc::clone(&self.record),
                is_current: true,
            };
            work.forget_requests_that_are_gone();
        } else {
            self.processes[process].work = None;
        }
        true
    }

    /// A process dies, and starts anew.
    pub(crate) fn crash(&mut self, process: usize) -> bool {
        if self.processes[process].work.is_none() {
            return false;
        }
        self.processes[process] = crate::consumer::Process::default();
        true
    }

    /// A process asks for the partition.
    pub(crate) fn want(&mut self, process: usize) -> bool {
        let is_wanted = self.record.wanted_by.is_some() || self.record.owner.is_none();
        if is_wanted || self.processes[process].work.is_some() {
            return false;
        }
        self.store(self.record.wanted_by(name(process)));
        true
    }

    /// An owner that was asked for its partition gives it back, with all that is done.
    pub(crate) fn hand_over(&mut self, process: usize) -> bool {
        let Some(work) = &self.processes[process].work else {
            return false;
        };
        let is_asked = work.lease.is_current && self.record.wanted_by.is_some();
        if !is_asked || work.in_hand.is_some() {
            return false;
        }
        let given_back = self.record.with_progress(&work.progress).released();
        self.store(given_back);
        self.processes[process].work = None;
        true
    }

    /// An operator changes the record.
    pub(crate) fn change_record(&mut self, change: impl FnOnce(&StateRecord) -> StateRecord) {
        self.store(change(&self.record));
    }
}

impl System {
    /// An owner writes how far it is, by compare-and-set against what it knows. It may not hear that it was written.
    pub(crate) fn write_record(
        &self,
        world: &mut World,
        process: usize,
        is_answered: bool,
    ) -> bool {
        let Some(work) = &world.processes[process].work else {
            return false;
        };
        let known = &work.lease.record;
        let next = self.next_record(work);
        if !work.lease.is_current || next == **known {
            return false;
        }
        world.store(next);
        if is_answered {
            world.notice(process);
        }
        true
    }

    /// An owner keeps its lease. Where its last write was not answered, it finds out what is stored first.
    pub(crate) fn renew(&self, world: &mut World, process: usize) -> bool {
        let Some(work) = &world.processes[process].work else {
            return false;
        };
        let known = work.lease.record.progress();
        if work.lease.is_current || !world.notice(process) {
            return false;
        }
        let is_held = world.processes[process].work.is_some();
        if is_held && self.rules.renewal == Renewal::WhatWasKnown {
            world.store(world.record.with_progress(&known));
            world.notice(process);
        }
        true
    }

    /// The record as an owner would have it now.
    fn next_record(&self, work: &Work) -> StateRecord {
        let known = &work.lease.record;
        let progress = &work.progress;
        if self.rules.setting_aside == SettingAside::AfterTheCursor
            && progress.cursor != known.checkpoint.cursor
        {
            return known.advanced_to(progress.cursor);
        }
        match &work.in_hand {
            Some(in_hand) if self.rules.checkpoint == Checkpoints::BeforeTheEffect => {
                let cursor = cursor_at(in_hand.position.max(progress.cursor.position));
                known.with_progress(progress).advanced_to(cursor)
            }
            _ => known.with_progress(progress),
        }
    }
}
