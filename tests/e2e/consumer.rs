//! What a running service puts on the bus, as programs of somebody else's see it: `examples/consumer.py`, and this one.

use std::collections::BTreeMap;

use serde_json::json;
use tidelog_test_support::{Process, python_path, shared};

use crate::load::Load;
use crate::log::{Row, read};
use crate::services::{Backends, Site};
use crate::waiting::eventually;

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
        .args([program, &backends.bus_url, &command_url]);
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

/// Two processes relay: the one that commits, and the one that runs subscriptions.
#[tokio::test]
async fn the_relays_of_two_services_leave_each_event_once_and_in_order() {
    let backends = Backends::fresh().await;
    let site = Site::three(&backends).await;
    let load = Load::start(&site.commands, 500);
    assert_eq!(load.finish().await.count(), 500);
    let rows = read(&backends.database_url).await;
    let history = history(&site).await;
    let client = redis::Client::open(shared::redis().await.url()).unwrap();
    let redis = client.get_multiplexed_async_connection().await.unwrap();
    for partition in 0..16 {
        let of_it = rows.iter().filter(|row| row.partition == partition);
        let in_log: Vec<_> = of_it
            .map(|row| (row.position, row.event_id.clone()))
            .collect();
        let mut xrange = redis::cmd("XRANGE");
        xrange.arg(format!("{{tidelog:events}}:{history}:{partition}"));
        xrange.arg("-").arg("+");
        let entries: Vec<(String, Vec<(String, String)>)> =
            eventually("the bus has the log's head", async || {
                let entries: Vec<(String, Vec<(String, String)>)> =
                    xrange.query_async(&mut redis.clone()).await.unwrap();
                match entries.len() < in_log.len() {
                    true => Err(format!("{} of {}", entries.len(), in_log.len())),
                    false => Ok(entries),
                }
            })
            .await;
        let on_bus = entries.into_iter().map(|(id, fields)| {
            let [(field, event)] = fields.as_slice() else {
                panic!("{} fields", fields.len());
            };
            assert_eq!(field, "event");
            let event: serde_json::Value = serde_json::from_str(event).unwrap();
            let position = id.strip_suffix("-0").unwrap().parse().unwrap();
            (position, event["id"].as_str().unwrap().replace('-', ""))
        });
        assert_eq!(on_bus.collect::<Vec<_>>(), in_log);
    }
}

/// The log's history, as `docs/wire-format.md` says that it can be known.
async fn history(site: &Site) -> String {
    let page = site.commands.get("/events?partition=0&limit=1").await;
    let next = page.json()["next"].as_str().unwrap().to_owned();
    next.split('.').nth(1).unwrap().to_owned()
}
