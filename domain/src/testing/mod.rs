//! Given, when, then: tests of aggregates, entities and projections, without a store, a clock or a server.
//!
//! All of it panics where what was expected did not happen, and shows both.

mod documents;
mod entity;
mod events;
mod given;
mod given_all;
mod interleavings;

pub use entity::{
    EntityOutcome, GivenEntity, PastState, create, created, delete, deleted, given_entity,
    given_entity_of, patch, updated,
};
pub use events::{GivenEvents, PastEvent, given_events, given_log, on, on_entity, on_entity_of};
pub use given::{Given, Outcome, given};
pub use given_all::{GivenAll, OutcomeOfAll, given_all};

use chrono::DateTime;
use uuid::Uuid;

use crate::context::Context;
use crate::event::Metadata;

/// The context of a command in a test: always the same one.
fn context() -> Context {
    Context::new(
        Uuid::from_u128(1),
        DateTime::UNIX_EPOCH,
        Metadata::default(),
    )
}
