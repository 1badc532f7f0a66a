//! The aggregate as a user writes it: pure decisions on a state, pure evolution of it.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::context::Context;
use crate::decider::{CommandInput, CommandSpec, FieldError};
use crate::event::Payload;
use crate::masked::masked;
use crate::upcasting::Upcaster;

/// What every state, event and view is: plain data that can be stored, compared and shown.
pub trait Data:
    Serialize + DeserializeOwned + Clone + Debug + PartialEq + Send + Sync + 'static
{
}

impl<T> Data for T where
    T: Serialize + DeserializeOwned + Clone + Debug + PartialEq + Send + Sync + 'static
{
}

/// A name in the contract with clients and storage: an aggregate's category, a view's name.
pub trait Named {
    /// The name: a lower-case letter followed by up to 63 of `a-z 0-9 _ -`.
    const NAME: &'static str;

    /// The roles of which a caller needs one, where callers sign in: for every command of an aggregate that does not say otherwise itself
    /// ([`Command::roles`]), for a command over several aggregates, for reading a view, for all of it with an entity. Without one, every
    /// caller that is signed in may.
    #[must_use]
    fn roles() -> &'static [&'static str] {
        &[]
    }

    /// The JSON Schema of the value as it is stored, where it is known; `#[aggregate]` knows it.
    #[must_use]
    fn stored_schema() -> Option<Value> {
        None
    }
}

/// What a decision gives: the events that happened, or why nothing may happen.
pub type Decision<A> = Result<Vec<<A as Aggregate>::Event>, <A as Aggregate>::Rejection>;

/// A domain aggregate: a pure decider.
///
/// The default value is the state before the first event. Whether a stream may or must exist is the
/// framework's business (see [`CommandSpec::lifecycle`]): `decide` never sees a missing aggregate unless the
/// command creates one.
pub trait Aggregate: Data + Default + Named {
    /// Goes up when [`Aggregate::evolve`] makes another state of the same events: no snapshot of before is used then.
    ///
    /// Another shape of the state is noticed without it: by [`Named::stored_schema`], or where that is not known, as far as it
    /// shows in the JSON of the default state. So are other events, schema versions and upcasters. Of a state that does not come
    /// back equal from its JSON no snapshot is taken.
    const STATE_VERSION: u32 = 1;

    /// What can be asked of it.
    type Command: Command;
    /// What can happen to it.
    type Event: Event;
    /// Why it may say no.
    type Rejection: Rejection;

    /// Decides what happens. No event means that the command changes nothing, and is answered as a success.
    ///
    /// # Errors
    ///
    /// The domain's own rejection: nothing is appended.
    fn decide(&self, command: Self::Command, ctx: &Context) -> Decision<Self>;

    /// The state after `event`. It MUST accept every event that `decide` ever gave.
    fn evolve(&mut self, event: &Self::Event);
}

/// The commands of an aggregate: one enum, a variant each.
pub trait Command: Sized + Send + 'static {
    /// The name, life cycle and JSON Schema of each command.
    fn specs() -> Vec<CommandSpec>;

    /// The roles of which a caller needs one for the command of this name; without one it is for the aggregate to say ([`Named::roles`]).
    #[must_use]
    fn roles(command: &str) -> &'static [&'static str] {
        let _ = command;
        &[]
    }

    /// Makes the command from its name and body, which have passed the schema.
    ///
    /// # Errors
    ///
    /// What is wrong with the body, field by field.
    fn decode(input: &CommandInput) -> Result<Self, Vec<FieldError>>;
}

/// The events of an aggregate: one enum, a variant each.
pub trait Event: Data {
    /// The stored names of all its events, `account.opened`.
    const TYPES: &'static [&'static str];

    /// The stored name of this event: one of [`Event::TYPES`].
    fn event_type(&self) -> &'static str;

    /// The version of this event's shape, from 1: [`Event::current_version`] of its name, and nothing else.
    fn schema_version(&self) -> u32 {
        Self::current_version(self.event_type())
    }

    /// The version in which events of this stored name are written now, from 1. It goes up by one when their payload changes
    /// its shape, and then [`Event::upcasters`] says what becomes of the older ones.
    fn current_version(event_type: &str) -> u32 {
        let _ = event_type;
        1
    }

    /// How events that were stored in an older shape, or under another name, become those of today.
    fn upcasters() -> Vec<Upcaster> {
        Vec::new()
    }

    /// The JSON Schema of the payload of this stored name, where it is known: what the lock file holds on to.
    fn schema(event_type: &str) -> Option<Value> {
        let _ = event_type;
        None
    }

    /// Whether the event of this stored name ends its stream: every later command is answered with 410.
    fn is_terminal(event_type: &str) -> bool {
        let _ = event_type;
        false
    }

    /// The payload to store.
    ///
    /// # Errors
    ///
    /// When the event cannot be JSON.
    fn encode(&self) -> Result<Payload, serde_json::Error>;

    /// Reads a stored payload, which is in the current shape: upcasters have run.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the name is none of ours or the payload is not of its shape.
    fn decode(
        event_type: &str,
        schema_version: u32,
        payload: &Payload,
    ) -> Result<Self, DecodeError>;
}

/// Of what may always happen.
impl Rejection for std::convert::Infallible {
    fn code(&self) -> String {
        match *self {}
    }

    fn detail(&self) -> String {
        match *self {}
    }
}

/// Why an aggregate says no: an enum whose variants clients can tell apart.
pub trait Rejection: Debug + PartialEq + Send + 'static {
    /// The code for programs, kebab-case: `insufficient-funds`.
    fn code(&self) -> String;

    /// The sentence for people.
    fn detail(&self) -> String;
}

/// A stored event that this program cannot read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// No event of this name is known here.
    #[error("no event is called {event_type}")]
    UnknownType {
        /// The stored name.
        event_type: String,
    },
    /// The event is stored in a version that is not the current one, and no upcaster leads there: a newer program wrote it.
    #[error(
        "{event_type} is stored in version {schema_version}, and this program reads version {known}"
    )]
    UnknownVersion {
        /// The stored name.
        event_type: String,
        /// The stored version of the shape.
        schema_version: u32,
        /// The version that would be read.
        known: u32,
    },
    /// The payload is not of the shape that its name and version promise.
    #[error("the payload of {event_type}, version {schema_version}, cannot be read")]
    Payload {
        /// The stored name.
        event_type: String,
        /// The stored version of the shape.
        schema_version: u32,
        /// What the decoder said, without the values that it came across.
        source: serde_json::Error,
    },
}

impl DecodeError {
    /// The payload of the event `event_type` could not be read, because of `source`. Of that the values are left out: a payload is for
    /// nobody's log.
    #[must_use]
    pub fn payload(event_type: &str, schema_version: u32, source: serde_json::Error) -> Self {
        Self::Payload {
            event_type: event_type.to_owned(),
            schema_version,
            source: masked(source),
        }
    }

    /// No event is called `event_type`.
    #[must_use]
    pub fn unknown(event_type: &str) -> Self {
        Self::UnknownType {
            event_type: event_type.to_owned(),
        }
    }
}
