//! Reactions, streams of events, and following another program, by way of the whole program on real servers.

mod following;
mod kit;
mod own;
mod streams;
