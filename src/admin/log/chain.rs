//! Why something happened: the events of one correlation id, as commands that caused events that caused commands. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tidelog_command::CommandId;
use tidelog_domain::{Metadata, RecordedEvent};
use uuid::Uuid;

/// What happened under one correlation id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chain {
    /// The correlation id.
    pub(crate) correlation_id: String,
    /// The commands that no event of these caused: the request's own.
    pub(crate) commands: Vec<CommandNode>,
    /// Whether there may be more events of it than these.
    pub(crate) more: bool,
}

/// A command, and what it caused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommandNode {
    /// Its id, as its events name it; `None` where they name none.
    pub(crate) id: Option<Uuid>,
    /// Its events, by time.
    pub(crate) events: Vec<CausedEvent>,
}

/// An event, and the commands that it caused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CausedEvent {
    /// Its id.
    pub(crate) id: Uuid,
    /// Its stored name.
    #[serde(rename = "type")]
    pub(crate) event_type: String,
    /// Its stream.
    pub(crate) stream: String,
    /// Its version there.
    pub(crate) version: u64,
    /// Its partition of the log.
    pub(crate) partition: u16,
    /// Its position there.
    pub(crate) position: u64,
    /// When it was recorded.
    pub(crate) recorded_at: DateTime<Utc>,
    /// The commands that it caused.
    pub(crate) commands: Vec<CommandNode>,
}

impl Chain {
    /// The chain of `events`, which share the correlation id and are sorted by time.
    ///
    /// A command belongs under the event that it [tells](CommandId::caused_by), or whose id it has as its own: a reaction gives its
    /// commands such ids. All others belong under the request.
    pub(crate) fn of(correlation_id: &str, events: &[RecordedEvent], more: bool) -> Self {
        let mut by_command: BTreeMap<Option<Uuid>, Vec<&RecordedEvent>> = BTreeMap::new();
        // In the order in which they come first.
        let mut order = Vec::new();
        for event in events {
            let metadata = event.metadata.decode::<Metadata>().unwrap_or_default();
            let of_it = by_command.entry(metadata.causation_id).or_default();
            if of_it.is_empty() {
                order.push(metadata.causation_id);
            }
            of_it.push(event);
        }
        let cause = |id: Uuid| {
            let is_cause = |event: &&RecordedEvent| {
                event.id.uuid() == id || CommandId::from(id).is_caused_by(event.id)
            };
            events.iter().find(is_cause).map(|event| event.id.uuid())
        };
        let mut causes: BTreeMap<Uuid, Vec<Uuid>> = BTreeMap::new();
        let (mut own, mut caused) = (Vec::new(), Vec::new());
        for command in order {
            match command.and_then(|id| Some((id, cause(id)?))) {
                Some((id, event)) => {
                    causes.entry(event).or_default().push(id);
                    caused.push(command);
                }
                None => own.push(command),
            }
        }
        let mut left = Left { by_command, causes };
        // Whoever wrote that two caused each other is in no tree: they hang under the request too.
        let commands = own.into_iter().chain(caused);
        let commands = commands.filter_map(|id| left.command(id)).collect();
        Self {
            correlation_id: correlation_id.to_owned(),
            commands,
            more,
        }
    }
}

/// What has no place in the tree yet.
struct Left<'a> {
    /// The events of each command.
    by_command: BTreeMap<Option<Uuid>, Vec<&'a RecordedEvent>>,
    /// The commands that each event caused.
    causes: BTreeMap<Uuid, Vec<Uuid>>,
}

impl Left<'_> {
    /// Takes the command `id` with all that it caused; `None` where it was taken before.
    fn command(&mut self, id: Option<Uuid>) -> Option<CommandNode> {
        let events = self.by_command.remove(&id)?;
        let events = events.into_iter().map(|event| self.event(event)).collect();
        Some(CommandNode { id, events })
    }

    fn event(&mut self, event: &RecordedEvent) -> CausedEvent {
        let commands = self.causes.remove(&event.id.uuid()).unwrap_or_default();
        let commands = commands.into_iter();
        CausedEvent {
            id: event.id.uuid(),
            event_type: event.event_type.to_string(),
            stream: event.stream.to_string(),
            version: event.version.number(),
            partition: event.partition.number(),
            position: event.position.number(),
            recorded_at: event.recorded_at,
            commands: commands.filter_map(|id| self.command(Some(id))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidelog_domain::{EventId, Partition, Payload, Position, StreamId, Version};

    use super::*;

    /// The event `id` that the command `command` caused.
    fn event(id: u128, command: Option<u128>) -> RecordedEvent {
        let metadata = Metadata {
            correlation_id: "c".to_owned(),
            causation_id: command.map(Uuid::from_u128),
            ..Metadata::default()
        };
        RecordedEvent {
            stream: StreamId::new("post", &id.to_string()).unwrap(),
            version: Version::new(1),
            partition: Partition::new(0),
            position: Position::new(1),
            id: EventId::new(Uuid::from_u128(id)),
            event_type: "post.created".into(),
            schema_version: 1,
            payload: Payload::from_stored(b"{}"),
            metadata: Payload::of(&metadata).unwrap(),
            recorded_at: DateTime::UNIX_EPOCH,
        }
    }

    /// The tree as a text: `command(event(…) event)`.
    fn text(commands: &[CommandNode]) -> String {
        let id = |id: Uuid| id.as_u128().to_string();
        let event = |event: &CausedEvent| match text(&event.commands) {
            below if below.is_empty() => id(event.id),
            below => format!("{}[{below}]", id(event.id)),
        };
        let command = |command: &CommandNode| {
            let events: Vec<_> = command.events.iter().map(event).collect();
            let name = command.id.map_or_else(|| "?".to_owned(), id);
            format!("{name}({})", events.join(" "))
        };
        commands.iter().map(command).collect::<Vec<_>>().join(" ")
    }

    fn chain(events: &[(u128, Option<u128>)]) -> String {
        let events: Vec<_> = events.iter().map(|(id, by)| event(*id, *by)).collect();
        text(&Chain::of("c", &events, false).commands)
    }

    #[test]
    fn a_command_hangs_under_the_event_that_caused_it() {
        let events = [(1, Some(90)), (2, Some(90)), (3, Some(1)), (4, Some(3))];
        assert_eq!(chain(&events), "90(1[1(3[3(4)])] 2)");
    }

    #[test]
    fn a_command_that_tells_its_cause_hangs_under_it() {
        let by = |event: u128, name: &str| {
            let event = EventId::new(Uuid::from_u128(event));
            CommandId::caused_by(event, name).uuid().as_u128()
        };
        let (ship, bill, mail) = (by(1, "ship"), by(1, "bill"), by(3, "mail"));
        let events = [
            (1, Some(90)),
            (2, Some(90)),
            (3, Some(ship)),
            (4, Some(bill)),
            (5, Some(mail)),
            (6, Some(by(7, "of another conversation"))),
        ];
        let elsewhere = by(7, "of another conversation");
        assert_eq!(
            chain(&events),
            format!("90(1[{ship}(3[{mail}(5)]) {bill}(4)] 2) {elsewhere}(6)")
        );
    }

    #[test]
    fn what_nothing_caused_hangs_under_the_request() {
        let events = [(1, Some(91)), (2, None), (3, Some(90)), (4, Some(91))];
        assert_eq!(chain(&events), "91(1 4) ?(2) 90(3)");
        assert_eq!(chain(&[]), "");
    }

    #[test]
    fn what_caused_itself_is_shown_all_the_same() {
        let events = [(1, Some(2)), (2, Some(1)), (3, Some(3))];
        assert_eq!(chain(&events), "2(1[1(2)]) 3(3)");
    }
}
