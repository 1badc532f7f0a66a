//! How events are kept in Redis: keys, entries, and the answers that have them.

use redis::Value;
use tidelog_domain::{Cursor, HistoryId, Partition, Position, RecordedEvent};

use crate::wire;
use tidelog_domain::causes;

/// The one field of an entry.
pub(super) const FIELD: &str = "event";

/// How the keys of an app's streams are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// On one server, where one read waits on all streams.
    OfServer,
    /// On a cluster: the braces give each partition a hash slot of its own, so that they spread over the nodes.
    OfCluster,
}

impl Keys {
    /// The stream of `partition`.
    pub(super) fn stream(self, app: &str, history: HistoryId, partition: Partition) -> String {
        match self {
            Self::OfServer => format!("{{{app}:events}}:{history}:{partition}"),
            Self::OfCluster => format!("{{{app}:events:{partition}}}:{history}"),
        }
    }

    /// A key of the app that is no stream's.
    pub(super) fn rehearsal(self, app: &str) -> String {
        match self {
            Self::OfServer => format!("{{{app}:events}}:rehearsal"),
            Self::OfCluster => format!("{{{app}:events:0}}:rehearsal"),
        }
    }

    /// What all of them are like, as a pattern of an ACL rule.
    pub(super) fn pattern(self, app: &str) -> String {
        match self {
            Self::OfServer => format!("{{{app}:events}}:*"),
            Self::OfCluster => format!("{{{app}:events:*"),
        }
    }
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// What other programs are promised.
    const PROMISED: &str = include_str!("../../../docs/wire-format.md");

    #[test]
    fn keys_ids_and_the_field_are_as_promised() {
        let history = Uuid::parse_str("0197a1c05b1e7cc39f000123456789ab").unwrap();
        for keys in [Keys::OfServer, Keys::OfCluster] {
            let key = keys.stream("blog", HistoryId::new(history), Partition::new(5));
            assert!(PROMISED.contains(&format!("| `{key}` |")), "{key}");
        }
        let id = entry_id(Position::new(42));
        let entry = format!("is the entry `{id}` with the field `{FIELD}`");
        assert!(PROMISED.contains(&entry), "{entry}");
    }
}
