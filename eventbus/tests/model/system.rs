//! The model itself: what it is built of, and everything that can happen next.

use stateright::{Model, Property};
use tidelog_domain::Position;
use tidelog_eventbus::{Gate, gate};

use crate::properties;
use crate::script::Script;
use crate::world::{Faults, World, spend};

/// A model: what is written, by how many it is carried and consumed, what goes wrong, and by which rules.
#[derive(Clone, Debug)]
pub(crate) struct System {
    pub(crate) script: Script,
    pub(crate) bounds: Bounds,
    pub(crate) rules: Rules,
}

/// How much of everything there is.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// How many relays publish; without any, consumers live by the log alone.
    pub(crate) relays: usize,
    /// How many processes consume.
    pub(crate) processes: usize,
    /// How many events are in the log at the start.
    pub(crate) written_before: Position,
    /// How many entries fit into the bus: a bound only where it takes duplicates.
    pub(crate) bus_entries: usize,
    /// How many sequences may be set aside.
    pub(crate) max_parked: usize,
    pub(crate) faults: Faults,
}

/// The rules of tidelog that a negative control breaks, one at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) gate: fn(Position, Position) -> Gate,
    pub(crate) entry_ids: EntryIds,
    pub(crate) polls: bool,
    pub(crate) writes: Writes,
    pub(crate) checkpoint: Checkpoints,
    pub(crate) sequences: Sequences,
    pub(crate) closure: Closure,
    pub(crate) setting_aside: SettingAside,
    pub(crate) skips: Skips,
    pub(crate) renewal: Renewal,
}

/// Where the ids of the bus's entries come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryIds {
    /// From the events' positions.
    Positions,
    /// From the bus (`XADD *`).
    FromTheBus,
}

/// When a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    /// When it has not come so far.
    OnConditionOfThePosition,
    /// Whatever it has.
    Always,
}

/// When the checkpoint is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checkpoints {
    AfterTheEffect,
    BeforeTheEffect,
}

/// What keeps its order, and waits together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sequences {
    /// The documents that an event changes.
    Documents,
    /// The stream that it belongs to.
    Streams,
}

/// What waits with an event that waits behind a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closure {
    OverAllSequences,
    /// Only what waits already: the event's other documents go on.
    None,
}

/// How an event is set aside and passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SettingAside {
    /// Both in one compare-and-set.
    WithTheCursor,
    /// The cursor in one, and what is set aside in the next.
    AfterTheCursor,
}

/// When it is written that an event is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skips {
    /// Before a later event of its sequences is applied.
    WrittenFirst,
    /// With what comes after it.
    WrittenLater,
}

/// What an owner writes to keep its lease while it is busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// What is stored, as it is: it may be more than the owner heard of.
    WhatIsStored,
    /// What the owner knew before, put upon what is stored now.
    WhatWasKnown,
}

/// tidelog's own rules.
pub(crate) const OURS: Rules = Rules {
    gate,
    entry_ids: EntryIds::Positions,
    polls: true,
    writes: Writes::OnConditionOfThePosition,
    checkpoint: Checkpoints::AfterTheEffect,
    sequences: Sequences::Documents,
    closure: Closure::OverAllSequences,
    setting_aside: SettingAside::WithTheCursor,
    skips: Skips::WrittenFirst,
    renewal: Renewal::WhatIsStored,
};

/// Something that happens.
///
/// Nobody is ever made to act: who is stopped, late, or a zombie is who does not act for a while, and then does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A writer commits an event and signals it.
    Commit,
    /// A writer commits an event and dies before it signals.
    CommitSilently,
    /// Somebody looks where the log's head is.
    Poll,

    /// A relay asks the bus where it is.
    RelayAsks { relay: usize },
    /// A relay publishes the event after its cursor.
    RelayPublishes { relay: usize },
    /// The bus loses everything.
    LoseBus,
    /// The bus drops its oldest entry.
    TrimBus,
    /// The bus loses its last entry, and does not know that it had it.
    LoseTailOfBus,

    /// A process takes the partition: it is free, or its owner is taken for dead.
    Take { process: usize },
    /// A process asks for the partition.
    Want { process: usize },
    /// An owner gives the partition to who asked for it.
    HandOver { process: usize },
    /// A process looks what became of its record.
    Notice { process: usize },
    /// A process dies, and with it what it had in memory.
    Crash { process: usize },

    /// A process reads the bus.
    Hear { process: usize },
    /// A process reads the log.
    ReadLog { process: usize },
    /// A process writes one of the documents of the event in hand.
    WriteDocument { process: usize, document: usize },
    /// A process writes its record.
    WriteRecord { process: usize },
    /// A process writes its record, and does not hear that it was written.
    WriteRecordUnanswered { process: usize },
    /// A process that is busy keeps its lease.
    Renew { process: usize },
    /// A process tries again what was set aside.
    Retry { process: usize },

    /// The code that fails is mended.
    Mend,
    /// An operator has all that is set aside tried again.
    AskForRetry,
    /// An operator has one document tried again.
    AskForRetryOf { document: usize },
    /// An operator has the first event of a document skipped.
    AskForSkip { document: usize },
}

impl System {
    /// Does it, and says whether it could happen at all.
    fn act(&self, world: &mut World, action: Action) -> bool {
        let end = self.script.end();
        match action {
            Action::Commit => world.commit(end) && world.poll(),
            Action::CommitSilently => spend(&mut world.left.silent_commits) && world.commit(end),
            Action::Poll => self.rules.polls && world.poll(),
            Action::RelayAsks { relay } => Self::ask_bus(world, relay),
            Action::RelayPublishes { relay } => self.publish(world, relay),
            Action::LoseBus => spend(&mut world.left.losses) && world.bus.lose(),
            Action::TrimBus => spend(&mut world.left.trims) && world.bus.trim(),
            Action::LoseTailOfBus => spend(&mut world.left.tail_losses) && world.bus.lose_tail(),
            Action::Take { process } => world.take_if_free(process),
            Action::Want { process } => spend(&mut world.left.hand_overs) && world.want(process),
            Action::HandOver { process } => world.hand_over(process),
            Action::Notice { process } => world.notice(process),
            Action::Crash { process } => spend(&mut world.left.crashes) && world.crash(process),
            Action::Hear { process } => self.hear(world, process),
            Action::ReadLog { process } => self.read_log(world, process),
            Action::WriteDocument { process, document } => {
                self.write_document(world, process, document)
            }
            Action::WriteRecord { process } => self.write_record(world, process, true),
            Action::WriteRecordUnanswered { process } => {
                spend(&mut world.left.lost_answers) && self.write_record(world, process, false)
            }
            Action::Renew { process } => self.renew(world, process),
            Action::Retry { process } => self.retry(world, process),
            Action::Mend => self.script.has_poison() && world.mend(),
            Action::AskForRetry => Self::ask_for_retry(world),
            Action::AskForRetryOf { document } => self.ask_for_retry_of(world, document),
            Action::AskForSkip { document } => self.ask_for_skip(world, document),
        }
    }

    /// What comes of an action; nothing when it cannot happen, or changes nothing.
    fn after(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        let happens = self.act(&mut next, action);
        next.relays.sort_unstable();
        (happens && next != *world).then_some(next)
    }

    /// All that might happen, whether it can now or not.
    fn conceivable(&self, actions: &mut Vec<Action>) {
        use Action as A;
        actions.extend([A::Commit, A::CommitSilently, A::Poll]);
        let relays = 0..self.bounds.relays;
        for relay in relays.clone() {
            actions.extend([A::RelayAsks { relay }, A::RelayPublishes { relay }]);
        }
        if !relays.is_empty() {
            actions.extend([A::LoseBus, A::TrimBus, A::LoseTailOfBus]);
        }
        let documents = 0..self.script.documents().len();
        for process in 0..self.bounds.processes {
            actions.extend([
                A::Take { process },
                A::Want { process },
                A::HandOver { process },
                A::Notice { process },
                A::Crash { process },
                A::ReadLog { process },
                A::WriteRecord { process },
                A::WriteRecordUnanswered { process },
                A::Renew { process },
            ]);
            if !relays.is_empty() {
                actions.push(A::Hear { process });
            }
            let write = |document| A::WriteDocument { process, document };
            actions.extend(documents.clone().map(write));
            if self.script.has_poison() {
                actions.push(A::Retry { process });
            }
        }
        if self.script.has_poison() {
            actions.extend([A::Mend, A::AskForRetry]);
            for document in documents {
                actions.extend([A::AskForRetryOf { document }, A::AskForSkip { document }]);
            }
        }
    }

    /// Whether nothing happens any more unless something goes wrong.
    pub(crate) fn is_settled(&self, world: &World) -> bool {
        let mut actions = Vec::new();
        self.conceivable(&mut actions);
        let mut nexts = actions.into_iter().filter_map(|it| self.after(world, it));
        nexts.all(|next| next.left != world.left)
    }
}

impl Model for System {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::at_start(self)]
    }

    fn actions(&self, _: &World, actions: &mut Vec<Action>) {
        self.conceivable(actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        self.after(world, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = properties::always();
        all.extend(properties::sometimes(self));
        all
    }
}
