//! Small writes share commands in MongoDB: each is done, and answered, as if it had one of its own.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use chrono::DateTime;
use futures_util::future::join_all;
use futures_util::poll;
use serde_json::{Map, json};
use tidelog_domain::{HistoryId, Partition, Position, Version};
use tidelog_eventbus::{StateRecord, StateStore};
use tidelog_query::store::{
    Document, DocumentWrite, MongoOptions, MongoReadStore, ReadError, ReadStore, Written,
};
use tidelog_test_support::{fresh_mongodb_database, shared};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Long enough for any machine; no test waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(120);
const VIEW: &str = "post_v1";

async fn store_at(url: &str) -> MongoReadStore {
    let store = MongoReadStore::connect(url, &MongoOptions::default()).await;
    store.unwrap()
}

async fn store() -> MongoReadStore {
    store_at(&fresh_mongodb_database(shared::mongodb().await)).await
}

/// A document at `revision` that says who wrote it, and has applied partition 0 up to `position`.
fn document(id: &str, by: usize, revision: u64, position: u64) -> Document {
    Document {
        id: id.to_owned(),
        data: Map::from_iter([("by".to_owned(), json!(by))]),
        version: Version::new(1),
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
        deleted: false,
        applied: BTreeMap::from([(Partition::new(0), Position::new(position))]),
        revision,
    }
}

fn insert(id: &str, by: usize) -> DocumentWrite {
    DocumentWrite::Insert(document(id, by, 0, 1))
}

fn replace(id: &str, by: usize, revision: u64) -> DocumentWrite {
    DocumentWrite::Replace(document(id, by, revision, 1))
}

fn advance(id: &str, position: u64) -> DocumentWrite {
    DocumentWrite::Advance {
        document: document(id, 0, 0, position),
        partition: Partition::new(0),
    }
}

fn state() -> StateRecord {
    StateRecord::at_start(HistoryId::new(Uuid::now_v7()))
}

/// Who wrote the document last, and how often it was written.
async fn stored(store: &MongoReadStore, id: &str) -> Option<(u64, u64)> {
    let found = store.get(VIEW, &[id]).await.unwrap();
    let found = found.first()?;
    Some((found.data["by"].as_u64().unwrap(), found.revision))
}

/// The writes of `count` callers at the same time.
async fn race(
    store: &MongoReadStore,
    batches: &[Vec<DocumentWrite>],
) -> Vec<Result<Vec<Written>, ReadError>> {
    join_all(batches.iter().map(|batch| store.write(VIEW, batch))).await
}

#[tokio::test]
async fn each_of_many_racing_batches_gets_the_outcomes_of_its_own_writes() {
    const CALLERS: usize = 60;
    let store = store().await;
    let there: Vec<_> = (0..CALLERS)
        .flat_map(|n| {
            [
                insert(&format!("old{n}"), 0),
                insert(&format!("taken{n}"), 0),
            ]
        })
        .collect();
    store.write(VIEW, &there).await.unwrap();
    // One write of each kind, some of whose conditions hold: another choice for each caller.
    let batches: Vec<_> = (0..CALLERS)
        .map(|n| {
            let inserted = if n % 2 == 0 { "new" } else { "taken" };
            let revision = if n % 3 == 0 { 1 } else { 7 };
            let position = if n % 5 == 0 { 2 } else { 1 };
            vec![
                advance(&format!("taken{n}"), position),
                insert(&format!("{inserted}{n}"), n),
                replace(&format!("old{n}"), n, revision),
            ]
        })
        .collect();
    let written = race(&store, &batches).await;
    let made = |made| {
        if made {
            Written::Applied
        } else {
            Written::Unmet
        }
    };
    for (n, written) in written.into_iter().enumerate() {
        let expected = [n % 5 == 0, n % 2 == 0, n % 3 == 0].map(made);
        assert_eq!(written.unwrap(), expected, "caller {n}");
        let expected = if n % 3 == 0 { (n as u64, 2) } else { (0, 1) };
        assert_eq!(stored(&store, &format!("old{n}")).await, Some(expected));
        let new = stored(&store, &format!("new{n}")).await;
        assert_eq!(new, (n % 2 == 0).then_some((n as u64, 1)));
    }
}

#[tokio::test]
async fn each_of_many_racing_state_records_is_compared_by_itself() {
    const PARTITIONS: u16 = 32;
    let store = store().await;
    let all: Vec<_> = (0..PARTITIONS).map(Partition::new).collect();
    let record = state();
    let set = |expected: fn(u16) -> u64| {
        join_all(all.iter().map(|partition| {
            let expected = expected(partition.number());
            store.compare_and_set_state(VIEW, *partition, expected, &record)
        }))
    };
    for made in set(|_| 0).await {
        assert!(made.unwrap());
    }
    // A third expects what is stored, a third a record that is not there yet, a third one that is of tomorrow.
    let made = set(|n| match n % 3 {
        0 => 1,
        1 => 0,
        _ => 2,
    });
    for (n, made) in made.await.into_iter().enumerate() {
        assert_eq!(made.unwrap(), n % 3 == 0, "partition {n}");
    }
    for (n, (partition, revision, found)) in (0..).zip(store.load_states(VIEW).await.unwrap()) {
        let expected = if n % 3 == 0 { 2 } else { 1 };
        assert_eq!((partition.number(), revision), (n, expected));
        assert_eq!(found, record);
    }
}

#[tokio::test]
async fn of_racing_writes_of_one_document_the_first_is_made_and_each_is_told_so() {
    let store = store().await;
    let inserts: Vec<_> = (0..10).map(|n| vec![insert("p", n)]).collect();
    let written = race(&store, &inserts).await;
    let made = winners(written);
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(stored(&store, "p").await, Some((made[0], 1)));

    let replaces: Vec<_> = (0..10).map(|n| vec![replace("p", n, 1)]).collect();
    let made = winners(race(&store, &replaces).await);
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(stored(&store, "p").await, Some((made[0], 2)));
}

/// The numbers of those whose only write was made.
fn winners(written: Vec<Result<Vec<Written>, ReadError>>) -> Vec<u64> {
    let made = (0..)
        .zip(written)
        .filter_map(|(n, written)| (written.unwrap() == [Written::Applied]).then_some(n));
    made.collect()
}

/// These lose answers, or count what the whole server did: they have a server of their own.
mod faults {
    use mongodb::bson::doc;
    use tidelog_test_support::{Engine, Server, TcpProxy};

    use super::*;

    /// How many `insert` and `update` commands the server had.
    async fn commands(url: &str) -> i64 {
        let client = mongodb::Client::with_uri_str(url).await.unwrap();
        let database = client.default_database().unwrap();
        let status = database.run_command(doc! { "serverStatus": 1 }).await;
        let status = status.unwrap();
        let commands = status.get_document("metrics").unwrap();
        let commands = commands.get_document("commands").unwrap();
        let of = |name| {
            let command = commands.get_document(name).unwrap();
            command.get_i64("total").unwrap()
        };
        of("insert") + of("update")
    }

    #[tokio::test]
    async fn many_racing_batches_take_fewer_commands_than_there_are_batches() {
        const CALLERS: usize = 64;
        let server = Server::start(Engine::MongoDb).await;
        let store = store_at(server.url()).await;
        let batches: Vec<_> = (0..CALLERS)
            .map(|n| vec![insert(&format!("a{n}"), n), insert(&format!("b{n}"), n)])
            .collect();
        let record = state();
        let before = commands(server.url()).await;
        for written in race(&store, &batches).await {
            assert_eq!(written.unwrap(), [Written::Applied; 2]);
        }
        for expected in 0..2 {
            let states = (0..16)
                .map(Partition::new)
                .map(|partition| store.compare_and_set_state(VIEW, partition, expected, &record));
            assert!(join_all(states).await.into_iter().all(Result::unwrap));
        }
        let taken = commands(server.url()).await - before;
        // Of 64 + 16 + 16; the server makes one now and then for itself.
        assert!((3..=12).contains(&taken), "{taken} commands");
    }

    #[tokio::test]
    async fn where_the_answer_to_a_shared_command_is_lost_each_of_its_callers_is_told_and_finds_his_write_made()
     {
        const CALLERS: usize = 20;
        let server = Server::start(Engine::MongoDb).await;
        let proxy = TcpProxy::start(server.port()).await;
        let store = store_at(&proxy.url(server.url())).await;
        store.write(VIEW, &[insert("first", 0)]).await.unwrap();
        let batches: Vec<_> = (0..CALLERS)
            .map(|n| vec![insert(&format!("shared{n}"), n)])
            .collect();
        let lost = proxy.lose_answer_to(b"shared0");
        for written in race(&store, &batches).await {
            let error = written.unwrap_err();
            assert!(matches!(error, ReadError::Unavailable(_)), "{error:?}");
        }
        lost.await;
        for written in race(&store, &batches).await {
            assert_eq!(written.unwrap(), [Written::Unmet]);
        }
        for n in 0..CALLERS {
            let found = stored(&store, &format!("shared{n}")).await;
            assert_eq!(found, Some((n as u64, 1)));
        }
    }

    #[tokio::test]
    async fn a_command_that_stalls_does_not_hold_up_the_next_for_as_long_as_it_may_take() {
        const MINUTE_MS: u64 = 60_000;
        let server = Server::start(Engine::MongoDb).await;
        let mut options = MongoOptions::default();
        options.operation_timeout_ms = 2 * MINUTE_MS;
        let store = MongoReadStore::connect(server.url(), &options)
            .await
            .unwrap();
        let client = mongodb::Client::with_uri_str(server.url()).await.unwrap();
        let stall = doc! {
            "configureFailPoint": "failCommand", "mode": { "times": 1 },
            "data": { "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": i64::try_from(MINUTE_MS).unwrap() },
        };
        client.database("admin").run_command(stall).await.unwrap();
        let (first, second) = ([insert("first", 1)], [insert("second", 2)]);
        let mut stalled = pin!(store.write(VIEW, &first));
        assert!(poll!(&mut stalled).is_pending());
        // The first is sent before the second waits.
        tokio::task::yield_now().await;
        tokio::select! {
            written = &mut stalled => panic!("it did not stall: {written:?}"),
            written = store.write(VIEW, &second) => assert_eq!(written.unwrap(), [Written::Applied]),
        }
    }

    #[tokio::test]
    async fn a_batch_whose_caller_is_gone_is_written_whole_and_the_others_with_it() {
        let server = Server::start(Engine::MongoDb).await;
        let proxy = TcpProxy::start(server.port()).await;
        let store = store_at(&proxy.url(server.url())).await;
        store.write(VIEW, &[insert("old", 0)]).await.unwrap();
        let held = proxy.stall_at(b"holder");
        let other = [insert("other", 2)];
        let other = {
            let holder = [insert("holder", 1)];
            let gone = [insert("new", 1), replace("old", 1, 1)];
            let mut holding = pin!(store.write(VIEW, &holder));
            tokio::select! {
                written = &mut holding => panic!("{written:?}"),
                () = held => {}
            }
            let mut leaving = pin!(store.write(VIEW, &gone));
            assert!(poll!(&mut leaving).is_pending());
            let mut staying = Box::pin(store.write(VIEW, &other));
            assert!(poll!(&mut staying).is_pending());
            staying
        };
        proxy.pass();
        assert_eq!(other.await.unwrap(), [Written::Applied]);
        let deadline = Instant::now() + PATIENCE;
        for (id, revision) in [("holder", 1), ("new", 1), ("old", 2)] {
            while stored(&store, id).await != Some((1, revision)) {
                assert!(Instant::now() < deadline, "{id} was not written");
                sleep(Duration::from_millis(2)).await;
            }
        }
    }
}
