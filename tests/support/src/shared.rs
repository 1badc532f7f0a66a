//! One server of each engine for all the tests of a process.
//!
//! A server is started when the first test asks for it, with relaxed durability, and lives as long as the process.
//! Tests run on it in parallel: each takes a database ([`fresh_mysql_database`], [`fresh_mongodb_database`]) or names
//! ([`unique_name`]) of its own, and none may empty, stop or reconfigure it.
//!
//! With `TIDELOG_TEST_SERVERS=env` the servers are those of `TIDELOG_TEST_MYSQL_URL`, `TIDELOG_TEST_MARIADB_URL`,
//! `TIDELOG_TEST_REDIS_URL` and `TIDELOG_TEST_MONGODB_URL`, which must then be set, and of `TIDELOG_TEST_NATS_URL` and
//! `TIDELOG_TEST_KAFKA_URL` for the tests that have `nats` and `kafka` in their names.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection};
use tokio::sync::OnceCell;
use url::Url;

use crate::{Durability, Engine, Server, ServerOptions};

/// The shared MySQL; MariaDB where MySQL could not be fetched.
pub async fn mysql() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER
        .get_or_init(|| obtain(Engine::MySql, "TIDELOG_TEST_MYSQL_URL"))
        .await
}

/// The shared MariaDB.
pub async fn mariadb() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER
        .get_or_init(|| obtain(Engine::MariaDb, "TIDELOG_TEST_MARIADB_URL"))
        .await
}

/// The shared Redis.
pub async fn redis() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER
        .get_or_init(|| obtain(Engine::Redis, "TIDELOG_TEST_REDIS_URL"))
        .await
}

/// The shared MongoDB.
pub async fn mongodb() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER
        .get_or_init(|| obtain(Engine::MongoDb, "TIDELOG_TEST_MONGODB_URL"))
        .await
}

/// The shared NATS.
pub async fn nats() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER
        .get_or_init(|| obtain(Engine::Nats, "TIDELOG_TEST_NATS_URL"))
        .await
}

/// The shared broker of Kafka's protocol.
pub async fn kafka() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER
        .get_or_init(|| obtain(Engine::Kafka, "TIDELOG_TEST_KAFKA_URL"))
        .await
}

/// Whether the servers are started by the tests, which may start more then.
#[must_use]
pub fn are_own() -> bool {
    std::env::var("TIDELOG_TEST_SERVERS").map_or(true, |servers| servers != "env")
}

async fn obtain(engine: Engine, variable: &str) -> Server {
    if !are_own() {
        let url = std::env::var(variable)
            .unwrap_or_else(|_| panic!("with TIDELOG_TEST_SERVERS=env, {variable} must be set"));
        return Server::external(engine, url);
    }
    Server::start_with(
        engine,
        ServerOptions {
            durability: Durability::Relaxed,
            ..ServerOptions::default()
        },
    )
    .await
}

/// Creates an empty database on a MySQL or MariaDB server and returns its URL. Panics when the server refuses.
pub async fn fresh_mysql_database(server: &Server) -> String {
    let name = unique_name();
    let created = async {
        let mut connection = MySqlConnection::connect(server.url()).await?;
        connection
            .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .await?;
        connection.close().await
    };
    if let Err(error) = created.await {
        panic!(
            "cannot create the database {name} on port {}: {error}",
            server.port()
        );
    }
    with_database(server, &name)
}

/// Returns the URL of a database that no other test uses on a MongoDB server, which makes databases when they are
/// written to.
#[must_use]
pub fn fresh_mongodb_database(server: &Server) -> String {
    with_database(server, &unique_name())
}

/// A name that no other test, process or earlier run uses: lower-case letters, digits and `_`, at most 40 of them, a
/// letter first.
#[must_use]
pub fn unique_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_micros();
    format!(
        "t{since:x}_{:x}_{:x}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

fn with_database(server: &Server, name: &str) -> String {
    let mut url =
        Url::parse(server.url()).unwrap_or_else(|error| panic!("not a server's URL: {error}"));
    url.set_path(name);
    url.into()
}
