//! Reactions, streams of events, and following another program, by way of the whole program on real servers.

mod following;
pub(crate) mod kit;
mod own;
mod streams;
