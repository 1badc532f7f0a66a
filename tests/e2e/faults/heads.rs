//! A command service is stopped (SIGSTOP) while its transaction holds the heads of the log.

use reqwest::Method;
use serde_json::json;
use sqlx::mysql::MySqlDatabaseError;
use sqlx::{Connection, Executor};
use tidelog_domain::Partitions;
use tidelog_test_support::{Server, Signal, shared, unique_name};
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep};

use super::WRITES;
use crate::client::send;
use crate::load::Load;
use crate::log::{connect, fresh_log, read};
use crate::services::{Backends, Role, Service};
use crate::view::View;
use crate::waiting::eventually;

/// How often a service is stopped until it happens to hold heads.
const ROUNDS: usize = 500;

/// The posts that both services patch.
const CONTENDED: [&str; 4] = ["contended-1", "contended-2", "contended-3", "contended-4"];

#[tokio::test]
async fn another_command_service_goes_on_while_one_is_stopped_with_the_heads_locked() {
    another_goes_on(shared::mysql().await).await;
}

#[tokio::test]
async fn another_command_service_goes_on_while_one_is_stopped_with_the_heads_locked_on_mariadb() {
    another_goes_on(shared::mariadb().await).await;
}

async fn another_goes_on(server: &Server) {
    let log = fresh_log(server, Partitions::new(1).expect("a number of partitions")).await;
    let backends = Backends {
        database_url: log.service,
        ..Backends::fresh().await
    };
    let mut settings = backends.settings().to_vec();
    // Every write needs the one head.
    settings.push(("TIDELOG_PARTITIONS", "1"));
    let first = Service::start_with(Role::Command, &settings).await;
    let second = Service::start_with(Role::Command, &settings).await;
    let eventbus = Service::start_with(Role::EventBus, &settings).await;
    let mut load = Load::start(&first.commands(), WRITES);
    load.reaches(20).await;
    let contention = contend(&first, &second).await;
    stop_with_the_heads(&first, &backends.database_url).await;

    let id = unique_name();
    let post = json!({"id": id, "title": "A", "content": "-", "author_name": "Ann"});
    eventually("the other service to go on", async || {
        let answer = second.commands().post("/post", &post).await;
        match answer.status {
            201 => Ok(()),
            503 => Err(format!("{answer:?}")),
            // A lost answer of a try before.
            409 => Ok(()),
            _ => panic!("{answer:?}"),
        }
    })
    .await;
    let row = read(&backends.database_url)
        .await
        .into_iter()
        .find(|row| row.id() == id);
    assert!(
        row.is_some(),
        "the other service's write is in the log while the first one is still stopped"
    );

    first.process().signal(Signal::Cont);
    drop(contention);
    let outcome = load.finish().await;
    let mut rows = read(&backends.database_url).await;
    crate::log::assert_dense(&rows);
    // The writes that are not the load's.
    rows.retain(|row| row.id() != id && !CONTENDED.contains(&row.id()));
    outcome.assert_all_in(&rows);
    View::on(&backends).await.equals_the_fold("post").await;
    drop(eventbus);
}

/// Patches the same posts by both services, until the returned value is dropped. While the versions that a service knows are
/// true, it appends in one trip to the server, and a stopped process leaves no head locked; what the other one has
/// changed, it asks for with the heads locked.
async fn contend(first: &Service, second: &Service) -> JoinSet<()> {
    let mut patching = JoinSet::new();
    for id in CONTENDED {
        let post = json!({"id": id, "title": "A", "content": "-", "author_name": "Ann"});
        first.commands().post("/post", &post).await.data(201);
        for service in [first, second] {
            let commands = service.commands();
            patching.spawn(async move {
                loop {
                    let patch = json!({"title": unique_name()});
                    let path = format!("/post/{id}");
                    // A stopped service answers late, one that waits for its heads with "unavailable".
                    let _ = send(commands.request(Method::PATCH, &path).json(&patch)).await;
                }
            });
        }
    }
    patching
}

/// Stops the service at a moment when it holds the one head.
async fn stop_with_the_heads(service: &Service, database_url: &str) {
    for _ in 0..ROUNDS {
        service.process().signal(Signal::Stop);
        if is_locked(database_url).await {
            return;
        }
        service.process().signal(Signal::Cont);
        // Some time for its next batch: which moment of it is met is luck.
        sleep(Duration::from_millis(3)).await;
    }
    panic!("in {ROUNDS} tries the service was never met with the head locked");
}

/// Whether somebody holds the head, and keeps it.
async fn is_locked(database_url: &str) -> bool {
    let mut connection = connect(database_url).await;
    for _ in 0..2 {
        let mut transaction = connection.begin().await.expect("a transaction");
        let locked = transaction
            .execute("SELECT next_position FROM log_head FOR UPDATE NOWAIT")
            .await;
        match locked {
            Ok(_) => return false,
            Err(error) => {
                let refused = error
                    .as_database_error()
                    .and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
                let code = refused.map(MySqlDatabaseError::number);
                // MySQL's and MariaDB's "would have to wait".
                assert!(matches!(code, Some(3572 | 1205)), "{error}");
            }
        }
        transaction.rollback().await.expect("a transaction ends");
        // What the database does by itself, such as a commit that was already asked for, is done by then.
        sleep(Duration::from_millis(100)).await;
    }
    true
}
