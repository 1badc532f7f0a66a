//! The administration of views as its callers see it.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use serde_json::{Value, json};
use tidelog_domain::ViewDefinition;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::views_admin_router;
use crate::testing::{Process, System, authors, eventually, posts};

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn problem(&self) -> (u16, &str) {
        let content = self.headers.get("content-type");
        assert_eq!(content.unwrap(), "application/problem+json");
        assert_eq!(self.body["status"], json!(self.status));
        (self.status, self.body["type"].as_str().unwrap())
    }
}

/// The administration as it is mounted.
fn admin(process: &Process, shutdown: &CancellationToken) -> Router {
    let router = views_admin_router(process.views.clone(), shutdown.clone());
    tidelog_http::app(Router::new().nest("/admin", router))
}

async fn ask(app: &Router, method: &str, view: &str) -> Answer {
    let uri = format!("/admin/api/views/{view}/replay");
    let request = Request::builder().method(method).uri(uri);
    send(app, request.body(Body::empty()).unwrap()).await
}

async fn get(app: &Router, path: &str) -> Answer {
    let request = Request::get(format!("/admin/api/views{path}"));
    send(app, request.body(Body::empty()).unwrap()).await
}

async fn send(app: &Router, request: Request<Body>) -> Answer {
    let (parts, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let bytes = to_bytes(body, 1 << 20).await.unwrap();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: serde_json::from_slice(&bytes).unwrap(),
    }
}

async fn kept() -> (System, Process) {
    let system = System::new();
    let process = system.start(vec![posts(), authors()]);
    for n in 0..50 {
        system.write(&format!("p{n}"), "one").await;
    }
    system.settled(&*posts()).await;
    system.settled(&*authors()).await;
    (system, process)
}

async fn is_read(system: &System, view: &dyn ViewDefinition, collection: &str) {
    assert_eq!(system.alias(view.name()).await.collection, collection);
    system.settled(view).await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_answers_with_what_it_built_when_it_is_read() {
    let (system, process) = kept().await;
    let app = admin(&process, &CancellationToken::new());
    let answer = ask(&app, "POST", "post").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["cache-control"], "no-store");
    let mut compared = answer.body["data"]["compared"].clone();
    let hash = compared["hash"].take();
    assert_eq!(hash.as_str().map(str::len), Some(16));
    assert_eq!(
        compared,
        json!({"documents": 50, "hash": null, "left_out": 0})
    );
    compared["hash"] = hash;
    let expected = json!({"data": {
        "view": "post", "collection": "post_v2", "version": 2, "previous": "post_v1", "events": 50, "resumed": 0, "documents": 50,
        "documents_before": 50, "parked": 0,
        "compared": compared
    }});
    assert_eq!(answer.body, expected);
    is_read(&system, &*posts(), "post_v2").await;
    let again = ask(&app, "POST", "post").await;
    assert_eq!(again.body["data"]["version"], json!(3));
    is_read(&system, &*posts(), "post_v3").await;
    is_read(&system, &*authors(), "author_v1").await;
}

#[tokio::test(start_paused = true)]
async fn how_a_replay_ended_can_be_asked_for_later() {
    let (_system, process) = kept().await;
    let app = admin(&process, &CancellationToken::new());
    assert_eq!(get(&app, "/post").await.body["data"].get("last"), None);
    let back = Request::post("/admin/api/views/post/rollback");
    let refused = send(&app, back.body(Body::empty()).unwrap()).await;
    assert_eq!(refused.status, 404);
    let last = get(&app, "/post").await.body["data"]["last"].clone();
    assert_eq!(last["error"], refused.body["detail"]);
    assert_eq!(last.get("done"), None);

    let replayed = ask(&app, "POST", "post").await;
    let listed = get(&app, "").await;
    let all = listed.body["data"].as_array().unwrap();
    let last = |view: &str| {
        let report = all.iter().find(|own| own["view"] == view).unwrap();
        report.get("last").cloned()
    };
    let of_post = last("post").unwrap();
    assert_eq!(of_post["done"], replayed.body["data"]);
    assert_eq!(of_post.get("error"), None);
    assert_eq!(last("author"), None);
}

#[tokio::test(start_paused = true)]
async fn a_view_that_there_is_not_cannot_be_replayed() {
    let (_system, process) = kept().await;
    let app = admin(&process, &CancellationToken::new());
    // A list of documents is no view either.
    for name in ["nothing", "posts", "post_v1", "%27", "%00"] {
        let answer = ask(&app, "POST", name).await;
        let not_found = (404, "urn:tidelog:problem:not-found");
        assert_eq!(answer.problem(), not_found, "{name}");
    }
    let broken = ask(&app, "POST", "%ff").await;
    let malformed = (400, "urn:tidelog:problem:malformed-request");
    assert_eq!(broken.problem(), malformed);
    let read = ask(&app, "GET", "post").await;
    let not_allowed = (405, "urn:tidelog:problem:method-not-allowed");
    assert_eq!(read.problem(), not_allowed);
    assert_eq!(read.headers["allow"], "POST");
}

#[tokio::test(start_paused = true)]
async fn a_replay_of_a_view_that_is_being_replayed_is_a_409_that_says_when_to_ask_again() {
    let (system, process) = kept().await;
    let app = admin(&process, &CancellationToken::new());
    let (one, two) = tokio::join!(ask(&app, "POST", "post"), ask(&app, "POST", "post"));
    let (done, refused) = if one.status == 200 {
        (one, two)
    } else {
        (two, one)
    };
    assert_eq!(done.status, 200, "{}", done.body);
    let in_progress = (409, "urn:tidelog:problem:request-in-progress");
    assert_eq!(refused.problem(), in_progress);
    assert_eq!(refused.headers["retry-after"], "1");
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(
        detail.contains("post is being replayed already"),
        "{detail}"
    );
    is_read(&system, &*posts(), "post_v2").await;
    assert_eq!(system.alias("post").await.last_number, 2);
}

#[tokio::test(start_paused = true)]
async fn a_view_that_has_not_been_built_or_a_store_that_is_down_is_a_503() {
    let system = System::new();
    let store = system.store.elsewhere();
    let process = system.start_with(vec![posts()], System::options(), store.clone());
    let app = admin(&process, &CancellationToken::new());
    let unavailable = (503, "urn:tidelog:problem:unavailable");
    let unbuilt = ask(&app, "POST", "post").await;
    assert_eq!(unbuilt.problem(), unavailable);
    assert_eq!(unbuilt.headers["retry-after"], "1");
    system.settled(&*posts()).await;
    store.cut_off(true);
    let down = ask(&app, "POST", "post").await;
    assert_eq!(down.problem(), unavailable);
    assert_eq!(down.headers["retry-after"], "1");
    assert!(!down.body.to_string().contains("cut off"), "{}", down.body);
}

#[tokio::test(start_paused = true)]
async fn more_documents_than_may_be_set_aside_are_a_500_and_one_is_told_of() {
    let system = System::new();
    let mut options = System::options();
    options.replay.policy.max_parked = 1;
    let process = system.start_with(vec![posts()], options, system.store.clone());
    system.write("good", "one").await;
    system.settled(&*posts()).await;
    let app = admin(&process, &CancellationToken::new());
    let unreadable = json!("no object");
    system.log.append("bad", "post.created", &unreadable).await;
    let answer = ask(&app, "POST", "post").await;
    assert_eq!(
        (answer.status, &answer.body["data"]["parked"]),
        (200, &json!(1))
    );
    for bad in 0..20 {
        let id = format!("bad{bad}");
        system.log.append(&id, "post.created", &unreadable).await;
    }
    let answer = ask(&app, "POST", "post").await;
    assert_eq!(answer.problem().0, 500);
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains("no more are set aside"), "{detail}");
    assert_eq!(system.alias("post").await.collection, "post_v2");
}

#[tokio::test(start_paused = true)]
async fn a_replay_outlives_its_client_and_ends_with_the_service() {
    let (system, process) = kept().await;
    let shutdown = CancellationToken::new();
    let app = admin(&process, &shutdown);
    let impatient = tokio::spawn({
        let app = app.clone();
        async move { ask(&app, "POST", "post").await }
    });
    eventually("it runs", async || {
        system.alias("post").await.replaying.is_some()
    })
    .await;
    impatient.abort();
    eventually("it took over", async || {
        system.alias("post").await.collection == "post_v2"
    })
    .await;
    shutdown.cancel();
    let stopped = ask(&app, "POST", "post").await;
    assert_eq!(stopped.problem(), (503, "urn:tidelog:problem:unavailable"));
    is_read(&system, &*posts(), "post_v2").await;
    // What it began is left to the next one.
    let running = system.alias("post").await.replaying;
    assert!(running.is_none_or(|running| running.is_left()));
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_is_not_waited_for_can_be_followed() {
    let (system, process) = kept().await;
    for n in 0..5_000 {
        system.write(&format!("q{n}"), "one").await;
    }
    system.settled(&*posts()).await;
    let app = admin(&process, &CancellationToken::new());
    let listed = get(&app, "").await;
    let view = |name: &str| {
        json!({
            "view": name, "version": 1, "collection": format!("{name}_v1"), "is_current": true, "previous": null,
            "is_refused": false, "indexes": [], "replay": null
        })
    };
    assert_eq!(listed.body, json!({"data": [view("post"), view("author")]}));
    let request = Request::post("/admin/api/views/post/replay")
        .header("content-type", "application/json")
        .header("prefer", "wait=1, Respond-Async")
        .body(Body::from(json!({"throttle": 1_000}).to_string()));
    let begun = send(&app, request.unwrap()).await;
    assert_eq!(begun.status, 202, "{}", begun.body);
    assert_eq!(begun.headers["location"], "/admin/api/views/post");
    assert_eq!(begun.headers["preference-applied"], "respond-async");
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let running = get(&app, "/post").await;
    let replay = &running.body["data"]["replay"];
    assert_eq!(replay["state"], json!("building"));
    assert_eq!(
        (&replay["of"], &replay["version"]),
        (&json!(5_050), &json!(2))
    );
    let events = replay["events"].as_u64().unwrap();
    assert!((1_500..3_000).contains(&events), "{replay}");
    assert!(replay["per_second"].as_u64() > Some(500), "{replay}");
    assert!(replay["eta_seconds"].as_u64() < Some(6), "{replay}");
    is_eventually_read(&system, "post_v2").await;
    let done = get(&app, "/post").await;
    let previous =
        json!({"version": 1, "collection": "post_v1", "is_current": true, "keep": false});
    assert_eq!(done.body["data"]["previous"], previous);
    assert_eq!(done.body["data"]["replay"], json!(null));
    assert_eq!(get(&app, "/nothing").await.status, 404);
}

async fn is_eventually_read(system: &System, collection: &str) {
    eventually("it took over", async || {
        system.alias("post").await.collection == collection
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_is_asked_for_wrongly_is_not_begun() {
    let (system, process) = kept().await;
    let app = admin(&process, &CancellationToken::new());
    for body in [
        json!({"throttle": 0}),
        json!({"thottle": 1}),
        json!({"compare": "well"}),
        json!([1]),
    ] {
        let request = Request::post("/admin/api/views/post/replay")
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()));
        let refused = send(&app, request.unwrap()).await;
        assert_eq!(refused.status, 422, "{body}: {}", refused.body);
    }
    assert_eq!(system.alias("post").await.last_number, 1);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_kept_is_gone_back_to_and_let_go_of() {
    let (system, process) = kept().await;
    let app = admin(&process, &CancellationToken::new());
    let post = async |what: &str, body: Value| {
        let request = Request::post(format!("/admin/api/views/post/{what}"))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()));
        send(&app, request.unwrap()).await
    };
    let not_found = (404, "urn:tidelog:problem:not-found");
    assert_eq!(post("rollback", json!({})).await.problem(), not_found);
    let built = post("replay", json!({"keep": true, "compare": "full"})).await;
    assert_eq!(built.status, 200, "{}", built.body);
    let shown = get(&app, "/post").await.body;
    assert_eq!(shown["data"]["previous"]["keep"], json!(true));
    is_read(&system, &*posts(), "post_v2").await;
    let back = post("rollback", json!({})).await;
    assert_eq!(back.status, 200, "{}", back.body);
    assert_eq!(back.body["data"]["collection"], json!("post_v1"));
    assert_eq!(back.body["data"]["previous"], json!("post_v2"));
    is_read(&system, &*posts(), "post_v1").await;
    assert_eq!(post("rollback", json!({"force": true})).await.status, 422);
    let cleaned = post("clean", json!({})).await;
    assert_eq!(
        cleaned.body["data"],
        json!({"view": "post", "retired": "post_v2"})
    );
    let cleaned = post("clean", json!({})).await;
    assert_eq!(
        cleaned.body["data"],
        json!({"view": "post", "retired": null})
    );
    assert_eq!(post("rollback", json!({})).await.problem(), not_found);
}

#[tokio::test(start_paused = true)]
async fn one_document_or_those_of_one_aggregate_are_replayed_where_they_are() {
    let (system, process) = kept().await;
    let app = admin(&process, &CancellationToken::new());
    let post = async |view: &str, body: Value| {
        let request = Request::post(format!("/admin/api/views/{view}/replay"))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()));
        send(&app, request.unwrap()).await
    };
    system.store.take_away("post_v1", "p7");
    let done = post("post", json!({"document": "p7"})).await;
    assert_eq!(done.status, 200, "{}", done.body);
    let documents = json!([{"id": "p7", "mended": "restored"}]);
    assert_eq!(done.body["data"]["documents"], documents);
    assert_eq!(done.body["data"]["collection"], json!("post_v1"));
    let done = post("author", json!({"aggregate": "post/p7"})).await;
    let documents = json!([{"id": "ann", "mended": "unchanged"}]);
    assert_eq!(done.body["data"]["documents"], documents, "{}", done.body);
    is_read(&system, &*posts(), "post_v1").await;
    is_read(&system, &*authors(), "author_v1").await;
    let nothing = post("author", json!({"aggregate": "nobody"})).await;
    let not_found = (404, "urn:tidelog:problem:not-found");
    assert_eq!(nothing.problem(), not_found, "{}", nothing.body);
    for body in [
        json!({"document": 7}),
        json!({"document": null}),
        json!({"document": "p7", "aggregate": "p7"}),
        json!({"document": "p7", "keep": true}),
    ] {
        let refused = post("post", body.clone()).await;
        assert_eq!(refused.status, 422, "{body}: {}", refused.body);
    }
    let unreadable = json!("no object");
    system.log.append("p7", "post.updated", &unreadable).await;
    eventually("it is set aside", async || {
        let states = system.states("post_v1").await;
        states.iter().any(|state| state.parked.get("p7").is_some())
    })
    .await;
    let refused = post("post", json!({"document": "p7"})).await;
    let rejected = (422, "urn:tidelog:problem:rejected");
    assert_eq!(refused.problem(), rejected, "{}", refused.body);
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("The document p7 of post is set aside"),
        "{detail}"
    );
}
