//! The cursor of the feed.

use std::fmt;

use tidelog_domain::{Cursor, EventId, HistoryId, Partition, Position};
use uuid::Uuid;

/// How far a reader of a feed is in one partition, and in which history of the log: opaque to clients,
/// `1.<history>.<partition>-<position>[-<event>]` to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedCursor {
    /// The history.
    pub history: HistoryId,
    /// The partition.
    pub partition: Partition,
    /// The last event read. Its id may be missing, where only its position was known; then nothing is compared.
    pub at: Cursor,
}

impl FeedCursor {
    /// Before the first event of `partition`.
    #[must_use]
    pub const fn start(history: HistoryId, partition: Partition) -> Self {
        Self {
            history,
            partition,
            at: Cursor::START,
        }
    }

    /// Reads what was written by [`fmt::Display`]; `None` for what was not.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (history, place) = text.strip_prefix("1.")?.split_once('.')?;
        let mut parts = place.splitn(3, '-');
        let partition = Partition::new(parts.next()?.parse().ok()?);
        let position = Position::new(parts.next()?.parse().ok()?);
        let event_id = match parts.next() {
            None => None,
            Some(_) if position == Position::START => return None,
            Some(event) => Some(EventId::new(uuid(event)?)),
        };
        let at = Cursor { position, event_id };
        Some(Self {
            history: HistoryId::new(uuid(history)?),
            partition,
            at,
        })
    }
}

fn uuid(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok()
}

impl fmt::Display for FeedCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (history, partition, position) = (self.history, self.partition, self.at.position);
        write!(f, "1.{history}.{partition}-{position}")?;
        match self.at.event_id {
            Some(event) => write!(f, "-{}", event.uuid().simple()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_as_it_was_written() {
        let history = HistoryId::new(Uuid::from_u128(5));
        let start = FeedCursor::start(history, Partition::new(3));
        let read = FeedCursor {
            at: Cursor::at(Position::new(7), EventId::new(Uuid::from_u128(9))),
            ..start
        };
        let without_id = FeedCursor {
            at: Cursor {
                event_id: None,
                ..read.at
            },
            ..read
        };
        for cursor in [start, read, without_id] {
            assert_eq!(FeedCursor::read(&cursor.to_string()), Some(cursor));
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let id = "00000000000000000000000000000005";
        for text in [
            String::new(),
            "1".to_owned(),
            format!("2.{id}.0-0"),
            format!("1.{id}"),
            format!("1.{id}.0"),
            format!("1.{id}.0-0-{id}"),
            format!("1.{id}.0-7-x"),
            format!("1.{id}.70000-7-{id}"),
            "1.x.0-0".to_owned(),
        ] {
            assert_eq!(FeedCursor::read(&text), None, "{text}");
        }
    }
}
