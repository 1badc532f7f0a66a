//! A thousand reads that wait for a write cost the database as much as one.

use std::time::Duration;

use mongodb::bson::{Document, doc};
use serde_json::json;
use tidelog_test_support::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::services::{Backends, Role, Site};
use crate::waiting::eventually;

const WAITERS: usize = 1_000;

/// One watcher looks 16 times a second when nothing comes for a while; a thousand that did so by themselves would look 16,000 times.
const LOOKS_A_SECOND: i64 = 100;

#[tokio::test]
async fn a_thousand_reads_that_wait_over_http_are_served_by_one_watcher() {
    let backends = Backends::fresh().await;
    let mut site = Site::three(&backends).await;
    let post = json!({"title": "Hello", "content": "First", "author_name": "Ann"});
    let first = site.commands.post("/post", &post).await;
    let path = format!("/post/{}", first.data(201)["id"].as_str().expect("an id"));
    site.queries.get_after(&path, first.token()).await.data(200);

    // Whoever projects stands still, and keeps what it has.
    let eventbus = site.service(Role::EventBus);
    eventbus.process().signal(Signal::Stop);
    let patched = site.commands.patch(&path, &json!({"title": "Later"})).await;
    let mut waiting = Vec::new();
    for _ in 0..WAITERS {
        waiting.push(ask(site.queries.address(), &path, patched.token()).await);
    }
    let reads = Reads::of(&backends).await;
    eventually("they wait, and one looks for them all", async || {
        let before = reads.count().await;
        sleep(Duration::from_secs(1)).await;
        let looks = reads.count().await - before;
        match (1..=LOOKS_A_SECOND).contains(&looks) {
            true => Ok(()),
            false => Err(format!("{looks} looks in a second")),
        }
    })
    .await;
    for stream in &waiting {
        let answered = stream.try_read(&mut [0; 1]);
        let nothing = answered.expect_err("nobody is answered yet");
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    }

    let eventbus = site.service(Role::EventBus);
    eventbus.process().signal(Signal::Cont);
    for stream in waiting {
        let answer = answer(stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("Later"), "{answer}");
    }
}

/// Asks for what the write of `token` made, on a connection of its own.
async fn ask(address: &str, path: &str, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconsistency-token: {token}\r\nprefer: wait=30\r\nconnection: close\r\n\r\n"
    );
    let sent = stream.write_all(request.as_bytes()).await;
    sent.expect("the request is sent");
    stream
}

async fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer).await;
    read.expect("an answer");
    answer
}

/// How often the collections of a read store were read, as the server counts.
struct Reads {
    client: mongodb::Client,
    database: String,
}

impl Reads {
    async fn of(backends: &Backends) -> Self {
        let client = mongodb::Client::with_uri_str(&backends.mongodb_url);
        let client = client.await.expect("a client");
        let database = client.default_database().expect("the URL names one");
        Self {
            database: database.name().to_owned(),
            client,
        }
    }

    async fn count(&self) -> i64 {
        let admin = self.client.database("admin");
        let top = admin.run_command(doc! {"top": 1}).await;
        let top = top.expect("the server counts");
        let own = format!("{}.", self.database);
        let totals = top.get_document("totals").expect("totals");
        let collections = totals.iter().filter(|(name, _)| name.starts_with(&own));
        collections
            .map(|(_, of_it)| queries(of_it.as_document()))
            .sum()
    }
}

fn queries(of_collection: Option<&Document>) -> i64 {
    let queries = of_collection.and_then(|own| own.get_document("queries").ok());
    let count = queries.and_then(|own| own.get("count"));
    let count = count.expect("the server counts queries");
    count
        .as_i64()
        .or(count.as_i32().map(i64::from))
        .expect("a number")
}
