//! What Redis' answers have in them.

use std::borrow::Cow;
use std::sync::Arc;

use redis::Value;

use super::{ATTEMPTS, ERROR, GROUP, MESSAGE};
use crate::messaging::bus::{DeadEntry, EntryId};

pub(in crate::messaging) fn array(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

pub(super) fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes),
        Value::SimpleString(text) => text.into(),
        _ => "".into(),
    }
}

pub(super) fn number(value: &Value) -> u64 {
    match value {
        Value::Int(number) => u64::try_from(*number).unwrap_or_default(),
        value => text(value).parse().unwrap_or_default(),
    }
}

/// An entry of a stream.
pub(super) struct Entry {
    pub(super) id: EntryId,
    /// The message; of an entry that has none, nothing.
    pub(super) body: Arc<[u8]>,
    /// The one group that it is for.
    pub(super) only: Option<String>,
    pub(super) error: Option<String>,
    pub(super) attempts: u64,
}

/// An entry, `[id, [field, value, …]]`, as its parts; none where it was deleted.
pub(in crate::messaging) fn fields(value: Value) -> Option<(EntryId, Vec<Value>)> {
    let mut parts = array(value).into_iter();
    let id = text(&parts.next()?).into();
    let Value::Array(fields) = parts.next()? else {
        return None;
    };
    Some((id, fields))
}

/// An entry in the form of this library.
pub(super) fn entry(value: Value) -> Option<Entry> {
    let (id, fields) = fields(value)?;
    let mut entry = Entry {
        id,
        body: Arc::default(),
        only: None,
        error: None,
        attempts: 0,
    };
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        match &*text(&name) {
            MESSAGE => {
                if let Value::BulkString(bytes) = value {
                    entry.body = bytes.into();
                }
            }
            GROUP => entry.only = Some(text(&value).into_owned()),
            ERROR => entry.error = Some(text(&value).into_owned()),
            ATTEMPTS => entry.attempts = number(&value),
            _ => {}
        }
    }
    Some(entry)
}

/// The entries of an answer to `XREADGROUP`, by key.
pub(in crate::messaging) fn streams(answer: Value) -> impl Iterator<Item = (String, Vec<Value>)> {
    array(answer).into_iter().filter_map(|stream| {
        let mut stream = array(stream).into_iter();
        let (key, entries) = (stream.next()?, stream.next()?);
        Some((text(&key).into_owned(), array(entries)))
    })
}

/// A dead letter.
pub(super) fn dead(value: Value) -> Option<DeadEntry> {
    let entry = entry(value)?;
    Some(DeadEntry {
        since_ms: milliseconds(&entry.id),
        entry: entry.id,
        body: entry.body,
        error: entry.error.unwrap_or_default(),
        attempts: u32::try_from(entry.attempts).unwrap_or(u32::MAX),
    })
}

/// When an entry was added, by Redis' clock.
pub(super) fn milliseconds(id: &str) -> u64 {
    id.split_once('-')
        .and_then(|(ms, _)| ms.parse().ok())
        .unwrap_or_default()
}

/// A pending entry, `[id, consumer, idle, deliveries]`.
pub(super) struct Pending {
    pub(super) id: EntryId,
    pub(super) deliveries: u32,
}

pub(super) fn pending(answer: Value) -> Vec<Pending> {
    let pending = array(answer).into_iter().filter_map(|one| {
        let one = array(one);
        Some(Pending {
            id: text(one.first()?).into(),
            deliveries: u32::try_from(number(one.get(3)?)).unwrap_or(u32::MAX),
        })
    });
    pending.collect()
}

/// A field of an answer that is a flat list of names and values.
pub(super) fn field<'v>(fields: &'v [Value], name: &str) -> Option<&'v Value> {
    let (pairs, _) = fields.as_chunks::<2>();
    let found = pairs.iter().find(|[key, _]| text(key) == name);
    found.map(|[_, value]| value)
}

/// The id that comes right after `id`.
pub(super) fn next_id(id: &str) -> Option<String> {
    let (ms, sequence) = id.split_once('-')?;
    let sequence: u64 = sequence.parse().ok()?;
    Some(format!("{ms}-{}", sequence.checked_add(1)?))
}

/// An id as it is compared.
pub(in crate::messaging) fn order(id: &str) -> (u64, u64) {
    let parts = id.split_once('-');
    parts.map_or((0, 0), |(ms, sequence)| {
        (
            ms.parse().unwrap_or_default(),
            sequence.parse().unwrap_or_default(),
        )
    })
}
