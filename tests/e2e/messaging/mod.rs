//! Messaging: emits and sends, on a real Redis and within the process.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tidelog::FailurePolicy;
use tidelog::messaging::{InProcessMessageBus, MessageBus, Messaging, Subject};
use tidelog_test_support::{shared, unique_name};

mod conformance;
mod effects;
mod emitting;
mod faults;
mod full;
mod leaks;
mod lost_answers;
mod sending;

/// What tests emit.
const NOTE: Subject<u64> = Subject::new("test.note");

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

/// Each has connections of its own.
async fn on_redis() -> Ends {
    at(shared::redis().await.url(), &unique_name())
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
async fn ask<T: redis::FromRedisValue>(url: &str, command: &redis::Cmd) -> T {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    command.query_async(&mut connection).await.unwrap()
}
