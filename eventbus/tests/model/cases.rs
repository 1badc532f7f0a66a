//! The models that are searched: each small enough to be searched to the end, with its own share of what goes wrong.

use tidelog_domain::Position;

use crate::script::{Event, Script, event};
use crate::system::{Bounds, OURS, System};
use crate::world::Faults;

/// As many as there are: no bound.
const MANY: usize = 100;

/// One document of one stream.
const SINGLE: [Event; 5] = [event("s", &["a"]); 5];

/// Two streams that share documents: what stops `a` stops the second event, and with it `b` and the third.
const SHARED: [Event; 4] = [
    event("s", &["a"]),
    event("t", &["a", "b"]),
    event("t", &["b"]),
    event("s", &["a"]),
];

/// Two relays and one consumer, on a bus that loses whatever it can.
pub(crate) fn on_the_bus(events: usize, faults: Faults) -> System {
    System {
        script: Script::of(&SINGLE[..events]),
        bounds: Bounds {
            relays: 2,
            processes: 1,
            written_before: Position::START,
            bus_entries: MANY,
            max_parked: MANY,
            faults,
        },
        rules: OURS,
    }
}

/// All that a bus may lose, once each, and a writer and a consumer that die.
pub(crate) const BUS_FAULTS: Faults = Faults {
    silent_commits: 1,
    losses: 1,
    trims: 1,
    tail_losses: 1,
    crashes: 1,
    ..Faults::NONE
};

/// Two consumers that live by the log, of which each may die, be taken for dead, or be asked for the partition.
pub(crate) fn in_a_group(events: usize, faults: Faults) -> System {
    System {
        script: Script::of(&SHARED[..events]),
        bounds: Bounds {
            relays: 0,
            processes: 2,
            written_before: Position::START,
            bus_entries: MANY,
            max_parked: MANY,
            faults,
        },
        rules: OURS,
    }
}

/// All that happens in a group.
pub(crate) const GROUP_FAULTS: Faults = Faults {
    crashes: 1,
    steals: 2,
    lost_answers: 1,
    hand_overs: 1,
    ..Faults::NONE
};

/// Two consumers and a first event that fails until the code is mended. All is written already: when is of no importance.
pub(crate) fn with_poison(events: usize, faults: Faults) -> System {
    let mut system = in_a_group(events, faults);
    system.script = system.script.poisoned_at(&[1]);
    system.bounds.written_before = system.script.end();
    system
}

/// Every way in which `events` events can change two documents, with each of them in turn, and each two, failing.
pub(crate) fn every_script(events: usize, faults: Faults) -> Vec<System> {
    let kinds: [&[&str]; 3] = [&["a"], &["b"], &["a", "b"]];
    let ways = kinds.len().pow(u32::try_from(events).expect("few events"));
    let script = |way: usize| {
        let kind = |place: u32| kinds[way / kinds.len().pow(place) % kinds.len()];
        let all: Vec<_> = (0..)
            .take(events)
            .map(|place| event("s", kind(place)))
            .collect();
        Script::of(&all)
    };
    let mut systems = Vec::new();
    for way in 0..ways {
        for first in 1..=events as u64 {
            for second in first..=events as u64 {
                let mut system = with_poison(1, faults);
                system.script = script(way).poisoned_at(&[first, second]);
                system.bounds.processes = 1;
                system.bounds.written_before = system.script.end();
                systems.push(system);
            }
        }
    }
    systems
}
