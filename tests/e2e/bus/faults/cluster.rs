//! A Redis Cluster of three real nodes: it does what one server does, and a node of it may go.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use redis::FromRedisValue;
use redis::cluster_async::ClusterConnection;
use tidelog_domain::{HistoryId, Partition, Position};
use tidelog_eventbus::conformance::EventBusFactory;
use tidelog_eventbus::{EventBus, RedisConnectError, RedisEventBus, event_bus_conformance};
use tidelog_test_support::{RedisCluster, Server, unique_name};
use tokio::sync::OnceCell;

use super::Service;
use crate::bus::kit::{Log, eventually, partitions, redis_at};
use crate::bus::rights::documented_rights;
use crate::services::{Backends, Role, Site};

/// How many nodes a cluster has.
const NODES: usize = 3;

/// One cluster for all tests that do not hurt it.
async fn shared() -> &'static RedisCluster {
    static CLUSTER: OnceCell<RedisCluster> = OnceCell::const_new();
    CLUSTER.get_or_init(|| RedisCluster::start(NODES)).await
}

#[derive(Default)]
struct Cluster {
    given: Mutex<Option<Arc<RedisEventBus>>>,
}

#[async_trait]
impl EventBusFactory for Cluster {
    async fn bus(&self, keep: usize) -> Arc<dyn EventBus> {
        let bus = RedisEventBus::new(&shared().await.url(), &unique_name()).unwrap();
        let bus = Arc::new(bus.keeping(keep));
        *self.given.lock().unwrap() = Some(Arc::clone(&bus));
        bus
    }

    async fn lose(&self, history: HistoryId, partition: Partition) {
        let bus = self.given.lock().unwrap().clone().unwrap();
        let mut del = redis::cmd("DEL");
        del.arg(bus.key(history, partition));
        let removed: i64 = del
            .query_async(&mut connection(shared().await).await)
            .await
            .unwrap();
        assert_eq!(removed, 1, "it was not there");
    }
}

event_bus_conformance!(conformance, Cluster::default());

/// A connection of the test's own.
async fn connection(cluster: &RedisCluster) -> ClusterConnection {
    let nodes = cluster.nodes().iter().map(Server::url);
    let client = redis::cluster::ClusterClient::new(nodes).unwrap();
    client.get_async_connection().await.unwrap()
}

/// Runs one command on one node.
async fn ask<T: FromRedisValue>(node: &Server, command: &[&str]) -> T {
    let mut cmd = redis::Cmd::new();
    cmd.arg(command)
        .query_async(&mut redis_at(node.url()).await)
        .await
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// A service on a cluster of its own.
struct OnCluster {
    cluster: RedisCluster,
    bus: Arc<RedisEventBus>,
    service: Service,
}

impl OnCluster {
    async fn start() -> Self {
        let cluster = RedisCluster::start(NODES).await;
        let bus = Arc::new(RedisEventBus::new(&cluster.url(), "app").unwrap());
        let service = Service::on(bus.clone()).await;
        service.works().await;
        service.is_well_again().await;
        Self {
            cluster,
            bus,
            service,
        }
    }

    /// The node that has each partition; no slots may have moved.
    async fn owners(&self) -> Vec<usize> {
        let mut owners = Vec::new();
        for partition in partitions().iter() {
            let key = self.bus.key(self.service.log.history(), partition);
            let slot: usize = ask(&self.cluster.nodes()[0], &["CLUSTER", "KEYSLOT", &key]).await;
            owners.push(slot * NODES / 16_384);
        }
        owners
    }

    /// Checks that while `node` is away its partitions are read from the log and the others go on over the bus.
    async fn goes_on_without(&self, node: usize, owners: &[usize]) {
        let service = &self.service;
        service.works().await;
        if owners.contains(&node) {
            service.bus_is_down().await;
        }
        eventually("the others go on", || async {
            service.log.append(16).await;
            let heads = service.log.heads().await;
            let mut well = true;
            for ((partition, head), owner) in partitions().iter().zip(heads).zip(owners) {
                if *owner != node {
                    let last = self.bus.last(service.log.history(), partition).await;
                    well &= last
                        .ok()
                        .flatten()
                        .is_some_and(|last| last.position == head);
                }
            }
            well
        })
        .await;
        service.works().await;
    }

    /// Waits until the bus is used again on all nodes.
    async fn is_well_again(&self) {
        self.cluster.agrees().await;
        self.service.is_well_again().await;
        self.service.has_no_wrong_order().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_and_comes_back_loses_nothing() {
    let mut on = OnCluster::start().await;
    let owners = on.owners().await;
    for node in 0..NODES {
        on.cluster.nodes_mut()[node].kill();
        on.goes_on_without(node, &owners).await;
        tokio::join!(on.cluster.nodes_mut()[node].restart(), on.service.works());
        on.is_well_again().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_answering_and_goes_on_loses_nothing() {
    let on = OnCluster::start().await;
    let owners = on.owners().await;
    let node = owners[0];
    on.cluster.nodes()[node].pause();
    on.goes_on_without(node, &owners).await;
    on.cluster.nodes()[node].resume();
    on.is_well_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_emptied_in_the_middle_loses_nothing() {
    let on = OnCluster::start().await;
    let (cluster, service) = (&on.cluster, &on.service);
    for _ in 0..3 {
        service.works().await;
        let emptying = async {
            for node in cluster.nodes() {
                let _: String = ask(node, &["FLUSHALL"]).await;
            }
        };
        tokio::join!(service.works(), emptying);
    }
    on.is_well_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_moves_to_another_node_is_followed() {
    let on = OnCluster::start().await;
    let (cluster, bus, service) = (&on.cluster, &on.bus, &on.service);
    for partition in partitions().iter() {
        let key = bus.key(service.log.history(), partition);
        let slot: i64 = ask(&cluster.nodes()[0], &["CLUSTER", "KEYSLOT", &key]).await;
        let slot = slot.to_string();
        let mut owner = None;
        for (index, node) in cluster.nodes().iter().enumerate() {
            let keys: i64 = ask(node, &["CLUSTER", "COUNTKEYSINSLOT", &slot]).await;
            owner = if keys > 0 { Some(index) } else { owner };
        }
        let owner = owner.expect("a node has the stream");
        let (from, to) = (
            &cluster.nodes()[owner],
            &cluster.nodes()[(owner + 1) % NODES],
        );
        let from_id: String = ask(from, &["CLUSTER", "MYID"]).await;
        let to_id: String = ask(to, &["CLUSTER", "MYID"]).await;
        let set = ["CLUSTER", "SETSLOT", slot.as_str()];
        let _: String = ask(to, &[&set[..], &["IMPORTING", &from_id]].concat()).await;
        let _: String = ask(from, &[&set[..], &["MIGRATING", &to_id]].concat()).await;
        service.works().await;
        let port = to.port().to_string();
        let migrate = ["MIGRATE", "127.0.0.1", &port, &key, "0", "60000"];
        let _: String = ask(from, &migrate).await;
        // Here the old owner still says of itself that it has the slot, and sends each command on.
        let after = [(partition, Position::START)];
        let read = bus.read(service.log.history(), &after, 100, Duration::from_secs(1));
        assert!(!read.await.unwrap().is_empty());
        service.works().await;
        for node in [to, from].into_iter().chain(cluster.nodes()) {
            let _: String = ask(node, &[&set[..], &["NODE", &to_id]].concat()).await;
        }
        service.works().await;
        on.is_well_again().await;
    }
}

#[tokio::test]
async fn partitions_spread_over_the_nodes() {
    let cluster = shared().await;
    let bus = RedisEventBus::new(&cluster.url(), "app").unwrap();
    let history = HistoryId::new(uuid::Uuid::now_v7());
    let mut shares = [0; NODES];
    for partition in 0..16 {
        let key = bus.key(history, Partition::new(partition));
        let slot: usize = ask(&cluster.nodes()[0], &["CLUSTER", "KEYSLOT", &key]).await;
        shares[slot * NODES / 16_384] += 1;
    }
    assert!(shares.iter().all(|share| *share >= 2), "{shares:?}");
}

#[tokio::test]
async fn one_node_that_answers_is_enough_to_find_the_others() {
    let cluster = shared().await;
    let [_, last @ ..] = cluster.nodes() else {
        panic!("it has nodes");
    };
    let gone = tidelog_test_support::free_port();
    let url = format!(
        "redis+cluster://127.0.0.1:{gone},127.0.0.1:{}",
        last[0].port()
    );
    let bus = RedisEventBus::new(&url, &unique_name()).unwrap();
    assert!(bus.server().await.unwrap().is_cluster);
    let log = Log::new();
    log.append(64).await;
    for partition in partitions().iter() {
        let events = log.events(partition).await;
        bus.publish(log.history(), partition, &events)
            .await
            .unwrap();
        let after = [(partition, Position::START)];
        let read = async || {
            bus.read(log.history(), &after, 100, Duration::from_secs(1))
                .await
        };
        // The first try may be one on the node that is gone.
        let found = match read().await {
            Ok(found) => found,
            Err(_) => read().await.unwrap(),
        };
        assert_eq!(found, events);
    }
}

#[tokio::test]
async fn the_program_runs_on_a_cluster() {
    let backends = Backends {
        bus_url: shared().await.url(),
        ..Backends::fresh().await
    };
    let mut site = Site::three(&backends).await;
    for number in 0..20 {
        let post =
            serde_json::json!({"title": number.to_string(), "content": "-", "author_name": "Ann"});
        let created = site.commands.post("/post", &post).await;
        let path = format!("/post/{}", created.data(201)["id"].as_str().unwrap());
        site.queries
            .get_after(&path, created.token())
            .await
            .data(200);
    }
    for role in [Role::Command, Role::EventBus] {
        let said = site.service(role).process().output();
        assert!(
            said.contains("the event bus is on a Redis Cluster"),
            "{said}"
        );
        assert!(!said.contains("it fails, and is tried again"), "{said}");
    }
}

#[tokio::test]
async fn a_url_of_one_server_is_refused_for_a_cluster_and_the_other_way_round() {
    let node = &shared().await.nodes()[0];
    let error = RedisEventBus::new(node.url(), "app")
        .unwrap()
        .server()
        .await;
    assert!(
        matches!(error, Err(RedisConnectError::IsCluster)),
        "{error:?}"
    );
    let alone = tidelog_test_support::shared::redis().await;
    let url = alone.url().replace("redis://", "redis+cluster://");
    let error = RedisEventBus::new(&url, "app").unwrap().server().await;
    assert!(
        matches!(error, Err(RedisConnectError::IsNoCluster)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_user_with_the_documented_rights_does_on_a_cluster_what_is_needed() {
    let (cluster, user, app) = (shared().await, unique_name(), unique_name());
    let rights = documented_rights("{APP:events:*", &user, &app);
    let rights: Vec<_> = rights.iter().map(String::as_str).collect();
    for node in cluster.nodes() {
        let _: String = ask(node, &rights).await;
    }
    let url = cluster
        .url()
        .replace("://", &format!("://{user}:PASSWORD@"));
    crate::bus::rights::everything_works(&url, &app).await;
    // Without the rights for a cluster it is said what is missing.
    for node in cluster.nodes() {
        let _: String = ask(node, &["ACL", "SETUSER", &user, "-cluster|slots"]).await;
    }
    let error = RedisEventBus::new(&url, &app).unwrap().server().await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, RedisConnectError::Forbidden { .. }) && error.to_string().contains("slots"),
        "{error:?}"
    );
}
