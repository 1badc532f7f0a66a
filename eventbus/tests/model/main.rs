//! An exhaustive model of how events come from the log to a view.

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
        crashes: 1,
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
