//! tidelog's write side: the event store port and its adapters, group commit, command handling, HTTP.
//!
//! A command comes in over HTTP ([`command_router`]) or in process ([`CommandService::execute`]), waits in the queue of an
//! [`appender`], is decided on the state of its aggregate, and is answered once its events are durable in the
//! [`store`].
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "tests fail loudly"
    )
)]

pub mod store;

pub mod appender;
mod clock;
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub mod handled;
pub mod handling;
pub mod http;

pub mod gateway;

#[cfg(test)]
mod fixtures;

pub use appender::{AppenderSettings, SnapshotCounts};
pub use clock::Clock;
pub use handling::{
    CommandError, CommandId, CommandKey, CommandOutcome, CommandRequest, CommandService,
    Definitions, DuplicateAggregate, InvalidKey, MultiStreamOutcome, MultiStreamRequest,
    Precondition,
};
pub use http::{
    CommandSettings, command_document, command_router, feed_router, gateway_document,
    gateway_router, idempotency_key,
};
