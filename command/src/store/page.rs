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
