//! Commits whose answer is lost: written once, or not at all, and said to be in doubt where that cannot be found out.

use std::time::Duration;

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};
use tidelog_command::store::{AppendError, EventStore, MySqlEventStore};
use tidelog_domain::{ExpectedVersion, IdempotencyKey, Version};
use tidelog_eventbus::Retry;
use tidelog_test_support::grants::administrator;
use tidelog_test_support::{Server, TcpProxy, shared};

use crate::store::kit::{
    Holder, Verdict, append_one, connect, connections, counts, exact, fresh, grow, ids, ids_of,
    options, partition_of, spawn_append, stream, stream_of, until, until_waiting, waiting,
    whole_log, write,
};

/// A log, and the way to it through a network that can be hurt.
struct Faulty {
    proxy: TcpProxy,
    direct: String,
}

impl Faulty {
    async fn on(server: &Server) -> Self {
        Self {
            proxy: TcpProxy::start(server.port()).await,
            direct: fresh(server).await,
        }
    }

    /// Through the proxy, in plain bytes.
    fn url(&self) -> String {
        format!("{}?ssl-mode=DISABLED", self.proxy.url(&self.direct))
    }
}

/// Loses the answer to the commit of appends of every kind, one after the other: each is in the log once.
async fn lost_answers_are_found(server: &Server) {
    let log = Faulty::on(server).await;
    let store = connect(&log.url()).await;
    let known = stream("known");
    grow(&store, &known, 1).await;
    let batches = [
        // Decided by what the store knows, in one trip.
        vec![write(&known, exact(1), 2)],
        vec![write(&known, ExpectedVersion::Any, 1)],
        vec![write(&stream("new"), ExpectedVersion::NoStream, 1)],
        // Decided by what it asks for, in two.
        vec![write(&stream("unknown"), ExpectedVersion::Any, 3)],
        // Several partitions at once.
        (0..4)
            .map(|partition| write(&stream_of(partition), ExpectedVersion::Any, 2))
            .collect(),
    ];
    for batch in batches {
        let before = whole_log(&store).await.len();
        let lost = log.proxy.lose_answer_to(b"COMMIT");
        let verdicts = store.append(0, batch.clone().into()).await;
        lost.await;
        let log = whole_log(&store).await;
        let mut written = 0;
        for (append, verdict) in batch.iter().zip(verdicts) {
            let appended = verdict.unwrap().remove(0);
            let last = log
                .iter()
                .find(|event| {
                    (event.partition, Some(event.position))
                        == (appended.partition, appended.position)
                })
                .unwrap();
            assert_eq!(last.id, *ids(append).last().unwrap());
            assert_eq!(Some(last.recorded_at), appended.recorded_at);
            assert_eq!(last.version, appended.version);
            written += ids(append).len();
        }
        assert_eq!(log.len(), before + written, "each event is there once");
    }
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_found() {
    lost_answers_are_found(shared::mysql().await).await;
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_found_on_mariadb() {
    lost_answers_are_found(shared::mariadb().await).await;
}

#[tokio::test]
async fn the_losers_of_a_batch_stay_losers_when_its_answer_was_lost() {
    let log = Faulty::on(shared::mysql().await).await;
    let store = connect(&log.url()).await;
    let (taken, free) = (stream("taken"), stream("free"));
    grow(&store, &taken, 1).await;
    let loser = write(&taken, ExpectedVersion::NoStream, 1);
    let winner = write(&free, ExpectedVersion::NoStream, 1);
    let lost = log.proxy.lose_answer_to(b"COMMIT");
    let verdicts = store
        .append(0, vec![loser.clone(), winner.clone()].into())
        .await;
    lost.await;
    assert!(matches!(&verdicts[0], Err(AppendError::Conflict { .. })));
    assert!(verdicts[1].is_ok());
    let counts = counts(&store).await;
    assert_eq!(counts.get(&ids(&loser)[0]), None);
    assert_eq!(counts.get(&ids(&winner)[0]), Some(&1));
}

#[tokio::test]
async fn the_event_of_another_at_the_same_version_is_not_taken_for_ours() {
    let log = Faulty::on(shared::mysql().await).await;
    let store = connect(&log.url()).await;
    let other = connect(&log.direct).await;
    let contested = stream("contested");
    grow(&store, &contested, 1).await;
    // Our batch waits for the head; the other's event goes before it, and then our connection is lost.
    let holder = Holder::of(&log.direct, &[partition_of(&contested)]).await;
    let theirs = spawn_append(&other, write(&contested, ExpectedVersion::Any, 1));
    until_waiting(&log.direct).await;
    let ours = write(&contested, exact(1), 1);
    let our_append = spawn_append(&store, ours.clone());
    until("both wait for the head", async || {
        waiting(&log.direct).await.len() == 2
    })
    .await;
    log.proxy.cut();
    log.proxy.pass();
    holder.release().await;
    theirs.await.unwrap().unwrap();
    match our_append.await.unwrap() {
        Err(AppendError::Conflict { actual, .. }) => assert_eq!(actual.number(), 2),
        other => panic!("expected a conflict, got {other:?}"),
    }
    assert_eq!(counts(&other).await.get(&ids(&ours)[0]), None);
}

/// Cuts the connection while the whole batch, COMMIT included, is at the server and waits for a head.
async fn a_batch_on_its_way_is_written_once(server: &Server) {
    let log = Faulty::on(server).await;
    let store = connect(&log.url()).await;
    let stream = stream("thing");
    grow(&store, &stream, 1).await;
    let holder = Holder::of(&log.direct, &[partition_of(&stream)]).await;
    // Without an expected version, a second run of it would be a second event.
    let append = write(&stream, ExpectedVersion::Any, 1);
    let appending = spawn_append(&store, append.clone());
    until_waiting(&log.direct).await;
    log.proxy.cut();
    log.proxy.pass();
    holder.release().await;
    let appended = appending.await.unwrap().unwrap();
    assert_eq!(appended[0].version.number(), 2);
    assert_eq!(ids_of(&store, &stream).await[1..], ids(&append));
}

#[tokio::test]
async fn a_batch_that_was_on_its_way_when_its_connection_was_cut_is_written_once() {
    a_batch_on_its_way_is_written_once(shared::mysql().await).await;
}

#[tokio::test]
async fn a_batch_that_was_on_its_way_when_its_connection_was_cut_is_written_once_on_mariadb() {
    a_batch_on_its_way_is_written_once(shared::mariadb().await).await;
}

/// Cuts the connection while the whole batch is at the server and has not come to the heads yet: whoever looks for it can
/// get there first.
async fn a_batch_that_comes_late_is_written_once(server: &Server) {
    let log = Faulty::on(server).await;
    let store = connect(&log.url()).await;
    let thing = stream("thing");
    grow(&store, &thing, 1).await;
    let held_up = async || {
        let open = connections(&log.direct).await.into_iter();
        let held_up = open.filter(|(_, state)| state == "Waiting for table metadata lock");
        held_up.map(|(id, _)| id).collect::<Vec<_>>()
    };
    // The first statement of the batch needs the events; the look for it needs the heads first, then the events.
    let mut locker = MySqlConnection::connect(&administrator(&log.direct))
        .await
        .unwrap();
    locker.execute("LOCK TABLES events WRITE").await.unwrap();
    let append = write(&thing, ExpectedVersion::Any, 1);
    let appending = spawn_append(&store, append.clone());
    until("the batch is held up", async || !held_up().await.is_empty()).await;
    let late = held_up().await[0];
    log.proxy.cut();
    log.proxy.pass();
    until("the look for it is held up too", async || {
        held_up().await.iter().any(|id| *id != late)
    })
    .await;
    locker.execute("UNLOCK TABLES").await.unwrap();
    locker.close().await.unwrap();
    appending.await.unwrap().unwrap();
    assert_eq!(ids_of(&store, &thing).await[1..], ids(&append));
}

#[tokio::test]
async fn a_batch_that_comes_to_the_heads_after_the_look_for_it_is_written_once() {
    a_batch_that_comes_late_is_written_once(shared::mysql().await).await;
}

#[tokio::test]
async fn a_batch_that_comes_to_the_heads_after_the_look_for_it_is_written_once_on_mariadb() {
    a_batch_that_comes_late_is_written_once(shared::mariadb().await).await;
}

#[tokio::test]
async fn a_connection_cut_before_the_commit_was_sent_costs_nothing() {
    let log = Faulty::on(shared::mysql().await).await;
    let store = connect(&log.url()).await;
    let (first, second) = (stream("first"), stream("second"));
    // The trip that locks the heads and asks for the versions has no COMMIT.
    let lost = log.proxy.lose_answer_to(b"FOR UPDATE");
    let append = write(&first, ExpectedVersion::Any, 1);
    append_one(&store, append.clone()).await.unwrap();
    lost.await;
    // All of it is swallowed by the network, and the connection then cut.
    log.proxy.stall();
    let swallowed = write(&second, ExpectedVersion::NoStream, 1);
    let appending = spawn_append(&store, swallowed.clone());
    tokio::task::yield_now().await;
    log.proxy.cut();
    log.proxy.pass();
    appending.await.unwrap().unwrap();
    let counts = counts(&store).await;
    assert_eq!(counts.len(), 2);
    for append in [append, swallowed] {
        assert_eq!(counts.get(&ids(&append)[0]), Some(&1));
    }
}

#[tokio::test]
async fn a_commit_that_cannot_be_found_out_in_time_is_in_doubt_and_happens_once_at_most() {
    let log = Faulty::on(shared::mysql().await).await;
    let mut options = options(&log.url());
    options.in_doubt_timeout = Duration::from_millis(500);
    options.connect_timeout = Duration::from_millis(500);
    let store = MySqlEventStore::connect(options).await.unwrap();
    let thing = stream("thing");
    grow(&store, &thing, 1).await;
    let mut holder = Holder::of(&log.direct, &[partition_of(&thing)]).await;
    let doubtful = write(&thing, ExpectedVersion::Any, 1);
    let appending = spawn_append(&store, doubtful.clone());
    until_waiting(&log.direct).await;
    log.proxy.cut();
    match appending.await.unwrap() {
        Err(error @ AppendError::InDoubt(_)) => assert_eq!(error.retry(), Retry::Never),
        other => panic!("expected it to be in doubt, got {other:?}"),
    }
    // The server still has the batch: it goes on, or not, once the head is free.
    holder
        .connection()
        .execute(AssertSqlSafe("ROLLBACK"))
        .await
        .unwrap();
    log.proxy.pass();
    let after = write(&thing, ExpectedVersion::Any, 1);
    append_one(&store, after.clone()).await.unwrap();
    let counts = counts(&store).await;
    assert_eq!(counts.get(&ids(&after)[0]), Some(&1));
    assert!(
        counts
            .get(&ids(&doubtful)[0])
            .is_none_or(|count| *count == 1)
    );
    assert_eq!(counts.values().copied().max(), Some(1));
}

/// Loses answers of commits of appends with keys: the store finds out by itself, or the client does by the same key.
async fn a_key_tells_what_became_of_a_commit(server: &Server) {
    let log = Faulty::on(server).await;
    let mut options = options(&log.url());
    options.in_doubt_timeout = Duration::from_secs(2);
    options.connect_timeout = Duration::from_secs(1);
    let store = MySqlEventStore::connect(options).await.unwrap();
    let thing = stream("thing");
    let replayed = |verdict: &Verdict, version: u64, appended: bool| match verdict {
        Err(AppendError::Replayed(recorded)) => {
            assert_eq!(recorded.streams, [(thing.clone(), Version::new(version))]);
            assert_eq!(recorded.appended, appended);
        }
        other => panic!("expected a replay, got {other:?}"),
    };

    // The session is set up by a text that names READ COMMITTED: the answer to that is not the one to lose.
    grow(&store, &stream("warm"), 1).await;
    // The store finds the events of the first; the keys of what has no events are looked up.
    let first = write(&thing, ExpectedVersion::NoStream, 1).with_key(key(1));
    let lost = log.proxy.lose_answer_to(b"COMMIT");
    append_one(&store, first.clone()).await.unwrap();
    lost.await;
    replayed(&append_one(&store, first).await, 1, true);
    let check = write(&thing, exact(1), 0).with_key(key(2));
    let lost = log.proxy.lose_answer_to(b"COMMIT");
    replayed(&append_one(&store, check.clone()).await, 1, false);
    lost.await;
    replayed(&append_one(&store, check).await, 1, false);

    // Nobody finds out in time. The server has the batch, COMMIT included, and commits it or not once the head is free.
    let holder = Holder::of(&log.direct, &[partition_of(&thing)]).await;
    let doubtful = write(&thing, exact(1), 1).with_key(key(3));
    let appending = spawn_append(&store, doubtful.clone());
    until_waiting(&log.direct).await;
    log.proxy.cut();
    let answer = appending.await.unwrap();
    assert!(matches!(answer, Err(AppendError::InDoubt(_))), "{answer:?}");
    holder.release().await;
    log.proxy.pass();
    match append_one(&store, doubtful.clone()).await {
        Ok(appended) => assert_eq!(appended[0].version, Version::new(2)),
        before => replayed(&before, 2, true),
    }
    replayed(&append_one(&store, doubtful).await, 2, true);
    assert_eq!(whole_log(&store).await.len(), 3);
}

/// The key `n`.
const fn key(n: u8) -> IdempotencyKey {
    IdempotencyKey {
        scoped: [n; 32],
        fingerprint: [n; 32],
    }
}

#[tokio::test]
async fn a_key_tells_what_became_of_a_commit_whose_answer_was_lost() {
    a_key_tells_what_became_of_a_commit(shared::mysql().await).await;
}

#[tokio::test]
async fn a_key_tells_what_became_of_a_commit_whose_answer_was_lost_on_mariadb() {
    a_key_tells_what_became_of_a_commit(shared::mariadb().await).await;
}
