//! An aggregate as the command service runs it: names and JSON outside, the types inside.

use std::any::Any;
use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::aggregate::{Aggregate, Command, DecodeError, Event, Rejection};
use crate::context::Context;
use crate::entity::{BodySchema, InvalidSchema};
use crate::event::Payload;
use crate::snapshots::{self, NoSnapshot, Snapshots};
use crate::upcasting::{EventShape, Upcasters};

/// An aggregate whose types are not known where it is run: written in Rust ([`TypedDecider`]) or made from a
/// JSON Schema.
///
/// All of it is pure and synchronous: the same state, command and context give the same answer.
pub trait Decider: Send + Sync + 'static {
    /// The aggregate's name, which is its streams' category.
    fn category(&self) -> &str;

    /// Its commands.
    fn commands(&self) -> &[CommandSpec];

    /// The roles of which a caller needs one for `command`, where callers sign in; without one every caller that is signed in may.
    fn roles(&self, command: &str) -> Vec<&str> {
        let _ = command;
        Vec::new()
    }

    /// The shapes in which its events are stored now.
    fn events(&self) -> Vec<EventShape>;

    /// What brings its older events to those shapes. [`Decider::evolve`] uses them by itself.
    fn upcasters(&self) -> &Upcasters;

    /// Which events of a stream a state is made from.
    fn loading(&self) -> Loading;

    /// The state before the first event.
    fn initial(&self) -> State;

    /// Checks what can be checked of a command without knowing the state, and before any work is queued.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownCommand`] or [`Refusal::Invalid`].
    fn check(&self, input: &CommandInput) -> Result<(), Refusal>;

    /// Decides a command that [`Decider::check`] let pass. No event: it changes nothing.
    ///
    /// # Errors
    ///
    /// Why nothing happens.
    fn decide(
        &self,
        state: &State,
        input: &CommandInput,
        ctx: &Context,
    ) -> Result<Vec<EventDraft>, Refusal>;

    /// The state after an event, as it was stored: upcasters run first.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the event is unknown or unreadable.
    fn evolve(
        &self,
        state: State,
        event_type: &str,
        schema_version: u32,
        payload: &Payload,
    ) -> Result<State, DecodeError>;

    /// How its states are kept as snapshots; `None` where reading the events is as good.
    fn snapshots(&self) -> Option<&dyn Snapshots> {
        None
    }

    /// The state as clients see it: a JSON object, without id and version.
    fn show(&self, state: &State) -> Value;

    /// The JSON Schema (draft 2020-12) of what [`Decider::show`] gives, where it is known; else `true`.
    fn state_schema(&self) -> Value {
        Value::Bool(true)
    }
}

/// Which events of a stream a state is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loading {
    /// All of them, in order.
    AllEvents,
    /// The last one alone: each event carries the full state.
    LastEvent,
}

/// A command as it comes in: its name and its JSON body.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandInput {
    /// The command's name: `deposit`; for entities `create`, `patch`, `delete`.
    pub name: String,
    /// The body; [`Value::Null`] where there is none.
    pub body: Value,
}

/// What a command is called, where it is served, and what its body looks like.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandSpec {
    /// Its name, kebab-case.
    pub name: String,
    /// Where it is served.
    pub endpoint: Endpoint,
    /// Whether it makes an aggregate or needs one.
    pub lifecycle: Lifecycle,
    /// The JSON Schema (draft 2020-12) of its body.
    pub schema: Value,
}

/// Where a command is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `POST /{aggregate}`; the body may bring the id.
    Post,
    /// `PATCH /{aggregate}/{id}`.
    Patch,
    /// `DELETE /{aggregate}/{id}`.
    Delete,
    /// `POST /{aggregate}/{command}` when it creates, else `POST /{aggregate}/{id}/{command}`.
    Named,
}

/// Where an aggregate stands in its life, and which state a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// It has no event yet: what a creating command needs.
    Missing,
    /// It exists: what every other command needs.
    Live,
    /// A terminal event ended it. No command may follow.
    Ended,
}

/// The state of an aggregate, its type hidden. Cloning is cheap.
#[derive(Clone)]
pub struct State {
    lifecycle: Lifecycle,
    value: Arc<dyn Any + Send + Sync>,
}

impl State {
    /// A state that holds `value`.
    #[must_use]
    pub fn new<T: Any + Send + Sync>(lifecycle: Lifecycle, value: T) -> Self {
        Self {
            lifecycle,
            value: Arc::new(value),
        }
    }

    /// Where the aggregate stands in its life.
    #[must_use]
    pub const fn lifecycle(&self) -> Lifecycle {
        self.lifecycle
    }

    /// The value, when it is a `T`.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.value.downcast_ref()
    }

    /// Takes the value out, cloned only where somebody else still holds it.
    #[must_use]
    pub fn into_value<T: Any + Send + Sync + Clone>(self) -> Option<T> {
        self.value.downcast().ok().map(Arc::unwrap_or_clone)
    }

    /// Whether a command that needs `required` may be decided on this state.
    ///
    /// # Errors
    ///
    /// [`Refusal::AlreadyExists`], [`Refusal::NotFound`] or [`Refusal::Deleted`].
    pub fn admit(&self, required: Lifecycle) -> Result<(), Refusal> {
        match (required, self.lifecycle) {
            (Lifecycle::Missing, Lifecycle::Missing) | (Lifecycle::Live, Lifecycle::Live) => Ok(()),
            (Lifecycle::Missing, _) => Err(Refusal::AlreadyExists),
            (_, Lifecycle::Missing) => Err(Refusal::NotFound),
            (_, _) => Err(Refusal::Deleted),
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("lifecycle", &self.lifecycle)
            .finish_non_exhaustive()
    }
}

/// An event that a decision gave, before it has an identity and metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventDraft {
    /// Its stored name.
    pub event_type: Arc<str>,
    /// The version of the payload's shape.
    pub schema_version: u32,
    /// The event itself.
    pub payload: Payload,
}

/// One thing that is wrong with a field of a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The field as a JSON Pointer (RFC 6901), `/address/city`; empty for the body itself.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub message: String,
}

/// Why a command did not happen. Nothing was appended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The aggregate has no such command.
    #[error("there is no such command")]
    UnknownCommand,
    /// The body does not fit the command's schema.
    #[error("the body does not fit the command's schema")]
    Invalid(Vec<FieldError>),
    /// The domain says no.
    #[error("rejected: {code}")]
    Rejected {
        /// For programs.
        code: String,
        /// For people.
        detail: String,
    },
    /// A command to an aggregate that was never created.
    #[error("there is no such aggregate")]
    NotFound,
    /// A creation with the id of an aggregate that exists, or existed.
    #[error("the id is taken")]
    AlreadyExists,
    /// A command to an aggregate that has ended.
    #[error("the aggregate is deleted")]
    Deleted,
    /// The stored events cannot be read, so nothing can be decided.
    #[error("the stored events cannot be read")]
    Unreadable(#[source] DecodeError),
    /// An event that was decided cannot be stored.
    #[error("the decided event cannot be written as JSON")]
    Unwritable(#[source] serde_json::Error),
}

/// Runs an [`Aggregate`] that is written in Rust.
pub struct TypedDecider<A: Aggregate> {
    commands: Vec<CommandSpec>,
    /// The compiled schema of each command's body; `None` where anything goes.
    bodies: Vec<Option<BodySchema>>,
    upcasters: Upcasters,
    /// What its snapshots depend on.
    fingerprint: String,
    aggregate: PhantomData<fn() -> A>,
}

impl<A: Aggregate> TypedDecider<A> {
    /// Runs `A`.
    ///
    /// # Errors
    ///
    /// [`InvalidAggregate`].
    pub fn new() -> Result<Self, InvalidAggregate> {
        let of_another =
            |name: &&&str| name.split_once('.').map(|(category, _)| category) != Some(A::NAME);
        if let Some(event_type) = A::Event::TYPES.iter().find(of_another) {
            return Err(InvalidAggregate::EventName {
                category: A::NAME,
                event_type,
            });
        }
        let commands = A::Command::specs();
        let compile = |spec: &CommandSpec| match &spec.schema {
            Value::Bool(true) => Ok(None),
            schema => {
                BodySchema::compile(schema)
                    .map(Some)
                    .map_err(|source| InvalidAggregate::Body {
                        category: A::NAME,
                        command: spec.name.clone(),
                        source,
                    })
            }
        };
        let upcasters = Upcasters::of::<A::Event>();
        Ok(Self {
            bodies: commands.iter().map(compile).collect::<Result<_, _>>()?,
            commands,
            fingerprint: snapshots::fingerprint::<A>(&upcasters),
            upcasters,
            aggregate: PhantomData,
        })
    }

    /// What is known of the command `name`.
    fn spec(&self, name: &str) -> Result<(&CommandSpec, Option<&BodySchema>), Refusal> {
        self.commands
            .iter()
            .zip(&self.bodies)
            .find(|(spec, _)| spec.name == name)
            .map(|(spec, body)| (spec, body.as_ref()))
            .ok_or(Refusal::UnknownCommand)
    }
}

/// Why an aggregate that is written in Rust cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAggregate {
    /// An event is called as if it were another aggregate's.
    #[error(
        "the event {event_type} does not begin with its aggregate's name: write #[events(\"{category}\")]"
    )]
    EventName {
        /// The aggregate.
        category: &'static str,
        /// The event's stored name.
        event_type: &'static str,
    },
    /// The schema of a command's body cannot be used.
    #[error("the body of {category}'s command {command} has a schema that cannot be used")]
    Body {
        /// The aggregate.
        category: &'static str,
        /// The command.
        command: String,
        /// What is wrong with the schema.
        source: InvalidSchema,
    },
}

impl<A: Aggregate> Decider for TypedDecider<A> {
    fn category(&self) -> &str {
        A::NAME
    }

    fn commands(&self) -> &[CommandSpec] {
        &self.commands
    }

    fn roles(&self, command: &str) -> Vec<&str> {
        match A::Command::roles(command) {
            [] => A::roles().to_vec(),
            own => own.to_vec(),
        }
    }

    fn events(&self) -> Vec<EventShape> {
        EventShape::of::<A::Event>()
    }

    fn upcasters(&self) -> &Upcasters {
        &self.upcasters
    }

    fn loading(&self) -> Loading {
        Loading::AllEvents
    }

    fn initial(&self) -> State {
        State::new(Lifecycle::Missing, A::default())
    }

    fn check(&self, input: &CommandInput) -> Result<(), Refusal> {
        let (_, schema) = self.spec(&input.name)?;
        // No body says as much as one without fields.
        let body = match &input.body {
            Value::Null => Cow::Owned(Value::Object(Map::new())),
            body => Cow::Borrowed(body),
        };
        schema
            .map_or(Ok(()), |schema| schema.check(&body))
            .map_err(Refusal::Invalid)?;
        A::Command::decode(input)
            .map(|_| ())
            .map_err(Refusal::Invalid)
    }

    fn decide(
        &self,
        state: &State,
        input: &CommandInput,
        ctx: &Context,
    ) -> Result<Vec<EventDraft>, Refusal> {
        state.admit(self.spec(&input.name)?.0.lifecycle)?;
        let command = A::Command::decode(input).map_err(Refusal::Invalid)?;
        let initial = A::default();
        let aggregate = state.get::<A>().unwrap_or(&initial);
        let events = aggregate
            .decide(command, ctx)
            .map_err(|no| Refusal::Rejected {
                code: no.code(),
                detail: no.detail(),
            })?;
        events
            .iter()
            .map(draft)
            .collect::<Result<_, _>>()
            .map_err(Refusal::Unwritable)
    }

    fn evolve(
        &self,
        state: State,
        event_type: &str,
        schema_version: u32,
        payload: &Payload,
    ) -> Result<State, DecodeError> {
        let today = self.upcasters.upcast(event_type, schema_version, payload)?;
        let event = A::Event::decode(today.event_type, today.schema_version, &today.payload)?;
        let ended =
            A::Event::is_terminal(today.event_type) || state.lifecycle() == Lifecycle::Ended;
        let mut aggregate: A = state.into_value().unwrap_or_default();
        aggregate.evolve(&event);
        Ok(State::new(
            if ended {
                Lifecycle::Ended
            } else {
                Lifecycle::Live
            },
            aggregate,
        ))
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }

    fn show(&self, state: &State) -> Value {
        state
            .get::<A>()
            .and_then(|aggregate| serde_json::to_value(aggregate).ok())
            .unwrap_or_default()
    }
}

impl<A: Aggregate> Snapshots for TypedDecider<A> {
    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn freeze(&self, state: &State) -> Result<Payload, NoSnapshot> {
        snapshots::freeze::<A>(state)
    }

    fn thaw(&self, frozen: &Payload) -> Result<State, serde_json::Error> {
        snapshots::thaw::<A>(frozen)
    }
}

/// What is stored of a typed event.
pub(crate) fn draft<E: Event>(event: &E) -> Result<EventDraft, serde_json::Error> {
    Ok(EventDraft {
        event_type: event.event_type().into(),
        schema_version: event.schema_version(),
        payload: event.encode()?,
    })
}
