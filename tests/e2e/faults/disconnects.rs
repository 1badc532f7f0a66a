//! Clients that go away in the middle of their requests leave nothing open behind.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use std::time::Duration;
use tidelog_test_support::{Server, shared};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::log::{assert_dense, connect, read};
use crate::services::{Backends, Role, Service};
use crate::store::kit::until_no_transaction_is_open;

const DISCONNECTS: u64 = 500;

/// How many clients there are at a time.
const AT_A_TIME: usize = 32;

/// Sends a creation, and goes away: within the request, before the answer, or within the answer.
async fn leave(address: String, number: u64, mut random: StdRng) {
    let post =
        json!({"id": format!("left-{number}"), "title": "A", "content": "-", "author_name": "Ann"});
    let body = post.to_string();
    let request = format!(
        "POST /post HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let Ok(mut stream) = TcpStream::connect(&address).await else {
        panic!("the service takes no connections");
    };
    // A fourth of them do not even finish the request.
    let sent = match random.random_range(0..4) {
        0 => random.random_range(0..request.len()),
        _ => request.len(),
    };
    stream.write_all(&request.as_bytes()[..sent]).await.unwrap();
    if random.random() {
        sleep(Duration::from_micros(random.random_range(0..8_000))).await;
    } else {
        let mut byte = [0];
        let patience = Duration::from_millis(random.random_range(0..20));
        let _ = tokio::time::timeout(patience, stream.read_exact(&mut byte)).await;
    }
    if random.random() {
        // With a reset, not with an end.
        stream.set_zero_linger().unwrap();
    }
}

async fn nothing_stays_open(server: &Server) {
    let backends = Backends::fresh_on(server).await;
    let service = Service::start(Role::Command, &backends).await;
    let address = service.commands().address().to_owned();
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut clients = JoinSet::new();
    for number in 0..DISCONNECTS {
        if clients.len() == AT_A_TIME {
            clients.join_next().await.unwrap().unwrap();
        }
        let random = StdRng::seed_from_u64(random.random());
        clients.spawn(leave(address.clone(), number, random));
    }
    while let Some(left) = clients.join_next().await {
        left.unwrap();
    }
    let mut connection = connect(&backends.database_url).await;
    until_no_transaction_is_open(&backends.database_url).await;
    // No head is held: each partition takes an append at once.
    let heads =
        "SELECT COUNT(*) FROM (SELECT partition_no FROM log_head FOR UPDATE NOWAIT) AS heads";
    let free: i64 = sqlx::query_scalar(heads)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(free, 16);
    let post = json!({"id": "last", "title": "A", "content": "-", "author_name": "Ann"});
    service.commands().post("/post", &post).await.data(201);
    let rows = read(&backends.database_url).await;
    assert_dense(&rows);
    eprintln!("{} of {DISCONNECTS} were written", rows.len() - 1);
    assert!(rows.len() > 1, "none was written");
    let mut ids: Vec<_> = rows.iter().map(|row| row.id()).collect();
    let written = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), written, "a command was written twice");
}

#[tokio::test]
async fn clients_that_go_away_leave_no_transaction_open() {
    nothing_stays_open(shared::mysql().await).await;
}

#[tokio::test]
async fn clients_that_go_away_leave_no_transaction_open_on_mariadb() {
    nothing_stays_open(shared::mariadb().await).await;
}
