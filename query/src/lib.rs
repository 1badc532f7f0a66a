//! tidelog's read side: projecting, the read store port and its adapters, replay, queries, HTTP.
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
