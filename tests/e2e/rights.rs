//! Users of MySQL and MariaDB with the rights of `deploy/mysql/`: what they may not do, what is said of it, and that a user with more
//! is told of. (All other tests on a log of their own run with a service's rights: see [`fresh_log`].)

use serde_json::{Value, json};
use sqlx::mysql::MySqlDatabaseError;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection};
use tidelog_command::store::{MySqlEventStore, MySqlOptions, OpenError};
use tidelog_domain::{Partitions, causes};
use tidelog_test_support::{Engine, Server, SqlUsers, shared};

use crate::log::{connect, fresh_log};
use crate::services::{Backends, CommandLine, Ended, Role, Service, Site};
use crate::waiting::eventually;

/// What the server says to who lacks the right: for a table, for some columns of it, for a database.
const DENIED: [u16; 3] = [1142, 1143, 1044];

/// What changes or deletes events, whichever way.
const CHANGES: [&str; 7] = [
    "UPDATE events SET payload='{}'",
    "UPDATE events SET version=version+1 WHERE position=1",
    "DELETE FROM events",
    "REPLACE INTO events SELECT * FROM events",
    "INSERT INTO events SELECT * FROM events ON DUPLICATE KEY UPDATE payload='{}'",
    "TRUNCATE TABLE events",
    "LOCK TABLES events WRITE",
];

/// What changes the tables.
const DEFINITIONS: [&str; 6] = [
    "DROP TABLE events",
    "ALTER TABLE events DROP COLUMN payload",
    "CREATE TABLE mine (n INT)",
    "CREATE INDEX mine ON events (version)",
    "CREATE TRIGGER mine BEFORE INSERT ON events FOR EACH ROW SET NEW.payload='{}'",
    "CREATE VIEW mine AS SELECT * FROM events",
];

/// What a service has no reason to do.
const NOT_A_SERVICES: [&str; 7] = [
    "UPDATE log_meta SET history=history",
    "DELETE FROM log_meta",
    "INSERT INTO log_head VALUES (99,1,UTC_TIMESTAMP(6))",
    "DELETE FROM log_head",
    "DELETE FROM log_migrations",
    "UPDATE idempotency_keys SET outcome=0",
    "DELETE FROM subscriptions",
];

/// What writes anything.
const WRITES: [&str; 4] = [
    "INSERT INTO events SELECT * FROM events",
    "UPDATE log_head SET next_position=1",
    "DELETE FROM snapshots",
    "INSERT INTO subscriptions VALUES ('x',0,1,'{}')",
];

/// Asserts that the server refuses each of `statements` to the user of `url`.
async fn are_refused(url: &str, statements: &[&'static str]) {
    let mut connection = MySqlConnection::connect(url).await.unwrap();
    for statement in statements {
        let refused = match connection.execute(*statement).await {
            Err(refused) => refused,
            Ok(_) => panic!("allowed: {statement}"),
        };
        let error = refused.as_database_error();
        let error = error.and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
        let number = error.map(MySqlDatabaseError::number);
        assert!(
            number.is_some_and(|number| DENIED.contains(&number)),
            "{statement}: {refused}"
        );
    }
    connection.close().await.unwrap();
}

async fn no_user_may_do_more_than_it_has_to(server: &Server) {
    let users = fresh_log(server, Partitions::DEFAULT).await;
    are_refused(&users.service, &CHANGES).await;
    are_refused(&users.service, &DEFINITIONS).await;
    are_refused(&users.service, &NOT_A_SERVICES).await;
    are_refused(&users.read, &CHANGES).await;
    are_refused(&users.read, &DEFINITIONS).await;
    are_refused(&users.read, &WRITES).await;
    are_refused(&users.migrate, &CHANGES).await;
}

#[tokio::test]
async fn no_user_may_change_an_event_or_do_more_than_it_has_to() {
    let server = shared::mysql().await;
    no_user_may_do_more_than_it_has_to(server).await;
    if server.engine() == Engine::MySql {
        // MariaDB lets whoever may read a row lock it.
        let users = fresh_log(server, Partitions::DEFAULT).await;
        are_refused(
            &users.read,
            &["SELECT next_position FROM log_head FOR UPDATE"],
        )
        .await;
    }
}

#[tokio::test]
async fn no_user_may_change_an_event_or_do_more_than_it_has_to_on_mariadb() {
    no_user_may_do_more_than_it_has_to(shared::mariadb().await).await;
}

/// What is wrong with the server and the user of `url`, as the log is opened.
async fn warnings(url: &str) -> Vec<String> {
    let options = MySqlOptions::from_url(url).unwrap();
    let store = MySqlEventStore::connect(options).await.unwrap();
    store.warnings().to_vec()
}

async fn a_user_that_may_change_events_is_told_of(server: &Server) {
    let users = fresh_log(server, Partitions::DEFAULT).await;
    let is_told = |warnings: Vec<String>| {
        let about = |warning: &&String| warning.contains("deploy/mysql/grants.sql");
        warnings.iter().filter(about).count()
    };
    for url in [&users.service, &users.read, &users.migrate] {
        assert_eq!(is_told(warnings(url).await), 0, "{url}");
    }
    assert_eq!(is_told(warnings(&users.administrator).await), 1);
    // One right is enough, of one column too.
    for right in ["DELETE", "UPDATE (payload)"] {
        let grant = |what: &str, to: &str| {
            let user = users.service.split(['/', '@']).nth(2).unwrap().to_owned();
            format!("{what} {right} ON events {to} '{user}'@'%'")
        };
        let mut administrator = connect(&users.service).await;
        let given = administrator.execute(AssertSqlSafe(grant("GRANT", "TO")));
        given.await.unwrap();
        assert_eq!(is_told(warnings(&users.service).await), 1, "{right}");
        let taken = administrator.execute(AssertSqlSafe(grant("REVOKE", "FROM")));
        taken.await.unwrap();
    }
    assert_eq!(is_told(warnings(&users.service).await), 0);
}

#[tokio::test]
async fn a_user_that_may_change_events_is_told_of_at_the_start() {
    a_user_that_may_change_events_is_told_of(shared::mysql().await).await;
}

#[tokio::test]
async fn a_user_that_may_change_events_is_told_of_at_the_start_on_mariadb() {
    a_user_that_may_change_events_is_told_of(shared::mariadb().await).await;
}

#[tokio::test]
async fn doctor_says_whether_the_user_may_change_events() {
    let users = fresh_log(shared::mysql().await, Partitions::DEFAULT).await;
    for (url, expected) in [(&users.service, "ok"), (&users.administrator, "warn")] {
        let command = CommandLine::new(&["doctor", "--json", "--role", "command"]);
        let bus = shared::redis().await.url();
        let settings = [("DATABASE_URL", url.as_str()), ("TIDELOG_BUS_URL", bus)];
        let ended = command.with(settings).run().await;
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        let rights = report.as_array().unwrap().iter();
        let mut rights = rights.filter(|own| own["check"] == "rights");
        assert_eq!(rights.next().unwrap()["finding"], expected, "{report:#}");
    }
}

async fn migrate(url: &str) -> Ended {
    let command = CommandLine::new(&["migrate"]);
    command.with([("DATABASE_URL", url)]).run().await
}

/// Why the log is not opened.
async fn refusal(url: &str) -> OpenError {
    let options = MySqlOptions::from_url(url).unwrap();
    match MySqlEventStore::connect(options).await {
        Err(refused) => refused,
        Ok(_) => panic!("the log was opened"),
    }
}

async fn what_is_due_is_named(users: SqlUsers) {
    let mut administrator = connect(&users.service).await;
    for statement in [
        "DELETE FROM log_migrations WHERE version=4",
        "DROP TABLE subscriptions",
    ] {
        administrator.execute(statement).await.unwrap();
    }
    for url in [&users.service, &users.read] {
        let refused = refusal(url).await;
        assert!(
            matches!(&refused, OpenError::MayNotMigrate { due, .. } if due == "4 (subscriptions)"),
            "{refused:?}"
        );
        let said = causes(&refused).to_string();
        for part in ["4 (subscriptions)", "`migrate`", "denied"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    let refused = migrate(&users.service).await;
    assert_eq!(refused.code, Some(6), "{}", refused.output);
    migrate(&users.migrate).await.succeeded();
    users.grant().await;
    // It is opened again, by a user with no more rights than before.
    warnings(&users.service).await;

    // A log that was migrated and not made: it was cut off there.
    let emptied = administrator.execute("DELETE FROM log_meta").await;
    emptied.unwrap();
    let refused = refusal(&users.service).await;
    assert!(
        refused.to_string().starts_with("the log is not made yet"),
        "{refused}"
    );
}

#[tokio::test]
async fn what_is_due_is_named_to_a_user_that_may_not_migrate() {
    what_is_due_is_named(fresh_log(shared::mysql().await, Partitions::DEFAULT).await).await;
}

#[tokio::test]
async fn what_is_due_is_named_to_a_user_that_may_not_migrate_on_mariadb() {
    what_is_due_is_named(fresh_log(shared::mariadb().await, Partitions::DEFAULT).await).await;
}

/// Services that only answer queries read documents and the past with the right to read alone.
#[tokio::test]
async fn queries_do_with_the_right_to_read() {
    let users = fresh_log(shared::mysql().await, Partitions::DEFAULT).await;
    let backends = Backends {
        database_url: users.service,
        ..Backends::fresh().await
    };
    let site = Site::three(&backends).await;
    let post = json!({"id": "p", "title": "one", "content": "c", "author_name": "ann"});
    let written = site.commands.post("/post", &post).await;
    let reading = Backends {
        database_url: users.read,
        ..backends
    };
    let reading = Service::start(Role::Query, &reading).await;
    let queries = reading.queries();
    let read = queries.get_after("/post/p", written.token()).await;
    read.data(200);
    let past = eventually("the past to be there", async || {
        let answer = queries.get("/post/p/history").await;
        match answer.status {
            200 => Ok(answer.data(200)),
            _ => Err(format!("{answer:?}")),
        }
    });
    assert_eq!(past.await[0]["data"]["state"]["title"], "one");
}
