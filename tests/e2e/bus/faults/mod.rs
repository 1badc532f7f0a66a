//! Faults of Redis in the middle of work: nothing is lost, nothing comes twice, and it goes on.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidelog_domain::Position;
use tidelog_eventbus::{EventBus, RedisEventBus, RelayStatus, TailState};
use tidelog_test_support::{Durability, Engine, Server, ServerOptions, TcpProxy, free_port};

mod bounded;
mod cluster;
mod kafka;
mod memory;
mod nats;
mod tls;

use super::kit::{
    Consumer, Log, Recorder, Run, States, begun_relay, del, eventually, partitions, quick,
    redis_at, within_patience,
};

/// How long nothing is appended while a bus catches up.
const AT_REST: Duration = Duration::from_secs(10);

async fn redis(durability: Durability) -> Server {
    let options = ServerOptions {
        durability,
        ..ServerOptions::default()
    };
    Server::start_with(Engine::Redis, options).await
}

/// Two relays and a consumer at a Redis.
struct Service {
    log: Log,
    bus: Arc<dyn EventBus>,
    handler: Arc<Recorder>,
    consumer: Consumer,
    relays: Vec<(Run<()>, RelayStatus)>,
}

impl Service {
    async fn start(url: &str) -> Self {
        Self::on(Arc::new(RedisEventBus::new(url, "app").unwrap())).await
    }

    async fn on(bus: Arc<dyn EventBus>) -> Self {
        let (log, handler) = (Log::new(), Recorder::new());
        let mut relays = Vec::new();
        for signal in [true, false] {
            relays.push(begun_relay(&log, &bus, signal).await);
        }
        let consumer = Consumer::start("a", &log, &bus, States::new(), &handler, quick());
        Self {
            log,
            bus,
            handler,
            consumer,
            relays,
        }
    }

    /// Appends, and waits until the consumer has everything, once and in order.
    async fn works(&self) {
        for _ in 0..10 {
            self.log.append(20).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.handler.has_all_of(&self.log).await;
    }

    /// Checks that what is on the bus is the log's, in order, up to its head; there may be holes.
    async fn has_no_wrong_order(&self) {
        for partition in partitions().iter() {
            let after = [(partition, Position::START)];
            let wait = Duration::from_millis(1);
            let read = self.bus.read(self.log.history(), &after, 100_000, wait);
            let on_bus = read.await.unwrap();
            let mut in_log = self.log.events(partition).await;
            assert_eq!(on_bus.last(), in_log.last());
            let positions: BTreeSet<_> = on_bus.iter().map(|event| event.position).collect();
            in_log.retain(|event| positions.contains(&event.position));
            assert_eq!(on_bus, in_log);
        }
    }

    async fn bus_is_down(&self) {
        eventually("the tail says that the bus is down", || async {
            matches!(self.consumer.tail.status().bus, TailState::Down { .. })
        })
        .await;
    }

    /// Waits until the bus is used again, and what is committed then comes to it.
    async fn is_well_again(&self) {
        eventually("the tail reads again", || async {
            self.consumer.tail.status().bus == TailState::Reading
        })
        .await;
        // A relay notices what it has to say at the next event. It may need a while to say it.
        let appended = Cell::new(None::<Instant>);
        eventually("the relays publish again", || async {
            if appended.get().is_none_or(|at| at.elapsed() > AT_REST) {
                self.log.append(16).await;
                appended.set(Some(Instant::now()));
            }
            let heads = self.log.heads().await;
            let all_well = self.relays.iter().all(|(_, status)| status.is_well());
            for (partition, head) in partitions().iter().zip(heads) {
                let last = self.bus.last(self.log.history(), partition).await;
                if last.ok().flatten().is_none_or(|last| last.position != head) {
                    return false;
                }
            }
            all_well
        })
        .await;
        self.handler.has_all_of(&self.log).await;
        self.consumer.is_live(&self.log).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_emptied_in_the_middle_loses_nothing() {
    let server = redis(Durability::Relaxed).await;
    let service = Service::start(server.url()).await;
    let mut connection = redis_at(server.url()).await;
    for _ in 0..5 {
        service.works().await;
        let emptying = async {
            let _: String = redis::cmd("FLUSHALL")
                .query_async(&mut connection)
                .await
                .unwrap();
        };
        tokio::join!(service.works(), emptying);
    }
    service.is_well_again().await;
}

async fn survives_a_kill(durability: Durability) {
    let mut server = redis(durability).await;
    let service = Service::start(server.url()).await;
    for _ in 0..3 {
        let killing = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            server.kill();
        };
        tokio::join!(service.works(), killing);
        service.bus_is_down().await;
        // Without the bus it goes on all the same.
        service.works().await;
        tokio::join!(server.restart(), service.works());
        service.is_well_again().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_and_comes_back_with_its_data_loses_nothing() {
    survives_a_kill(Durability::Full).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_and_comes_back_empty_loses_nothing() {
    survives_a_kill(Durability::Relaxed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lost_its_tail_has_no_wrong_order_and_loses_nothing() {
    let mut server = redis(Durability::Full).await;
    let service = Service::start(server.url()).await;
    service.works().await;
    service.is_well_again().await;
    let older = server.snapshot().await;
    service.is_well_again().await;
    service.works().await;
    server.restore(&older).await;
    service.is_well_again().await;
    service.has_no_wrong_order().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_whose_append_only_file_lost_its_end_loses_nothing() {
    let mut server = redis(Durability::Full).await;
    let service = Service::start(server.url()).await;
    service.works().await;
    service.is_well_again().await;
    for cut in [1, 700, 20_000] {
        server.kill();
        service.bus_is_down().await;
        cut_append_only_file(&server, cut);
        tokio::join!(server.restart(), service.works());
        service.is_well_again().await;
        service.has_no_wrong_order().await;
    }
}

/// Cuts so many bytes off the end of the file that Redis appends to.
fn cut_append_only_file(server: &Server, bytes: u64) {
    let directory = server.dir().join("data/appendonlydir");
    let files = std::fs::read_dir(directory).unwrap();
    let mut files = files.map(|file| file.unwrap().path());
    let file = files.find(|path| path.to_string_lossy().ends_with(".incr.aof"));
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(file.unwrap())
        .unwrap();
    let length = file.metadata().unwrap().len();
    assert!(length > bytes, "it has only {length} bytes");
    file.set_len(length - bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_deleted_in_the_middle_loses_nothing() {
    let server = redis(Durability::Relaxed).await;
    let bus = Arc::new(RedisEventBus::new(server.url(), "app").unwrap());
    let service = Service::on(bus.clone()).await;
    service.works().await;
    service.is_well_again().await;
    for partition in partitions().iter().cycle().take(12) {
        let deleting = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            del(server.url(), &bus.key(service.log.history(), partition)).await;
        };
        tokio::join!(service.works(), deleting);
        service.is_well_again().await;
        service.has_no_wrong_order().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_to_a_replica_that_is_behind_loses_nothing() {
    let mut primary = redis(Durability::Relaxed).await;
    let replica = redis(Durability::Relaxed).await;
    let name = TcpProxy::start(primary.port()).await;
    let service = Service::start(&name.url(primary.url())).await;
    service.works().await;
    let mut of_replica = redis_at(replica.url()).await;
    replica_of(&mut of_replica, "127.0.0.1", &primary.port().to_string()).await;
    eventually("the replica follows", || async {
        info(&replica, "replication")
            .await
            .contains("master_link_status:up")
    })
    .await;
    service.works().await;
    service.is_well_again().await;
    // From here on it hears no more; the primary goes on for a while, and dies.
    replica_of(&mut of_replica, "NO", "ONE").await;
    for _ in 0..5 {
        service.works().await;
    }
    service.is_well_again().await;
    primary.kill();
    service.works().await;
    name.lead_to(replica.port());
    service.works().await;
    service.is_well_again().await;
    service.has_no_wrong_order().await;
}

async fn replica_of(connection: &mut ::redis::aio::MultiplexedConnection, host: &str, port: &str) {
    let mut command = redis::cmd("REPLICAOF");
    let _: String = command
        .arg(host)
        .arg(port)
        .query_async(connection)
        .await
        .unwrap();
}

/// A section of what the server says of itself.
async fn info(server: &Server, section: &str) -> String {
    let mut info = redis::cmd("INFO");
    info.arg(section)
        .query_async(&mut redis_at(server.url()).await)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_stalls_holds_nothing_up() {
    let server = redis(Durability::Relaxed).await;
    let proxy = TcpProxy::start(server.port()).await;
    let service = Service::start(&proxy.url(server.url())).await;
    service.works().await;
    proxy.stall();
    // At once from the log, long before the connection counts as dead.
    service.works().await;
    service.bus_is_down().await;
    service.works().await;
    proxy.pass();
    service.is_well_again().await;
    proxy.cut();
    service.works().await;
    proxy.pass();
    service.is_well_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_full_says_so_and_loses_nothing() {
    let server = redis(Durability::Relaxed).await;
    let service = Service::start(server.url()).await;
    service.works().await;
    let mut connection = redis_at(server.url()).await;
    let mut limit = async |bytes: &str| {
        let mut config = redis::cmd("CONFIG");
        config.arg("SET").arg("maxmemory").arg(bytes);
        let _: String = config.query_async(&mut connection).await.unwrap();
    };
    limit("1").await;
    service.works().await;
    eventually("the relays say so", || async {
        let full = |status: &RelayStatus| {
            let partitions = status.partitions();
            partitions
                .iter()
                .any(|p| format!("{:?}", p.state).contains("the event bus is full"))
        };
        service.relays.iter().all(|(_, status)| full(status))
    })
    .await;
    limit("0").await;
    service.is_well_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_became_a_replica_is_left_for_whoever_is_there_now() {
    let server = redis(Durability::Relaxed).await;
    let service = Service::start(server.url()).await;
    service.works().await;
    let mut connection = redis_at(server.url()).await;
    replica_of(&mut connection, "127.0.0.1", &free_port().to_string()).await;
    // Its connections stay; that it is asked again on new ones is what leads to the new primary behind a name.
    let connections = async || {
        let stats = info(&server, "stats").await;
        let count = stats
            .lines()
            .find_map(|line| line.strip_prefix("total_connections_received:"));
        count.unwrap().trim().parse::<u64>().unwrap()
    };
    let before = connections().await;
    service.works().await;
    within_patience("it connects anew", async {
        // The question itself is one more each time.
        let mut asked = 1;
        while connections().await < before + asked + 3 {
            asked += 1;
            service.log.append(16).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    replica_of(&mut connection, "NO", "ONE").await;
    service.is_well_again().await;
}
