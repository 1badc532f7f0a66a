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

mod app;
#[cfg(feature = "cli")]
mod backends;
#[cfg(all(feature = "cli", feature = "servers"))]
mod checks;
#[cfg(feature = "cli")]
mod cli;
mod entities;
pub mod prelude;
#[cfg(feature = "cli")]
mod service;
#[cfg(feature = "cli")]
pub mod settings;

pub use app::{App, InvalidApp};
#[cfg(feature = "cli")]
pub use backends::BackendError;
#[cfg(all(feature = "cli", feature = "servers"))]
pub use checks::UnfitServer;
pub use entities::InvalidEntities;
#[cfg(feature = "cli")]
pub use service::{CannotListen, StartError};
#[doc(hidden)]
pub use tidelog_domain::__private;
pub use tidelog_domain::{
    Aggregate, Change, Command, CommandInput, CommandSpec, Context, Data, Decision, DecodeError,
    Endpoint, Entity, EntityEvent, EntitySchema, Event, EventId, EventSet, FieldError,
    InvalidAggregate, InvalidSchema, Keys, Lifecycle, Metadata, Named, Partition, Payload,
    Position, Projection, Recorded, RecordedEvent, Rejection, StreamId, Version, View, aggregate,
    commands, data, entity, events, rejections, testing, view,
};
