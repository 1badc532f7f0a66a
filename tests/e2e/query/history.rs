//! The past of documents: the events of their streams, and what they were after one of them, from MySQL and from the embedded file.

use serde_json::{Value, json};
use tidelog::App;
use tidelog::prelude::*;
use tidelog::settings::{Role as RoleOf, Settings};
use tidelog_test_support::{Engine, Server};

use super::targets::{refuses, targets};
use crate::client::Client;
use crate::services::{Backends, Role, Site};
use crate::waiting::eventually;

/// Writes a note with these texts, one after the other, and reads it until the last is seen.
async fn write(site: &Site, id: &str, texts: &[&str]) {
    let (first, later) = texts.split_first().unwrap();
    let body = json!({"id": id, "text": first});
    let mut written = site.commands.post("/note", &body).await;
    written.data(201);
    for text in later {
        written = site
            .commands
            .patch(&format!("/note/{id}"), &json!({"text": text}))
            .await;
        written.data(200);
    }
    let read = site
        .queries
        .get_after(&format!("/note/{id}"), written.token())
        .await;
    assert_eq!(read.data(200)["text"], *texts.last().unwrap());
}

/// All events of a history, asked for `limit` at a time.
async fn told(queries: &Client, path: &str, limit: usize) -> Vec<Value> {
    let mut told = Vec::new();
    let mut after = String::new();
    loop {
        let page = queries
            .get(&format!("{path}/history?limit={limit}{after}"))
            .await;
        let events = page.data(200);
        let events = events.as_array().unwrap();
        assert!((1..=limit).contains(&events.len()), "{page:?}");
        told.extend(events.iter().cloned());
        match page.json()["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return told,
        }
    }
}

#[tokio::test]
async fn a_history_is_told_in_pages_without_a_gap() {
    for target in targets().await {
        let texts: Vec<String> = (1..=7).map(|n| format!("text {n}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        write(&target.site, "h1", &texts).await;
        target.site.commands.delete("/note/h1").await.data(200);
        for limit in [1, 3, 200] {
            let told = told(target.queries(), "/note/h1", limit).await;
            let versions: Vec<u64> = told
                .iter()
                .map(|event| event["version"].as_u64().unwrap())
                .collect();
            assert_eq!(versions, (1..=8).collect::<Vec<_>>(), "{limit}");
            for (event, text) in told.iter().zip(&texts) {
                assert_eq!(event["data"]["state"]["text"], *text);
                assert!(event["metadata"]["correlation_id"].is_string(), "{event}");
            }
            assert_eq!(told[7]["type"], "note.deleted");
        }
        target
            .queries()
            .get("/note/never/history")
            .await
            .problem(404, "not-found");
    }
    refuses("/note/h1/history?limit=201", "malformed-request", "limit").await;
    refuses("/note/h1/history?sort=id", "unknown-parameter", "sort").await;
}

#[tokio::test]
async fn a_document_is_shown_as_it_was() {
    for target in targets().await {
        write(&target.site, "h2", &["one", "two", "three"]).await;
        let deleted = target.site.commands.delete("/note/h2").await;
        deleted.data(200);
        let events = told(target.queries(), "/note/h2", 20).await;
        let get = async |query: &str| target.queries().get(&format!("/note/h2?{query}")).await;
        for (event, text) in events.iter().zip(["one", "two", "three"]) {
            let (version, time) = (&event["version"], &event["recorded_at"]);
            let time = time.as_str().unwrap();
            for query in [format!("version={version}"), format!("at={time}")] {
                let found = get(&query).await;
                assert_eq!(found.data(200)["text"], text, "{query}");
                assert_eq!(found.data(200)["version"], *version, "{query}");
                assert!(found.header("etag").starts_with(&format!("\"{version}.")));
            }
        }
        // Between two events it is what the first of them made.
        let between = |event: &Value| {
            let time: DateTime<Utc> = event["recorded_at"].as_str().unwrap().parse().unwrap();
            time - chrono::TimeDelta::microseconds(1)
        };
        let before_third = between(&events[2]).to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        assert_eq!(
            get(&format!("at={before_third}&fields=text"))
                .await
                .data(200),
            json!({"id": "h2", "text": "two"})
        );
        let unborn = between(&events[0]).to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        for missing in [
            "version=4".to_owned(),
            "version=5".to_owned(),
            format!("at={unborn}"),
        ] {
            get(&missing).await.problem(404, "not-found");
        }
        let gone = get("version=4&deleted=include").await.data(200);
        assert_eq!(
            (&gone["text"], &gone["deleted"]),
            (&json!("three"), &json!(true))
        );
    }
    refuses("/note/h2?version=0", "malformed-request", "version").await;
    refuses("/note/h2?at=yesterday", "malformed-request", "at").await;
}

/// Tasks as they once were.
mod old {
    use tidelog::prelude::*;

    #[aggregate]
    pub(super) struct Task {
        done: bool,
    }

    #[commands]
    pub(super) enum TaskCommand {
        #[create]
        Add { title: String },
    }

    #[events("task")]
    pub(super) enum TaskEvent {
        Added { title: String },
    }

    #[rejections]
    pub(super) enum TaskRejection {
        NoTitle,
    }

    impl Aggregate for Task {
        type Command = TaskCommand;
        type Event = TaskEvent;
        type Rejection = TaskRejection;

        fn decide(&self, command: TaskCommand, _: &Context) -> Decision<Self> {
            match command {
                TaskCommand::Add { title } if title.is_empty() => Err(TaskRejection::NoTitle),
                TaskCommand::Add { title } => Ok(vec![TaskEvent::Added { title }]),
            }
        }

        fn evolve(&mut self, _: &TaskEvent) {
            self.done = false;
        }
    }
}

/// A task: its title has become a name, and it may be done.
#[aggregate]
struct Task {
    done: bool,
}

#[commands]
enum TaskCommand {
    #[create]
    Add {
        name: String,
    },
    Finish {},
}

#[events("task", upcasters = upcasters)]
enum TaskEvent {
    #[version(2)]
    Added {
        name: String,
    },
    Finished {},
}

fn upcasters() -> Vec<Upcaster> {
    vec![Upcaster::new(
        "task.added",
        1,
        |old| json!({"name": old["title"]}),
    )]
}

#[rejections]
enum TaskRejection {
    NoName,
}

impl Aggregate for Task {
    type Command = TaskCommand;
    type Event = TaskEvent;
    type Rejection = TaskRejection;

    fn decide(&self, command: TaskCommand, _: &Context) -> Decision<Self> {
        Ok(vec![match command {
            TaskCommand::Add { name } if name.is_empty() => return Err(TaskRejection::NoName),
            TaskCommand::Add { name } => TaskEvent::Added { name },
            TaskCommand::Finish {} => TaskEvent::Finished {},
        }])
    }

    fn evolve(&mut self, event: &TaskEvent) {
        self.done = matches!(event, TaskEvent::Finished {});
    }
}

/// A task as a line of a list.
#[view]
struct Line {
    name: String,
    done: bool,
}

impl Projection for Line {
    const SINGLE_STREAM: bool = true;

    type Event = TaskEvent;

    fn keys(_: &Recorded<TaskEvent>) -> Keys {
        Keys::new()
    }

    fn project(line: Option<Self>, _: &str, e: &Recorded<TaskEvent>) -> Option<Self> {
        let mut line = line.unwrap_or_default();
        match &e.event {
            TaskEvent::Added { name } => line.name.clone_from(name),
            TaskEvent::Finished {} => line.done = true,
        }
        Some(line)
    }
}

async fn upcast_on(settings: Settings) {
    let free = || "127.0.0.1:0".to_owned();
    let settings = Settings {
        role: RoleOf::All,
        command_addr: free(),
        query_addr: free(),
        admin_addr: free(),
        ..settings
    };
    let old = App::new("tasks").aggregate::<old::Task>();
    let running = old.start(settings.clone()).await.unwrap();
    let commands = Client::new(running.command_addr().unwrap());
    let add = json!({"id": "t", "title": "sweep"});
    commands.post("/task/add", &add).await.data(201);
    assert!(running.stop().await);

    let new = App::new("tasks").aggregate::<Task>().projection::<Line>();
    let running = new.start(settings).await.unwrap();
    let commands = Client::new(running.command_addr().unwrap());
    let queries = Client::new(running.query_addr().unwrap());
    let finished = commands.post("/task/t/finish", &json!({})).await;
    finished.data(200);
    let line = queries.get_after("/line/t", finished.token()).await;
    assert_eq!(line.data(200)["done"], true);
    let told = told(&queries, "/line/t", 1).await;
    assert_eq!(told[0]["data"], json!({"name": "sweep"}));
    assert_eq!(
        (&told[0]["type"], &told[0]["schema_version"]),
        (&json!("task.added"), &json!(2))
    );
    assert_eq!(told[1]["type"], "task.finished");
    let then = queries
        .get("/line/t?version=1&fields=name,done,version")
        .await;
    let expected = json!({"id": "t", "name": "sweep", "done": false, "version": 1});
    assert_eq!(then.data(200), expected);
    let then = queries
        .get("/line/t?version=2&fields=name,done,version")
        .await;
    let expected = json!({"id": "t", "name": "sweep", "done": true, "version": 2});
    assert_eq!(then.data(200), expected);
    assert!(running.stop().await);
}

#[tokio::test]
async fn the_past_is_shown_in_the_shape_of_today() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tasks.db");
    upcast_on(Settings {
        database_url: Some(format!("sqlite:{}", file.display())),
        ..Settings::default()
    })
    .await;
    let backends = Backends::fresh().await;
    upcast_on(Settings {
        database_url: Some(backends.database_url.clone()),
        bus_url: Some(backends.bus_url.clone()),
        mongodb_url: Some(backends.mongodb_url.clone()),
        ..Settings::default()
    })
    .await;
}

/// Services that only answer queries start and go on without the log; the past is back when the log is.
#[tokio::test]
async fn without_the_log_documents_are_read_and_the_past_is_not() {
    let mut mysql = Server::start(Engine::MySql).await;
    let backends = Backends {
        database_url: mysql.url().to_owned(),
        ..Backends::fresh().await
    };
    let mut site = Site::three(&backends).await;
    let post = json!({"id": "p", "title": "one", "content": "c", "author_name": "ann"});
    let written = site.commands.post("/post", &post).await;
    written.data(201);
    let read = site.queries.get_after("/post/p", written.token()).await;
    read.data(200);
    let history = async |site: &Site| {
        eventually("the history to be there", async || {
            let answer = site.queries.get("/post/p/history").await;
            match answer.status {
                200 => Ok(answer.data(200)),
                _ => Err(format!("{answer:?}")),
            }
        })
        .await
    };
    assert_eq!(history(&site).await[0]["data"]["state"]["title"], "one");
    mysql.kill();
    for is_restarted in [false, true] {
        if is_restarted {
            site.service(Role::Query).restart().await;
        }
        for past in ["/post/p/history", "/post/p?version=1"] {
            let problem = site.queries.get(past).await.problem(503, "unavailable");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("The log"), "{detail}");
            site.queries.get("/post/p").await.data(200);
        }
    }
    mysql.restart().await;
    assert_eq!(history(&site).await[0]["data"]["state"]["title"], "one");
    assert_eq!(
        site.queries.get("/post/p?version=1").await.data(200)["title"],
        "one"
    );
}

/// A service that was not told where the log is says which setting is missing.
#[tokio::test]
async fn a_service_without_a_log_says_which_setting_it_lacks() {
    let backends = Backends::fresh().await;
    let site = Site::three(&backends).await;
    let post = json!({"id": "p", "title": "one", "content": "c", "author_name": "ann"});
    let written = site.commands.post("/post", &post).await;
    let mongodb = [("MONGODB_URL", backends.mongodb_url.as_str())];
    let alone = crate::services::Service::start_with(Role::Query, &mongodb).await;
    let read = alone.queries().get_after("/post/p", written.token()).await;
    read.data(200);
    let problem = alone.queries().get("/post/p/history").await;
    let problem = problem.problem(503, "unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("database_url"));
}
