//! What is asked of the command service, and what it answers.

use serde_json::Value;
use tidelog_domain::{CommandInput, ConsistencyToken, Metadata, Version};
use uuid::Uuid;

use super::{CommandId, CommandKey};
use crate::appender::Precondition;

/// A command to one aggregate.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandRequest {
    /// The aggregate's name.
    pub category: String,
    /// The aggregate's id; `None` lets a creating command make a new one: a UUIDv7, or with a key a UUIDv8 that follows from it.
    pub id: Option<String>,
    /// The command.
    pub input: CommandInput,
    /// Which version of the aggregate is expected.
    pub precondition: Precondition,
    /// What is recorded with its events, and what the decision sees. The command's id is added as their cause, and as what they
    /// are correlated by where that is empty.
    pub metadata: Metadata,
    /// The command's identity, a new one for each command.
    pub command_id: Uuid,
    /// The key that it is not done twice under.
    pub key: Option<CommandKey>,
}

impl CommandRequest {
    /// The command `name` with `body` to the aggregate `category`, without an id or an expectation.
    #[must_use]
    pub fn new(category: impl Into<String>, name: impl Into<String>, body: Value) -> Self {
        let input = CommandInput {
            name: name.into(),
            body,
        };
        Self {
            category: category.into(),
            id: None,
            input,
            precondition: Precondition::None,
            metadata: Metadata::default(),
            command_id: Uuid::now_v7(),
            key: None,
        }
    }

    /// The same for the aggregate `id`.
    #[must_use]
    pub fn to(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The same, with this recorded with its events: who asks, for whom, and in which conversation.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// The same, only if the aggregate is at `version`.
    #[must_use]
    pub fn at(mut self, version: Version) -> Self {
        self.precondition = version.into();
        self
    }

    /// The same command, done once however often it is executed with this `id`, which is also its identity: the cause that its
    /// events name. It is [`CommandRequest::with_key`] for callers in the same process.
    #[must_use]
    pub fn once(mut self, id: CommandId) -> Self {
        self.command_id = id.uuid();
        self.key = Some(id.key());
        self
    }

    /// The same, done once however often it is sent with `key`: each time after the first it is answered as it was then. The key
    /// counts within the aggregate's kind and the command, and is kept for [`KEYS_KEPT_FOR`](super::KEYS_KEPT_FOR) at least.
    #[must_use]
    pub fn with_key(mut self, key: CommandKey) -> Self {
        self.key = Some(key);
        self
    }
}

/// What a command did.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandOutcome {
    /// The aggregate's id.
    pub id: String,
    /// Its version after the command.
    pub version: Version,
    /// Its state after the command, as clients see it: a JSON object, without id and version.
    pub data: Value,
    /// Which position a read must have seen to see the command. Of a command that changed nothing: the position of the
    /// aggregate's last event.
    pub token: ConsistencyToken,
    /// Whether events were appended; else the command changed nothing.
    pub appended: bool,
    /// Whether the command was done before, under the same key, and this is what it came to then.
    pub replayed: bool,
}

/// About how many bytes `value` holds.
pub(super) fn bytes(value: &Value) -> usize {
    let own = size_of::<Value>();
    own + match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(bytes).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| own + name.len() + bytes(value))
            .sum(),
    }
}
