//! Looking for events and streams: what the adapters share, pure.

use std::ops::RangeInclusive;

use tidelog_domain::{Partition, Position, RecordedEvent, StreamId};
use tidelog_eventbus::{EventQuery, Found};

use super::failure::Failure;
use super::page::STREAM_PAGE_MAX_BYTES;

/// A search of a part of a partition.
pub(crate) struct Search<'q> {
    wanted: &'q EventQuery,
    newest_first: bool,
    /// How many rows are asked for.
    limit: usize,
    /// The part: the first positions of the range, from the end that the search begins at.
    first: Position,
    last: Position,
    found: Found,
    rows: usize,
    bytes: usize,
}

impl<'q> Search<'q> {
    /// A search of `range` for what is `wanted`, at most `max_rows` of it, for `limit` events.
    pub(crate) fn new(
        range: &RangeInclusive<Position>,
        wanted: &'q EventQuery,
        newest_first: bool,
        limit: usize,
        max_rows: u64,
    ) -> Self {
        let (mut first, mut last) = (range.start().number(), range.end().number());
        let more = max_rows.saturating_sub(1);
        if newest_first {
            first = first.max(last.saturating_sub(more));
        } else {
            last = last.min(first.saturating_add(more));
        }
        let (first, last) = (Position::new(first), Position::new(last));
        Self {
            wanted,
            newest_first,
            limit: limit.max(1),
            first,
            last,
            found: Found {
                events: Vec::new(),
                unreadable: Vec::new(),
                looked_to: if newest_first { first } else { last },
            },
            rows: 0,
            bytes: 0,
        }
    }

    /// The part's first position and its last.
    pub(crate) const fn part(&self) -> (Position, Position) {
        (self.first, self.last)
    }

    /// What asks for the part of `partition`: `columns` of the events, and `contains` says in this SQL whether the metadata contains some
    /// bytes.
    pub(crate) fn statement(
        &self,
        partition: Partition,
        columns: &str,
        contains: &str,
    ) -> Statement {
        let mut statement = Statement::new(format!(
            "SELECT {columns} FROM events WHERE partition_no=? AND position BETWEEN ? AND ?"
        ));
        let of_partition = u64::from(partition.number());
        for number in [of_partition, self.first.number(), self.last.number()] {
            statement.values.push(Value::Number(number));
        }
        if let Some(name) = &self.wanted.event_type {
            statement.and("event_type=?", Value::Text(name.clone()));
        }
        if let Some(id) = self.wanted.event_id {
            let bytes = id.uuid().into_bytes().to_vec();
            statement.and("event_id=?", Value::Bytes(bytes));
        }
        if let Some(tenant) = &self.wanted.tenant {
            statement.and_begins("stream", &tenant.streams());
        }
        for part in self.wanted.metadata_parts() {
            statement.and(contains, Value::Bytes(part.into_bytes()));
        }
        let order = if self.newest_first { " DESC" } else { " ASC" };
        statement.sql.push_str(" ORDER BY position");
        statement.sql.push_str(order);
        statement.limited(self.limit)
    }

    /// Whether it has to end with the row that came last.
    pub(crate) const fn is_full(&self) -> bool {
        self.rows >= self.limit || self.bytes >= STREAM_PAGE_MAX_BYTES
    }

    /// Takes in the row at `position`: its event and how many bytes that has, or why it cannot be understood.
    ///
    /// # Errors
    ///
    /// A failure that is not the row's own.
    pub(crate) fn push(
        &mut self,
        position: Position,
        row: Result<(RecordedEvent, usize), Failure>,
    ) -> Result<(), Failure> {
        self.rows += 1;
        match row {
            Ok((event, bytes)) => {
                self.bytes = self.bytes.saturating_add(bytes);
                // A database finds a text, which may stand elsewhere in the metadata.
                if self.wanted.fits(&event) {
                    self.found.events.push(event);
                }
            }
            Err(Failure::Corrupt(why)) => self.found.unreadable.push((position, why)),
            Err(other) => return Err(other),
        }
        if self.is_full() {
            self.found.looked_to = position;
        }
        Ok(())
    }

    /// What it came to.
    pub(crate) fn done(self) -> Found {
        self.found
    }
}

/// A statement, and what is bound to its places in turn.
pub(crate) struct Statement {
    pub(crate) sql: String,
    pub(crate) values: Vec<Value>,
}

/// Something that is bound.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Number(u64),
    /// A name, as the dialect keeps names.
    Text(String),
    Bytes(Vec<u8>),
}

impl Statement {
    /// What asks for streams whose name begins with `prefix`, after `after`, with their last versions, by name: by the index of streams and
    /// versions alone.
    pub(crate) fn of_streams(prefix: &str, after: Option<&StreamId>, limit: usize) -> Self {
        let mut statement =
            Self::new("SELECT stream,MAX(version) FROM events WHERE stream>?".to_owned());
        let after = after.map_or("", StreamId::as_str);
        statement.values.push(Value::Text(after.to_owned()));
        statement.and_begins("stream", prefix);
        statement.sql.push_str(" GROUP BY stream ORDER BY stream");
        statement.limited(limit)
    }

    const fn new(sql: String) -> Self {
        let values = Vec::new();
        Self { sql, values }
    }

    fn and(&mut self, condition: &str, value: Value) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
        self.values.push(value);
    }

    /// And the name in `column` begins with `prefix`.
    fn and_begins(&mut self, column: &str, prefix: &str) {
        self.and(&format!("{column}>=?"), Value::Text(prefix.to_owned()));
        if let Some(end) = after_all_with(prefix) {
            self.and(&format!("{column}<?"), Value::Text(end));
        }
    }

    fn limited(mut self, limit: usize) -> Self {
        self.sql.push_str(" LIMIT ?");
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        self.values.push(Value::Number(limit));
        self
    }
}

/// The first name, in the order of bytes, after all that begin with `prefix`; `None` where there is none.
fn after_all_with(prefix: &str) -> Option<String> {
    let mut rest = prefix.to_owned();
    while let Some(last) = rest.pop() {
        let mut next = (last..=char::MAX).skip(1);
        if let Some(next) = next.next() {
            rest.push(next);
            return Some(rest);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_begins_where_the_search_does_and_is_bounded() {
        let all = EventQuery::default();
        let part = |range: [u64; 2], newest_first, max_rows| {
            let range = Position::new(range[0])..=Position::new(range[1]);
            let search = Search::new(&range, &all, newest_first, 9, max_rows);
            let (first, last) = search.part();
            let looked_to = search.done().looked_to;
            [first, last, looked_to].map(Position::number)
        };
        assert_eq!(part([3, 100], true, 10), [91, 100, 91]);
        assert_eq!(part([3, 100], false, 10), [3, 12, 12]);
        assert_eq!(part([3, 9], true, 10), [3, 9, 3]);
        assert_eq!(part([3, 9], false, 10), [3, 9, 9]);
        assert_eq!(part([3, u64::MAX], false, 1), [3, 3, 3]);
    }

    #[test]
    fn a_statement_has_a_place_for_each_value() {
        let wanted = EventQuery {
            event_type: Some("post.created".to_owned()),
            correlation_id: Some("checkout-7".to_owned()),
            ..EventQuery::default()
        };
        let range = Position::new(3)..=Position::new(9);
        let search = Search::new(&range, &wanted, true, 5, 100);
        let of_events = search.statement(Partition::new(2), "position", "HAS(?)");
        assert_eq!(
            of_events.sql,
            "SELECT position FROM events WHERE partition_no=? AND position BETWEEN ? AND ? AND event_type=? AND HAS(?) \
             ORDER BY position DESC LIMIT ?"
        );
        let of_streams = Statement::of_streams("post/", None, 5);
        assert_eq!(
            of_streams.sql,
            "SELECT stream,MAX(version) FROM events WHERE stream>? AND stream>=? AND stream<? GROUP BY stream \
             ORDER BY stream LIMIT ?"
        );
        for Statement { sql, values } in [of_events, of_streams] {
            assert_eq!(sql.matches('?').count(), values.len(), "{sql}");
            assert_eq!(values.last(), Some(&Value::Number(5)));
        }
    }

    #[test]
    fn the_name_after_a_prefix_is_after_all_that_begin_with_it() {
        for (prefix, after) in [
            ("", None),
            ("post/", Some("post0")),
            ("post/z", Some("post/{")),
            ("a\u{d7ff}", Some("a\u{e000}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
        ] {
            assert_eq!(after_all_with(prefix).as_deref(), after, "{prefix:?}");
        }
    }
}
