//! Events a second from the log onto the bus, beside bare `XADD` of the same bytes; and how soon after its commit an event is
//! there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidelog_domain::{Cursor, Partition, Partitions, Position};
use tidelog_eventbus::{
    EventBus, LogReader, RedisEventBus, Relay, RelayOptions, RelayStatus, wire,
};
use tidelog_test_support::{Engine, Server, fresh_mysql_database};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::posts::{Client, Posts};
use crate::projecting::{rate, write};

/// How many entries a bare pipeline has.
const PIPELINE: usize = 500;

/// How many commits are followed onto the idle bus.
const COMMITS: usize = 1_000;

/// How long the bus is left alone between them.
const IDLE: Duration = Duration::from_millis(5);

/// How often it is looked whether the relay is done.
const PAUSE: Duration = Duration::from_millis(1);

/// The app whose streams they are.
const APP: &str = "bench";

/// Relays at least `events` events, follows single ones, and prints what it found.
pub(crate) async fn measure(events: usize) {
    let mysql = Server::start(Engine::MySql).await;
    let redis = Server::start(Engine::Redis).await;
    let posts = Arc::new(Posts::on(&fresh_mysql_database(&mysql).await).await);
    write(&posts, events).await;
    println!("The relay, from MySQL onto Redis Streams (append-only file, synced each second)\n");
    println!("| | events/s | of the limit |\n|---|---|---|");
    let bus: Arc<dyn EventBus> = Arc::new(RedisEventBus::new(redis.url(), APP).unwrap());
    let (limit, relayed) = (bare(&posts, &redis).await, relayed(&posts, &bus).await);
    println!("| the limit: bare `XADD`, {PIPELINE} a pipeline, one connection | {limit:.0} | |");
    println!(
        "| the relay, with all of it to do | {relayed:.0} | {:.0} % |\n",
        100.0 * relayed / limit
    );
    let mut took = followed(&posts, &bus).await;
    took.sort_unstable();
    let at = |thousandth: usize| took[(took.len() - 1) * thousandth / 1_000];
    println!(
        "{} single commits, {IDLE:?} apart: readable on the bus after (from the commit's answer by MySQL)\n",
        took.len()
    );
    println!("| p50 | p90 | p99 | most |\n|---|---|---|---|");
    println!(
        "| {:.2?} | {:.2?} | {:.2?} | {:.2?} |\n",
        at(500),
        at(900),
        at(990),
        at(1_000)
    );
}

/// Entries a second that are added by bare pipelines: the same ids and bytes, to other keys.
async fn bare(posts: &Posts, redis: &Server) -> f64 {
    let mut pipelines = Vec::new();
    let mut count = 0;
    for partition in Partitions::DEFAULT.iter() {
        let mut entries = Vec::new();
        let mut cursor = Cursor::START;
        loop {
            let page = posts.log.read(partition, cursor, 1_000).await.unwrap();
            let Some(last) = page.last() else { break };
            cursor = last.cursor();
            for event in &page {
                entries.push((event.position, wire::encode(APP, event).unwrap()));
            }
        }
        count += entries.len();
        for entries in entries.chunks(PIPELINE) {
            let mut pipeline = redis::Pipeline::with_capacity(entries.len());
            for (position, body) in entries {
                pipeline.cmd("XADD").arg(format!("bare:{partition}"));
                pipeline.arg("MAXLEN").arg("~").arg(100_000);
                pipeline.arg(format!("{position}-0"));
                pipeline.arg("event").arg(body).ignore();
            }
            pipelines.push(pipeline);
        }
    }
    let client = redis::Client::open(redis.url()).unwrap();
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .unwrap();
    let began = Instant::now();
    for pipeline in &pipelines {
        let _: () = pipeline.query_async(&mut connection).await.unwrap();
    }
    let limit = rate(count, began);
    let _: () = redis::cmd("FLUSHALL")
        .query_async(&mut connection)
        .await
        .unwrap();
    limit
}

/// A relay that runs until it is stopped.
struct Running {
    status: RelayStatus,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(posts: &Posts, bus: &Arc<dyn EventBus>) -> Self {
        let relay = Relay::new(
            Partitions::DEFAULT,
            posts.log.clone(),
            bus.clone(),
            Some(posts.signal.clone()),
            RelayOptions::default(),
        );
        let (status, stop) = (relay.status(), CancellationToken::new());
        let task = tokio::spawn(relay.run(stop.clone()));
        Self { status, stop, task }
    }

    /// Waits until the bus has all that the log has.
    async fn is_done(&self, heads: &[Position]) {
        let is_there = |at: &[Position]| at.iter().zip(heads).all(|(at, head)| at >= head);
        let at = || -> Vec<_> {
            let partitions = self.status.partitions();
            partitions.iter().map(|p| p.published).collect()
        };
        while !is_there(&at()) {
            sleep(PAUSE).await;
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// Events a second by a relay that has all of the log to do.
async fn relayed(posts: &Posts, bus: &Arc<dyn EventBus>) -> f64 {
    let history = posts.log.identity().await.unwrap().history;
    let heads = posts.log.heads().await.unwrap();
    // It begins after what the bus has, so it is given the first of each partition.
    for partition in Partitions::DEFAULT.iter() {
        let first = posts.log.read(partition, Cursor::START, 1).await.unwrap();
        bus.publish(history, partition, &first).await.unwrap();
    }
    let count: u64 = heads
        .iter()
        .map(|head| head.number().saturating_sub(1))
        .sum();
    let began = Instant::now();
    let relay = Running::start(posts, bus);
    relay.is_done(&heads).await;
    let relayed = rate(usize::try_from(count).unwrap(), began);
    relay.stop().await;
    relayed
}

/// How long after its commit each of [`COMMITS`] events was read from the bus.
async fn followed(posts: &Posts, bus: &Arc<dyn EventBus>) -> Vec<Duration> {
    let history = posts.log.identity().await.unwrap().history;
    let relay = Running::start(posts, bus);
    let heads = posts.log.heads().await.unwrap();
    relay.is_done(&heads).await;
    let mut after: Vec<_> = (0..).map(Partition::new).zip(heads).collect();
    let (mut client, mut took) = (Client::default(), Vec::new());
    for commit in 0..COMMITS + COMMITS / 10 {
        let mut signal = posts.signal.subscribe();
        signal.mark_unchanged();
        let committed = async {
            signal.changed().await.unwrap();
            Instant::now()
        };
        let wait = Duration::from_secs(10);
        let read = async {
            let read = bus.read(history, &after, 10, wait).await.unwrap();
            (Instant::now(), read)
        };
        let command = async {
            // Let the read wait on the bus first.
            sleep(IDLE).await;
            client.command(&posts.service).await;
        };
        let (committed, (read_at, read), ()) = tokio::join!(committed, read, command);
        let [event] = read.as_slice() else {
            panic!("{} events came of one commit", read.len());
        };
        after[event.partition.index()].1 = event.position;
        // The first ones warm up.
        if commit >= COMMITS / 10 {
            took.push(read_at.saturating_duration_since(committed));
        }
    }
    relay.stop().await;
    took
}
