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
mod lock;
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
#[doc(hidden)]
pub use lock::require_lock as __require_lock;
pub use lock::{LOCK_FILE, LockError, check_lock};
#[cfg(feature = "cli")]
pub use service::{CannotListen, StartError};
