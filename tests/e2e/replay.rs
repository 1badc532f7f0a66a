//! `replay`: a view is built anew beside the one that is read, which never shows it half-built.

use mongodb::bson::{Document, doc};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::{Client, must, send};
use crate::load::Load;
use crate::log::read;
use crate::services::{Backends, CommandLine, Role, Service, Site};
use crate::view::View;
use crate::waiting::eventually;

const READERS: usize = 4;
const POSTS: usize = 20;

/// Makes the posts, and waits until they can be read.
async fn make_posts(site: &Site) {
    for number in 0..POSTS {
        let post = json!({"id": format!("read-{number}"), "title": "0", "content": "-", "author_name": "Ann"});
        let created = site.commands.post("/post", &post).await;
        site.queries
            .get_after(&format!("/post/read-{number}"), created.token())
            .await
            .data(200);
    }
}

#[tokio::test]
async fn a_replay_while_writes_and_reads_go_on_disturbs_neither() {
    let backends = Backends::fresh().await;
    let site = Site::three(&backends).await;
    let view = View::on(&backends).await;
    make_posts(&site).await;
    let (ended, watching) = watch::channel(false);
    let mut clients = JoinSet::new();
    for number in 0..READERS {
        clients.spawn(reads_never_go_back(
            number,
            site.queries.clone(),
            watching.clone(),
        ));
    }
    clients.spawn(patches(
        site.commands.clone(),
        site.queries.clone(),
        watching,
    ));

    let mut collections = vec![view.collection("post").await];
    for command in ["replay", "rebuild", "replay"] {
        CommandLine::new(&[command, "post"])
            .with(backends.settings())
            .run()
            .await
            .succeeded();
        let collection = view.collection("post").await;
        assert!(
            !collections.contains(&collection),
            "{collection} is no fresh version: {collections:?}"
        );
        collections.push(collection);
    }
    ended.send_replace(true);
    let rounds = clients.join_all().await;
    assert!(rounds.iter().all(|rounds| *rounds > 0), "{rounds:?}");
    view.equals_the_fold("post").await;
}

/// Reads the posts in turn, each at least as new as before.
async fn reads_never_go_back(
    number: usize,
    queries: Client,
    ended: watch::Receiver<bool>,
) -> usize {
    let mut seen = [0; POSTS];
    let mut round = 0;
    while !*ended.borrow() {
        let post = (number + round) % POSTS;
        let read = queries.get(&format!("/post/read-{post}")).await;
        let version = read.data(200)["version"].as_i64().expect("a version");
        assert!(
            version >= seen[post],
            "a read of post {post} went back from {} to {version}",
            seen[post]
        );
        seen[post] = version;
        let list = queries.get("/posts?limit=200").await.data(200);
        assert_eq!(
            list.as_array().expect("a list").len(),
            POSTS,
            "a list is not complete"
        );
        round += 1;
    }
    round
}

/// Patches the posts in turn, and reads each patch at once by its token.
async fn patches(commands: Client, queries: Client, ended: watch::Receiver<bool>) -> usize {
    let mut round = 0;
    while !*ended.borrow() {
        let path = format!("/post/read-{}", round % POSTS);
        let title = round.to_string();
        let patched = commands
            .patch(&path, &json!({"title": format!("t{title}")}))
            .await;
        patched.data(200);
        let read = queries.get_after(&path, patched.token()).await;
        assert_eq!(read.data(200)["title"], format!("t{title}"));
        round += 1;
    }
    round
}

#[tokio::test]
async fn a_view_that_was_spoilt_comes_back_from_the_log() {
    let backends = Backends::fresh().await;
    let site = Site::all(&backends).await;
    Load::start(&site.commands, 60)
        .finish()
        .await
        .assert_in(&read(&backends.database_url).await);
    let view = View::on(&backends).await;
    view.equals_the_fold("post").await;
    let collection = view.collection("post").await;
    let client = mongodb::Client::with_uri_str(&backends.mongodb_url)
        .await
        .unwrap();
    let documents = client
        .default_database()
        .unwrap()
        .collection::<Document>(&collection);
    documents
        .delete_one(doc! { "_id": { "$gte": "" } })
        .await
        .unwrap();
    documents
        .update_many(
            doc! { "_id": { "$gte": "" } },
            doc! { "$set": { "data.title": "spoilt" } },
        )
        .await
        .unwrap();
    CommandLine::new(&["replay", "post"])
        .with(backends.settings())
        .run()
        .await
        .succeeded();
    view.equals_the_fold("post").await;
}

#[tokio::test]
async fn a_view_is_built_and_goes_on_after_a_replay_while_no_service_runs() {
    let backends = Backends::fresh().await;
    let mut site = Site::all(&backends).await;
    Load::start(&site.commands, 60).finish().await;
    let view = View::on(&backends).await;
    // The eventbus builds the first version; a replay before that is refused.
    view.collection("post").await;
    assert_eq!(
        site.services[0]
            .stop(tidelog_test_support::Signal::Term)
            .await,
        Some(0)
    );
    CommandLine::new(&["replay", "post"])
        .with(backends.settings())
        .run()
        .await
        .succeeded();
    view.equals_the_fold("post").await;
    site.services[0].restart().await;
    let post = json!({"id": "after", "title": "A", "content": "", "author_name": "Ann"});
    let created = site.commands.post("/post", &post).await;
    let read = site.queries.get_after("/post/after", created.token()).await;
    assert_eq!(read.data(200)["title"], "A");
    view.equals_the_fold("post").await;
}

#[tokio::test]
async fn the_embedded_view_is_replayed_on_its_file() {
    let mut site = Site::dev().await;
    let post = json!({"id": "kept", "title": "A", "content": "", "author_name": "Ann"});
    let created = site.commands.post("/post", &post).await;
    site.queries
        .get_after("/post/kept", created.token())
        .await
        .data(200);
    assert_eq!(
        site.services[0]
            .stop(tidelog_test_support::Signal::Term)
            .await,
        Some(0)
    );
    let url = site.database_url();
    let replay = CommandLine::new(&["replay", "post"]).with([("DATABASE_URL", url.as_str())]);
    replay.run().await.succeeded();
    site.services[0].restart().await;
    let read: Value = must(site.queries.request(reqwest::Method::GET, "/post/kept"))
        .await
        .data(200);
    assert_eq!(read["title"], "A");
    View::of(&site, None).await.equals_the_fold("post").await;
}

#[tokio::test]
async fn documents_that_were_spoilt_come_back_alone_while_writes_go_on() {
    let backends = Backends::fresh().await;
    let site = Site::three(&backends).await;
    let view = View::on(&backends).await;
    make_posts(&site).await;
    let collection = view.collection("post").await;
    let client = mongodb::Client::with_uri_str(&backends.mongodb_url)
        .await
        .unwrap();
    let database = client.default_database().unwrap();
    let documents = database.collection::<Document>(&collection);
    // One is spoilt, one is lost, one is there that should not be.
    let spoilt = doc! { "$set": { "data.title": "spoilt" } };
    documents
        .update_one(doc! { "_id": "read-1" }, spoilt)
        .await
        .unwrap();
    documents
        .delete_one(doc! { "_id": "read-2" })
        .await
        .unwrap();
    let mut stranger = documents
        .find_one(doc! { "_id": "read-3" })
        .await
        .unwrap()
        .unwrap();
    stranger.insert("_id", "stranger");
    documents.insert_one(stranger).await.unwrap();
    // Writes go on, to the lost one too, which are set aside until it is back.
    let lost = site
        .commands
        .patch("/post/read-2", &json!({"title": "lost"}))
        .await;
    lost.data(200);
    let (ended, watching) = watch::channel(false);
    let writing = tokio::spawn(writes(site.commands.clone(), watching));
    let replay = async |of: &[&str]| {
        let arguments: Vec<_> = ["replay", "post"].iter().chain(of).copied().collect();
        let command = CommandLine::new(&arguments).with(backends.settings());
        let ended = command.run().await;
        assert_eq!(ended.code, Some(0), "{}", ended.output);
        ended.output
    };
    let said = replay(&["--document", "read-1"]).await;
    assert!(said.contains("read-1 of post"), "{said}");
    let said = replay(&["--aggregate", "post/read-2"]).await;
    assert!(said.contains("read-2 of post"), "{said}");
    let said = replay(&["--document", "stranger", "--progress", "json"]).await;
    assert!(
        said.contains(r#"{"id":"stranger","mended":"removed"}"#),
        "{said}"
    );
    assert_eq!(view.collection("post").await, collection);
    ended.send_replace(true);
    assert!(writing.await.unwrap() > 0);
    let read = site.queries.get_after("/post/read-2", lost.token()).await;
    read.data(200);
    assert_eq!(site.queries.get("/post/stranger").await.status, 404);
    // What stands for it is no document of the log's.
    documents
        .delete_one(doc! { "_id": "stranger" })
        .await
        .unwrap();
    view.equals_the_fold("post").await;
}

/// Patches some posts in turn, of which one is lost until it is back.
async fn writes(commands: Client, ended: watch::Receiver<bool>) -> usize {
    let mut round = 0;
    while !*ended.borrow() {
        let path = format!("/post/read-{}", round % 5);
        let patch = json!({"title": format!("t{round}")});
        commands.patch(&path, &patch).await.data(200);
        round += 1;
    }
    round
}

#[tokio::test]
async fn an_embedded_document_is_replayed_alone_on_its_file_or_by_the_process_that_has_it() {
    let mut site = Site::dev().await;
    let post = json!({"id": "kept", "title": "A", "content": "", "author_name": "Ann"});
    let created = site.commands.post("/post", &post).await;
    let read = site.queries.get_after("/post/kept", created.token()).await;
    read.data(200);
    let view = View::of(&site, None).await;
    let url = site.database_url();
    let address = site.services[0].admin().address().to_owned();
    let command = || {
        CommandLine::new(&["replay", "post", "--document", "kept"]).with([
            ("DATABASE_URL", url.as_str()),
            ("TIDELOG_ADMIN_ADDR", &address),
        ])
    };
    // The process that has the file does it.
    view.spoil("post", "kept").await;
    assert_eq!(
        site.queries.get("/post/kept").await.data(200)["title"],
        "spoilt"
    );
    let done = command().run().await.succeeded();
    assert!(
        done.stdout.contains("kept of post") && done.stdout.contains("is right now"),
        "{}",
        done.output
    );
    assert_eq!(site.queries.get("/post/kept").await.data(200)["title"], "A");
    view.equals_the_fold("post").await;
    // Where none runs, it is done at the file.
    view.spoil("post", "kept").await;
    let stopped = site.services[0]
        .stop(tidelog_test_support::Signal::Term)
        .await;
    assert_eq!(stopped, Some(0));
    command().run().await.succeeded();
    view.equals_the_fold("post").await;
}

#[tokio::test]
async fn a_program_of_another_definition_is_not_ready_until_its_version_is_read() {
    let backends = Backends::fresh().await;
    let [old_entities, new_entities] = ["author", "editor"].map(|field| {
        let entities = tempfile::tempdir().unwrap();
        let schema = json!({"type": "object", "properties": {"title": {"type": "string"}, field: {"type": "string"}}});
        std::fs::write(entities.path().join("note.schema.json"), schema.to_string()).unwrap();
        entities
    });
    let settings = |entities: &TempDir| {
        let entities = (
            "TIDELOG_ENTITIES",
            entities.path().to_str().unwrap().to_owned(),
        );
        let backends = backends
            .settings()
            .map(|(name, value)| (name, value.to_owned()));
        backends.into_iter().chain([entities]).collect::<Vec<_>>()
    };
    let (old, new) = (settings(&old_entities), settings(&new_entities));
    let old: Vec<_> = old
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let new: Vec<_> = new
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let older = Service::start_with(Role::All, &old).await;
    for number in 0..60 {
        let note = json!({"id": format!("n{number}"), "title": "A"});
        older.commands().post("/note", &note).await.data(201);
    }
    let view = View::on(&backends).await;
    let before = view.collection("note").await;
    // While this one runs, which is of the old definition, the new program cannot begin its own.
    let slow = CommandLine::new(&["replay", "note", "--throttle", "1"]).with(old.iter().copied());
    let (mut slow, _home) = slow.start();
    eventually("the replay to run", async || {
        let shown = older.admin().get("/admin/api/views/note").await.data(200);
        match shown["replay"]["state"].as_str() {
            Some("building") => Ok(()),
            _ => Err(shown.to_string()),
        }
    })
    .await;
    let mut newer = Service::launch(Role::All, &new);
    let ready = async |service: &Service| {
        let asked = service.admin().request(Method::GET, "/health/ready");
        send(asked).await.map_err(|error| error.to_string())
    };
    let why = "the view note is being replayed";
    let unready = eventually(
        "the new program to say what it waits for",
        async || match ready(&newer).await? {
            answer if answer.body.contains(why) => Ok(answer),
            answer => Err(answer.body),
        },
    )
    .await;
    assert_eq!(unready.status, 503, "{unready:?}");
    assert_eq!(ready(&older).await.unwrap().status, 200);
    older.queries().get("/note/n7").await.data(200);
    assert_eq!(view.collection("note").await, before);
    slow.kill();
    newer.ready().await;
    assert_ne!(view.collection("note").await, before);
    newer.queries().get("/note/n7").await.data(200);
    // The older one goes on.
    assert_eq!(ready(&older).await.unwrap().status, 200);
    older.queries().get("/note/n7").await.data(200);
}

#[tokio::test]
async fn an_unknown_view_cannot_be_replayed() {
    let backends = Backends::fresh().await;
    let ended = CommandLine::new(&["replay", "nothing"])
        .with(backends.settings())
        .run()
        .await;
    assert!(ended.code.is_some_and(|code| code != 0), "{}", ended.output);
    assert!(
        ended.output.contains("nothing") && ended.output.contains("post"),
        "{}",
        ended.output
    );
}
