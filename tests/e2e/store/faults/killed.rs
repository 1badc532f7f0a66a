//! The server is killed in the middle of appends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tidelog_command::store::{AppendError, EventStore, MySqlEventStore};
use tidelog_domain::{EventId, ExpectedVersion};
use tidelog_test_support::{Engine, Server};
use tokio::task::JoinSet;

use crate::store::kit::{connect, counts, ids, stream, until, write};

/// How many append at once.
const WRITERS: usize = 8;

/// How many appends are acknowledged before the server is killed, and again after it is back.
const APPENDS: usize = 300;

/// What became of the appends of one writer.
#[derive(Default)]
struct Fates {
    acknowledged: Vec<EventId>,
    failed: Vec<EventId>,
    in_doubt: Vec<EventId>,
}

/// Appends to a stream of its own until it is told to stop.
async fn append_until(
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    store: MySqlEventStore,
    writer: usize,
) -> Fates {
    let mut fates = Fates::default();
    let stream = stream(&format!("writer-{writer}"));
    while !stop.load(Ordering::SeqCst) {
        let append = write(&stream, ExpectedVersion::Any, 1);
        let id = ids(&append)[0];
        match store.append(writer, vec![append].into()).await.remove(0) {
            Ok(_) => {
                fates.acknowledged.push(id);
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            Err(AppendError::Unavailable(_)) => fates.failed.push(id),
            Err(AppendError::InDoubt(_)) => fates.in_doubt.push(id),
            Err(other) => panic!("writer {writer}: {other:?}"),
        }
    }
    fates
}

async fn a_kill_loses_nothing(engine: Engine) {
    let mut server = Server::start(engine).await;
    let url = server.url().to_owned();
    let stores = [connect(&url).await, connect(&url).await];
    let (stop, acknowledged) = (Arc::default(), Arc::default());
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = stores[writer / 2 % 2].clone();
        let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        writers.spawn(append_until(stop, acknowledged, store, writer));
    }
    let reach = async |count: usize| {
        until("enough is acknowledged", async || {
            acknowledged.load(Ordering::SeqCst) >= count
        })
        .await;
    };
    reach(APPENDS).await;
    server.kill();
    server.restart().await;
    reach(acknowledged.load(Ordering::SeqCst) + APPENDS).await;
    stop.store(true, Ordering::SeqCst);
    let fates = writers.join_all().await;

    let reader = connect(&url).await;
    let counts = counts(&reader).await;
    assert_eq!(counts.values().copied().max(), Some(1));
    for fate in &fates {
        for id in &fate.acknowledged {
            assert!(counts.contains_key(id), "acknowledged {id} is lost");
        }
        for id in &fate.failed {
            assert!(!counts.contains_key(id), "failed {id} is in the log");
        }
    }
    let doubtful = fates.iter().flat_map(|fate| &fate.in_doubt);
    let committed = doubtful.filter(|id| counts.contains_key(id)).count();
    assert_eq!(
        counts.len(),
        acknowledged.load(Ordering::SeqCst) + committed
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_append_is_in_the_log_once_after_mysql_was_killed() {
    a_kill_loses_nothing(Engine::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_append_is_in_the_log_once_after_mariadb_was_killed() {
    a_kill_loses_nothing(Engine::MariaDb).await;
}
