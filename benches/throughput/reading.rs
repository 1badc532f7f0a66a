//! Reads of one document a second, beside a handler that does nothing but the same `find_one`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use mongodb::Collection;
use mongodb::bson::{Document, doc};
use tidelog_test_support::Process;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::commands::a_second;
use crate::http::Connection;
use crate::services::{Client, Services, answers, free_address};

/// How many clients read, with one request in flight each.
const CLIENTS: usize = 64;

/// How many documents there are.
const DOCUMENTS: usize = 2_000;

/// How often each is measured, in turn.
const ROUNDS: usize = 3;

/// Measures, and prints what it found.
pub(crate) async fn measure(time: Duration) {
    let services = Services::start().await;
    let ids: Arc<[String]> = documents(&services).await.into();
    let (_process, bare) = bare(&services).await;
    println!(
        "GET /post/{{id}} by {CLIENTS} clients on kept connections, a process of its own, {time:?} each\n"
    );
    println!("| requests/s | a bare handler with the same `find_one` | of it |\n|---|---|---|");
    for _ in 0..ROUNDS {
        let ours = read(&services.query, &ids, time).await;
        let limit = read(&bare, &ids, time).await;
        println!("| {ours:.0} | {limit:.0} | {:.0} % |", 100.0 * ours / limit);
    }
    println!();
}

/// Makes posts, and waits until they can be read.
async fn documents(services: &Services) -> Vec<String> {
    let mut client = Client::of(services).await;
    let mut ids = Vec::new();
    for _ in 0..DOCUMENTS {
        ids.push(client.write_and_read().await);
    }
    ids
}

/// What the bench is called with to be the bare handler's process; then the address, the database and the collection.
pub(crate) const BARE: &str = "--bare";

/// Starts the bare handler, and gives its address.
async fn bare(services: &Services) -> (Process, String) {
    let client = mongodb::Client::with_uri_str(&services.mongodb_url)
        .await
        .unwrap();
    let database = client.default_database().unwrap();
    let collections = database.list_collection_names().await.unwrap();
    let collection = collections.iter().find(|name| name.contains("post_v"));
    let address = free_address();
    let mut program = Process::command(std::env::current_exe().unwrap());
    program.args([BARE, &address, &services.mongodb_url, collection.unwrap()]);
    let process = Process::start(program);
    answers(&address).await;
    (process, address)
}

/// Is the bare handler's process.
pub(crate) async fn serve_bare(address: &str, url: &str, collection: &str) {
    let client = mongodb::Client::with_uri_str(url).await.unwrap();
    let database = client.default_database().unwrap();
    let collection = database.collection::<Document>(collection);
    let router = Router::new()
        .route("/post/{id}", get(find_one))
        .with_state(collection);
    let listener = TcpListener::bind(address).await.unwrap();
    axum::serve(listener, router).await.unwrap();
}

async fn find_one(
    State(collection): State<Collection<Document>>,
    Path(id): Path<String>,
) -> Json<Document> {
    let found = collection.find_one(doc! {"_id": id}).await.unwrap();
    Json(found.unwrap())
}

/// Requests a second.
async fn read(address: &str, ids: &Arc<[String]>, time: Duration) -> f64 {
    let end = Instant::now() + time;
    let mut reading = JoinSet::new();
    for client in 0..CLIENTS {
        let mut connection = Connection::open(address).await;
        let ids = ids.clone();
        reading.spawn(async move {
            let mut count = 0;
            while Instant::now() < end {
                let id = &ids[(client * 31 + count) % ids.len()];
                let answer = connection.get(&format!("/post/{id}"), None).await;
                assert_eq!(answer.status, 200, "{}", answer.body);
                count += 1;
            }
            count
        });
    }
    let count: usize = reading.join_all().await.into_iter().sum();
    a_second(count, time)
}
