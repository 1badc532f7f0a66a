//! What must hold in every state, what must hold once nothing happens any more, and what must be reached at all.

use std::sync::Arc;

use stateright::Property;
use tidelog_domain::Position;
use tidelog_eventbus::{Ask, ParkedState};

use crate::record::name;
use crate::script::Script;
use crate::system::{Sequences, System};
use crate::world::World;

/// No document has an event twice, or after a later one.
pub(crate) const ONCE_AND_IN_ORDER: &str = "each document has its events once and in order";
/// No document has an event while it has not an earlier one of its own.
pub(crate) const NO_GAPS: &str = "no document has a gap";
/// The checkpoint passes only what is applied, parked or skipped, document by document.
pub(crate) const HONEST_CHECKPOINT: &str = "the checkpoint passes nothing that is open";
/// At most one process can write the record, and it is the owner.
pub(crate) const ONE_OWNER: &str = "only the owner can write the record";
/// The bus has nothing twice, and nothing out of order.
pub(crate) const BUS_IN_ORDER: &str = "the bus has each event once and in order";
/// No more is set aside than may be.
pub(crate) const CAP: &str = "no more is set aside than may be";
/// When nothing happens any more, the view is the fold of the log, everything is parked no longer, and the bus is up to date.
pub(crate) const ALL_IS_DONE: &str = "when all is quiet, the view equals the fold";

/// What must hold in every state.
pub(crate) fn always() -> Vec<Property<System>> {
    vec![
        Property::always(ONCE_AND_IN_ORDER, once_and_in_order),
        Property::always(NO_GAPS, no_gaps),
        Property::always(HONEST_CHECKPOINT, honest_checkpoint),
        Property::always(ONE_OWNER, one_owner),
        Property::always(BUS_IN_ORDER, bus_in_order),
        Property::always(CAP, cap),
        Property::always(ALL_IS_DONE, all_is_done),
    ]
}

/// What must be reached at all, that the search means something.
pub(crate) fn sometimes(system: &System) -> Vec<Property<System>> {
    let faults = &system.bounds.faults;
    let mut all = vec![Property::sometimes("all is applied", all_is_applied)];
    let mut reached = |is_possible, name, condition: fn(&System, &World) -> bool| {
        if is_possible {
            all.push(Property::sometimes(name, condition));
        }
    };
    let has_losses = system.bounds.relays > 1 && faults.losses + faults.tail_losses > 0;
    reached(has_losses, "the bus has a hole", |_, world| {
        let positions: Vec<_> = world.bus.positions().collect();
        positions.windows(2).any(|two| two[1] > two[0].next())
    });
    reached(has_losses, "a relay is late", |_, world| {
        let is_late =
            |relay: &Option<Position>| relay.is_some_and(|at| Some(at) < world.bus.last());
        world.relays.iter().any(is_late)
    });
    reached(
        faults.steals > 0,
        "a zombie acts beside the owner",
        |_, world| world.processes.iter().all(|process| process.work.is_some()),
    );
    reached(faults.skips > 0, "an event is skipped", |_, world| {
        !world.record.skipped.is_empty()
    });
    let has_poison = system.script.has_poison() && system.bounds.max_parked > 1;
    reached(has_poison, "a sequence is parked", |_, world| {
        let mut parked = world.record.parked.iter();
        parked.any(|own| own.state == ParkedState::Parked)
    });
    all
}

fn cap(system: &System, world: &World) -> bool {
    let works = world
        .processes
        .iter()
        .filter_map(|process| process.work.as_ref());
    let mut parked = works.map(|work| work.progress.parked.len());
    parked.all(|parked| parked <= system.bounds.max_parked)
}

fn once_and_in_order(_: &System, world: &World) -> bool {
    let mut documents = world.documents.iter();
    documents.all(|applied| applied.is_sorted_by(|earlier, later| earlier < later))
}

fn no_gaps(system: &System, world: &World) -> bool {
    let mut documents = world.documents.iter().enumerate();
    documents.all(|(document, applied)| {
        let last = applied.last().copied().unwrap_or_default();
        let mut own = events_of(system, document, last);
        own.all(|position| applied.contains(&position) || is_skipped(world, position))
    })
}

fn honest_checkpoint(system: &System, world: &World) -> bool {
    let checkpoint = world.record.checkpoint.cursor.position;
    let mut documents = world.documents.iter().enumerate();
    documents.all(|(document, applied)| {
        events_of(system, document, checkpoint).all(|position| {
            let sequence = match system.rules.sequences {
                Sequences::Documents => system.script.documents()[document],
                Sequences::Streams => system.script.event(position).stream,
            };
            let waits = world.record.parked.get(sequence);
            let waits = waits.is_some_and(|own| own.first <= position);
            applied.contains(&position) || waits || is_skipped(world, position)
        })
    })
}

fn one_owner(_: &System, world: &World) -> bool {
    let mut processes = world.processes.iter().enumerate();
    processes.all(|(number, process)| {
        process.work.as_ref().is_none_or(|work| {
            let known = &work.lease.record;
            !work.lease.is_current
                || Arc::ptr_eq(known, &world.record)
                    && world.record.is_held_by(name(number), known.epoch)
        })
    })
}

fn bus_in_order(_: &System, world: &World) -> bool {
    world
        .bus
        .positions()
        .is_sorted_by(|earlier, later| earlier < later)
}

fn all_is_done(system: &System, world: &World) -> bool {
    all_is_applied(system, world) || !system.is_settled(world)
}

fn all_is_applied(system: &System, world: &World) -> bool {
    let end = system.script.end();
    let record = &world.record;
    let is_skipped = |position| record.skipped.iter().any(|own| own.position == position);
    let mut documents = world.documents.iter().enumerate();
    let view_equals_fold = documents.all(|(document, applied)| {
        let mut own = events_of(system, document, end);
        own.all(|position| applied.contains(&position) || is_skipped(position))
    });
    view_equals_fold
        && record.checkpoint.cursor.position == end
        && record.parked.is_empty()
        && record.requests.is_empty()
        && world.bus.last().is_none_or(|last| last == end)
}

/// The events up to `last` that change a document.
fn events_of(system: &System, document: usize, last: Position) -> impl Iterator<Item = Position> {
    let touches = move |position: &Position| {
        system
            .script
            .touched(*position)
            .any(|touched| touched == document)
    };
    Script::up_to(last).filter(touches)
}

/// Whether an event was skipped, or will be: as long as that is only in the owner's memory, the request is in the record.
fn is_skipped(world: &World, position: Position) -> bool {
    let record = &world.record;
    let is_asked_for = record
        .requests
        .iter()
        .any(|request| matches!(request.what, Ask::Skip { position: at, .. } if at == position));
    let owner = world
        .holder()
        .and_then(|holder| world.processes[holder].work.as_ref());
    let remembered = owner.map_or(&[][..], |work| &work.progress.skipped);
    let mut skipped = record.skipped.iter().chain(remembered);
    is_asked_for || skipped.any(|own| own.position == position)
}
