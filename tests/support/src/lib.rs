//! Starts the real servers that tidelog's tests talk to, and what tests need to hurt them.
//!
//! - [`shared`]: one server of each engine for all tests of a test binary; a test takes a database or names of its own.
//! - [`Server`]: a server of a test's own, to kill, stop, pause, restart or roll back.
//! - [`RedisCluster`]: a Redis Cluster of servers of a test's own.
//! - [`SqlUsers`]: users of a database of a test's own, with the rights that `deploy/mysql/` gives and no others.
//! - [`Process`]: a program under test, such as `tidelog serve`, with its output and its signals.
//! - [`OtlpReceiver`]: a collector of traces, with what came to it.
//! - [`Issuer`]: an issuer of tokens, which publishes its keys.
//! - [`TcpProxy`]: a network between a client and a server that can be cut, delayed, stalled or made to lose an answer.
//!
//! The servers are the genuine ones, fetched by `tests/servers` when they are missing. Nothing started here outlives
//! the test process, however that ends.
//!
//! Everything here **panics** when it cannot do what it was asked to, with the server's or the program's own output: a
//! backend that does not start fails the test.
//!
//! # Names that `tests/run --servers env` goes by
//!
//! With servers that somebody else started, tests that need servers of their own cannot run. They are left out, and
//! listed, by name: a test that uses [`Server::start`] or [`RedisCluster::start`] belongs in a module named `faults` (its path then holds `faults::`),
//! and one that uses [`shared::mariadb`], [`shared::nats`] or [`shared::kafka`] has `mariadb`, `nats` or `kafka` in its name or its module's.

mod cluster;
mod ending;
mod engine;
pub mod grants;
mod installation;
mod issuer;
mod network;
mod otlp;
mod process;
mod server;
pub mod shared;

pub use cluster::RedisCluster;
pub use ending::Signal;
pub use engine::Engine;
pub use grants::SqlUsers;
pub use installation::{
    browser_path, promtool, python_path, schemas_path, streamerson_path, workers_path,
};
pub use issuer::{AUDIENCE, ISSUER, Issuer, SigningKey};
pub use network::{TcpProxy, free_port};
pub use otlp::{OtlpReceiver, ReceivedSpan};
pub use process::{Process, resident_kib};
pub use server::{Durability, Server, ServerOptions, Snapshot};
pub use shared::{fresh_mongodb_database, fresh_mysql_database, unique_name};
