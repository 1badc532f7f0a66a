//! What was read from the log, checked: pure, and the same for every adapter.

use tidelog_domain::{Cursor, Partition, Position, RecordedEvent};

use super::failure::Failure;

/// The position that a read from `cursor` on begins at: the cursor's own, so that the event there can be compared.
pub(crate) fn first_position(cursor: Cursor) -> Position {
    cursor.position.max(Position::START.next())
}

/// How many rows a read of `limit` events from `cursor` on asks for: one more where the cursor's own event is read too.
pub(crate) fn rows_to_read(cursor: Cursor, limit: usize) -> usize {
    limit.saturating_add(usize::from(cursor.position > Position::START))
}

/// The most bytes of payload and metadata that one page holds, the event that goes beyond it aside: 16 MiB. Readers hold a page for each
/// partition.
const PAGE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// What a page has so far.
#[derive(Default)]
pub(crate) struct Page {
    events: Vec<RecordedEvent>,
    bytes: usize,
}

impl Page {
    /// Adds the next event.
    pub(crate) fn push(&mut self, event: RecordedEvent, bytes: usize) {
        self.events.push(event);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Whether it has to end here. It has room for two events at least: the cursor's own, and a new one.
    pub(crate) fn is_full(&self) -> bool {
        self.events.len() > 1 && self.bytes >= PAGE_MAX_BYTES
    }

    /// Its events.
    pub(crate) fn into_events(self) -> Vec<RecordedEvent> {
        self.events
    }
}

/// The events after `cursor`, out of those read from [`first_position`] on.
///
/// # Errors
///
/// [`Failure::Diverged`] when the cursor's event is not there, or is another; [`Failure::Corrupt`] when a position is missing.
pub(crate) fn after_cursor(
    partition: Partition,
    cursor: Cursor,
    mut events: Vec<RecordedEvent>,
) -> Result<Vec<RecordedEvent>, Failure> {
    let mut expected = first_position(cursor);
    if cursor.position > Position::START {
        let there = events.first().filter(|event| event.position == expected);
        if there.is_none_or(|event| cursor.event_id.is_some_and(|id| id != event.id)) {
            return Err(Failure::Diverged {
                partition,
                position: cursor.position,
            });
        }
    }
    for event in &events {
        if event.position != expected {
            return Err(Failure::Corrupt(format!(
                "partition {partition} has no event at position {expected}"
            )));
        }
        expected = expected.next();
    }
    if cursor.position > Position::START {
        events.remove(0);
    }
    Ok(events)
}
