//! What the tests of this crate share: two views, a log to fold, the fold itself.

mod faults;
mod fold;
mod log;
mod system;
mod views;

pub(crate) use faults::FaultyStore;
pub(crate) use fold::{folded, stored};
pub(crate) use log::{Change, Log};
pub(crate) use system::{Process, Reading, System, eventually};
pub(crate) use views::{authors, edition, posts, posts_by, shortened, titles};
