//! The event bus: the relay, the tail and subscriptions, on the in-process bus and on real servers.

mod groups;
pub(crate) mod kit;

mod catch_up;
mod conformance;
mod failures;
mod faults;
mod history;
mod kafka;
mod keys;
mod leases;
mod nats;
mod parking;
mod random;
mod relay;
mod retrying;
mod rights;
mod server;
mod subscription;
