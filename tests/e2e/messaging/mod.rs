//! Messaging: emits and sends, on real servers and within the process.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream;
use futures_util::TryStreamExt;
use serde_json::Value;
use tidelog::FailurePolicy;
use tidelog::messaging::{
    Channel, InProcessMessageBus, MessageBus, Messaging, NatsMessageBus, RedisMessageBus, Subject,
};
use tidelog_test_support::{Engine, Server, shared, unique_name};

/// Makes a test of each function, for each server that messages go over: a function takes its engine.
macro_rules! on_each_server {
    ($($case:ident),+ $(,)?) => {
        on_each_server!(@on with_redis, Redis, $($case),+);
        on_each_server!(@on with_nats, Nats, $($case),+);
    };
    (@on $module:ident, $engine:ident, $($case:ident),+) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $case() {
                    super::$case(tidelog_test_support::Engine::$engine).await;
                }
            )+
        }
    };
}

pub(crate) use on_each_server;

/// The same, and within the process: a function takes the ends.
macro_rules! on_each_bus {
    ($($case:ident),+ $(,)?) => {
        on_each_bus!(@on on_redis, super::super::ends_on(super::super::Engine::Redis).await, $($case),+);
        on_each_bus!(@on on_nats, super::super::ends_on(super::super::Engine::Nats).await, $($case),+);
        on_each_bus!(@on in_process, super::super::in_process(), $($case),+);
    };
    (@on $module:ident, $ends:expr, $($case:ident),+) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $case() {
                    super::$case($ends).await;
                }
            )+
        }
    };
}

mod conformance;
mod effects;
mod emitting;
mod faults;
mod full;
mod leaks;
mod lost_answers;
mod memory;
mod nestjs;
mod others;
mod sending;

/// What tests emit.
const NOTE: Subject<u64> = Subject::new("test.note");

/// What tests emit that is large.
const TEXT: Subject<String> = Subject::new("test.text");

/// What tests send, to have it back.
const ECHO: Subject<Value, Value> = Subject::new("test.echo");

/// Long enough for any machine; no test waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(120);

/// The handles of a program that serves, and of two that ask.
struct Ends {
    server: Messaging,
    one: Messaging,
    two: Messaging,
}

/// The shared server of `engine`.
pub(crate) async fn shared_of(engine: Engine) -> &'static Server {
    match engine {
        Engine::Redis => shared::redis().await,
        Engine::Nats => shared::nats().await,
        other => panic!("{other:?} has no messages"),
    }
}

/// Each has connections of its own.
async fn ends_on(engine: Engine) -> Ends {
    at(shared_of(engine).await.url(), &unique_name())
}

fn at(url: &str, app: &str) -> Ends {
    let connect = || Messaging::connect(url, app).unwrap();
    Ends {
        server: connect(),
        one: connect(),
        two: connect(),
    }
}

fn in_process() -> Ends {
    let bus: Arc<dyn MessageBus> = Arc::new(InProcessMessageBus::new());
    let handle = || Messaging::new(Arc::clone(&bus), "app");
    Ends {
        server: handle(),
        one: handle(),
        two: handle(),
    }
}

/// Tries again soon.
fn soon(attempts: u32) -> FailurePolicy {
    FailurePolicy {
        first_delay: Duration::from_millis(1),
        max_delay: Duration::from_millis(20),
        attempts,
        ..FailurePolicy::default()
    }
}

/// How often each number came.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<u64, u32>>>);

impl Seen {
    fn add(&self, number: u64) -> u32 {
        let mut seen = self.0.lock().unwrap();
        let times = seen.entry(number).or_default();
        *times += 1;
        *times
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn times(&self) -> BTreeMap<u64, u32> {
        self.0.lock().unwrap().clone()
    }
}

/// Waits until the condition holds.
async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let waited = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waited).await;
    assert!(waited.is_ok(), "waited in vain: {what}");
}

/// A command of the test's own to a Redis.
pub(crate) async fn ask<T: redis::FromRedisValue>(url: &str, command: &redis::Cmd) -> T {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    command.query_async(&mut connection).await.unwrap()
}

async fn jetstream_at(url: &str) -> jetstream::Context {
    jetstream::new(async_nats::connect(url).await.unwrap())
}

/// The name of the stream of `channel`.
fn stream_of(server: &Server, app: &str, channel: &Channel) -> String {
    match server.engine() {
        Engine::Redis => RedisMessageBus::new(server.url(), app)
            .unwrap()
            .key(channel),
        _ => NatsMessageBus::new(server.url(), app)
            .unwrap()
            .stream(channel),
    }
}

/// How many messages each stream of the app has.
async fn stored(server: &Server, app: &str) -> BTreeMap<String, usize> {
    let url = server.url();
    let mut stored = BTreeMap::new();
    match server.engine() {
        Engine::Redis => {
            let mut keys = redis::cmd("KEYS");
            keys.arg(format!("{{{app}:*"));
            for key in ask::<Vec<String>>(url, &keys).await {
                let mut xlen = redis::cmd("XLEN");
                xlen.arg(&key);
                stored.insert(key.clone(), ask(url, &xlen).await);
            }
        }
        _ => {
            let context = jetstream_at(url).await;
            let all: Vec<_> = context.streams().try_collect().await.unwrap();
            let own = all
                .into_iter()
                .filter(|own| own.config.name.starts_with(&format!("{app}=")));
            stored.extend(own.map(|own| {
                let messages = usize::try_from(own.state.messages).unwrap();
                (own.config.name, messages)
            }));
        }
    }
    stored
}

/// How many messages the stream of `channel` has; none where it is not there.
async fn stored_of(server: &Server, app: &str, channel: &Channel) -> usize {
    let stored = stored(server, app).await;
    let stream = stream_of(server, app, channel);
    stored.get(&stream).copied().unwrap_or_default()
}

/// How many members of the group `g` the server knows.
async fn members(server: &Server, app: &str, channel: &Channel) -> usize {
    let (url, stream) = (server.url(), stream_of(server, app, channel));
    match server.engine() {
        Engine::Redis => {
            let mut xinfo = redis::cmd("XINFO");
            xinfo.arg("CONSUMERS").arg(stream).arg("g");
            ask::<Vec<redis::Value>>(url, &xinfo).await.len()
        }
        _ => {
            let stream = jetstream_at(url).await.get_stream(stream).await.unwrap();
            let all: Vec<_> = stream.consumers().try_collect().await.unwrap();
            assert_eq!(all.len(), 1, "one group");
            all[0].num_waiting + all[0].num_ack_pending
        }
    }
}

/// Throws away all that a server has.
async fn empty(server: &Server) {
    match server.engine() {
        Engine::Redis => drop(ask::<String>(server.url(), &redis::cmd("FLUSHALL")).await),
        _ => {
            let context = jetstream_at(server.url()).await;
            let names: Vec<_> = context.stream_names().try_collect().await.unwrap();
            for name in names {
                context.delete_stream(name).await.unwrap();
            }
        }
    }
}
