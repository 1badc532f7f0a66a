//! End to end: the program as its users run it, by its command line and over HTTP, on real servers.
//!
//! A test gets databases, addresses and names of its own and shares the servers ([`tidelog_test_support::shared`]). One
//! that hurts a server starts a server of its own, and is in a module called `faults`, which
//! `tests/run --servers env` leaves out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

// What tests are written with.
mod client;
mod load;
mod log;
mod services;
mod view;
mod waiting;

// Tests.
mod bad_input;
mod bus;
mod chaos;
mod cli;
mod concurrency;
mod consumer;
mod containers;
mod dev;
mod faults;
mod fuzz;
mod gateway;
mod idempotency;
mod messaging;
mod operations;
mod own_app;
mod own_store;
mod pages;
mod query;
mod reactions;
mod read_store;
mod replay;
mod replay_under_load;
mod rights;
mod security;
mod settings;
mod start_up;
mod store;
mod story;
mod story_day_two;
mod telemetry;
mod websocket;
