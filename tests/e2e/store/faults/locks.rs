//! Heads that others hold: for a moment, for too long, for ever; and what cannot be done now.

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection};
use tidelog_command::store::{AppendError, EventStore};
use tidelog_domain::{Append, ExpectedVersion, Partition};
use tidelog_eventbus::{LogReader, Retry};
use tidelog_test_support::{Engine, Process, Server, Signal, TcpProxy, shared};

use crate::store::kit::{
    Holder, append_one, connect, connections, counts, exact, fresh, grow, ids, ids_of,
    partition_of, run, spawn_append, stream, stream_of, until, until_waiting, waiting, whole_log,
    write,
};

/// Tells the program that `the_appender_that_is_stopped` is, where its log is.
const STOPPED_URL: &str = "TIDELOG_TEST_STOPPED_APPENDER_URL";

/// Holds a head until the appender has waited in vain once, and is at it again.
async fn a_lock_wait_that_times_out_is_tried_again(server: &Server) {
    let url = fresh(server).await;
    let store = connect(&url).await;
    let thing = stream("thing");
    grow(&store, &thing, 1).await;
    let holder = Holder::of(&url, &[partition_of(&thing)]).await;
    let append = write(&thing, exact(1), 1);
    let appending = spawn_append(&store, append.clone());
    until("an appender has waited for 2 s", async || {
        waiting(&url).await.iter().any(|(_, seconds)| *seconds >= 2)
    })
    .await;
    until("it waits again, in a new transaction", async || {
        waiting(&url).await.iter().any(|(_, seconds)| *seconds < 2)
    })
    .await;
    holder.release().await;
    appending.await.unwrap().unwrap();
    assert_eq!(ids_of(&store, &thing).await[1..], ids(&append));
}

#[tokio::test]
async fn a_wait_for_a_head_that_times_out_is_tried_again() {
    a_lock_wait_that_times_out_is_tried_again(shared::mysql().await).await;
}

#[tokio::test]
async fn a_wait_for_a_head_that_times_out_is_tried_again_on_mariadb() {
    a_lock_wait_that_times_out_is_tried_again(shared::mariadb().await).await;
}

#[tokio::test]
async fn a_head_that_is_held_for_too_long_makes_the_log_unavailable_and_writes_nothing() {
    let url = fresh(shared::mysql().await).await;
    let store = connect(&url).await;
    let thing = stream("thing");
    grow(&store, &thing, 1).await;
    let holder = Holder::of(&url, &[partition_of(&thing)]).await;
    let append = write(&thing, exact(1), 1);
    match append_one(&store, append.clone()).await {
        Err(error @ AppendError::Unavailable(_)) => {
            assert_eq!(error.retry(), Retry::AfterBackoff);
        }
        other => panic!("expected the log to be unavailable, got {other:?}"),
    }
    holder.release().await;
    assert_eq!(ids_of(&store, &thing).await.len(), 1);
    append_one(&store, append.clone()).await.unwrap();
    assert_eq!(ids_of(&store, &thing).await[1..], ids(&append));
}

/// Makes the appender the victim of a deadlock with one who locks the heads in the wrong order.
async fn a_deadlock_is_survived(server: &Server) {
    let url = fresh(server).await;
    let store = connect(&url).await;
    let both = [stream_of(0), stream_of(1)];
    for stream in &both {
        grow(&store, stream, 1).await;
    }
    run(&url, "CREATE TABLE ballast (n INT PRIMARY KEY)").await;
    let mut holder = Holder::of(&url, &[Partition::new(1)]).await;
    // The server ends the transaction that has changed less.
    let rows: Vec<_> = (0..100).map(|n| format!("({n})")).collect();
    let heavy = format!("INSERT INTO ballast VALUES {}", rows.join(","));
    holder
        .connection()
        .execute(AssertSqlSafe(heavy))
        .await
        .unwrap();
    let writes = both.iter().map(|stream| write(stream, exact(1), 1));
    let append = Append::new(writes.flat_map(|append| append.writes).collect());
    let appending = spawn_append(&store, append.clone());
    until_waiting(&url).await;
    holder
        .lock(Partition::new(0))
        .await
        .expect("the appender is the victim");
    holder.release().await;
    appending.await.unwrap().unwrap();
    let counts = counts(&store).await;
    for id in ids(&append) {
        assert_eq!(counts.get(&id), Some(&1));
    }
}

#[tokio::test]
async fn the_victim_of_a_deadlock_is_tried_again() {
    a_deadlock_is_survived(shared::mysql().await).await;
}

#[tokio::test]
async fn the_victim_of_a_deadlock_is_tried_again_on_mariadb() {
    a_deadlock_is_survived(shared::mariadb().await).await;
}

/// Not a test by itself: the process that `a_stopped_process_gives_its_heads_back` stops.
#[tokio::test]
async fn the_appender_that_is_stopped() {
    let Ok(url) = std::env::var(STOPPED_URL) else {
        return;
    };
    let store = connect(&url).await;
    // An expected version that it does not know makes it lock the heads in one trip and write in the next.
    let verdict = append_one(&store, write(&stream("thing"), ExpectedVersion::Any, 1)).await;
    eprintln!("the stopped appender got {verdict:?}");
}

/// Stops an appender's process between locking a head and writing, for as long as it takes.
async fn a_stopped_process_frees_its_heads(server: &Server) {
    let url = fresh(server).await;
    let other = connect(&url).await;
    let thing = stream("thing");
    let holder = Holder::of(&url, &[partition_of(&thing)]).await;
    let mut command = Process::command(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "store::faults::locks::the_appender_that_is_stopped",
        ])
        .arg("--nocapture")
        .env(STOPPED_URL, &url);
    let stopped = Process::start(command);
    until_waiting(&url).await;
    stopped.signal(Signal::Stop);
    let queued = waiting(&url).await;
    assert_eq!(queued.len(), 1, "it still waits for the head: {queued:?}");
    // The head goes to the stopped process, which does nothing with it.
    holder.release().await;
    let append = write(&thing, ExpectedVersion::NoStream, 1);
    append_one(&other, append.clone()).await.unwrap();
    assert_eq!(ids_of(&other, &thing).await, ids(&append));

    // When it goes on it has lost its transaction, and begins again.
    stopped.signal(Signal::Cont);
    let answer = stopped.wait_for_line("the stopped appender got").await;
    assert!(answer.contains("Ok("), "{answer}");
    let events = ids_of(&other, &thing).await;
    assert_eq!((events.len(), events[0]), (2, ids(&append)[0]));
}

#[tokio::test]
async fn a_stopped_process_gives_its_heads_back() {
    a_stopped_process_frees_its_heads(shared::mysql().await).await;
}

#[tokio::test]
async fn a_stopped_process_gives_its_heads_back_on_mariadb() {
    a_stopped_process_frees_its_heads(shared::mariadb().await).await;
}

#[tokio::test]
async fn a_silent_network_gives_the_heads_back_too() {
    let server = shared::mysql().await;
    let url = fresh(server).await;
    let proxy = TcpProxy::start(server.port()).await;
    let (silent, other) = (connect(&proxy.url(&url)).await, connect(&url).await);
    let thing = stream("thing");
    let holder = Holder::of(&url, &[partition_of(&thing)]).await;
    let first = write(&thing, ExpectedVersion::Any, 1);
    let appending = spawn_append(&silent, first.clone());
    until_waiting(&url).await;
    proxy.stall();
    holder.release().await;
    let second = write(&thing, ExpectedVersion::NoStream, 1);
    append_one(&other, second.clone()).await.unwrap();
    proxy.cut();
    proxy.pass();
    appending.await.unwrap().unwrap();
    let expected = [ids(&second), ids(&first)].concat();
    assert_eq!(ids_of(&other, &thing).await, expected);
}

#[tokio::test]
async fn a_refused_statement_spoils_no_other_append() {
    let url = fresh(shared::mysql().await).await;
    let store = connect(&url).await;
    run(
        &url,
        "CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW IF NEW.stream='thing/bad' THEN SIGNAL SQLSTATE '45000' \
         SET MESSAGE_TEXT='no'; END IF",
    )
    .await;
    let (bad, good) = (stream("bad"), stream("good"));
    let batch = vec![
        write(&good, ExpectedVersion::NoStream, 1),
        write(&bad, ExpectedVersion::NoStream, 1),
        write(&bad, exact(1), 1),
        write(&good, exact(1), 1),
        write(&stream("other"), ExpectedVersion::Any, 1),
    ];
    let verdicts = store.append(0, batch.into()).await;
    assert!(matches!(&verdicts[1], Err(AppendError::Unwritable { .. })));
    assert!(matches!(&verdicts[2], Err(AppendError::Superseded { .. })));
    for n in [0, 3, 4] {
        assert!(verdicts[n].is_ok(), "append {n}: {:?}", verdicts[n]);
    }
    assert_eq!(whole_log(&store).await.len(), 3);
}

#[tokio::test]
async fn a_read_only_server_is_unavailable_until_it_is_writable_again() {
    let server = Server::start(Engine::MySql).await;
    let url = server.url().to_owned();
    let store = connect(&url).await;
    let thing = stream("thing");
    grow(&store, &thing, 1).await;
    run(&url, "SET GLOBAL super_read_only=1").await;
    let append = write(&thing, exact(1), 1);
    match append_one(&store, append.clone()).await {
        Err(AppendError::Unavailable(_)) => {}
        other => panic!("expected the log to be unavailable, got {other:?}"),
    }
    assert_eq!(ids_of(&store, &thing).await.len(), 1, "reads go on");
    run(&url, "SET GLOBAL super_read_only=0,read_only=0").await;
    append_one(&store, append.clone()).await.unwrap();
    assert_eq!(ids_of(&store, &thing).await[1..], ids(&append));
}

#[tokio::test]
async fn a_server_with_too_many_connections_is_unavailable_until_it_has_room() {
    let server = Server::start(Engine::MySql).await;
    let url = server.url().to_owned();
    run(&url, "CREATE USER app@'127.0.0.1'").await;
    run(&url, "GRANT ALL ON tidelog.* TO app@'127.0.0.1'").await;
    let store = connect(&url.replace("root@", "app@")).await;
    let thing = stream("thing");
    // The operator takes the one place that is left; a store connects when it has something to do.
    let mut operator = MySqlConnection::connect(&url).await.unwrap();
    operator
        .execute("SET GLOBAL max_connections=1")
        .await
        .unwrap();
    let append = write(&thing, ExpectedVersion::NoStream, 1);
    match append_one(&store, append.clone()).await {
        Err(AppendError::Unavailable(_)) => {}
        other => panic!("expected the log to be unavailable, got {other:?}"),
    }
    assert!(store.heads().await.is_err());
    operator
        .execute("SET GLOBAL max_connections=100")
        .await
        .unwrap();
    operator.close().await.unwrap();
    append_one(&store, append.clone()).await.unwrap();
    assert_eq!(ids_of(&store, &thing).await, ids(&append));
}

#[tokio::test]
async fn connections_that_the_server_has_closed_are_replaced() {
    let url = fresh(shared::mysql().await).await;
    let store = connect(&url).await;
    let thing = stream("thing");
    grow(&store, &thing, 1).await;
    for round in 2..5 {
        let open = async || {
            let open = connections(&url).await.into_iter();
            open.map(|(id, _)| id).collect::<Vec<_>>()
        };
        let before = open().await;
        assert!(!before.is_empty());
        for id in &before {
            run(&url, &format!("KILL {id}")).await;
        }
        until("they are gone", async || {
            let still = open().await;
            before.iter().all(|id| !still.contains(id))
        })
        .await;
        append_one(&store, write(&thing, exact(round - 1), 1))
            .await
            .unwrap();
        assert_eq!(whole_log(&store).await.len() as u64, round);
    }
}
