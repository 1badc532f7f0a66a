//! What is written to the log: a fixed list of events, and what each of them touches.

use tidelog_domain::{Cursor, EventId, Position};
use uuid::Uuid;

/// An event: its stream, and the documents of the view that it changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) stream: &'static str,
    pub(crate) documents: &'static [&'static str],
}

/// An event of a stream that changes these documents.
pub(crate) const fn event(stream: &'static str, documents: &'static [&'static str]) -> Event {
    Event { stream, documents }
}

/// All that will be written to the one partition of the log, and which events of it fail until the code is mended.
///
/// What an event is never changes, so a copy that was read long ago is as good as a new one. This is why the model's relays
/// and consumers hold positions where the code holds events.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    events: Vec<Event>,
    poison: Vec<Position>,
    documents: Vec<&'static str>,
}

impl Script {
    /// The events from position 1 on, none of which fails.
    pub(crate) fn of(events: &[Event]) -> Self {
        let mut documents: Vec<_> = events.iter().flat_map(|e| e.documents).copied().collect();
        documents.sort_unstable();
        documents.dedup();
        Self {
            events: events.to_vec(),
            poison: Vec::new(),
            documents,
        }
    }

    /// The same, with events that cannot be handled before the code is mended.
    pub(crate) fn poisoned_at(mut self, positions: &[u64]) -> Self {
        self.poison = positions.iter().copied().map(Position::new).collect();
        self
    }

    /// The position of the last event.
    pub(crate) fn end(&self) -> Position {
        Position::new(self.events.len() as u64)
    }

    /// The documents of the view.
    pub(crate) fn documents(&self) -> &[&'static str] {
        &self.documents
    }

    /// The event at a position of the log.
    pub(crate) fn event(&self, position: Position) -> &Event {
        &self.events[place(position)]
    }

    /// The places in [`Script::documents`] of those that the event at `position` changes.
    pub(crate) fn touched(&self, position: Position) -> impl Iterator<Item = usize> {
        let touched = self.event(position).documents;
        let documents = self.documents.iter().enumerate();
        documents
            .filter(|(_, document)| touched.contains(document))
            .map(|(place, _)| place)
    }

    /// Whether handling the event at `position` fails until the code is mended.
    pub(crate) fn is_poison(&self, position: Position) -> bool {
        self.poison.contains(&position)
    }

    /// Whether there is an event that fails.
    pub(crate) fn has_poison(&self) -> bool {
        !self.poison.is_empty()
    }

    /// All positions up to `last`.
    pub(crate) fn up_to(last: Position) -> impl Iterator<Item = Position> {
        (1..=last.number()).map(Position::new)
    }
}

/// The cursor of who is at `position`.
pub(crate) fn cursor_at(position: Position) -> Cursor {
    if position == Position::START {
        return Cursor::START;
    }
    let id = EventId::new(Uuid::from_u128(u128::from(position.number())));
    Cursor::at(position, id)
}

fn place(position: Position) -> usize {
    usize::try_from(position.number() - 1).expect("a script is short")
}
