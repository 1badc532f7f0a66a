//! `dev`: one command, one file, no server.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tidelog_test_support::{Signal, shared};

use crate::client::Client;
use crate::services::{CommandLine, Role, Service, Site, free_address};
use crate::waiting::eventually;

/// The four lines that are there to be pasted, in the output of a `dev` that is ready.
async fn curl_lines(service: &Service) -> Vec<String> {
    let lines = eventually("the lines to paste", async || {
        let lines = service.process().stdout();
        let lines: Vec<_> = lines
            .iter()
            .filter(|line| line.trim_start().starts_with("curl "))
            .cloned()
            .collect();
        if lines.len() == 4 {
            Ok(lines)
        } else {
            Err(service.process().output())
        }
    });
    lines.await
}

/// Runs `script` as a shell does that it is pasted into, and returns what it prints.
fn shell(script: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn the_lines_that_it_prints_work_when_pasted_one_by_one() {
    let service = Service::start_with(Role::Dev, &[]).await;
    let lines = curl_lines(&service).await;
    let [created, read, patched, deleted] = [0, 1, 2, 3].map(|number: usize| -> Value {
        let printed = shell(&lines[number]);
        serde_json::from_str(&printed)
            .unwrap_or_else(|error| panic!("{error}: {} gave {printed:?}", lines[number]))
    });
    let id = created["data"]["id"].as_str().expect("an id");
    assert_eq!(created["data"]["version"], 1, "{created}");
    assert_eq!(
        (&read["data"]["id"], &read["data"]["version"]),
        (&json!(id), &json!(1)),
        "{read}"
    );
    assert_eq!(patched["data"]["version"], 2, "{patched}");
    assert_ne!(
        patched["data"]["title"], created["data"]["title"],
        "{patched}"
    );
    assert_eq!(deleted["data"]["version"], 3, "{deleted}");
}

#[tokio::test]
async fn the_lines_that_it_prints_work_when_pasted_all_at_once() {
    for _ in 0..5 {
        let service = Service::start_with(Role::Dev, &[]).await;
        let lines = curl_lines(&service).await;
        let printed = shell(&lines.join("\n"));
        let answers: Vec<Value> = serde_json::Deserializer::from_str(&printed)
            .into_iter()
            .collect::<Result<_, _>>()
            .unwrap_or_else(|error| panic!("{error}: {printed:?}"));
        let versions: Vec<_> = answers
            .iter()
            .map(|answer| answer["data"]["version"].clone())
            .collect();
        assert_eq!(versions, [1, 1, 2, 3], "{printed}");
    }
}

#[tokio::test]
async fn it_says_where_it_listens_and_where_its_data_is() {
    let service = Service::start_with(Role::Dev, &[]).await;
    curl_lines(&service).await;
    let printed = service.process().stdout().join("\n");
    let file = service.data_file();
    let file = file.file_name().unwrap().to_str().unwrap();
    for part in [
        service.commands().address(),
        service.queries().address(),
        service.admin().address(),
        file,
    ] {
        assert!(printed.contains(part), "no {part} in {printed}");
    }
}

#[tokio::test]
async fn it_is_what_runs_without_a_command() {
    let [command, query, admin] = [free_address(), free_address(), free_address()];
    let (process, _home) = CommandLine::new(&["--command-addr", &command])
        .with([
            ("TIDELOG_QUERY_ADDR", query.as_str()),
            ("TIDELOG_ADMIN_ADDR", &admin),
        ])
        .start();
    process.wait_for_line("curl").await;
    let post = json!({"title": "A", "content": "", "author_name": "Ann"});
    Client::new(&command).post("/post", &post).await.data(201);
}

#[tokio::test]
async fn it_ignores_the_urls_of_servers_in_the_environment_and_says_so() {
    let url = "mysql://root:Sesame-7311@127.0.0.1:1/nothing";
    let settings = [
        ("DATABASE_URL", url),
        ("REDIS_URL", shared::redis().await.url()),
        ("MONGODB_URL", "mongodb://127.0.0.1:1/nothing"),
    ];
    let service = Service::start_with(Role::Dev, &settings).await;
    for (variable, _) in settings {
        service.process().wait_for_line(variable).await;
    }
    let post = json!({"title": "A", "content": "", "author_name": "Ann"});
    let created = service.commands().post("/post", &post).await;
    let id = created.data(201)["id"].as_str().unwrap().to_owned();
    service
        .queries()
        .get_after(&format!("/post/{id}"), created.token())
        .await
        .data(200);
    assert_eq!(crate::log::read(&service.database_url()).await.len(), 1);
    assert!(!service.process().output().contains("Sesame-7311"));
}

#[tokio::test]
async fn a_second_one_on_the_same_data_says_what_is_wrong() {
    let service = Service::start_with(Role::Dev, &[]).await;
    let data = service.home().join("tidelog-data");
    let addresses = [free_address(), free_address(), free_address()];
    let ended = CommandLine::new(&["dev", "--data-dir", data.to_str().unwrap()])
        .with([
            ("TIDELOG_COMMAND_ADDR", addresses[0].as_str()),
            ("TIDELOG_QUERY_ADDR", &addresses[1]),
            ("TIDELOG_ADMIN_ADDR", &addresses[2]),
        ])
        .run()
        .await;
    assert_eq!(ended.code, Some(1), "{}", ended.output);
    assert!(
        ended.output.contains("tidelog-data") && ended.output.contains("another process uses"),
        "{}",
        ended.output
    );
    let post = json!({"title": "A", "content": "", "author_name": "Ann"});
    service.commands().post("/post", &post).await.data(201);
}

#[tokio::test]
async fn after_a_kill_it_starts_again_with_all_that_it_had_acknowledged() {
    let mut site = Site::dev().await;
    let post = json!({"id": "kept", "title": "A", "content": "", "author_name": "Ann"});
    site.commands.post("/post", &post).await.data(201);
    site.services[0].restart().await;
    let patched = site
        .commands
        .patch("/post/kept", &json!({"title": "B"}))
        .await;
    assert_eq!(patched.data(200)["version"], 2);
    let read = site.queries.get_after("/post/kept", patched.token()).await;
    assert_eq!(read.data(200)["title"], "B");
}

const TALK: &str = r#"{
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "level": {"enum": ["easy", "hard"]},
        "contact": {"type": "string", "format": "email"},
        "room": {
            "type": "object",
            "properties": {"number": {"type": "integer", "minimum": 1}, "floor": {"type": "integer"}},
            "required": ["number"],
            "additionalProperties": false
        },
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3}
    },
    "required": ["name", "level"],
    "additionalProperties": false
}"#;

#[tokio::test]
async fn it_serves_an_entity_from_a_schema_file_without_any_rust() {
    let entities = tempfile::tempdir().unwrap();
    std::fs::write(entities.path().join("talk.schema.json"), TALK).unwrap();
    let settings = [("TIDELOG_ENTITIES", entities.path().to_str().unwrap())];
    let service = Service::start_with(Role::Dev, &settings).await;
    let (commands, queries) = (service.commands(), service.queries());
    let talk = json!({"id": "t1", "name": "Logs", "level": "easy", "room": {"number": 3, "floor": 1}, "tags": ["a"]});
    commands.post("/talk", &talk).await.data(201);
    let patch = json!({"room": {"floor": null}, "tags": null, "contact": "ann@example.org"});
    let patched = commands.patch("/talk/t1", &patch).await;
    let state = json!({"name": "Logs", "level": "easy", "room": {"number": 3}, "contact": "ann@example.org"});
    let mut data = patched.data(200);
    for field in ["id", "version"] {
        data.as_object_mut().unwrap().shift_remove(field);
    }
    assert_eq!(data, state);
    let found = queries
        .get_after("/talks?room.number=3&level=easy", patched.token())
        .await
        .data(200);
    assert_eq!(found[0]["id"], "t1", "{found}");
    assert_eq!(
        queries.get("/talks?room.number=4").await.data(200),
        json!([])
    );
    queries
        .get("/talks?room.number=x")
        .await
        .problem(400, "malformed-request");
    queries
        .get("/talks?room.width=1")
        .await
        .problem(400, "unknown-parameter");
    for (field, wrong) in [
        ("level", json!("odd")),
        ("room", json!({"number": 0})),
        ("room", json!({"number": 1, "colour": "red"})),
        ("contact", json!("nobody")),
        ("tags", json!(["a", "b", "c", "d"])),
    ] {
        commands
            .patch("/talk/t1", &json!({field: wrong}))
            .await
            .problem(422, "invalid");
    }
    commands
        .post("/post", &json!({}))
        .await
        .problem(404, "not-found");
    // What it prints to paste fits this entity too.
    let lines = curl_lines(&service).await;
    let created: Value = serde_json::from_str(&shell(&lines[0])).unwrap();
    assert_eq!(created["data"]["version"], 1, "{created}");
}

#[tokio::test]
async fn a_schema_that_is_none_is_named_with_its_file() {
    let entities = tempfile::tempdir().unwrap();
    std::fs::write(
        entities.path().join("talk.schema.json"),
        "{\"type\": \"objekt\"}",
    )
    .unwrap();
    let ended = CommandLine::new(&["dev", "--entities", entities.path().to_str().unwrap()])
        .run()
        .await;
    assert_eq!(ended.code, Some(1), "{}", ended.output);
    assert!(
        ended.output.contains("talk.schema.json"),
        "{}",
        ended.output
    );
}

#[tokio::test]
async fn ctrl_c_ends_it_with_success() {
    for signal in [Signal::Int, Signal::Term] {
        let mut service = Service::start_with(Role::Dev, &[]).await;
        assert_eq!(
            service.stop(signal).await,
            Some(0),
            "{}",
            service.process().output()
        );
    }
}
