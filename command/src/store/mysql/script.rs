//! The text of a transaction: several statements that go to the server in one trip.
//!
//! Every value is written as a number or as a hexadecimal literal, so that nothing of what users send is ever part of
//! the SQL itself. The forms are those that MySQL 8.4, 9.7 and MariaDB 10.11 have in common.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use sqlx::Row as _;
use sqlx::mysql::MySqlRow;
use tidelog_domain::{Cursor, EventId, Partition, Position, StreamId, Version};
use uuid::Uuid;

use super::known::{Head, Heads};
use crate::store::keys::ScopedKey;
use crate::store::plan::{Plan, Row};
use crate::store::{ReadFrom, StreamRead};

/// The columns of an event, as [`super::reader`] takes them from a row.
pub(super) const COLUMNS: &str = "partition_no,position,stream,version,event_id,event_type,schema_version,payload,metadata,\
     TIMESTAMPDIFF(MICROSECOND,'1970-01-01',recorded_at)";

/// What an INSERT of events begins with.
const INSERT: &str = "INSERT INTO events (partition_no,position,stream,version,event_id,event_type,schema_version,payload,metadata,\
     recorded_at) VALUES ";

/// The snapshots of this history whose event the log has.
const FITTING_SNAPSHOTS: &str = "FROM snapshots JOIN log_meta USING (history) JOIN events USING (stream,version,event_id) WHERE ";

/// What an INSERT of idempotency keys begins with.
const INSERT_KEYS: &str =
    "INSERT INTO idempotency_keys (recorded_at,scoped_key,fingerprint,outcome,streams) VALUES ";

/// The first column of a row of [`Script::keys`].
pub(super) const KEY_ROW: i64 = -2;

/// What a row takes in the text beside the doubled bytes of its event: numbers, quotes, the stream's name.
const ROW_OVERHEAD: usize = 200;

/// Some statements, run one after the other until one fails.
#[derive(Debug, Default)]
pub(super) struct Script {
    text: String,
    /// Where each statement begins.
    begins: Vec<usize>,
    /// How many events [`Script::lock`] looks for, which were seen and must be there.
    seen: usize,
    /// How many heads [`Script::move_heads`] was to move, until the first row after it is written.
    moved: Option<usize>,
}

/// Where the rows of a plan begin, and when they are recorded.
#[derive(Debug)]
pub(super) enum Base {
    /// As [`Script::lock`] finds it.
    Asked,
    /// From these heads on, if they are the log's; at the time of the statement that moves them.
    Known(Heads),
}

impl Script {
    /// How many statements there are.
    pub(super) const fn statements(&self) -> usize {
        self.begins.len()
    }

    /// The text.
    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// The text in parts of whole statements, to be sent one after the other: each has `max_bytes` at most, or one statement.
    pub(super) fn trips(&self, max_bytes: usize) -> impl Iterator<Item = &str> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let begin = *self.begins.get(from)?;
            let end_of = |n: usize| {
                self.begins
                    .get(n + 1)
                    .map_or(self.text.len(), |next| next - 1)
            };
            let mut last = from;
            while last + 1 < self.begins.len() && end_of(last + 1) - begin <= max_bytes {
                last += 1;
            }
            from = last + 1;
            self.text.get(begin..end_of(last))
        })
    }

    /// The bytes of the longest part of [`Script::trips`].
    pub(super) fn longest_trip(&self, max_bytes: usize) -> usize {
        self.trips(max_bytes).map(str::len).max().unwrap_or(0)
    }

    /// Adds a statement that has no values.
    pub(super) fn statement(&mut self, sql: &str) -> &mut Self {
        self.next().push_str(sql);
        self
    }

    /// Goes to the next statement.
    fn next(&mut self) -> &mut String {
        if !self.begins.is_empty() {
            self.text.push(';');
        }
        self.begins.push(self.text.len());
        &mut self.text
    }

    /// Locks the heads of `partitions`, in ascending order, and keeps for each `p` the next position in `@hp` and the last time
    /// in `@tp`; and in `@seen` how many of the events are there that `seen` knows.
    ///
    /// The index is forced: a scan of the table would wait for the locks of other partitions too.
    pub(super) fn lock(
        &mut self,
        partitions: &BTreeSet<Partition>,
        seen: impl Fn(Partition) -> Option<Cursor>,
    ) -> &mut Self {
        let known = |partition: &Partition| Some((*partition, seen(*partition)?));
        let known: Vec<_> = partitions.iter().filter_map(known).collect();
        self.seen = known.len();
        let text = self.next();
        text.push_str("SELECT ");
        for partition in partitions {
            put(
                text,
                format_args!(
                    "MAX(IF(partition_no={partition},next_position,NULL)),\
                     MAX(IF(partition_no={partition},last_recorded_at,NULL)),"
                ),
            );
        }
        // One subquery for all: the server prepares each by itself, at a cost.
        text.push_str("(SELECT COUNT(*) FROM events FORCE INDEX (PRIMARY) WHERE ");
        for (n, (partition, cursor)) in known.iter().enumerate() {
            if n > 0 {
                text.push_str(" OR ");
            }
            is_event_at(text, *partition, *cursor);
        }
        text.push_str(if known.is_empty() { "FALSE)" } else { ")" });
        text.push_str(" INTO ");
        for partition in partitions {
            put(text, format_args!("@h{partition},@t{partition},"));
        }
        text.push_str("@seen FROM log_head FORCE INDEX (PRIMARY) WHERE partition_no IN (");
        list(text, partitions);
        text.push_str(") FOR UPDATE");
        self
    }

    /// Asks whether an event that was seen is gone, or a head was not to be had: see [`Script::says_lost`].
    pub(super) fn say_whether_lost(&mut self, partitions: &BTreeSet<Partition>) -> &mut Self {
        let seen = self.seen;
        let text = self.next();
        put(text, format_args!("SELECT -1,CAST(@seen<>{seen}"));
        for partition in partitions {
            put(text, format_args!(" OR @h{partition} IS NULL"));
        }
        text.push_str(" AS UNSIGNED)");
        self
    }

    /// Whether `rows`, among which is the answer to [`Script::say_whether_lost`], say that one was not.
    pub(super) fn says_lost(rows: &[MySqlRow]) -> bool {
        let says =
            |row: &MySqlRow| matches!((row.try_get(0), row.try_get(1)), (Ok(-1_i64), Ok(1_u64)));
        rows.iter().any(says)
    }

    /// Asks for the versions of `streams`: a row `(n, version)` each, where `n` counts from 0; NULL for one without events.
    ///
    /// One subquery each, which the server answers by one look at the end of the stream's index entries. Grouping may
    /// read all entries of a long stream instead.
    pub(super) fn versions<'a>(
        &mut self,
        streams: impl IntoIterator<Item = &'a StreamId>,
    ) -> &mut Self {
        let text = self.next();
        for (n, stream) in streams.into_iter().enumerate() {
            if n > 0 {
                text.push_str(" UNION ALL ");
            }
            put(
                text,
                format_args!("SELECT {n},(SELECT MAX(version) FROM events WHERE stream="),
            );
            hex(text, stream.as_str().as_bytes());
            text.push(')');
        }
        self
    }

    /// Asks what is recorded under `keys`: a row `(KEY_ROW, key, fingerprint, outcome, streams)` for each that was used.
    pub(super) fn keys<'a>(&mut self, keys: impl IntoIterator<Item = &'a ScopedKey>) -> &mut Self {
        let text = self.next();
        put(
            text,
            format_args!(
                "SELECT {KEY_ROW},scoped_key,fingerprint,CAST(outcome AS UNSIGNED),streams FROM idempotency_keys \
                 FORCE INDEX (idempotency_key) WHERE scoped_key IN ("
            ),
        );
        for (n, key) in keys.into_iter().enumerate() {
            comma(text, n);
            hex(text, key);
        }
        text.push(')');
        self
    }

    /// Records the keys of `plan`, in their order. A key that was used ends the script here, before any event is written; one that
    /// another transaction is about to use is waited for.
    fn insert_keys(&mut self, plan: &Plan<'_>, insert_max: usize) -> &mut Self {
        let mut full_at = 0;
        for (key, row) in &plan.keys {
            if self.text.len() < full_at {
                self.text.push(',');
            } else {
                full_at = self.text.len() + insert_max;
                self.next().push_str(INSERT_KEYS);
            }
            self.text.push('(');
            self.unless_stopped(format_args!("UTC_TIMESTAMP(6)"));
            let text = &mut self.text;
            text.push(',');
            hex(text, key);
            text.push(',');
            hex(text, &row.fingerprint);
            put(text, format_args!(",{},", row.outcome()));
            hex(text, &row.streams());
            text.push(')');
        }
        self
    }

    /// Writes the keys of `plan`, and its rows, and moves the heads. An INSERT ends once it has `insert_max` bytes.
    pub(super) fn write(&mut self, plan: &Plan<'_>, base: &Base, insert_max: usize) -> &mut Self {
        match base {
            _ if plan.rows.is_empty() => self.insert_keys(plan, insert_max),
            Base::Known(heads) => self
                .move_heads(plan, heads)
                .insert_keys(plan, insert_max)
                .insert(plan, base, insert_max),
            Base::Asked => self
                .insert_keys(plan, insert_max)
                .times(plan)
                .insert(plan, base, insert_max)
                .heads(plan)
                .places(plan),
        }
    }

    /// Asks for the places of the rows of `plan`: a row `(partition, next position, microseconds)` for each partition.
    fn places(&mut self, plan: &Plan<'_>) -> &mut Self {
        let text = self.next();
        text.push_str("SELECT partition_no,next_position,TIMESTAMPDIFF(MICROSECOND,'1970-01-01',last_recorded_at) FROM log_head WHERE partition_no IN (");
        list(text, plan.counts.keys());
        text.push(')');
        self
    }

    /// Sets `@tp` to the time of the batch: now, but never before the partition's last time. Read once the heads are locked.
    /// And where events that this script looked for are not there any more, `@hp` to NULL: no row can be written then.
    fn times(&mut self, plan: &Plan<'_>) -> &mut Self {
        let seen = self.seen;
        let text = self.next();
        text.push_str("SET ");
        for (n, partition) in plan.counts.keys().enumerate() {
            comma(text, n);
            put(
                text,
                format_args!(
                    "@t{partition}=GREATEST(UTC_TIMESTAMP(6),CAST(@t{partition} AS DATETIME(6)))"
                ),
            );
            if seen > 0 {
                put(
                    text,
                    format_args!(",@h{partition}=IF(@seen={seen},@h{partition},NULL)"),
                );
            }
        }
        self
    }

    /// Moves `heads`, which locks them, in ascending order; and sets `LAST_INSERT_ID()` to the time of the batch in microseconds: now,
    /// but never before the last time of one of the partitions. When one of them is not where it is known to be, no row can be
    /// written after this.
    ///
    /// The index is forced: a scan of the table would wait for the locks of other partitions too.
    fn move_heads(&mut self, plan: &Plan<'_>, heads: &Heads) -> &mut Self {
        self.moved = Some(heads.len());
        let micros = |head: &Head| head.recorded_at.timestamp_micros();
        let latest = heads.values().map(micros).max().unwrap_or_default();
        let text = self.next();
        let next = |partition: &Partition, head: &Head| {
            let count = plan.counts.get(partition).copied().unwrap_or_default();
            head.next.plus(count).to_string()
        };
        text.push_str("UPDATE log_head FORCE INDEX (PRIMARY) SET next_position=");
        for_each(text, heads, next);
        put(
            text,
            format_args!(
                ",last_recorded_at='1970-01-01'+INTERVAL LAST_INSERT_ID(GREATEST(\
                 TIMESTAMPDIFF(MICROSECOND,'1970-01-01',UTC_TIMESTAMP(6)),{latest})) MICROSECOND \
                 WHERE partition_no IN ("
            ),
        );
        list(text, heads.keys());
        text.push_str(") AND next_position=");
        for_each(text, heads, |_, head| head.next.to_string());
        text.push_str(" AND TIMESTAMPDIFF(MICROSECOND,'1970-01-01',last_recorded_at)=");
        for_each(text, heads, |_, head| micros(head).to_string());
        self
    }

    /// Writes `value`; or NULL, which stops the script, when [`Script::move_heads`] was the last statement and did not move all of them.
    fn unless_stopped(&mut self, value: std::fmt::Arguments<'_>) {
        match self.moved.take() {
            Some(heads) => put(
                &mut self.text,
                format_args!("IF(ROW_COUNT()={heads},{value},NULL)"),
            ),
            None => put(&mut self.text, value),
        }
    }

    /// Writes all rows; an INSERT ends once it has `insert_max` bytes, and the next one begins.
    fn insert(&mut self, plan: &Plan<'_>, base: &Base, insert_max: usize) -> &mut Self {
        let sizes = plan
            .rows
            .iter()
            .map(|row| 2 * row.event.size() + ROW_OVERHEAD);
        self.text.reserve(sizes.sum());
        let mut full_at = 0;
        for row in &plan.rows {
            if self.text.len() < full_at {
                self.text.push(',');
            } else {
                full_at = self.text.len() + insert_max;
                self.next().push_str(INSERT);
            }
            self.row_values(row, base);
        }
        self
    }

    /// The values of one row of the INSERT.
    fn row_values(&mut self, row: &Row<'_>, base: &Base) {
        let Row {
            partition,
            offset,
            version,
            ..
        } = row;
        put(&mut self.text, format_args!("({partition},"));
        match base {
            Base::Asked => put(&mut self.text, format_args!("@h{partition}+{offset}")),
            Base::Known(heads) => {
                let head = heads.get(partition);
                let position = head.map_or(Position::START, |head| head.next.plus(*offset));
                self.unless_stopped(format_args!("{position}"));
            }
        }
        let text = &mut self.text;
        text.push(',');
        hex(text, row.stream.as_str().as_bytes());
        put(text, format_args!(",{version},"));
        id(text, row.event.id);
        text.push(',');
        hex(text, row.event.event_type.as_bytes());
        put(text, format_args!(",{},", row.event.schema_version));
        hex(text, row.event.payload.as_bytes());
        text.push(',');
        hex(text, row.event.metadata.as_bytes());
        match base {
            Base::Asked => put(text, format_args!(",@t{partition})")),
            Base::Known(_) => {
                text.push_str(",'1970-01-01'+INTERVAL LAST_INSERT_ID() MICROSECOND)");
            }
        }
    }

    /// Moves the heads past the rows.
    fn heads(&mut self, plan: &Plan<'_>) -> &mut Self {
        let text = self.next();
        text.push_str("UPDATE log_head FORCE INDEX (PRIMARY) SET next_position=CASE partition_no");
        for (partition, count) in &plan.counts {
            put(
                text,
                format_args!(" WHEN {partition} THEN @h{partition}+{count}"),
            );
        }
        text.push_str(" END,last_recorded_at=CASE partition_no");
        for partition in plan.counts.keys() {
            put(text, format_args!(" WHEN {partition} THEN @t{partition}"));
        }
        text.push_str(" END WHERE partition_no IN (");
        list(text, plan.counts.keys());
        text.push(')');
        self
    }

    /// Locks the heads of `partitions` and asks for nothing else of them.
    pub(super) fn wait_for_heads<'a>(
        &mut self,
        partitions: impl IntoIterator<Item = &'a Partition>,
    ) -> &mut Self {
        let text = self.next();
        text.push_str("SELECT COUNT(*) INTO @heads FROM log_head FORCE INDEX (PRIMARY) WHERE partition_no IN (");
        list(text, partitions);
        text.push_str(") FOR UPDATE");
        self
    }

    /// Asks how many of `partitions` have a head: one row with one number.
    pub(super) fn count_heads(&mut self, partitions: &BTreeSet<Partition>) -> &mut Self {
        let text = self.next();
        text.push_str("SELECT COUNT(*) FROM log_head WHERE partition_no IN (");
        list(text, partitions);
        text.push(')');
        self
    }

    /// Asks for the ids and places of the events that have the streams and versions of `rows`: a row `(n, id, position,
    /// microseconds)` for each that is there, where `n` counts from 0.
    pub(super) fn find(&mut self, rows: &[Row<'_>]) -> &mut Self {
        let text = self.next();
        for (n, row) in rows.iter().enumerate() {
            if n > 0 {
                text.push_str(" UNION ALL ");
            }
            put(
                text,
                format_args!(
                    "SELECT {n},event_id,position,TIMESTAMPDIFF(MICROSECOND,'1970-01-01',recorded_at) FROM events WHERE stream="
                ),
            );
            hex(text, row.stream.as_str().as_bytes());
            put(text, format_args!(" AND version={}", row.version));
        }
        self
    }

    /// Asks which of `seen` are not there any more: a row `(n)` each, where `n` counts from 0.
    pub(super) fn missing(&mut self, seen: &[(Partition, Cursor)]) -> &mut Self {
        let text = self.next();
        for (n, (partition, cursor)) in seen.iter().enumerate() {
            if n > 0 {
                text.push_str(" UNION ALL ");
            }
            put(text, format_args!("SELECT {n} FROM log_meta WHERE NOT "));
            is_there(text, *partition, *cursor);
        }
        self
    }

    /// Asks for the events of `reads`, at most `limit` each: rows `(n, columns of the event)`, where `n` counts from 0. In the order of
    /// `reads`, and within a stream by version. A snapshot is a row `(-1 - n, columns of its event)` with its state as the payload.
    ///
    /// One statement for all, so that they fit together.
    pub(super) fn streams(&mut self, reads: &[StreamRead], limit: usize) -> &mut Self {
        let text = self.next();
        for (n, read) in reads.iter().enumerate() {
            if n > 0 {
                text.push_str(" UNION ALL ");
            }
            put(
                text,
                format_args!(
                    "(SELECT {n},{COLUMNS} FROM events FORCE INDEX (stream_version) WHERE stream="
                ),
            );
            hex(text, read.stream.as_str().as_bytes());
            match &read.from {
                ReadFrom::Snapshot(fingerprint) => {
                    text.push_str(" AND version>COALESCE((SELECT version ");
                    fitting_snapshot(text, &read.stream, fingerprint);
                    put(
                        text,
                        format_args!(
                            "),0) ORDER BY version LIMIT {limit}) UNION ALL (SELECT -{},partition_no,position,stream,version,\
                             event_id,event_type,schema_version,state,'',0 ",
                            n + 1
                        ),
                    );
                    fitting_snapshot(text, &read.stream, fingerprint);
                    text.push(')');
                }
                ReadFrom::After(Version::NONE) => {
                    put(text, format_args!(" ORDER BY version LIMIT {limit})"));
                }
                ReadFrom::After(version) => {
                    put(
                        text,
                        format_args!(" AND version>{version} ORDER BY version LIMIT {limit})"),
                    );
                }
                ReadFrom::Last => {
                    put(
                        text,
                        format_args!(" ORDER BY version DESC LIMIT {})", limit.min(1)),
                    );
                }
            }
        }
        self
    }
}

/// The snapshot of `stream` with `fingerprint`, if it is one of [`FITTING_SNAPSHOTS`].
fn fitting_snapshot(text: &mut String, stream: &StreamId, fingerprint: &str) {
    text.push_str(FITTING_SNAPSHOTS);
    text.push_str("snapshots.stream=");
    hex(text, stream.as_str().as_bytes());
    text.push_str(" AND fingerprint=");
    hex(text, fingerprint.as_bytes());
}

/// Whether the event at `cursor` is in `partition`.
fn is_there(text: &mut String, partition: Partition, cursor: Cursor) {
    text.push_str("EXISTS(SELECT 1 FROM events WHERE ");
    is_event_at(text, partition, cursor);
    text.push(')');
}

/// Whether a row of events is the one at `cursor` in `partition`.
fn is_event_at(text: &mut String, partition: Partition, cursor: Cursor) {
    let position = cursor.position;
    put(
        text,
        format_args!("(partition_no={partition} AND position={position}"),
    );
    if let Some(event_id) = cursor.event_id {
        text.push_str(" AND event_id=");
        id(text, event_id);
    }
    text.push(')');
}

/// The name of the user lock of a session.
pub(super) fn lock_name(session: Uuid) -> String {
    format!("'tidelog-{}'", session.simple())
}

/// The id as a literal.
fn id(text: &mut String, id: EventId) {
    hex(text, id.uuid().as_bytes());
}

/// Bytes as a literal.
fn hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
    text.push_str("x'");
    text.reserve(2 * bytes.len() + 1);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 0xf));
    }
    text.push('\'');
}

/// A value that differs from partition to partition.
fn for_each(text: &mut String, heads: &Heads, value: impl Fn(&Partition, &Head) -> String) {
    text.push_str("CASE partition_no");
    for (partition, head) in heads {
        let value = value(partition, head);
        put(text, format_args!(" WHEN {partition} THEN {value}"));
    }
    text.push_str(" END");
}

/// Partitions, with commas between them.
fn list<'a>(text: &mut String, partitions: impl IntoIterator<Item = &'a Partition>) {
    for (n, partition) in partitions.into_iter().enumerate() {
        comma(text, n);
        put(text, format_args!("{partition}"));
    }
}

/// A comma before all but the first.
fn comma(text: &mut String, n: usize) {
    if n > 0 {
        text.push(',');
    }
}

/// Writes numbers and fixed text.
fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = text.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trips(max_bytes: usize) -> Vec<String> {
        let mut script = Script::default();
        for statement in ["one", "two", "a longer one", "x"] {
            script.statement(statement);
        }
        script.trips(max_bytes).map(str::to_owned).collect()
    }

    #[test]
    fn a_trip_has_as_many_statements_as_fit_and_one_at_least() {
        assert_eq!(trips(usize::MAX), ["one;two;a longer one;x"]);
        assert_eq!(trips(7), ["one;two", "a longer one", "x"]);
        assert_eq!(trips(0), ["one", "two", "a longer one", "x"]);
        assert_eq!(trips(14), ["one;two", "a longer one;x"]);
        assert_eq!(Script::default().trips(7).count(), 0);
    }
}
