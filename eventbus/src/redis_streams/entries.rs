//! How events are kept in Redis: keys, entries, and the answers that have them.

use redis::Value;
use tidelog_domain::{Cursor, HistoryId, Partition, Position, RecordedEvent};

use crate::wire;
use tidelog_domain::causes;

/// The one field of an entry.
pub(super) const FIELD: &str = "event";

/// The stream of `partition`.
///
/// The braces put all streams of an app into one hash slot, so that one read can wait on all of them.
pub(super) fn key(app: &str, history: HistoryId, partition: Partition) -> String {
    format!("{{{app}:events}}:{history}:{partition}")
}

/// The id of the entry at `position`.
pub(super) fn entry_id(position: Position) -> String {
    format!("{position}-0")
}

/// The last event of `partition`, from the answer to `XINFO STREAM`; `None` for a stream that never had one.
pub(super) fn last(info: Value, partition: Partition) -> Result<Option<Cursor>, String> {
    let Ok(fields) = info.into_map_iter() else {
        return Err("XINFO STREAM is not answered by a map".to_owned());
    };
    let (mut last_id, mut last_entry) = (None, Value::Nil);
    for (name, value) in fields {
        match &*text(&name) {
            "last-generated-id" => last_id = Some(text(&value).into_owned()),
            "last-entry" => last_entry = value,
            _ => {}
        }
    }
    let last_id = last_id.ok_or("XINFO STREAM names no last-generated-id")?;
    let position = position(&last_id)?;
    if position == Position::START {
        return Ok(None);
    }
    let event_id = match last_entry {
        Value::Nil => None,
        entry => {
            let event = event(entry, partition)?;
            (event.position == position).then_some(event.id)
        }
    };
    Ok(Some(Cursor { position, event_id }))
}

/// The entries of an answer to `XREAD`, by stream: the stream's key, and its entries in order.
pub(super) fn streams(answer: Value) -> Vec<(String, Vec<Value>)> {
    let mut found = Vec::new();
    for stream in array(answer) {
        let mut stream = array(stream).into_iter();
        if let (Some(key), Some(entries)) = (stream.next(), stream.next()) {
            found.push((text(&key).into_owned(), array(entries)));
        }
    }
    found
}

/// The event of an entry of `partition`, or why it is none of ours.
pub(super) fn event(entry: Value, partition: Partition) -> Result<RecordedEvent, String> {
    let mut entry = array(entry).into_iter();
    let (Some(id), Some(fields)) = (entry.next(), entry.next()) else {
        return Err("an entry without an id or fields".to_owned());
    };
    let id = text(&id).into_owned();
    let wrong = |why: &str| format!("entry {id}: {why}");
    let mut fields = array(fields).into_iter();
    let (Some(name), Some(Value::BulkString(body)), None) =
        (fields.next(), fields.next(), fields.next())
    else {
        return Err(wrong("it does not have exactly one field"));
    };
    if text(&name) != FIELD {
        return Err(wrong("its field is not `event`"));
    }
    let event = wire::decode(&body).map_err(|error| wrong(&causes(&error)))?;
    if event.partition != partition || entry_id(event.position) != id {
        return Err(wrong("its event belongs to another partition or position"));
    }
    Ok(event)
}

/// The position of an entry's id.
fn position(id: &str) -> Result<Position, String> {
    id.strip_suffix("-0")
        .and_then(|number| number.parse().ok())
        .map(Position::new)
        .ok_or_else(|| format!("entry {id}: its id is not a position"))
}

fn array(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

fn text(value: &Value) -> std::borrow::Cow<'_, str> {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes),
        Value::SimpleString(text) => text.into(),
        _ => "".into(),
    }
}
