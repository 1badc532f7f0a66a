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
mod entities;
pub mod settings;

pub use app::{App, InvalidApp};
pub use entities::InvalidEntities;
