//! A framework for event-sourced, CQRS services: a program names its aggregates and views, and gets a command API, an
//! ordered event bus, replayable read models and a query API.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "tests fail loudly"
    )
)]
#![cfg_attr(
    not(feature = "pages"),
    allow(
        dead_code,
        reason = "some of what the administration can say, the pages alone ask for"
    )
)]

mod admin;
mod app;
mod backends;
#[cfg(feature = "servers")]
mod checks;
#[cfg(feature = "cli")]
mod cli;
mod client;
mod entities;
#[cfg(feature = "cli")]
mod inspection;
mod lock;
pub mod prelude;
pub mod read_store;
pub mod routes;
mod service;
pub mod settings;
mod subjects;
mod subscriptions;
#[cfg(feature = "cli")]
mod telemetry;
pub mod testing;

pub use app::{App, InvalidApp};
/// What the routers are made with: for routes of one's own beside them.
pub use axum;
pub use backends::BackendError;
#[cfg(feature = "servers")]
pub use checks::UnfitServer;
pub use client::{Client, ClientError, Page};
pub use entities::InvalidEntities;
#[doc(hidden)]
pub use lock::require_lock as __require_lock;
pub use lock::{LOCK_FILE, LockError, check_lock};
pub use service::{
    CannotListen, InvalidGateway, InvalidSignIn, ReactionState, ReactionStatus, Running, StartError,
};
pub use subscriptions::{
    Outcome, ParkedEntry, ParkedEventEntry, PartitionEntry, SequenceState, ShownEvent,
    SkippedEntry, SubscriptionEntry, SubscriptionError, SubscriptionKind, Subscriptions, WorkState,
};
/// Handling a message once, with a record of its id in the transaction of its effects.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub use tidelog_command::handled;
pub use tidelog_command::{
    Clock, CommandError, CommandId, CommandKey, CommandOutcome, CommandRequest, InvalidKey,
    MultiStreamOutcome, MultiStreamRequest, Precondition,
};
#[doc(hidden)]
pub use tidelog_domain::__private;
pub use tidelog_domain::{
    Aggregate, Aggregates, Change, Command, CommandInput, CommandSpec, ConsistencyToken, Context,
    Data, Decider, Decision, DecodeError, Endpoint, Entity, EntityEvent, EntitySchema, Event,
    EventId, EventSet, EventShape, FieldError, InvalidAggregate, InvalidSchema, InvalidUpcasters,
    Keys, Lifecycle, Lock, Metadata, MultiStreamCommand, MultiStreamDecider, MultiStreamDecision,
    Named, Partition, Payload, Position, Projection, Recorded, RecordedEvent, Refusal, Rejection,
    ShapeChange, StreamId, Tenant, TypedDecider, Upcasted, Upcaster, Upcasters, Version, View,
    ViewDefinition, aggregate, commands, data, entity, event_set, events, multi_stream_command,
    rejections, view,
};
/// Messages that workers handle at least once, and requests that are replied to.
pub use tidelog_eventbus::messaging;
pub use tidelog_eventbus::{
    EventStream, Failure, FailureKind, FailurePolicy, OperationError, PartitionState,
    PartitionStatus, Reaction, Skip, Start, StreamError, SubscriptionStatus,
};
pub use tidelog_http::{Caller, Operation, Problem, ProblemKind, RESERVED_NAMES};
#[cfg(feature = "conformance")]
pub use tidelog_query::{read_store_conformance, replay_conformance};

/// The code in the documents is compiled.
#[cfg(doctest)]
#[doc = include_str!("../docs/evolution.md")]
struct EvolutionOfEvents;
