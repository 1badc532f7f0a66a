//! tidelog's write side: the event store port and its adapters, group commit, command handling, HTTP.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "tests fail loudly"
    )
)]

pub mod appender;
#[cfg(test)]
mod fixtures;
pub mod handling;
pub mod store;
