//! What tidelog's HTTP services share: problem documents, limits, health, the server's life.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "tests fail loudly"
    )
)]

mod problem;

pub use problem::{Problem, ProblemKind};
