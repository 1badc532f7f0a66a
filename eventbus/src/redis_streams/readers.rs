//! Reads that block, each on a connection that nobody else uses meanwhile.
//!
//! On a cluster a read goes straight to the node that has its stream, and follows that node's word when the stream
//! has moved. (The library's own connection to a cluster is one to *every* node, which each blocking read would need
//! for itself.)

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};
use tidelog_domain::Partitions;

use super::connection::dial;
use super::place::{Node, Place};
use super::server::RedisConnectError;
use crate::lock::lock;

/// How much longer than its `BLOCK` a blocking read may take.
const BLOCKING_MARGIN: Duration = Duration::from_secs(3);

/// The most idle connections that are kept to one server, whose reads wait on all partitions at once.
const MAX_IDLE: usize = 4;

/// How often a read follows a partition to another node before it gives up for now.
const MAX_REDIRECTS: usize = 4;

/// The connections of a bus for reads that block. `K` is what it knows its streams by.
pub(crate) struct Readers<K> {
    place: Arc<Place>,
    /// Connections that nobody uses now, by node.
    idle: Mutex<HashMap<Node, Vec<MultiplexedConnection>>>,
    max_idle: usize,
    /// The nodes of a cluster that the streams were found on.
    owners: Mutex<HashMap<K, Node>>,
    /// Which of the place's nodes is asked for a stream that is not known.
    seed: AtomicUsize,
}

/// Why a blocking command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlockingError {
    #[error(transparent)]
    Connect(#[from] RedisConnectError),
    #[error(transparent)]
    Command(#[from] RedisError),
}

/// Where a node sends us instead.
enum Redirect {
    /// For good.
    Moved(Node),
    /// For this command, while the stream is under way.
    Ask(Node),
}

impl<K: Clone + Eq + Hash> Readers<K> {
    pub(crate) fn new(place: Arc<Place>) -> Self {
        Self {
            max_idle: if place.is_cluster() {
                usize::from(Partitions::MAX)
            } else {
                MAX_IDLE
            },
            place,
            idle: Mutex::default(),
            owners: Mutex::default(),
            seed: AtomicUsize::new(0),
        }
    }

    /// Runs `command`, which reads `stream` and blocks for at most `block`.
    pub(crate) async fn run(
        &self,
        stream: &K,
        command: &redis::Cmd,
        block: Duration,
    ) -> Result<Value, BlockingError> {
        let mut node = self.owner(stream);
        let mut asking = false;
        let mut redirects = 0;
        loop {
            let error = match self.run_on(&node, command, block, asking).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            redirects += 1;
            match redirect(&error, &node) {
                Some(to) if redirects <= MAX_REDIRECTS => {
                    (node, asking) = match to {
                        Redirect::Ask(to) => (to, true),
                        Redirect::Moved(to) => {
                            lock(&self.owners).insert(stream.clone(), to.clone());
                            (to, false)
                        }
                    };
                }
                _ => {
                    self.forget(stream);
                    return Err(error);
                }
            }
        }
    }

    /// Runs `command` on `node`; `asking` where the stream is under way to it.
    async fn run_on(
        &self,
        node: &Node,
        command: &redis::Cmd,
        block: Duration,
        asking: bool,
    ) -> Result<Value, BlockingError> {
        let idle = lock(&self.idle).get_mut(node).and_then(Vec::pop);
        let mut connection = match idle {
            Some(connection) => connection,
            None => dial(self.place.reach(node)).await?,
        };
        connection.set_response_timeout(block + BLOCKING_MARGIN);
        let mut commands = redis::Pipeline::new();
        if asking {
            commands.cmd("ASKING");
        }
        commands.add_command(command.clone());
        // A connection is only kept when its answer came and is none of a server that refuses, as a primary does that became a replica:
        // one that failed, or whose reader went away, is closed.
        let mut answers = connection
            .send_packed_commands(&commands, usize::from(asking), 1)
            .await?;
        let answer = answers.pop().unwrap_or(Value::Nil).extract_error()?;
        let mut idle = lock(&self.idle);
        let idle = idle.entry(node.clone()).or_default();
        if idle.len() < self.max_idle {
            idle.push(connection);
        }
        Ok(answer)
    }

    /// The node to ask for `stream`.
    fn owner(&self, stream: &K) -> Node {
        let known = lock(&self.owners).get(stream).cloned();
        known.unwrap_or_else(|| {
            let seed = self.seed.load(Ordering::Relaxed) % self.place.nodes.len().max(1);
            self.place.seeds().nth(seed).unwrap_or_default()
        })
    }

    /// Begins anew for `stream` at the next try, with another of the place's nodes where it was not known: the one
    /// that was asked may be gone.
    fn forget(&self, stream: &K) {
        if lock(&self.owners).remove(stream).is_none() {
            self.seed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Where `error` of `node` sends us.
fn redirect(error: &BlockingError, node: &Node) -> Option<Redirect> {
    let BlockingError::Command(error) = error else {
        return None;
    };
    let (address, _) = error.redirect_node()?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // A node that does not know its own name sends us to another port of the same one.
    let host = if host.is_empty() { &node.0 } else { host };
    let to = (host.to_owned(), port.parse().ok()?);
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::Ask) => Some(Redirect::Ask(to)),
        ErrorKind::Server(ServerErrorKind::Moved) => Some(Redirect::Moved(to)),
        _ => None,
    }
}
