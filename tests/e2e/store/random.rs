//! Random batches of appends, checks, conflicts, keys and repetitions come to the same on every store: the store in memory is
//! the model (I1, I2 and I5 are what it is tested for), and each other one is compared with it, verdict by verdict and event by
//! event.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tidelog_command::store::{
    EventStore, InMemoryEventStore, MySqlEventStore, SqliteEventStore, SqliteOptions,
};
use tidelog_domain::{
    Append, AppendKey, Cursor, EventId, ExpectedVersion, IdempotencyKey, NewEvent, Partition,
    Payload, Position, StreamWrite, Version,
};
use tidelog_test_support::{Server, shared};

use super::kit::{Verdict, connect, fresh, partitions, stream};

/// How many sequences of batches each store is given. Each has a log of its own.
const CASES: u32 = 24;

/// A write to one of a few streams.
#[derive(Clone, Debug)]
struct Write {
    stream: u8,
    expected: ExpectedVersion,
    events: usize,
}

/// An append, told by small numbers.
#[derive(Clone, Debug)]
struct Step {
    writes: Vec<Write>,
    /// The key, the request that it comes with, and whether it is recorded.
    key: Option<(u8, u8, bool)>,
}

/// What is asked of a store at once, and by which of its two handles.
#[derive(Clone, Debug)]
struct Batch {
    handle: usize,
    steps: Vec<Step>,
}

fn batches() -> impl Strategy<Value = Vec<Batch>> {
    let expected = prop_oneof![
        3 => Just(ExpectedVersion::Any),
        2 => Just(ExpectedVersion::NoStream),
        1 => Just(ExpectedVersion::Exists),
        4 => (0..5_u64).prop_map(|version| ExpectedVersion::Exact(Version::new(version))),
    ];
    let write = (0..5_u8, expected, 0..3_usize).prop_map(|(stream, expected, events)| Write {
        stream,
        expected,
        events,
    });
    let key = prop::option::weighted(0.4, (0..4_u8, 0..2_u8, prop::bool::weighted(0.8)));
    let step = (vec(write, 1..4), key).prop_map(|(mut writes, key)| {
        // A stream is named once.
        writes.sort_by_key(|write| write.stream);
        writes.dedup_by_key(|write| write.stream);
        Step { writes, key }
    });
    let batch = (0..2_usize, vec(step, 1..6));
    vec(
        batch.prop_map(|(handle, steps)| Batch { handle, steps }),
        1..12,
    )
}

impl Step {
    /// The append, with ids of its own: `number` is that of the step.
    fn append(&self, number: u64) -> Append {
        let id = |write: usize, event: usize| {
            let id = format!("{number:016x}{write:08x}{event:08x}");
            EventId::new(id.parse().unwrap())
        };
        let writes = self.writes.iter().enumerate();
        let writes = writes.map(|(n, write)| StreamWrite {
            stream: stream(&write.stream.to_string()),
            expected: write.expected,
            events: (0..write.events)
                .map(|event| NewEvent {
                    id: id(n, event),
                    event_type: "thing.happened".into(),
                    schema_version: 1,
                    payload: Payload::from_stored(number.to_string().as_bytes()),
                    metadata: Payload::from_stored(b"{}"),
                })
                .collect(),
        });
        Append {
            writes: writes.collect(),
            key: self.key.map(|(scoped, fingerprint, records)| AppendKey {
                key: IdempotencyKey {
                    scoped: [scoped; 32],
                    fingerprint: [fingerprint; 32],
                },
                records,
            }),
        }
    }
}

/// A verdict without the times, which differ.
fn summary(verdict: &Verdict) -> Result<Vec<(String, Version, Option<Position>)>, String> {
    match verdict {
        Ok(appended) => Ok(appended
            .iter()
            .map(|one| (one.stream.to_string(), one.version, one.position))
            .collect()),
        Err(error) => Err(format!("{error:?}")),
    }
}

/// The events of a log: where each is, its stream and version, its id and payload.
async fn events(
    store: &dyn EventStore,
) -> Vec<(Partition, Position, String, Version, EventId, Vec<u8>)> {
    let mut all = Vec::new();
    for partition in partitions().iter() {
        let events = store.read(partition, Cursor::START, 100_000).await.unwrap();
        all.extend(events.into_iter().map(|event| {
            let payload = event.payload.as_bytes().to_vec();
            let stream = event.stream.to_string();
            (
                event.partition,
                event.position,
                stream,
                event.version,
                event.id,
                payload,
            )
        }));
    }
    all
}

/// Gives the batches to both handles of one log and to the model.
async fn compare(
    handles: &[Arc<dyn EventStore>],
    batches: Vec<Batch>,
) -> Result<(), TestCaseError> {
    let model = InMemoryEventStore::new(partitions());
    let mut number = 0;
    for batch in batches {
        let appends: Vec<Append> = batch
            .steps
            .iter()
            .map(|step| {
                number += 1;
                step.append(number)
            })
            .collect();
        let appends: Arc<[Append]> = appends.into();
        let expected = model.append(0, Arc::clone(&appends)).await;
        let handle = &handles[batch.handle % handles.len()];
        let lane = batch.handle % handle.lanes();
        let found = handle.append(lane, appends).await;
        let expected: Vec<_> = expected.iter().map(summary).collect();
        let found: Vec<_> = found.iter().map(summary).collect();
        prop_assert_eq!(found, expected);
    }
    let expected = events(&model).await;
    for handle in handles {
        prop_assert_eq!(events(handle.as_ref()).await, expected.clone());
    }
    Ok(())
}

/// Runs [`CASES`] random sequences, each on the handles that `open` gives. A failing sequence is printed, made as short as possible.
fn random_batches_come_to_the_same(open: impl AsyncFn() -> Vec<Arc<dyn EventStore>>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let compared = TestRunner::new(config).run(&batches(), |batches| {
        runtime.block_on(async { compare(&open().await, batches).await })
    });
    if let Err(error) = compared {
        panic!("{error}");
    }
}

/// Two handles, as two processes have them.
async fn two_on(server: &Server) -> Vec<Arc<dyn EventStore>> {
    let url = fresh(server).await;
    let handles: [MySqlEventStore; 2] = [connect(&url).await, connect(&url).await];
    handles
        .into_iter()
        .map(|handle| Arc::new(handle) as _)
        .collect()
}

#[test]
fn random_batches_come_to_the_same_on_mysql() {
    random_batches_come_to_the_same(async || two_on(shared::mysql().await).await);
}

#[test]
fn random_batches_come_to_the_same_on_mariadb() {
    random_batches_come_to_the_same(async || two_on(shared::mariadb().await).await);
}

#[test]
fn random_batches_come_to_the_same_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let number = std::cell::Cell::new(0);
    random_batches_come_to_the_same(async || {
        number.set(number.get() + 1);
        let mut options = SqliteOptions::new(directory.path().join(format!("{}.db", number.get())));
        options.partitions = partitions();
        let store = SqliteEventStore::open(options).await.unwrap();
        vec![Arc::new(store) as Arc<dyn EventStore>]
    });
}
