//! A Redis Cluster of real nodes.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, FromRedisValue};
use tokio::time::{Instant, sleep};

use crate::network::free_port;
use crate::{Durability, Engine, Server, ServerOptions};

/// How many hash slots every cluster has.
const SLOTS: usize = 16_384;

/// Nodes that do not agree by then will not.
const AGREE_BOUND: Duration = Duration::from_secs(120);

/// How often they are asked.
const POLL: Duration = Duration::from_millis(20);

/// How long a node may be silent before the others take it for dead.
const NODE_TIMEOUT_MS: &str = "2000";

/// A Redis Cluster on ports of this machine: primaries without replicas, each with an equal part of the hash slots.
///
/// As with a [`Server`], it is gone when this value is dropped or the test process ends. A node that is killed and started
/// again has its data and its slots as before.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Server>,
}

impl RedisCluster {
    /// Starts `count` nodes, makes a cluster of them and waits until all of them agree that it works.
    pub async fn start(count: usize) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(Server::start_with(Engine::Redis, options()).await);
        }
        let cluster = Self { nodes };
        cluster.join().await;
        cluster.agrees().await;
        cluster
    }

    /// The URL that a program under test is given, with the addresses of all nodes.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port()));
        format!("redis+cluster://{}/", hosts.collect::<Vec<_>>().join(","))
    }

    /// The nodes, each of them a server.
    #[must_use]
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// The nodes, to be killed and started again.
    pub fn nodes_mut(&mut self) -> &mut [Server] {
        &mut self.nodes
    }

    /// Waits until all nodes agree that the cluster works. Panics when they do not.
    pub async fn agrees(&self) {
        let deadline = Instant::now() + AGREE_BOUND;
        for node in &self.nodes {
            loop {
                let info: String = ask(node, &["CLUSTER", "INFO"]).await;
                let known = format!("cluster_known_nodes:{}\r", self.nodes.len());
                if info.contains("cluster_state:ok") && info.contains(&known) {
                    break;
                }
                assert!(Instant::now() < deadline, "no cluster:\n{info}");
                sleep(POLL).await;
            }
        }
    }

    /// Shares the slots out and has the nodes meet.
    async fn join(&self) {
        let share = SLOTS.div_ceil(self.nodes.len());
        let slots = (0..SLOTS).step_by(share);
        for (node, first) in self.nodes.iter().zip(slots) {
            let (first, last) = (first.to_string(), (first + share).min(SLOTS) - 1);
            let last = last.to_string();
            let _: String = ask(node, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
        }
        let Some((first, others)) = self.nodes.split_first() else {
            return;
        };
        for other in others {
            let port = other.port().to_string();
            let bus: Vec<String> = ask(other, &["CONFIG", "GET", "cluster-port"]).await;
            let bus = bus.last().map_or("", String::as_str);
            let _: String = ask(first, &["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await;
        }
    }
}

fn options() -> ServerOptions {
    let port = free_port().to_string();
    let arguments = [
        ["--cluster-enabled", "yes"],
        ["--cluster-port", &port],
        ["--cluster-node-timeout", NODE_TIMEOUT_MS],
        // While a node is away the others go on with what they have.
        ["--cluster-require-full-coverage", "no"],
    ];
    ServerOptions {
        durability: Durability::Full,
        arguments: arguments.concat().into_iter().map(str::to_owned).collect(),
    }
}

/// Runs one command on one node.
async fn ask<T: FromRedisValue>(node: &Server, command: &[&str]) -> T {
    let answer = async {
        let mut connection: MultiplexedConnection = Client::open(node.url())?
            .get_multiplexed_async_connection()
            .await?;
        let mut cmd = redis::Cmd::new();
        cmd.arg(command).query_async(&mut connection).await
    };
    answer
        .await
        .unwrap_or_else(|error: redis::RedisError| panic!("{command:?} failed: {error}"))
}
