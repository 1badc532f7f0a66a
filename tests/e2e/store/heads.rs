//! The heads of the partitions, which a process moves without asking while nobody else does: what happens when somebody else does.

use std::collections::BTreeSet;

use tidelog_command::store::{AppendError, EventStore};
use tidelog_test_support::{Server, shared};

use super::kit::{
    append_one, connect, exact, fresh, grow, partition_of, run, stream, whole_log, write,
};

/// How many batches of its own make a process trust what it knows of a head; and some more.
const OWN: u64 = 4;

async fn two_take_turns(server: &Server) {
    let url = fresh(server).await;
    let stores = [connect(&url).await, connect(&url).await];
    let stream = stream("thing");
    let mut version = 0;
    for turn in 0..6 {
        let store = &stores[turn % 2];
        for _ in 0..OWN {
            let appended = append_one(store, write(&stream, exact(version), 2)).await;
            version += 2;
            let appended = appended.unwrap().remove(0);
            assert_eq!(appended.version.number(), version);
            assert_eq!(appended.position.unwrap().number(), version);
        }
    }
    // Dense, and as it was answered.
    assert_eq!(whole_log(&stores[0]).await.len() as u64, version);
}

#[tokio::test]
async fn processes_that_take_turns_find_the_head_where_the_other_left_it() {
    two_take_turns(shared::mysql().await).await;
}

#[tokio::test]
async fn processes_that_take_turns_find_the_head_where_the_other_left_it_on_mariadb() {
    two_take_turns(shared::mariadb().await).await;
}

async fn the_clock_is_behind(server: &Server) {
    let url = fresh(server).await;
    let store = connect(&url).await;
    let stream = stream("thing");
    for _ in 0..OWN {
        grow(&store, &stream, 1).await;
    }
    // As a server leaves it whose clock was an hour ahead.
    run(
        &url,
        "UPDATE log_head SET last_recorded_at=last_recorded_at+INTERVAL 1 HOUR",
    )
    .await;
    for _ in 0..OWN {
        grow(&store, &stream, 1).await;
    }
    // It also looks whether time runs backwards.
    let log = whole_log(&store).await;
    let before = log.first().unwrap().recorded_at;
    let after = log.iter().filter(|event| event.version.number() > OWN);
    let after: BTreeSet<_> = after.map(|event| event.recorded_at).collect();
    assert_eq!(
        after.len(),
        1,
        "the time stands still until the clock is there"
    );
    let ahead = *after.first().unwrap() - before;
    assert!(ahead.num_minutes() >= 60, "{ahead}");
}

#[tokio::test]
async fn time_does_not_run_backwards_when_the_clock_does() {
    the_clock_is_behind(shared::mysql().await).await;
}

#[tokio::test]
async fn time_does_not_run_backwards_when_the_clock_does_on_mariadb() {
    the_clock_is_behind(shared::mariadb().await).await;
}

/// The answer is what the log says, whichever way it was found.
async fn answers_are_true(server: &Server) {
    let store = connect(&fresh(server).await).await;
    let streams: Vec<_> = (0..6).map(|n| stream(&format!("thing-{n}"))).collect();
    let mut answered = Vec::new();
    for version in 0..OWN {
        let batch: Vec<_> = streams
            .iter()
            .map(|stream| write(stream, exact(version), 1))
            .collect();
        for appended in store.append(0, batch.into()).await {
            let appended = appended.unwrap().remove(0);
            let position = appended.position.unwrap();
            answered.push((appended.partition, position, appended.recorded_at.unwrap()));
        }
    }
    answered.sort();
    let log = whole_log(&store).await;
    let logged = log
        .iter()
        .map(|event| (event.partition, event.position, event.recorded_at));
    assert_eq!(answered, logged.collect::<Vec<_>>());
}

#[tokio::test]
async fn an_append_is_answered_with_the_place_and_time_that_the_log_has() {
    answers_are_true(shared::mysql().await).await;
}

#[tokio::test]
async fn an_append_is_answered_with_the_place_and_time_that_the_log_has_on_mariadb() {
    answers_are_true(shared::mariadb().await).await;
}

/// An older copy is put back into a server that goes on, and grows to where the log was: the positions are taken again.
async fn a_copy_is_put_back_under_open_connections(server: &Server) {
    let url = fresh(server).await;
    let (store, other) = (connect(&url).await, connect(&url).await);
    let stream = stream("thing");
    for _ in 0..OWN {
        grow(&store, &stream, 1).await;
    }
    let partition = partition_of(&stream);
    run(
        &url,
        &format!("DELETE FROM events WHERE partition_no={partition} AND position>2"),
    )
    .await;
    run(
        &url,
        &format!(
            "UPDATE log_head SET next_position=3,last_recorded_at=(SELECT MAX(recorded_at) FROM events WHERE partition_no={partition}) \
             WHERE partition_no={partition}"
        ),
    )
    .await;
    for version in 2..OWN {
        let append = write(&stream, exact(version), 1);
        append_one(&other, append).await.unwrap();
    }
    match append_one(&store, write(&stream, exact(OWN), 1)).await {
        Err(AppendError::Diverged) => {}
        found => panic!("expected the append to be refused, got {found:?}"),
    }
    assert_eq!(whole_log(&other).await.len() as u64, OWN);
}

#[tokio::test]
async fn positions_that_were_taken_again_are_noticed() {
    a_copy_is_put_back_under_open_connections(shared::mysql().await).await;
}

#[tokio::test]
async fn positions_that_were_taken_again_are_noticed_on_mariadb() {
    a_copy_is_put_back_under_open_connections(shared::mariadb().await).await;
}

async fn a_head_is_lost(server: &Server) {
    let url = fresh(server).await;
    let store = connect(&url).await;
    let stream = stream("thing");
    for _ in 0..OWN {
        grow(&store, &stream, 1).await;
    }
    let partition = partition_of(&stream);
    run(
        &url,
        &format!("DELETE FROM log_head WHERE partition_no={partition}"),
    )
    .await;
    match append_one(&store, write(&stream, exact(OWN), 1)).await {
        Err(AppendError::Corrupt { .. }) => {}
        found => panic!("expected the append to be refused, got {found:?}"),
    }
    assert_eq!(whole_log(&store).await.len() as u64, OWN);
}

#[tokio::test]
async fn without_a_head_nothing_is_written() {
    a_head_is_lost(shared::mysql().await).await;
}

#[tokio::test]
async fn without_a_head_nothing_is_written_on_mariadb() {
    a_head_is_lost(shared::mariadb().await).await;
}
