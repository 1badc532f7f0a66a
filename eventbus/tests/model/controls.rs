//! Negative controls: each breaks one rule of tidelog, and the search must find what comes of it.

use tidelog_domain::Position;
use tidelog_eventbus::Gate;

use crate::cases::{BUS_FAULTS, GROUP_FAULTS, in_a_group, on_the_bus, with_poison};
use crate::check::{breaks, holds_but_for};
use crate::properties::{ALL_IS_DONE, BUS_IN_ORDER, NO_GAPS, ONCE_AND_IN_ORDER};
use crate::system::{
    Action, Checkpoints, Closure, EntryIds, OURS, Renewal, Rules, Sequences, SettingAside, Skips,
    System, Writes,
};
use crate::world::Faults;

const POISON_FAULTS: Faults = Faults {
    crashes: 1,
    lost_answers: 1,
    skips: 1,
    ..Faults::NONE
};

/// The same with other rules.
fn by(rules: Rules, system: System) -> System {
    System { rules, ..system }
}

#[test]
fn a_gate_that_lets_in_whatever_is_later_loses_events() {
    fn later(cursor: Position, position: Position) -> Gate {
        if position > cursor {
            Gate::Apply
        } else {
            Gate::Skip
        }
    }
    let rules = Rules {
        gate: later,
        ..OURS
    };
    breaks(
        "a gate of position > cursor",
        by(rules, on_the_bus(3, BUS_FAULTS)),
        NO_GAPS,
    );
}

#[test]
fn a_bus_that_gives_out_ids_has_events_twice_and_the_gate_skips_them() {
    let rules = Rules {
        entry_ids: EntryIds::FromTheBus,
        ..OURS
    };
    // Nothing turns a relay down any more, so without a bound it would go on for ever.
    let mut system = by(rules, on_the_bus(3, BUS_FAULTS));
    system.bounds.bus_entries = 6;
    breaks("XADD *", system.clone(), BUS_IN_ORDER);
    system.bounds.faults = Faults {
        losses: 1,
        crashes: 1,
        ..Faults::NONE
    };
    holds_but_for(
        "XADD *, behind the gate",
        system,
        &[BUS_IN_ORDER, ALL_IS_DONE],
    );
}

#[test]
fn without_a_poll_an_event_is_lost_whose_writer_dies_before_it_signals() {
    let rules = Rules {
        polls: false,
        ..OURS
    };
    let steps = breaks("no poll", by(rules, on_the_bus(3, BUS_FAULTS)), ALL_IS_DONE);
    assert!(steps.contains(&Action::CommitSilently));
}

#[test]
fn without_a_condition_a_zombie_applies_events_twice() {
    let rules = Rules {
        writes: Writes::Always,
        ..OURS
    };
    breaks(
        "documents written without a condition",
        by(rules, in_a_group(3, GROUP_FAULTS)),
        ONCE_AND_IN_ORDER,
    );
}

#[test]
fn a_checkpoint_before_the_effect_loses_an_event_in_a_crash() {
    let rules = Rules {
        checkpoint: Checkpoints::BeforeTheEffect,
        ..OURS
    };
    breaks(
        "the checkpoint before the effect",
        by(rules, in_a_group(3, GROUP_FAULTS)),
        NO_GAPS,
    );
}

#[test]
fn parking_by_the_stream_alone_loses_events_of_a_shared_document() {
    let rules = Rules {
        sequences: Sequences::Streams,
        ..OURS
    };
    breaks(
        "parking by stream",
        by(rules, with_poison(3, POISON_FAULTS)),
        NO_GAPS,
    );
}

#[test]
fn parking_without_the_other_documents_of_an_event_loses_it_there() {
    let rules = Rules {
        closure: Closure::None,
        ..OURS
    };
    breaks(
        "parking without closure",
        by(rules, with_poison(3, POISON_FAULTS)),
        NO_GAPS,
    );
}

#[test]
fn parking_after_the_cursor_was_written_loses_the_event_in_a_crash() {
    let rules = Rules {
        setting_aside: SettingAside::AfterTheCursor,
        ..OURS
    };
    breaks(
        "parking after the cursor",
        by(rules, with_poison(3, POISON_FAULTS)),
        NO_GAPS,
    );
}

#[test]
fn a_renewal_that_writes_back_what_it_knew_forgets_what_an_operator_asked_for() {
    let rules = Rules {
        renewal: Renewal::WhatWasKnown,
        ..OURS
    };
    breaks(
        "a renewal that writes back",
        by(rules, with_poison(3, POISON_FAULTS)),
        ALL_IS_DONE,
    );
}

#[test]
fn a_skip_that_is_written_later_loses_an_event_to_a_zombie() {
    let rules = Rules {
        skips: Skips::WrittenLater,
        ..OURS
    };
    let faults = Faults {
        steals: 1,
        skips: 1,
        ..Faults::NONE
    };
    breaks(
        "a skip that is written later",
        by(rules, with_poison(3, faults)),
        NO_GAPS,
    );
}
