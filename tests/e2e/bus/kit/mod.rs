//! What the tests of the bus are written with: a log in memory, a handler that remembers, a process made of them.

use std::future::Future;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use tidelog_domain::Partitions;

mod bench;
mod careful;
mod log;
mod process;
mod recorder;
mod states;

pub(super) use bench::{Bench, P0};
pub(super) use careful::Careful;
pub(super) use log::{Log, stream_in, streams_in};
pub(super) use process::{Consumer, RECHECK, Run, begun_relay, bus_only, quick, quick_tail, relay};
pub(super) use recorder::Recorder;
pub(super) use states::{States, change, records};

/// Long enough for any machine; no test waits for it when all is well.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// Few partitions, so that each has many events.
pub(super) const PARTITIONS: u16 = 4;

pub(super) fn partitions() -> Partitions {
    Partitions::new(PARTITIONS).unwrap()
}

/// Waits until the condition holds.
pub(super) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    within_patience(what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Waits for something that will happen.
pub(super) async fn within_patience<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

/// A connection of the test's own to a Redis.
pub(super) async fn redis_at(url: &str) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// Removes a key.
pub(super) async fn del(url: &str, key: &str) {
    let removed: i64 = redis::cmd("DEL")
        .arg(key)
        .query_async(&mut redis_at(url).await)
        .await
        .unwrap();
    assert_eq!(removed, 1, "{key} was not there");
}

/// Who may delete topics of Kafka.
pub(crate) fn kafka_at(url: &str) -> AdminClient<DefaultClientContext> {
    let brokers = url.trim_start_matches("kafka://");
    let config = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .clone();
    config.create().unwrap()
}

pub(crate) async fn delete_topic(url: &str, topic: &str) {
    let deleted = kafka_at(url)
        .delete_topics(&[topic], &AdminOptions::new())
        .await;
    assert_eq!(deleted.unwrap(), [Ok(topic.to_owned())]);
}

/// The streams of a NATS, by a connection of the test's own.
pub(super) async fn nats_at(url: &str) -> async_nats::jetstream::Context {
    async_nats::jetstream::new(async_nats::connect(url).await.unwrap())
}
