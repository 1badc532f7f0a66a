//! An exhaustive model of how events come from the log to a view: every order of everything that may happen, within bounds.
//!
//! Read `system.rs` first: all that can happen is one enum there. What must hold is in `properties.rs`, what is searched in
//! `cases.rs`, what the search must find when a rule is broken in `controls.rs`.
//!
//! # What is modelled
//!
//! One partition, one view.
//!
//! - The log: a script of events, committed one by one; a writer may die before it signals, and then only a poll tells.
//! - Two relays without a state of their own (`bus.rs`): they ask the bus where it is, or begin at the log's head, and publish. Each
//!   may be late. The bus turns down what is not above its last id, and may lose everything, its oldest entry, or its last one.
//! - Two processes (`consumer.rs`) that read bus and log through [`gate()`](tidelog_eventbus::gate()), write documents on
//!   condition of their position, one at a time, and the checkpoint some time after. Each may die at any moment.
//! - The state record (`record.rs`): taken, written, handed over and lost by the transitions of
//!   [`StateRecord`](tidelog_eventbus::StateRecord) and compare-and-set. A living owner may be taken for dead and goes on acting; a write
//!   may not be answered.
//! - Parking (`retry.rs`) by the functions of [`Parked`](tidelog_eventbus::Parked): events that fail until the code is mended, documents
//!   that streams share, events of two documents, retries by themselves and on request, skips, the cap.
//!
//! So the gate, the record's transitions and parking are the code itself. What drives them (`subscription/`) is asynchronous, and is
//! written down here once more, more freely: an owner may write its record as late as it likes, and live events and retries take turns at
//! any event.
//!
//! # What is not
//!
//! - Time: whatever may happen later may happen now, and who is slow is who does not act. A lease ends when the model says so.
//! - The content of events and documents: an event never changes, so positions stand for events, and who held on to one may as well read it
//!   again. Hence no batches and no pages, and the ring of `tail/` has its own property test.
//! - Another history of the log, pausing, replays, reactions, several partitions (between which no order is promised), fair shares
//!   (`group.rs`), what is unavailable for a while (nobody acts), and the document that stands in for one whose first event was skipped.
//!
//! # What must hold
//!
//! In every state: a document has its events once, in order, without a gap; the checkpoint passes nothing that is neither applied, set aside
//! nor skipped; only the owner can write the record; the bus has each event once and in order. And in every state in which nothing more happens
//! unless something goes wrong: all is applied or skipped, nothing waits, and the bus is up to date. As no way through the states leads in a
//! circle (`whatever_happens_comes_to_an_end`), every way comes to such a state: nothing is lost for ever.
//!
//! # The figures
//!
//! The tests print them. About 2.2 million states in all, in half a minute of one core (dev profile, the crates concerned
//! optimized):
//!
//! | model | states | depth |
//! |---|---|---|
//! | the bus, 4 events: a silent commit, a loss of all, of the first, of the last entry, a crash | 738,800 | 27 |
//! | a group, 4 events: a crash, two zombies, an unanswered write, a hand-over | 122,441 | 32 |
//! | poison: a crash, an unanswered write, a skip | 81,612 | 27 |
//! | poison: a zombie, an unanswered write | 248,379 | 26 |
//! | poison: a zombie, a skip | 396,639 | 29 |
//! | bus, group and poison together, 2 events: a loss of all, a crash | 48,892 | 25 |
//! | all 162 scripts of 3 events in 2 documents with 1 or 2 that fail: a crash | 249,372 | 29 |
//! | the same at a cap of one sequence | 81,363 | 24 |
//!
//! `TIDELOG_TEST_LONG=1` makes each larger, most of them by an event (a quarter of an hour on two busy cores).
//!
//! The search found two things, which are negative controls now: a skip has to be written before a later event of its sequences is
//! applied, and a renewal of a lease must not bring back what its owner knew before a write that was not answered.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

mod bus;
mod cases;
mod check;
mod consumer;
mod controls;
mod properties;
mod record;
mod retry;
mod script;
mod system;
mod world;

use cases::{BUS_FAULTS, GROUP_FAULTS, every_script, in_a_group, on_the_bus, with_poison};
use check::{all_hold, ends, holds};
use tidelog_domain::Position;
use world::Faults;

/// Whether there is time for larger models.
fn is_long() -> bool {
    std::env::var_os("TIDELOG_TEST_LONG").is_some_and(|value| value == "1")
}

/// How many events there are: one more when there is time.
fn events(count: usize) -> usize {
    count + usize::from(is_long())
}

#[test]
fn whatever_the_bus_loses_no_event_is_lost() {
    let events = events(4);
    holds("the bus loses all it can", on_the_bus(events, BUS_FAULTS));
}

#[test]
fn whoever_is_taken_for_dead_changes_nothing() {
    holds("a group", in_a_group(4, GROUP_FAULTS));
}

#[test]
fn what_is_parked_is_applied_in_order_once_the_code_is_mended() {
    let faults = Faults {
        crashes: 1,
        lost_answers: 1,
        skips: 1,
        ..Faults::NONE
    };
    let system = with_poison(events(3), faults);
    holds("poison, and consumers that die", system);
}

#[test]
fn a_zombie_disturbs_nothing_that_is_parked() {
    let faults = Faults {
        steals: 1,
        lost_answers: 1,
        ..Faults::NONE
    };
    let system = with_poison(events(3), faults);
    holds("poison, and zombies", system);
}

#[test]
fn a_zombie_disturbs_no_skip() {
    let faults = Faults {
        steals: 1,
        skips: 1,
        ..Faults::NONE
    };
    let system = with_poison(events(3), faults);
    holds("poison, skips and zombies", system);
}

#[test]
fn the_bus_and_a_group_and_poison_go_together() {
    let faults = Faults {
        losses: 1,
        crashes: u8::from(!is_long()),
        steals: u8::from(is_long()),
        ..Faults::NONE
    };
    let mut system = with_poison(2, faults);
    system.bounds.relays = 1;
    system.bounds.written_before = Position::START;
    holds("all together", system);
}

#[test]
fn however_documents_are_shared_all_is_applied_in_the_end() {
    let systems = every_script(events(3), script_faults());
    all_hold("every script", systems);
}

#[test]
fn at_the_cap_nothing_is_dropped() {
    let mut systems = every_script(events(3), script_faults());
    for system in &mut systems {
        // An event of two documents cannot be set aside at all. It waits until the code is mended, or there is room.
        system.bounds.max_parked = 1;
    }
    all_hold("every script, at the cap", systems);
}

fn script_faults() -> Faults {
    Faults {
        crashes: 1,
        requests: u8::from(is_long()),
        ..Faults::NONE
    }
}

#[test]
fn whatever_happens_comes_to_an_end() {
    ends(&on_the_bus(2, BUS_FAULTS));
    ends(&in_a_group(3, GROUP_FAULTS));
    let faults = Faults {
        crashes: 1,
        skips: 1,
        requests: 1,
        ..Faults::NONE
    };
    ends(&with_poison(3, faults));
}
