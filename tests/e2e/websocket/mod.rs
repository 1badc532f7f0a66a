//! `/ws`: live queries and commands over one WebSocket, as a client sees it.

pub(crate) mod kit;
mod opening;
mod speaking;
mod staying;
mod tenants;
