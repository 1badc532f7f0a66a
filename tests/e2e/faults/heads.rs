//! A command service is stopped (SIGSTOP) while its transaction holds the heads of the log.

use serde_json::json;
use sqlx::mysql::MySqlDatabaseError;
use sqlx::{Connection, Executor};
use tidelog_test_support::{Server, Signal, shared, unique_name};
use tokio::time::{Duration, sleep};

use super::WRITES;
use crate::load::Load;
use crate::log::{connect, read};
use crate::services::{Backends, Role, Service};
use crate::view::View;
use crate::waiting::eventually;

/// How often a service is stopped until it happens to hold heads: most of the time that it writes, it does.
const ROUNDS: usize = 200;

#[tokio::test]
async fn another_command_service_goes_on_while_one_is_stopped_with_the_heads_locked() {
    another_goes_on(shared::mysql().await).await;
}

#[tokio::test]
async fn another_command_service_goes_on_while_one_is_stopped_with_the_heads_locked_on_mariadb() {
    another_goes_on(shared::mariadb().await).await;
}

async fn another_goes_on(server: &Server) {
    let backends = Backends::fresh_on(server).await;
    let mut settings = backends.settings().to_vec();
    // Every write needs the one head.
    settings.push(("TIDELOG_PARTITIONS", "1"));
    let first = Service::start_with(Role::Command, &settings).await;
    let second = Service::start_with(Role::Command, &settings).await;
    let eventbus = Service::start_with(Role::EventBus, &settings).await;
    let mut load = Load::start(&first.commands(), WRITES);
    load.reaches(20).await;
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
    let outcome = load.finish().await;
    let mut rows = read(&backends.database_url).await;
    crate::log::assert_dense(&rows);
    // The one write that is not the load's.
    rows.retain(|row| row.id() != id);
    outcome.assert_all_in(&rows);
    View::on(&backends).await.equals_the_fold("post").await;
    drop(eventbus);
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
