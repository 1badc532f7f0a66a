//! What the tests of this crate share: two views, a log to fold, the fold itself.

mod faults;
mod fold;
mod log;
mod views;

pub(crate) use faults::FaultyStore;
pub(crate) use fold::{folded, stored};
pub(crate) use log::{Change, Log};
pub(crate) use views::{authors, posts};
