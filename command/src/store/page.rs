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

/// The most bytes of payload and metadata that a page of one stream holds, the event that goes beyond it aside: 4 MiB. It answers one
/// request, of which there may be many.
pub(crate) const STREAM_PAGE_MAX_BYTES: usize = 4 * 1024 * 1024;

/// What a page has so far.
#[derive(Default)]
pub(crate) struct Page {
    events: Vec<RecordedEvent>,
    bytes: usize,
    /// Why the row after them cannot be understood.
    unreadable: Option<Failure>,
}

impl Page {
    /// Adds the next row: its event and how many bytes that has, or why it cannot be understood.
    pub(crate) fn push(&mut self, row: Result<(RecordedEvent, usize), Failure>) {
        match row {
            Ok((event, bytes)) => {
                self.events.push(event);
                self.bytes = self.bytes.saturating_add(bytes);
            }
            Err(failure) => self.unreadable = Some(failure),
        }
    }

    /// Whether it has to end here. It has room for two events at least: the cursor's own, and a new one.
    pub(crate) fn is_full(&self) -> bool {
        let has_enough = self.events.len() > 1 && self.bytes >= PAGE_MAX_BYTES;
        has_enough || self.unreadable.is_some()
    }
}

impl From<Vec<RecordedEvent>> for Page {
    fn from(events: Vec<RecordedEvent>) -> Self {
        Self {
            events,
            ..Self::default()
        }
    }
}

/// The events after `cursor`, out of those read from [`first_position`] on. They end before a row that cannot be understood, and
/// before a position that is missing: that holds back no event before it, and fails the read that begins there.
///
/// # Errors
///
/// [`Failure::Diverged`] when the cursor's event is not there, or is another; [`Failure::Corrupt`] when the first row cannot be
/// understood, or is missing.
pub(crate) fn after_cursor(
    partition: Partition,
    cursor: Cursor,
    page: impl Into<Page>,
) -> Result<Vec<RecordedEvent>, Failure> {
    let Page {
        mut events,
        mut unreadable,
        ..
    } = page.into();
    let first = first_position(cursor);
    let has_own = cursor.position > Position::START;
    if has_own && !(events.is_empty() && unreadable.is_some()) {
        let there = events.first().filter(|event| event.position == first);
        if there.is_none_or(|event| cursor.event_id.is_some_and(|id| id != event.id)) {
            return Err(Failure::Diverged {
                partition,
                position: cursor.position,
            });
        }
    }
    let dense = std::iter::successors(Some(first), |position| Some(position.next()));
    let mut rows = events.iter().zip(dense).enumerate();
    let hole = rows.find(|(_, (event, expected))| event.position != *expected);
    if let Some((after, missing)) = hole.map(|(at, (_, missing))| (at, missing)) {
        events.truncate(after);
        unreadable = Some(Failure::Corrupt(format!(
            "partition {partition} has no event at position {missing}"
        )));
    }
    if has_own && !events.is_empty() {
        events.remove(0);
    }
    match unreadable {
        Some(failure) if events.is_empty() => Err(failure),
        _ => Ok(events),
    }
}

#[cfg(test)]
mod tests {
    use tidelog_domain::{EventId, Payload, StreamId, Version};

    use super::*;

    const PARTITION: Partition = Partition::new(1);

    /// The events at `positions`.
    fn events(positions: &[u64]) -> Vec<RecordedEvent> {
        let event = |position: &u64| RecordedEvent {
            stream: StreamId::new("thing", "1").unwrap(),
            version: Version::new(*position),
            partition: PARTITION,
            position: Position::new(*position),
            id: EventId::new(uuid::Uuid::from_u128(u128::from(*position))),
            event_type: "thing.happened".into(),
            schema_version: 1,
            payload: Payload::from_stored(b"{}"),
            metadata: Payload::from_stored(b"{}"),
            recorded_at: chrono::DateTime::UNIX_EPOCH,
        };
        positions.iter().map(event).collect()
    }

    /// The cursor at the event at `position`.
    fn cursor(position: u64) -> Cursor {
        events(&[position])[0].cursor()
    }

    /// What the rows at `positions` come to, after `cursor`; with an unreadable row after them where `spoilt`.
    fn read(cursor: Cursor, positions: &[u64], spoilt: bool) -> Result<Vec<u64>, Failure> {
        let mut page = Page::from(events(positions));
        if spoilt {
            page.push(Err(Failure::Corrupt("spoilt".to_owned())));
            assert!(page.is_full());
        }
        let read = after_cursor(PARTITION, cursor, page)?;
        Ok(read.iter().map(|event| event.position.number()).collect())
    }

    /// Why the same fails.
    fn why(cursor: Cursor, positions: &[u64], spoilt: bool) -> String {
        match read(cursor, positions, spoilt) {
            Err(Failure::Corrupt(what)) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_missing_position_holds_back_no_event_before_it() {
        let missing = "partition 1 has no event at position 3";
        assert_eq!(read(Cursor::START, &[1, 2, 4, 5], false).unwrap(), [1, 2]);
        assert_eq!(read(cursor(1), &[1, 2, 4, 5], false).unwrap(), [2]);
        assert_eq!(why(cursor(2), &[2, 4, 5], false), missing);
        assert_eq!(read(cursor(4), &[4, 5], false).unwrap(), [5]);
        let first = "partition 1 has no event at position 1";
        assert_eq!(why(Cursor::START, &[2, 3], false), first);
    }

    #[test]
    fn an_unreadable_row_holds_back_no_event_before_it() {
        assert_eq!(read(Cursor::START, &[1, 2], true).unwrap(), [1, 2]);
        assert_eq!(read(cursor(1), &[1, 2], true).unwrap(), [2]);
        assert_eq!(why(cursor(2), &[2], true), "spoilt");
        // The cursor's own row cannot be compared.
        assert_eq!(why(cursor(3), &[], true), "spoilt");
        assert_eq!(why(Cursor::START, &[], true), "spoilt");
    }

    #[test]
    fn an_unreadable_row_hides_no_divergence() {
        let another = Cursor::at(Position::new(1), EventId::new(uuid::Uuid::nil()));
        for (cursor, positions) in [(another, [1, 2]), (cursor(1), [2, 3])] {
            let read = read(cursor, &positions, true);
            assert!(matches!(read, Err(Failure::Diverged { .. })), "{read:?}");
        }
    }
}
