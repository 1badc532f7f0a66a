//! The bus, as Redis Streams are, with all that it may lose, and the relays that fill it.

use tidelog_domain::Position;

use crate::system::{EntryIds, System};
use crate::world::World;

/// The stream of the partition: nothing at all, when it was never there or is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Bus {
    stream: Option<Stream>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Stream {
    /// The highest id that was ever given (`last-generated-id`).
    last: Position,
    entries: Vec<Entry>,
}

/// An entry. Its id is the event's position, unless the bus gives out ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) id: Position,
    pub(crate) position: Position,
}

impl Bus {
    /// What was published last, as far as the bus knows.
    pub(crate) fn last(&self) -> Option<Position> {
        self.stream.as_ref().map(|stream| stream.last)
    }

    /// The first entry after an id.
    pub(crate) fn after(&self, id: Position) -> Option<Entry> {
        let mut entries = self.stream.iter().flat_map(|stream| &stream.entries);
        entries.find(|entry| entry.id > id).copied()
    }

    /// The positions of the events that it has, in the order of the entries.
    pub(crate) fn positions(&self) -> impl Iterator<Item = Position> {
        let entries = self.stream.iter().flat_map(|stream| &stream.entries);
        entries.map(|entry| entry.position)
    }

    /// `XADD <position>-0`, which Redis turns down when the stream has come so far; or `XADD *`, which it never does.
    fn publish(&mut self, position: Position, ids: EntryIds) {
        let last = self.last();
        let id = match ids {
            EntryIds::Positions if last.is_some_and(|last| position <= last) => return,
            EntryIds::Positions => position,
            EntryIds::FromTheBus => last.unwrap_or(Position::START).next(),
        };
        let stream = self.stream.get_or_insert(Stream {
            last: id,
            entries: Vec::new(),
        });
        stream.last = id;
        stream.entries.push(Entry { id, position });
    }

    /// `FLUSHALL`, `DEL` of the stream, or a Redis that keeps nothing and was started again.
    pub(crate) fn lose(&mut self) -> bool {
        self.stream.take().is_some()
    }

    /// `XTRIM`: the oldest entry goes, the last id stays.
    pub(crate) fn trim(&mut self) -> bool {
        let Some(stream) = &mut self.stream else {
            return false;
        };
        let has_any = !stream.entries.is_empty();
        stream.entries.drain(..usize::from(has_any));
        has_any
    }

    /// The end of an append-only file is lost, or a stale replica takes over: the bus is what it was before the last entry.
    pub(crate) fn lose_tail(&mut self) -> bool {
        let Some(stream) = &mut self.stream else {
            return false;
        };
        stream.entries.pop();
        match stream.entries.last() {
            Some(entry) => stream.last = entry.id,
            None => self.stream = None,
        }
        true
    }
}

impl System {
    /// A relay asks the bus where it is, as it does at its start, after any failure, and now and then. What the bus has
    /// nothing of begins at the log's head.
    pub(crate) fn ask_bus(world: &mut World, relay: usize) -> bool {
        world.relays[relay] = Some(world.bus.last().unwrap_or(world.told));
        true
    }

    /// A relay publishes the event after its cursor. It may have slept since it asked: then it is late.
    pub(crate) fn publish(&self, world: &mut World, relay: usize) -> bool {
        let Some(cursor) = world.relays[relay] else {
            return false;
        };
        if cursor >= world.told || world.bus.positions().count() >= self.bounds.bus_entries {
            return false;
        }
        world.bus.publish(cursor.next(), self.rules.entry_ids);
        world.relays[relay] = Some(cursor.next());
        true
    }
}
