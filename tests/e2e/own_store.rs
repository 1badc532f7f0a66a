//! A view in a store of its own, beside the others: all that is done with views is done with it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidelog::axum::{Router, routing::get};
use tidelog::prelude::*;
use tidelog::read_store::{InMemoryReadStore, ReadStore, SqliteReadStore};
use tidelog::settings::{Role, Settings};
use tidelog::{App, BackendError, Running, StartError};
use tokio::time::{Instant, timeout};

use crate::client::{Client, must};
use crate::services::Backends;
use crate::waiting::{BOUND, eventually};

#[entity]
struct Post {
    title: String,
}

/// The words of a post's title.
#[view(index = "count")]
struct Headline {
    words: Vec<String>,
    count: usize,
}

impl Projection for Headline {
    type Event = EntityEvent<Post>;

    fn keys(e: &Recorded<Self::Event>) -> Keys {
        vec![e.stream_id.clone()]
    }

    fn project(_: Option<Self>, _: &str, e: &Recorded<Self::Event>) -> Option<Self> {
        e.event.after().map(|post| {
            let words: Vec<_> = post.title.split(' ').map(str::to_owned).collect();
            let count = words.len();
            Headline { words, count }
        })
    }
}

fn paper(store: Arc<dyn ReadStore>) -> App {
    App::new("paper")
        .entity::<Post>()
        .projection_into::<Headline>(store)
}

fn settings(role: Role) -> Settings {
    let anywhere = || "127.0.0.1:0".to_owned();
    Settings {
        role,
        command_addr: anywhere(),
        query_addr: anywhere(),
        admin_addr: anywhere(),
        ..Settings::default()
    }
}

async fn sqlite(home: &Path, file: &str) -> Arc<SqliteReadStore> {
    Arc::new(SqliteReadStore::open(&home.join(file)).await.unwrap())
}

/// A program whose headlines are in another file than all else.
struct Paper {
    running: Running,
    own: Arc<SqliteReadStore>,
    home: TempDir,
}

impl Paper {
    async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let own = sqlite(home.path(), "own.db").await;
        let main = home.path().join("main.db");
        let settings = Settings {
            database_url: Some(format!("sqlite:{}", main.display())),
            ..settings(Role::All)
        };
        let own_route = Router::new().route("/today", get(async || "a fine day"));
        let app = paper(own.clone()).query_routes(own_route);
        let running = app.start(settings).await.unwrap();
        Self { running, own, home }
    }

    fn commands(&self) -> Client {
        Client::new(self.running.command_addr().unwrap())
    }

    fn queries(&self) -> Client {
        Client::new(self.running.query_addr().unwrap())
    }

    fn admin(&self) -> Client {
        Client::new(self.running.admin_addr().unwrap())
    }

    /// Writes a post, and gives the token of that.
    async fn write(&self, id: &str, title: &str) -> String {
        let post = json!({"id": id, "title": title});
        let written = self.commands().post("/post", &post).await;
        written.data(201);
        written.token().to_owned()
    }

    async fn collection(store: &dyn ReadStore, view: &str) -> Option<String> {
        let alias = store.load_alias(view).await.unwrap();
        alias.map(|alias| alias.collection)
    }
}

/// Waits until a live connection has told this text.
async fn hears(connection: &mut Response, text: &str) {
    let mut told = String::new();
    while !told.contains(text) {
        let chunk = timeout(BOUND, connection.chunk()).await.unwrap().unwrap();
        told.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
    }
}

#[tokio::test]
async fn a_view_in_a_store_of_its_own_is_read_heard_and_replayed_like_any_other() {
    let paper = Paper::start().await;
    let (queries, admin) = (paper.queries(), paper.admin());
    paper.write("a", "The tide comes in").await;
    let token = paper.write("b", "The tide goes").await;
    let read = queries.get_after("/headline/b", &token).await.data(200);
    assert_eq!(read["words"], json!(["The", "tide", "goes"]));
    queries.get_after("/post/b", &token).await.data(200);
    let goes = queries
        .get_after("/headlines?words[contains]=goes", &token)
        .await;
    assert_eq!(goes.data(200)[0]["id"], "b");

    let live = queries.request(Method::GET, "/headline/b");
    let mut live = live
        .header("accept", "text/event-stream")
        .send()
        .await
        .unwrap();
    hears(&mut live, "goes").await;
    let patch = json!({"title": "The tide went"});
    let token = paper
        .commands()
        .patch("/post/b", &patch)
        .await
        .token()
        .to_owned();
    hears(&mut live, "went").await;

    let replay = json!({"compare": "full", "keep": true});
    admin
        .post("/admin/api/views/headline/replay", &replay)
        .await
        .data(200);
    hears(&mut live, "reset").await;
    let read = queries.get_after("/headline/b", &token).await.data(200);
    assert_eq!(read["words"][2], "went");
    let token = paper.write("c", "Sea").await;
    queries.get_after("/headline/c", &token).await.data(200);
    let views = admin.get("/admin/api/views").await.data(200);
    let of = |view: &Value| {
        json!([
            view["view"],
            view["collection"],
            view["indexes"][0]["state"]
        ])
    };
    let views: Vec<_> = views.as_array().unwrap().iter().map(of).collect();
    assert_eq!(views[0], json!(["post", "post_v1", null]));
    assert_eq!(views[1], json!(["headline", "headline_v2", "ready"]));
    admin
        .post("/admin/api/views/headline/rollback", &json!({}))
        .await
        .data(200);
    let subscriptions = admin.get("/admin/api/subscriptions").await.data(200);
    let names = subscriptions
        .as_array()
        .unwrap()
        .iter()
        .map(|own| &own["name"]);
    assert_eq!(names.collect::<Vec<_>>(), ["post", "headline"]);
    let paused = admin
        .post("/admin/api/subscriptions/headline/pause", &json!({}))
        .await;
    assert_eq!(paused.status, 200, "{}", paused.body);

    // Nothing of it is where the other view is, and nothing of that is where it is.
    let main = sqlite(paper.home.path(), "main.db").await;
    let found = Paper::collection(&*paper.own, "headline").await;
    assert_eq!(found.as_deref(), Some("headline_v1"));
    assert_eq!(Paper::collection(&*main, "headline").await, None);
    assert!(main.get("headline_v1", &["a"]).await.unwrap().is_empty());
    assert_eq!(Paper::collection(&*paper.own, "post").await, None);
    assert!(Paper::collection(&*main, "post").await.is_some());
    assert!(paper.running.stop().await);
}

#[test]
fn two_stores_cannot_keep_the_same_view() {
    let store = || Arc::new(InMemoryReadStore::new());
    assert!(paper(store()).check().is_ok());
    for twice in [
        paper(store()).projection_into::<Headline>(store()),
        paper(store()).projection::<Headline>(),
    ] {
        let error = twice.check().unwrap_err().to_string();
        assert!(
            error.starts_with("two views are called headline"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_route_of_ones_own_is_answered_beside_queries() {
    let paper = Paper::start().await;
    let queries = paper.queries();
    let today = queries.get("/today").await;
    assert_eq!((today.status, today.body.as_str()), (200, "a fine day"));
    assert!(today.headers.contains_key("x-correlation-id"));
    let wrong = must(queries.request(Method::POST, "/today")).await;
    wrong.problem(405, "method-not-allowed");
    queries.get("/tomorrow").await.problem(404, "not-found");
    assert!(paper.running.stop().await);
}

/// Three processes on servers; the store is one that all of them reach.
#[tokio::test]
async fn the_roles_share_the_store_of_a_view() {
    let backends = Backends::fresh().await;
    let own = Arc::new(InMemoryReadStore::new());
    let start = async |role| {
        let settings = Settings {
            database_url: Some(backends.database_url.clone()),
            bus_url: Some(backends.bus_url.clone()),
            mongodb_url: Some(backends.mongodb_url.clone()),
            ..settings(role)
        };
        paper(own.clone()).start(settings).await.unwrap()
    };
    let all = [
        start(Role::Command).await,
        start(Role::EventBus).await,
        start(Role::Query).await,
    ];
    let commands = Client::new(all[0].command_addr().unwrap());
    let queries = Client::new(all[2].query_addr().unwrap());
    let post = json!({"id": "a", "title": "The tide"});
    let token = commands.post("/post", &post).await.token().to_owned();
    let read = eventually("the view to be built", async || {
        let read = queries.get_after("/headline/a", &token).await;
        (read.status == 200)
            .then_some(read.clone())
            .ok_or(read.body)
    });
    assert_eq!(read.await.data(200)["words"], json!(["The", "tide"]));
    queries.get_after("/post/a", &token).await.data(200);
    assert!(Paper::collection(&*own, "headline").await.is_some());
    assert!(Paper::collection(&*own, "post").await.is_none());
    for running in all {
        assert!(running.stop().await);
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_told_by_its_view() {
    let home = tempfile::tempdir().unwrap();
    let own = sqlite(home.path(), "own.db").await;
    own.close().await;
    let patience = Duration::from_millis(600);
    let settings = Settings {
        wait_for_backends: patience,
        ..Settings::in_memory()
    };
    let begun = Instant::now();
    let error = paper(own).mount(settings).await.err().unwrap();
    let StartError::Backend(BackendError::StoreOfView { view, .. }) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(view, "headline");
    assert!(begun.elapsed() >= patience);
}
