//! JSON as bytes and values: what is refused before it is read, and the merge patch of RFC 7396.

mod guard;
mod meaning;
mod merge_patch;

pub use guard::{JsonProblem, MAX_DEPTH, check};
pub(crate) use meaning::meaning;
pub(crate) use merge_patch::merge_object;
pub use merge_patch::merge_patch;
