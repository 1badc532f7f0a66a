//! What a program that defines aggregates, entities and views needs: `use tidelog::prelude::*;`.
//!
//! The macros, the traits that are written by hand, what their methods take and give, and the words of the tests.

pub use chrono::{DateTime, Utc};
pub use serde_json::{Value, json};
pub use tidelog_macros::{
    aggregate, commands, data, entity, event_set, events, multi_stream_command, rejections, view,
};
pub use uuid::Uuid;

pub use crate::aggregate::{Aggregate, Decision};
pub use crate::context::Context;
pub use crate::entity::{Change, EntityEvent};
pub use crate::multi_stream::{MultiStreamCommand, MultiStreamDecision};
pub use crate::projection::{EventSet, Keys, Projection, Recorded};
pub use crate::testing::{
    create, created, delete, deleted, given, given_all, given_entity, given_events, on, on_entity,
    patch, updated,
};
pub use crate::upcasting::Upcaster;
