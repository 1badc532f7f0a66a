//! What these tests are written with: a program, its processes, writers, and what all of it has to come to.

mod bus;
mod domain;
mod expected;
mod ground;
mod program;
mod watcher;
mod writers;

pub(super) use bus::{empty, on_each_bus};
pub(super) use domain::POISON;
pub(super) use expected::Expected;
pub(super) use ground::{GROUPS, Ground, SUBSCRIPTIONS, within};
pub(super) use program::Program;
pub(super) use watcher::Watcher;
pub(super) use writers::{Load, Writers, add, begin};
