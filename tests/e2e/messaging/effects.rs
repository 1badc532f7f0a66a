//! Effects once, with the record of a message's id in their transaction.

use std::time::Duration;

use sqlx::MySqlPool;
use tidelog::handled::MySqlHandled;
use tidelog::messaging::{HandlerError, MessageContext, Messaging, Worker};
use tidelog_test_support::{Engine, Process, Server, fresh_mysql_database, shared, unique_name};

use super::{NOTE, eventually, shared_of, soon, stored_of};
use crate::store::kit::waiting;

const URL: &str = "TIDELOG_TEST_MESSAGES_URL";
const APP: &str = "TIDELOG_TEST_MESSAGES_APP";
const DATABASE: &str = "TIDELOG_TEST_MESSAGES_DATABASE";

/// A worker that counts a message in its table, once, and takes its time.
async fn counting(url: &str, app: &str, pool: MySqlPool) -> Worker {
    let handled = MySqlHandled::new("g").unwrap();
    handled.create_table(&pool).await.unwrap();
    let messaging = Messaging::connect(url, app).unwrap();
    let worker = messaging.worker("g").concurrency(8).policy(soon(1_000));
    worker
        .idle(Duration::from_secs(1))
        .handle(&NOTE, move |number, message: MessageContext| {
            let (pool, handled) = (pool.clone(), handled.clone());
            async move {
                let mut transaction = pool.begin().await?;
                if handled.is_first(&mut transaction, &message).await? {
                    sqlx::query("INSERT INTO effects (number) VALUES (?)")
                        .bind(number)
                        .execute(&mut *transaction)
                        .await?;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
                transaction.commit().await?;
                // It may be killed here: done, and not settled.
                tokio::time::sleep(Duration::from_millis(5)).await;
                Ok::<_, HandlerError>(())
            }
        })
}

async fn effects(pool: &MySqlPool) -> (i64, i64) {
    sqlx::query_as("SELECT COUNT(*), COUNT(DISTINCT number) FROM effects")
        .fetch_one(pool)
        .await
        .unwrap()
}

/// Not a test by itself: the process that is killed.
#[tokio::test]
async fn the_worker_that_is_killed() {
    let variable = |name| std::env::var(name).ok();
    let (Some(url), Some(app), Some(database)) = (variable(URL), variable(APP), variable(DATABASE))
    else {
        return;
    };
    let pool = MySqlPool::connect(&database).await.unwrap();
    let worker = counting(&url, &app, pool).await.start().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    worker.stop().await;
}

fn launch(url: &str, app: &str, database: &str) -> Process {
    let mut command = Process::command(std::env::current_exe().unwrap());
    command
        .args(["--exact", "messaging::effects::the_worker_that_is_killed"])
        .arg("--nocapture")
        .envs([(URL, url), (APP, app), (DATABASE, database)]);
    Process::start(command)
}

on_each_server!(
    workers_that_are_killed_in_the_middle_lose_nothing_and_their_effects_are_there_once
);

async fn workers_that_are_killed_in_the_middle_lose_nothing_and_their_effects_are_there_once(
    engine: Engine,
) {
    let (server, app) = (shared_of(engine).await, unique_name());
    let url = server.url();
    let database = fresh_mysql_database(shared::mysql().await).await;
    let pool = MySqlPool::connect(&database).await.unwrap();
    sqlx::query("CREATE TABLE effects (number BIGINT UNSIGNED NOT NULL)")
        .execute(&pool)
        .await
        .unwrap();
    let messaging = Messaging::connect(url, &app).unwrap();
    let numbers: Vec<u64> = (0..400).collect();
    messaging.emit_all(&NOTE, &numbers).await.unwrap();
    for at_least in [60, 120, 180] {
        let mut worker = launch(url, &app, &database);
        eventually("some are handled", async || {
            effects(&pool).await.1 >= at_least
        })
        .await;
        worker.kill();
    }
    assert!(
        effects(&pool).await.1 < 400,
        "they were killed in the middle"
    );
    let last = counting(url, &app, pool.clone())
        .await
        .start()
        .await
        .unwrap();
    eventually("all is handled", async || {
        stored_of(server, &app, &NOTE.channel()).await == 0
    })
    .await;
    last.stop().await;
    assert_eq!(effects(&pool).await, (400, 400));
    let letters = messaging.dead_letters("g", &NOTE).unwrap();
    assert!(letters.list(None, 10).await.unwrap().is_empty());
}

/// A message as its handler sees it.
async fn received() -> MessageContext {
    let messaging = Messaging::in_process("app");
    let (came, mut message) = tokio::sync::mpsc::unbounded_channel();
    let worker = messaging.worker("g").handle(&NOTE, move |_, message| {
        let _ = came.send(message);
        async { Ok(()) }
    });
    let worker = worker.start().await.unwrap();
    messaging.emit(&NOTE, &1).await.unwrap();
    let message = message.recv().await.unwrap();
    worker.stop().await;
    message
}

#[tokio::test]
async fn a_message_is_first_once_for_each_group_until_its_record_is_swept() {
    is_first_until_it_is_swept(shared::mysql().await).await;
}

#[tokio::test]
async fn a_message_is_first_once_for_each_group_until_its_record_is_swept_on_mariadb() {
    is_first_until_it_is_swept(shared::mariadb().await).await;
}

async fn is_first_until_it_is_swept(server: &Server) {
    let database = fresh_mysql_database(server).await;
    let pool = MySqlPool::connect(&database).await.unwrap();
    let (one, two) = (
        MySqlHandled::new("g").unwrap(),
        MySqlHandled::new("h").unwrap(),
    );
    one.create_table(&pool).await.unwrap();
    one.create_table(&pool).await.unwrap();
    let message = received().await;
    let is_first = async |handled: &MySqlHandled, commits: bool| {
        let mut transaction = pool.begin().await.unwrap();
        let is_first = handled.is_first(&mut transaction, &message).await.unwrap();
        if commits {
            transaction.commit().await.unwrap();
        }
        is_first
    };
    assert!(is_first(&one, false).await, "rolled back");
    assert!(is_first(&one, true).await);
    assert!(!is_first(&one, true).await);
    assert!(is_first(&two, true).await);
    assert_eq!(one.sweep(&pool).await.unwrap(), 0, "they are young");
    sqlx::query("UPDATE tidelog_handled_messages SET handled_at = handled_at - 604801")
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(one.sweep(&pool).await.unwrap(), 1);
    assert!(is_first(&one, true).await && !is_first(&two, true).await);
}

#[tokio::test]
async fn of_two_tries_at_once_the_second_waits_for_the_end_of_the_first() {
    waits_for_the_first(shared::mysql().await).await;
}

#[tokio::test]
async fn of_two_tries_at_once_the_second_waits_for_the_end_of_the_first_on_mariadb() {
    waits_for_the_first(shared::mariadb().await).await;
}

async fn waits_for_the_first(server: &Server) {
    let database = fresh_mysql_database(server).await;
    let pool = MySqlPool::connect(&database).await.unwrap();
    let handled = MySqlHandled::new("g").unwrap();
    handled.create_table(&pool).await.unwrap();
    let message = received().await;
    // Rolled back, and then committed.
    for commits in [false, true] {
        let mut first = pool.begin().await.unwrap();
        assert!(handled.is_first(&mut first, &message).await.unwrap());
        let second = tokio::spawn({
            let (pool, handled, message) = (pool.clone(), handled.clone(), message.clone());
            async move {
                let mut second = pool.begin().await.unwrap();
                let is_first = handled.is_first(&mut second, &message).await.unwrap();
                second.rollback().await.unwrap();
                is_first
            }
        });
        eventually("the second waits", async || {
            waiting(&database).await.len() == 1
        })
        .await;
        match commits {
            true => first.commit().await.unwrap(),
            false => first.rollback().await.unwrap(),
        }
        assert_eq!(second.await.unwrap(), !commits);
    }
}
