//! What servers, networks and operators do to the event store, and what must hold all the same.

mod doubt;
mod killed;
mod locks;
mod refusals;
mod restored;
