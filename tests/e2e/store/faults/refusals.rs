//! Logs that are not opened, and what is said about it; logs that are, with a warning; and two programs that open one at once.

use std::error::Error;
use std::time::Duration;

use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, Executor};
use tidelog_command::store::{MySqlEventStore, MySqlOptions, OpenError};
use tidelog_domain::Partitions;
use tidelog_eventbus::LogReader;
use tidelog_test_support::{
    Durability, Engine, Server, ServerOptions, free_port, fresh_mysql_database, shared,
};
use tokio::task::JoinSet;

use crate::store::kit::{
    connect, connections, fresh, grow, options, run, stream, until, whole_log,
};

/// Why the log in the database `url` is not opened.
async fn refusal(url: &str) -> OpenError {
    match MySqlEventStore::connect(options(url)).await {
        Err(refused) => refused,
        Ok(_) => panic!("the log was opened"),
    }
}

/// What an operator may see of an error, causes and all.
fn everything_said(error: &OpenError) -> String {
    let mut said = format!("{error:?}");
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        said.push_str(&format!("\n{error}"));
        cause = error.source();
    }
    said
}

#[tokio::test]
async fn a_wrong_password_is_denied_and_not_repeated() {
    let url = fresh_mysql_database(shared::mysql().await).await;
    for wrong in ["root:hunter2@", "nobody:hunter2@"] {
        let refused = refusal(&url.replace("root@", wrong)).await;
        assert!(matches!(refused, OpenError::Denied(_)), "{refused:?}");
        let said = everything_said(&refused);
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_denied_by_its_name() {
    let url = fresh_mysql_database(shared::mysql().await).await;
    let refused = refusal(&format!("{url}_missing")).await;
    assert!(matches!(refused, OpenError::Denied(_)), "{refused:?}");
    let said = everything_said(&refused);
    assert!(said.contains("_missing"), "{said}");
}

#[tokio::test]
async fn a_server_of_another_kind_is_named_as_such() {
    for server in [shared::redis().await, shared::mongodb().await] {
        let url = format!("mysql://root:hunter2@127.0.0.1:{}/log", server.port());
        let refused = refusal(&url).await;
        assert!(
            matches!(refused, OpenError::OtherServer { expected: "MySQL" }),
            "{refused:?}"
        );
        assert!(!everything_said(&refused).contains("hunter2"));
    }
}

#[tokio::test]
async fn nobody_at_the_address_is_unreachable() {
    let refused = refusal(&format!("mysql://root@127.0.0.1:{}/log", free_port())).await;
    assert!(matches!(refused, OpenError::Unreachable(_)), "{refused:?}");
}

#[tokio::test]
async fn a_log_of_a_newer_program_is_refused() {
    let url = fresh_mysql_database(shared::mysql().await).await;
    connect(&url).await;
    run(
        &url,
        "INSERT INTO log_migrations (version,description,success,checksum,execution_time) VALUES \
         (999,'later',TRUE,'',0)",
    )
    .await;
    let refused = refusal(&url).await;
    assert!(
        matches!(refused, OpenError::Newer { version: 999 }),
        "{refused:?}"
    );
    // Nor is one that the newer program has only half migrated.
    run(
        &url,
        "UPDATE log_migrations SET success=FALSE WHERE version=999",
    )
    .await;
    refusal(&url).await;
}

#[tokio::test]
async fn a_log_whose_migration_was_altered_is_refused() {
    let url = fresh_mysql_database(shared::mysql().await).await;
    connect(&url).await;
    run(&url, "UPDATE log_migrations SET checksum='altered'").await;
    let refused = refusal(&url).await;
    assert!(
        matches!(refused, OpenError::Changed { version: 1 }),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_migration_that_was_cut_off_is_run_again() {
    let url = fresh_mysql_database(shared::mysql().await).await;
    connect(&url).await;
    run(&url, "UPDATE log_migrations SET success=FALSE").await;
    run(&url, "DROP TABLE events").await;
    let store = connect(&url).await;
    grow(&store, &stream("thing"), 1).await;
    assert_eq!(whole_log(&store).await.len(), 1);
}

#[tokio::test]
async fn a_log_with_another_hash_is_refused() {
    let url = fresh_mysql_database(shared::mysql().await).await;
    connect(&url).await;
    run(&url, "UPDATE log_meta SET hash='crc32'").await;
    let refused = refusal(&url).await;
    assert!(
        matches!(&refused, OpenError::Hash { stored } if stored == "crc32"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_log_with_another_number_of_partitions_is_refused() {
    let url = fresh_mysql_database(shared::mysql().await).await;
    connect(&url).await;
    let mut other = options(&url);
    other.partitions = Partitions::new(8).unwrap();
    let refused = MySqlEventStore::connect(other).await.err().unwrap();
    assert_eq!(
        refused.to_string(),
        "the log has 4 partitions, but this program is configured for 8"
    );
}

/// Opens a new log by several programs at once.
async fn many_open_one_log(server: &Server) {
    let url = fresh_mysql_database(server).await;
    let mut programs = JoinSet::new();
    for _ in 0..8 {
        let url = url.clone();
        programs.spawn(async move { connect(&url).await.identity().await.unwrap() });
    }
    let identities = programs.join_all().await;
    assert!(identities.iter().all(|one| *one == identities[0]));
    let store = connect(&url).await;
    grow(&store, &stream("thing"), 1).await;
    assert_eq!(store.heads().await.unwrap().len(), 4);
}

#[tokio::test]
async fn programs_that_open_a_new_log_at_once_make_it_once() {
    many_open_one_log(shared::mysql().await).await;
}

#[tokio::test]
async fn programs_that_open_a_new_log_at_once_make_it_once_on_mariadb() {
    many_open_one_log(shared::mariadb().await).await;
}

/// Has the lock of the migrations, as a program has that migrates, and opens the log meanwhile.
async fn one_migrates_at_a_time(server: &Server) {
    let url = fresh_mysql_database(server).await;
    let mut migrating = MySqlConnection::connect(&url).await.unwrap();
    migrating
        .execute("DO GET_LOCK(CONCAT('tidelog-migrate-',CRC32(DATABASE())),0)")
        .await
        .unwrap();
    let address = url.clone();
    let opening = tokio::spawn(async move { connect(&address).await });
    until("the other waits for the lock", async || {
        let open = connections(&url).await;
        open.iter().any(|(_, state)| state == "User lock")
    })
    .await;
    assert!(run(&url, "SHOW TABLES").await.is_empty());
    migrating.close().await.unwrap();
    let store = opening.await.unwrap();
    grow(&store, &stream("thing"), 1).await;
}

#[tokio::test]
async fn two_programs_never_migrate_at_once() {
    one_migrates_at_a_time(shared::mysql().await).await;
}

#[tokio::test]
async fn two_programs_never_migrate_at_once_on_mariadb() {
    one_migrates_at_a_time(shared::mariadb().await).await;
}

/// A server that is started with `arguments` on top of full durability.
async fn server_with(engine: Engine, arguments: &[&str]) -> Server {
    let options = ServerOptions {
        durability: Durability::Full,
        arguments: arguments
            .iter()
            .map(|&argument| argument.to_owned())
            .collect(),
    };
    Server::start_with(engine, options).await
}

/// What is said of unsafe settings, on each engine.
async fn unsafe_settings_are_warned_of(engine: Engine) {
    let cases: [(&[&str], &[&str]); 3] = [
        (&[], &[]),
        (
            &["--sync-binlog=0", "--innodb-flush-log-at-trx-commit=2"],
            &["sync_binlog is 0", "innodb_flush_log_at_trx_commit is 2"],
        ),
        (&["--skip-log-bin"], &["log_bin is off"]),
    ];
    for (arguments, expected) in cases {
        let server = server_with(engine, arguments).await;
        let store = connect(&fresh(&server).await).await;
        let warnings = store.warnings();
        assert_eq!(
            warnings.len(),
            expected.len(),
            "{arguments:?}: {warnings:?}"
        );
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.starts_with(expected), "{warning}");
        }
    }
}

#[tokio::test]
async fn settings_that_lose_acknowledged_events_are_warned_of() {
    unsafe_settings_are_warned_of(Engine::MySql).await;
}

#[tokio::test]
async fn settings_that_lose_acknowledged_events_are_warned_of_on_mariadb() {
    unsafe_settings_are_warned_of(Engine::MariaDb).await;
}

#[tokio::test]
async fn a_binary_log_of_statements_is_refused_on_mariadb() {
    let server = server_with(Engine::MariaDb, &["--binlog-format=STATEMENT"]).await;
    let refused = refusal(server.url()).await;
    assert!(
        matches!(
            refused,
            OpenError::Setting {
                setting: "binlog_format",
                ..
            }
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_version_of_the_server_is_known_on_mariadb() {
    let url = fresh_mysql_database(shared::mariadb().await).await;
    let version = connect(&url).await.server_version().to_owned();
    assert!(version.contains("MariaDB"), "{version}");
}

#[tokio::test]
async fn a_server_that_is_stopped_does_not_hang_who_opens_the_log() {
    let server = Server::start(Engine::MySql).await;
    let mut options = MySqlOptions::from_url(server.url()).unwrap();
    options.connect_timeout = Duration::from_millis(300);
    server.pause();
    assert!(MySqlEventStore::connect(options).await.is_err());
    server.resume();
}
