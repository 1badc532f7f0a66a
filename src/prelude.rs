//! What a program needs: `use tidelog::prelude::*;`.
//!
//! The macros, the traits that are written by hand, what their methods take and give, the words of the tests, and [`App`].

pub use tidelog_domain::prelude::*;
pub use tidelog_eventbus::{Failure, FailurePolicy, Reaction};

pub use crate::App;
