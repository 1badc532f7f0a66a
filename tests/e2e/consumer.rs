//! A program of somebody else's, `examples/consumer.py`, follows a running service.

use std::collections::BTreeMap;

use serde_json::json;
use tidelog_test_support::{Process, python_path, shared};

use crate::log::{Row, read};
use crate::services::{Backends, Site};

/// What the program says of an event: partition, position, id, type, subject.
fn line(row: &Row) -> String {
    let id = uuid::Uuid::parse_str(&row.event_id).unwrap();
    let (partition, position) = (row.partition, row.position);
    format!(
        "{partition} {position} {id} {} {}",
        row.event_type, row.stream
    )
}

async fn write(site: &Site, count: usize) {
    for number in 0..count {
        let post =
            json!({"title": "Zürich", "content": "\"\\\n", "author_name": format!("{number}")});
        site.commands.post("/post", &post).await.data(201);
    }
}

#[tokio::test]
async fn a_python_program_gets_every_event_once_and_in_order() {
    let backends = Backends::fresh().await;
    let site = Site::all(&backends).await;
    write(&site, 20).await;
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/consumer.py");
    let mut command = Process::command("python3");
    let command_url = format!("http://{}", site.commands.address());
    command
        .env("PYTHONPATH", python_path().await)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args([program, "tidelog", &backends.bus_url, &command_url, "16"]);
    let consumer = Process::start(command);
    let is_up_to_date = async || {
        for row in &read(&backends.database_url).await {
            consumer.wait_for_line(&line(row)).await;
        }
    };
    is_up_to_date().await;

    // From the bus, and from the feed what the bus has lost.
    write(&site, 20).await;
    is_up_to_date().await;
    let client = redis::Client::open(shared::redis().await.url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    for _ in 0..3 {
        let history = history(&site).await;
        for partition in 0..16 {
            let mut del = redis::cmd("DEL");
            del.arg(format!("{{tidelog:events}}:{history}:{partition}"));
            let _: i64 = del.query_async(&mut redis).await.unwrap();
        }
        write(&site, 10).await;
    }
    is_up_to_date().await;

    let mut expected: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for row in &read(&backends.database_url).await {
        expected.entry(row.partition).or_default().push(line(row));
    }
    let mut said: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for line in consumer.stdout() {
        let partition = line.split(' ').next().unwrap().parse().unwrap();
        said.entry(partition).or_default().push(line);
    }
    assert_eq!(said, expected, "{}", consumer.output());
}

/// The log's history, as `docs/wire-format.md` says that it can be known.
async fn history(site: &Site) -> String {
    let page = site.commands.get("/events?partition=0&limit=1").await;
    let next = page.json()["next"].as_str().unwrap().to_owned();
    next.split('.').nth(1).unwrap().to_owned()
}
