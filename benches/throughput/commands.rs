//! Commands a second, beside one transaction a command and beside bare inserts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection};
use tidelog_test_support::{Engine, Server, fresh_mysql_database};
use tokio::task::JoinSet;

use crate::posts::{Client, Posts};

/// How many rows a bare insert has at the limit, and on how many connections.
const LIMIT: (usize, usize) = (256, 2);

/// What a run found.
pub(crate) struct Found {
    /// A second.
    pub(crate) rate: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) most: Duration,
}

/// `count` a second, where it took `time`.
pub(crate) fn a_second(count: usize, time: Duration) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = count as f64 / time.as_secs_f64();
    rate
}

impl Found {
    /// From how long each took, of a run that took `time`.
    pub(crate) fn of(mut each: Vec<Duration>, time: Duration) -> Self {
        each.sort_unstable();
        let at = |hundredth: usize| each[(each.len() - 1) * hundredth / 100];
        Self {
            rate: a_second(each.len(), time),
            p50: at(50),
            p99: at(99),
            most: at(100),
        }
    }
}

/// Measures each number of `clients`, with one command in flight each, for `time` each, and prints a table.
pub(crate) async fn measure(clients: &[usize], time: Duration) {
    let server = Server::start(Engine::MySql).await;
    println!(
        "Commands (a create, then three patches), one event each, on MySQL with its default durability, {time:?} each\n"
    );
    println!(
        "| clients | commands/s | p50 | p99 | one transaction a command: commands/s | p99 | ratio |"
    );
    println!("|---|---|---|---|---|---|---|");
    for &clients in clients {
        let posts = Arc::new(Posts::on(&fresh_mysql_database(&server).await).await);
        let ours = ours(&posts, clients, time).await;
        let peer = peer(&fresh_mysql_database(&server).await, clients, time).await;
        println!(
            "| {clients} | {:.0} | {:.1?} | {:.1?} | {:.0} | {:.1?} | {:.1} |",
            ours.rate,
            ours.p50,
            ours.p99,
            peer.rate,
            peer.p99,
            ours.rate / peer.rate
        );
    }
    let (rows, connections) = LIMIT;
    let limit = limit(&fresh_mysql_database(&server).await, time).await;
    println!(
        "\nThe limit: {limit:.0} bare rows/s, {rows} an INSERT and transaction, on {connections} connections\n"
    );
}

/// Clients of a command service in this process.
async fn ours(posts: &Arc<Posts>, clients: usize, time: Duration) -> Found {
    let end = Instant::now() + time;
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let posts = posts.clone();
        running.spawn(async move {
            let mut client = Client::default();
            let mut each = Vec::new();
            while Instant::now() < end {
                let began = Instant::now();
                client.command(&posts.service).await;
                each.push(began.elapsed());
            }
            each
        });
    }
    Found::of(running.join_all().await.concat(), time)
}

/// A table as small as it can be, with the columns of an event.
const TABLE: &str = "CREATE TABLE bare (stream VARBINARY(200) NOT NULL, version BIGINT UNSIGNED NOT NULL, \
     event_id BINARY(16) NOT NULL, payload MEDIUMBLOB NOT NULL, PRIMARY KEY (stream, version)) ENGINE = InnoDB";

/// About as many bytes as one of our events has, payload and metadata.
const BYTES: usize = 200;

async fn connect(url: &str) -> MySqlConnection {
    MySqlConnection::connect(url).await.unwrap()
}

/// What is often written instead: each client has a connection, and each command a transaction that asks for the stream's
/// version and inserts the next one.
async fn peer(url: &str, clients: usize, time: Duration) -> Found {
    connect(url).await.execute(TABLE).await.unwrap();
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(connect(url).await);
    }
    let end = Instant::now() + time;
    let mut running = JoinSet::new();
    for (number, mut connection) in connections.into_iter().enumerate() {
        running.spawn(async move {
            let payload = vec![b'x'; BYTES];
            let mut each = Vec::new();
            while Instant::now() < end {
                let began = Instant::now();
                let stream = format!("post-{number}-{}", each.len() / 4);
                let mut transaction = connection.begin().await.unwrap();
                let version: Option<u64> =
                    sqlx::query_scalar("SELECT MAX(version) FROM bare WHERE stream = ?")
                        .bind(stream.as_bytes())
                        .fetch_one(&mut *transaction)
                        .await
                        .unwrap();
                sqlx::query("INSERT INTO bare VALUES (?, ?, ?, ?)")
                    .bind(stream.as_bytes())
                    .bind(version.unwrap_or(0) + 1)
                    .bind(uuid::Uuid::now_v7().as_bytes().as_slice())
                    .bind(&payload)
                    .execute(&mut *transaction)
                    .await
                    .unwrap();
                transaction.commit().await.unwrap();
                each.push(began.elapsed());
            }
            each
        });
    }
    Found::of(running.join_all().await.concat(), time)
}

/// Rows a second of bare inserts of many rows, each its own transaction.
async fn limit(url: &str, time: Duration) -> f64 {
    let (rows, connections) = LIMIT;
    connect(url).await.execute(TABLE).await.unwrap();
    // Not encrypted: the driver's large requests wait for acknowledgements otherwise.
    let url = format!("{url}?ssl-mode=disabled");
    let end = Instant::now() + time;
    let mut running = JoinSet::new();
    for number in 0..connections {
        let mut connection = connect(&url).await;
        running.spawn(async move {
            let payload = "78".repeat(BYTES);
            let mut batches = 0;
            while Instant::now() < end {
                let row = |row| {
                    format!("('{number}-{batches}-{row}', 1, UUID_TO_BIN(UUID()), X'{payload}')")
                };
                let values: Vec<_> = (0..rows).map(row).collect();
                let insert = format!("INSERT INTO bare VALUES {}", values.join(","));
                connection.execute(AssertSqlSafe(insert)).await.unwrap();
                batches += 1;
            }
            batches * rows
        });
    }
    let inserted: usize = running.join_all().await.into_iter().sum();
    a_second(inserted, time)
}
