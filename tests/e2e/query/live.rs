//! Live queries over real HTTP: told as they change, and gone on from by whoever comes back.

use std::collections::BTreeMap;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tidelog_test_support::Signal;
use tokio::time::timeout;

use super::targets::targets;
use crate::client::{Client, must};
use crate::services::{Backends, CommandLine, Role, Site};
use crate::waiting::BOUND;

/// A live connection, and what was read of it.
struct Live {
    response: Response,
    read: String,
    /// The id of the last event.
    last: String,
}

impl Live {
    /// Asks for `path`, from `last` on where there is one.
    async fn open(queries: &Client, path: &str, last: Option<&str>) -> Self {
        let mut request = queries
            .request(Method::GET, path)
            .header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        assert_eq!(status, 200, "{:?}", response.text().await);
        Self {
            response,
            read: String::new(),
            last: last.unwrap_or_default().to_owned(),
        }
    }

    /// The next event, its name and its data; `None` when the connection ends.
    async fn event(&mut self) -> Option<(String, Value)> {
        loop {
            while let Some((frame, rest)) = self.read.split_once("\n\n") {
                let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name));
                let id = field("id: ").map(str::to_owned);
                let event = field("event: ").map(|name| {
                    let data = serde_json::from_str(field("data: ").unwrap()).unwrap();
                    (name.to_owned(), data)
                });
                self.read = rest.to_owned();
                if let Some(id) = id {
                    self.last = id;
                }
                if event.is_some() {
                    return event;
                }
            }
            let chunk = timeout(BOUND, self.response.chunk()).await;
            match chunk.expect("an event in time") {
                Ok(Some(chunk)) => self.read.push_str(std::str::from_utf8(&chunk).unwrap()),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The next event, which must be called so; its data.
    async fn hears(&mut self, name: &str) -> Value {
        let (heard, data) = self.event().await.expect("it goes on");
        assert_eq!(heard, name, "{data}");
        data
    }
}

#[tokio::test]
async fn a_document_is_told_as_it_changes() {
    for target in targets().await {
        let (commands, queries) = (&target.site.commands, target.queries());
        let note = json!({"id": "l1", "text": "one", "rank": 1});
        let written = commands.post("/note", &note).await;
        written.data(201);
        let request = queries
            .request(Method::GET, "/note/l1")
            .header("accept", "text/event-stream")
            .header("consistency-token", written.token());
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut live = Live {
            response,
            read: String::new(),
            last: String::new(),
        };
        let state = live.hears("state").await;
        assert_eq!(
            (&state["data"]["text"], &state["data"]["version"]),
            (&json!("one"), &json!(1))
        );
        for text in ["two", "three"] {
            commands
                .patch("/note/l1", &json!({"text": text}))
                .await
                .data(200);
            let changed = live.hears("changed").await;
            assert_eq!(changed["data"]["text"], text);
        }
        commands.delete("/note/l1").await.data(200);
        assert_eq!(live.hears("removed").await, json!({"id": "l1"}));
        let missing = queries
            .request(Method::GET, "/note/never")
            .header("accept", "text/event-stream");
        must(missing).await.problem(404, "not-found");
    }
}

#[tokio::test]
async fn a_filtered_list_is_told_as_it_changes() {
    for target in targets().await {
        let (commands, queries) = (&target.site.commands, target.queries());
        let write = async |id: &str, rank: i64| {
            let note = json!({"id": id, "text": "of a list", "rank": rank});
            let written = commands.post("/note", &note).await;
            written.data(201);
            queries
                .get_after(&format!("/note/{id}"), written.token())
                .await
                .data(200);
        };
        write("l2", 100).await;
        write("l3", 99).await;
        let path = "/notes?rank[gte]=100&fields=rank";
        let mut live = Live::open(queries, path, None).await;
        let page = live.hears("page").await;
        assert_eq!(page["data"], json!([{"id": "l2", "rank": 100}]));
        commands
            .patch("/note/l3", &json!({"rank": 101}))
            .await
            .data(200);
        let changed = live.hears("changed").await;
        assert_eq!(changed["data"], json!({"id": "l3", "rank": 101}));
        commands
            .patch("/note/l2", &json!({"rank": 1}))
            .await
            .data(200);
        assert_eq!(live.hears("removed").await, json!({"id": "l2"}));
        commands.delete("/note/l3").await.data(200);
        assert_eq!(live.hears("removed").await, json!({"id": "l3"}));
    }
}

fn post(id: &str, title: &str) -> Value {
    json!({"id": id, "title": title, "content": "", "author_name": "Ann"})
}

/// Writes posts, and waits until they are seen.
async fn write(site: &Site, ids: &[&str]) {
    for id in ids {
        let written = site.commands.post("/post", &post(id, "one")).await;
        written.data(201);
        let path = format!("/post/{id}");
        site.queries
            .get_after(&path, written.token())
            .await
            .data(200);
    }
}

/// Changes each of `ids` to `title`.
async fn retitle(commands: &Client, ids: &[&str], title: &str) {
    for id in ids {
        let path = format!("/post/{id}");
        commands
            .patch(&path, &json!({"title": title}))
            .await
            .data(200);
    }
}

/// Takes a change of each of `ids` to `title`, none twice and no other. After each it is cut off; after the first ones the process that answers
/// is killed, or asked to stop, and starts again.
async fn hears_in_parts(
    site: &mut Site,
    live: Live,
    ids: &[&str],
    title: &str,
    ends: &[Option<Signal>],
) -> Live {
    let (mut live, mut heard) = (live, BTreeMap::new());
    let mut ends = ends.iter();
    while heard.len() < ids.len() {
        let changed = live.hears("changed").await;
        assert_eq!(changed["data"]["title"], title);
        let id = changed["data"]["id"].as_str().unwrap().to_owned();
        let twice = heard.insert(id, ());
        assert!(twice.is_none(), "{changed}");
        let last = live.last.clone();
        drop(live);
        if let Some(end) = ends.next() {
            let queries = site.service(Role::Query);
            if let Some(signal) = end {
                assert_eq!(queries.stop(*signal).await, Some(0));
            }
            queries.restart().await;
        }
        live = Live::open(&site.queries, "/posts", Some(&last)).await;
    }
    assert!(heard.keys().map(String::as_str).eq(ids.iter().copied()));
    live
}

#[tokio::test]
async fn a_client_goes_on_at_another_process_after_stops_and_kills_and_a_replay() {
    let backends = Backends::fresh().await;
    let mut site = Site::three(&backends).await;
    let ids = ["a", "b", "c", "d", "e"];
    write(&site, &ids).await;
    let mut live = Live::open(&site.queries, "/posts", None).await;
    let page = live.hears("page").await;
    assert_eq!(page["data"].as_array().unwrap().len(), 5);
    // Nobody answers while they are written.
    site.service(Role::Query).kill();
    assert!(live.event().await.is_none());
    retitle(&site.commands, &ids, "two").await;
    site.service(Role::Query).restart().await;
    let live = Live::open(&site.queries, "/posts", Some(&live.last)).await;
    let live = hears_in_parts(&mut site, live, &ids, "two", &[None, Some(Signal::Term)]).await;
    let last = live.last.clone();

    let settings = backends.settings();
    let replay = CommandLine::new(&["replay", "post"]).with(settings);
    replay.run().await.succeeded();
    let mut there = live;
    let mut back = Live::open(&site.queries, "/posts", Some(&last)).await;
    for live in [&mut there, &mut back] {
        live.hears("reset").await;
        let page = live.hears("page").await;
        assert_eq!(page["data"].as_array().unwrap().len(), 5);
    }
    retitle(&site.commands, &["c"], "three").await;
    for live in [&mut there, &mut back] {
        let changed = live.hears("changed").await;
        assert_eq!(
            (&changed["data"]["id"], &changed["data"]["title"]),
            (&json!("c"), &json!("three"))
        );
    }
    // What still is open holds up no stop.
    assert_eq!(site.service(Role::Query).stop(Signal::Term).await, Some(0));
    assert!(there.event().await.is_none());
}

#[tokio::test]
async fn a_client_of_the_embedded_file_goes_on_after_a_stop_a_kill_and_a_replay() {
    let mut site = Site::dev().await;
    write(&site, &["a", "b"]).await;
    let mut live = Live::open(&site.queries, "/posts", None).await;
    live.hears("page").await;
    retitle(&site.commands, &["a"], "two").await;
    assert_eq!(live.hears("changed").await["data"]["id"], "a");
    let last = live.last.clone();
    // Written, and not told before the process is gone.
    drop(live);
    retitle(&site.commands, &["b"], "two").await;
    site.services[0].restart().await;
    let mut live = Live::open(&site.queries, "/posts", Some(&last)).await;
    assert_eq!(live.hears("changed").await["data"]["id"], "b");
    assert_eq!(site.services[0].stop(Signal::Term).await, Some(0));
    assert!(live.event().await.is_none());
    let url = site.database_url();
    let replay = CommandLine::new(&["replay", "post"]).with([("DATABASE_URL", url.as_str())]);
    replay.run().await.succeeded();
    site.services[0].restart().await;
    let mut live = Live::open(&site.queries, "/posts", Some(&live.last)).await;
    live.hears("reset").await;
    let page = live.hears("page").await;
    assert_eq!(page["data"][1]["title"], "two");
    retitle(&site.commands, &["a"], "three").await;
    assert_eq!(live.hears("changed").await["data"]["title"], "three");
}
