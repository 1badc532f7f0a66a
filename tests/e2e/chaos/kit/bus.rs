//! The engines that the bus may be on: each test runs on each of them.

use std::time::Duration;

use async_nats::jetstream;
use futures_util::TryStreamExt;
use tidelog_test_support::{Engine, Server};

use crate::bus::kit::{delete_topic, kafka_at};

/// The shared server of `engine`.
pub(super) async fn shared(engine: Engine) -> &'static Server {
    match engine {
        Engine::Redis => tidelog_test_support::shared::redis().await,
        Engine::Nats => tidelog_test_support::shared::nats().await,
        Engine::Kafka => tidelog_test_support::shared::kafka().await,
        other => panic!("{other:?} is no bus"),
    }
}

/// Throws away all that a bus' server has.
pub(crate) async fn empty(server: &Server) {
    match server.engine() {
        Engine::Redis => {
            let client = redis::Client::open(server.url()).unwrap();
            let mut connection = client.get_multiplexed_async_connection().await.unwrap();
            let flush = redis::cmd("FLUSHALL");
            flush.query_async::<()>(&mut connection).await.unwrap();
        }
        Engine::Nats => {
            let client = async_nats::connect(server.url()).await.unwrap();
            let streams = jetstream::new(client);
            let names: Vec<_> = streams.stream_names().try_collect().await.unwrap();
            for name in names {
                streams.delete_stream(name).await.unwrap();
            }
        }
        Engine::Kafka => {
            let admin = kafka_at(server.url());
            let metadata = admin.inner().fetch_metadata(None, Duration::from_secs(10));
            for topic in metadata.unwrap().topics() {
                delete_topic(server.url(), topic.name()).await;
            }
        }
        other => panic!("{other:?} is no bus"),
    }
}

/// Makes a test of each function, for each engine: a function takes the engine that the bus is on.
macro_rules! on_each_bus {
    ($($case:ident),+ $(,)?) => {
        on_each_bus!(@on on_redis, Redis, $($case),+);
        on_each_bus!(@on on_nats, Nats, $($case),+);
        on_each_bus!(@on on_kafka, Kafka, $($case),+);
    };
    (@on $module:ident, $engine:ident, $($case:ident),+) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $case() {
                    super::$case(tidelog_test_support::Engine::$engine).await;
                }
            )+
        }
    };
}
pub(crate) use on_each_bus;
