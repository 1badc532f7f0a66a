//! The event store on MySQL and on MariaDB: the conformance suite of the port, and what only servers can get wrong. (The
//! stores in memory and on SQLite run the suite in their own crate.)

pub(crate) mod kit;

mod auto_increment;
mod conformance;
mod faults;
mod heads;
mod random;
mod snapshots;
