//! `schema export`: what it writes is read by what others read such files with, and is what the services do.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tidelog_test_support::{Process, schemas_path};

use crate::services::{CommandLine, Role, Service};
use crate::story_day_two::program::program;

/// Every file below `directory`, by its path in it.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().display().to_string();
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    files
}

/// Has the files in `directory` read, and tries `instances` on the schemas: path, whether it fits, instance.
pub(crate) async fn are_right(directory: &Path, instances: &[(String, bool, Value)]) -> String {
    let instances = serde_json::to_vec(instances).unwrap();
    std::fs::write(directory.join("instances.json"), instances).unwrap();
    let mut command = Process::command("node");
    command
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/schemas/validate.mjs"
        ))
        .arg(directory)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("MODULES", schemas_path().await);
    let mut process = Process::start(command);
    let status = process.wait().await;
    assert!(status.success(), "{}", process.output());
    process.stdout().join("\n")
}

async fn export(directory: &Path, more: &[&str]) {
    let out = directory.display().to_string();
    let arguments = [&["schema", "export", "--out", &out], more].concat();
    let ended = CommandLine::new(&arguments).run().await.succeeded();
    assert!(ended.stdout.contains(&out), "{}", ended.output);
}

#[tokio::test]
async fn what_services_send_and_take_fits_what_is_exported() {
    let home = tempfile::tempdir().unwrap();
    let (first, again) = (home.path().join("first"), home.path().join("again"));
    export(&first, &[]).await;
    export(&again, &[]).await;
    let written = files(&first);
    assert!(
        written == files(&again),
        "the same program wrote other bytes"
    );

    let service = Service::start_with(Role::Dev, &[]).await;
    let body = json!({"id": "p1", "title": "A", "content": "", "author_name": "Ann"});
    let (commands, queries) = (service.commands(), service.queries());
    commands.post("/post", &body).await.data(201);
    let patched = commands.patch("/post/p1", &json!({"title": "B"})).await;
    let document = queries.get_after("/post/p1", patched.token()).await;
    commands.delete("/post/p1").await.data(200);
    let mut instances = vec![
        (
            "json-schema/commands/post.create.json".to_owned(),
            true,
            body,
        ),
        (
            "json-schema/commands/post.create.json".to_owned(),
            false,
            json!({"title": "A"}),
        ),
        (
            "json-schema/commands/post.patch.json".to_owned(),
            true,
            json!({"title": "B"}),
        ),
        (
            "json-schema/commands/post.patch.json".to_owned(),
            false,
            json!({"title": 1}),
        ),
        (
            "json-schema/views/post.json".to_owned(),
            true,
            document.data(200).clone(),
        ),
        (
            "json-schema/views/post.json".to_owned(),
            false,
            json!({"id": "p1"}),
        ),
    ];
    let mut seen = 0;
    for partition in 0..16 {
        let page = commands
            .get(&format!("/events?partition={partition}"))
            .await;
        for event in page.data(200).as_array().unwrap() {
            let (kind, version) = (
                event["type"].as_str().unwrap(),
                event["schemaversion"].as_str().unwrap(),
            );
            if !kind.starts_with("post.") {
                continue;
            }
            let schema = format!("json-schema/events/{kind}.v{version}.json");
            instances.push((schema.clone(), true, event["data"].clone()));
            instances.push((schema, false, json!("nothing of it")));
            instances.push((
                "json-schema/envelopes/cloudevent.json".to_owned(),
                true,
                event.clone(),
            ));
            seen += 1;
        }
    }
    assert_eq!(seen, 3);
    let read = are_right(&first, &instances).await;
    assert!(
        read.contains("on bus, feed, subject.tidelog.command.post"),
        "{read}"
    );
    // Nobody signs in here, so what is served is what is exported.
    for (client, name) in [
        (commands, "openapi.commands.json"),
        (queries, "openapi.queries.json"),
    ] {
        let exported: Value = serde_json::from_slice(&written[name]).unwrap();
        let served = client.get("/openapi.json").await;
        assert_eq!(served.json()["paths"], exported["paths"], "{name}");
    }
}

#[tokio::test]
async fn a_program_in_rust_exports_its_own() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    let arguments = ["schema", "export", "--out", out.to_str().unwrap()];
    CommandLine::of(program, &arguments).run().await.succeeded();
    let add = "json-schema/commands/basket.add.json".to_owned();
    let instances = [
        (add.clone(), true, json!({"cents": 1})),
        (add.clone(), false, json!({"cents": 0})),
        (add, false, json!({"cents": "1"})),
        (
            "json-schema/events/basket.added.v1.json".to_owned(),
            true,
            json!({"cents": 1}),
        ),
    ];
    are_right(&out, &instances).await;
}

#[tokio::test]
async fn one_format_is_written_alone_and_what_cannot_be_written_is_said() {
    let home = tempfile::tempdir().unwrap();
    for (format, count) in [("asyncapi", 1), ("openapi", 2)] {
        let out = home.path().join(format);
        export(&out, &["--format", format]).await;
        assert_eq!(files(&out).len(), count, "{format}");
    }
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let arguments = ["schema", "export", "--out", file.to_str().unwrap()];
    let ended = CommandLine::new(&arguments).run().await;
    assert_eq!(ended.code, Some(1), "{}", ended.output);
    assert!(
        ended.output.contains("cannot be written"),
        "{}",
        ended.output
    );
    for wrong in [&["schema"][..], &["schema", "export", "--format", "avro"]] {
        assert_eq!(CommandLine::new(wrong).run().await.code, Some(2));
    }
}
