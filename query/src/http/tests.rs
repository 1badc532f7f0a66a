//! The query service as a client sees it, on the read store in memory.

mod history;
mod live;
mod openapi;
mod settling;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, header};
use serde_json::{Value, json};
use tidelog_domain::{ConsistencyToken, Cursor, HistoryId, Partition, Position};
use tidelog_eventbus::{Checkpoint, Handler, LogReader, StateRecord, StateStore};
use tower::ServiceExt;
use uuid::Uuid;

use super::{QueryService, QuerySettings, query_router};
use crate::catalog::Catalog;
use crate::live::LiveViews;
use crate::projector::Projector;
use crate::store::{Alias, ReadStore};
use crate::testing::{Change, FaultyStore, Log, authors, posts};

/// A query service over two views, and what is behind it.
struct Service {
    store: FaultyStore,
    log: Log,
    app: Router,
}

/// What came back.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Service {
    /// Views that are there and empty.
    async fn new() -> Self {
        let service = Self::unbuilt();
        for view in ["post", "author"] {
            let alias = Alias::first(format!("{view}_v1"), "");
            let set = service.store.compare_and_set_alias(view, 0, &alias).await;
            assert!(set.unwrap());
        }
        service
    }

    /// Views that no role has built yet.
    fn unbuilt() -> Self {
        let store = FaultyStore::default();
        let catalog = Catalog::new(vec![posts(), authors()]).unwrap();
        let log = Log::new(1);
        let service = QueryService::new(catalog, Arc::new(store.clone()), LiveViews::default())
            .with_log(Arc::new(log.store.clone()));
        let settings = QuerySettings {
            default_wait: Duration::from_millis(200),
            read_timeout: Duration::from_secs(1),
            ..QuerySettings::default()
        };
        Self {
            app: tidelog_http::open_to_all(tidelog_http::app(query_router(service, settings))),
            store,
            log,
        }
    }

    /// Writes a post and projects all there is; gives the token of the write.
    async fn write(&self, id: &str, title: &str, author: &str) -> ConsistencyToken {
        let change = Change::Write(title.to_owned(), author.to_owned());
        let token = self.log.change(id, &change).await.unwrap();
        self.project().await;
        token
    }

    async fn delete(&self, id: &str) {
        self.log.change(id, &Change::Delete).await.unwrap();
        self.project().await;
    }

    /// Projects all there is, and writes the checkpoints.
    async fn project(&self) {
        let events = self.log.all().await;
        let last = events.last().unwrap().cursor();
        for collection in self.write_documents().await {
            self.checkpoint(&collection, last).await;
        }
    }

    /// Projects all there is, but for the checkpoints; gives the collections.
    async fn write_documents(&self) -> Vec<String> {
        let events = self.log.all().await;
        let mut collections = Vec::new();
        for view in [posts(), authors()] {
            let collection = format!("{}_v1", view.name());
            let projector = Projector::new(view, Arc::new(self.store.clone()), &collection);
            projector.handle(Partition::new(0), &events).await.unwrap();
            collections.push(collection);
        }
        collections
    }

    async fn checkpoint(&self, collection: &str, cursor: Cursor) {
        let history = self.log.store.identity().await.unwrap().history;
        let states = self.store.load_states(collection).await.unwrap();
        let revision = states.first().map_or(0, |(_, revision, _)| *revision);
        let record = StateRecord {
            checkpoint: Checkpoint { history, cursor },
            ..StateRecord::at_start(history)
        };
        let partition = Partition::new(0);
        let set = self
            .store
            .compare_and_set_state(collection, partition, revision, &record);
        assert!(set.await.unwrap());
    }

    async fn send(&self, method: &str, uri: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 1 << 20).await.unwrap();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        }
    }

    async fn get(&self, uri: &str) -> Answer {
        self.send("GET", uri, &[]).await
    }

    async fn get_with(&self, uri: &str, token: &ConsistencyToken, prefer: Option<&str>) -> Answer {
        let token = token.to_string();
        let mut headers = vec![("Consistency-Token", token.as_str())];
        headers.extend(prefer.map(|prefer| ("Prefer", prefer)));
        self.send("GET", uri, &headers).await
    }
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Status and kind of a problem document, which must be well-formed.
    #[track_caller]
    fn problem(&self) -> (u16, &str) {
        let content = self.header("content-type");
        assert_eq!(content, Some("application/problem+json"), "{}", self.body);
        assert_eq!(self.body["status"], json!(self.status));
        for member in ["title", "detail", "instance"] {
            assert!(self.body[member].is_string(), "{}", self.body);
        }
        let kind = self.body["type"].as_str().unwrap();
        (
            self.status,
            kind.strip_prefix("urn:tidelog:problem:").unwrap(),
        )
    }

    /// The ids on a page.
    fn ids(&self) -> Vec<&str> {
        let data = self.body["data"].as_array().unwrap();
        data.iter().map(|doc| doc["id"].as_str().unwrap()).collect()
    }
}

#[tokio::test]
async fn a_document_is_read_with_its_times_its_version_and_its_tag() {
    let service = Service::new().await;
    service.write("p1", "one", "ann").await;
    service.write("p1", "two", "ann").await;
    let events = service.log.all().await;
    let answer = service.get("/post/p1").await;
    assert_eq!(answer.status, 200);
    let time = |n: usize| {
        let at = events[n].recorded_at;
        at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
    };
    assert_eq!(
        answer.body.to_string(),
        json!({"data": {
            "id": "p1", "title": "two", "author": "ann",
            "created_at": time(0), "updated_at": time(1), "version": 2
        }})
        .to_string()
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert!(answer.header("etag").unwrap().starts_with("\"2."));
    assert_eq!(answer.header("projection-lag"), None);
    let author = service.get("/author/ann").await;
    assert_eq!(author.body["data"]["posts"], json!(1));
}

#[tokio::test]
async fn a_client_that_has_the_representation_gets_304() {
    let service = Service::new().await;
    service.write("p1", "one", "ann").await;
    let first = service.get("/post/p1").await;
    let tag = first.header("etag").unwrap();
    let again = service
        .send("GET", "/post/p1", &[("If-None-Match", tag)])
        .await;
    assert_eq!((again.status, &again.body), (304, &Value::Null));
    assert_eq!(again.header("etag"), Some(tag));
    assert_eq!(again.header("content-type"), None);
    service.write("p1", "two", "ann").await;
    let changed = service
        .send("GET", "/post/p1", &[("If-None-Match", tag)])
        .await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), Some(tag));
    let tag = changed.header("etag").unwrap();
    let first = service
        .send("GET", "/post?title=two", &[("If-None-Match", tag)])
        .await;
    assert_eq!(first.status, 304);
}

#[tokio::test]
async fn a_deleted_document_is_as_missing_as_one_that_never_was() {
    let service = Service::new().await;
    service.write("p1", "one", "ann").await;
    service.delete("p1").await;
    for uri in [
        "/post/p1",
        "/post/p2",
        "/post?title=one",
        "/post",
        "/author/ann",
    ] {
        assert_eq!(
            service.get(uri).await.problem(),
            (404, "not-found"),
            "{uri}"
        );
    }
    assert_eq!(
        service.get("/posts").await.body,
        json!({"data": [], "next": null})
    );
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repeat() {
    let service = Service::new().await;
    for n in 0..25 {
        service.write(&format!("p{n:02}"), "same", "ann").await;
    }
    assert_eq!(service.get("/posts").await.ids().len(), 20);
    let mut uri = "/posts?title=same&limit=7".to_owned();
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let page = service.get(&uri).await;
        assert_eq!(page.status, 200, "{}", page.body);
        seen.extend(page.ids().into_iter().map(str::to_owned));
        pages += 1;
        // What is written behind the reader's back neither shifts nor repeats anything.
        service.write(&format!("a{pages}"), "same", "ann").await;
        match page.body["next"].as_str() {
            Some(next) => uri = format!("/posts?title=same&limit=7&after={next}"),
            None => break,
        }
    }
    let expected: Vec<_> = (0..25).map(|n| format!("p{n:02}")).collect();
    assert_eq!((seen, pages), (expected, 4));
    let exact = service.get("/posts?limit=25&after=MTpw").await;
    assert_eq!((exact.ids().len(), &exact.body["next"]), (25, &Value::Null));
}

#[tokio::test]
async fn filters_find_what_fits_and_only_that() {
    let service = Service::new().await;
    service.write("p1", "one", "ann").await;
    service.write("p2", "two", "ann").await;
    service.write("p3", "two", "bob").await;
    assert_eq!(service.get("/posts?title=two").await.ids(), ["p2", "p3"]);
    assert_eq!(
        service.get("/posts?title=two&author=bob").await.ids(),
        ["p3"]
    );
    assert_eq!(service.get("/posts?id=p1").await.ids(), ["p1"]);
    assert_eq!(service.get("/posts?title[eq]=one").await.ids(), ["p1"]);
    assert_eq!(service.get("/authors?posts=2").await.ids(), ["ann"]);
    let created = service.get("/post/p2").await.body["data"]["created_at"].clone();
    let by_time = format!("/posts?id=p2&created_at={}", created.as_str().unwrap());
    assert_eq!(service.get(&by_time).await.ids(), ["p2"]);
    let a_bit_later = by_time.replace('Z', "001Z");
    assert_eq!(service.get(&a_bit_later).await.ids(), [""; 0]);
    let first = service.get("/post?author=ann").await;
    assert_eq!(first.body["data"]["id"], json!("p1"));
    let nothing = service.get("/posts?title=%27%20OR%201=1%20--").await;
    assert_eq!(nothing.ids(), [""; 0]);
}

#[tokio::test]
async fn pages_of_any_order_follow_each_other_and_say_how_many_there_are() {
    let service = Service::new().await;
    for n in 0..9 {
        let (title, author) = (format!("t{}", n % 3), format!("a{}", n % 2));
        service.write(&format!("p{n}"), &title, &author).await;
    }
    let first = "/posts?sort=-title,author&limit=2&count=exact&id[ne]=p8";
    let (mut uri, mut seen) = (first.to_owned(), Vec::new());
    loop {
        let page = service.get(&uri).await;
        assert_eq!(page.body["count"], json!(8), "{}", page.body);
        seen.extend(page.ids().into_iter().map(str::to_owned));
        match page.body["next"].as_str() {
            Some(next) => uri = format!("{first}&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["p2", "p5", "p4", "p1", "p7", "p0", "p6", "p3"]);
    let without = service.get("/posts").await;
    assert!(without.body.get("count").is_none());
    let best = service.get("/post?sort=-id&title[prefix]=t").await;
    assert_eq!(best.body["data"]["id"], json!("p8"));
    let any = service
        .get("/posts?match=any&title=t1&author=a0&sort=id")
        .await;
    assert_eq!(any.ids(), ["p0", "p1", "p2", "p4", "p6", "p7", "p8"]);
}

#[tokio::test]
async fn a_page_that_could_not_be_continued_is_refused() {
    let service = Service::new().await;
    for id in ["p1", "p2"] {
        service.write(id, &"long".repeat(2_500), "ann").await;
    }
    assert_eq!(service.get("/posts?sort=title").await.status, 200);
    let answer = service.get("/posts?sort=title&limit=1").await;
    assert_eq!(answer.problem(), (400, "malformed-request"));
    assert_eq!(answer.body["parameter"], json!("sort"));
}

#[tokio::test]
async fn only_the_fields_that_are_asked_for_are_shown() {
    let service = Service::new().await;
    service.write("p1", "one", "ann").await;
    let shown = json!({"id": "p1", "title": "one", "version": 1});
    for uri in [
        "/post/p1?fields=version,title",
        "/post?fields=title,version",
    ] {
        let answer = service.get(uri).await;
        assert_eq!(answer.body["data"], shown, "{uri}");
        assert!(answer.header("etag").is_some());
    }
    let list = service.get("/posts?fields=version,title").await;
    assert_eq!(list.body["data"], json!([shown]));
    let whole = service.get("/post/p1").await;
    let part = service.get("/post/p1?fields=title").await;
    assert_ne!(whole.header("etag"), part.header("etag"));
}

#[tokio::test]
async fn deleted_documents_are_shown_to_who_asks_for_them() {
    let service = Service::new().await;
    service.write("p1", "one", "ann").await;
    service.write("p2", "two", "ann").await;
    service.delete("p1").await;
    assert_eq!(service.get("/post/p1").await.status, 404);
    let gone = service.get("/post/p1?deleted=include").await;
    assert_eq!(gone.body["data"]["title"], json!("one"));
    assert_eq!(gone.body["data"]["deleted"], json!(true));
    assert_eq!(gone.body["data"]["version"], json!(2));
    let both = service.get("/posts?deleted=include&count=exact").await;
    assert_eq!(
        (both.ids(), &both.body["count"]),
        (vec!["p1", "p2"], &json!(2))
    );
    assert_eq!(both.body["data"][1]["deleted"], json!(false));
    assert!(
        service.get("/post/p2").await.body["data"]
            .get("deleted")
            .is_none()
    );
    let missing = service.get("/post/p3?deleted=include").await;
    assert_eq!(missing.problem(), (404, "not-found"));
}

#[tokio::test]
async fn what_is_not_known_is_a_400_that_names_the_parameter() {
    let service = Service::new().await;
    for (query, parameter) in [
        ("title[$ne]=x", "title[$ne]"),
        ("title%5B$gt%5D=", "title[$gt]"),
        ("$where=sleep(1)", "$where"),
        ("title.$regex=x", "title.$regex"),
        ("nothing=1", "nothing"),
        ("tags=a", "tags"),
        ("extra.x=1", "extra.x"),
        ("title[like]=x", "title[like]"),
        ("sort=nothing", "sort"),
        ("fields=nothing", "fields"),
    ] {
        for uri in [format!("/posts?{query}"), format!("/post?{query}")] {
            let answer = service.get(&uri).await;
            assert_eq!(answer.problem(), (400, "unknown-parameter"), "{uri}");
            assert_eq!(answer.body["parameter"], json!(parameter), "{uri}");
            assert!(answer.body["detail"].as_str().unwrap().contains(parameter));
        }
    }
    let one = service.get("/post/p1?title=1").await;
    assert_eq!(one.problem(), (400, "unknown-parameter"));
    let limit = service.get("/post?limit=1").await;
    assert_eq!(limit.problem(), (400, "unknown-parameter"));
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_a_400_that_names_the_parameter() {
    let service = Service::new().await;
    for (query, parameter) in [
        ("stars=many", "stars"),
        ("public=yes", "public"),
        ("rating=x", "rating"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("after=nonsense", "after"),
        ("created_at=today", "created_at"),
        ("title=a&title=b", "title"),
        ("title=%ff", "title"),
        ("stars[gt]=many", "stars[gt]"),
        ("title[exists]=perhaps", "title[exists]"),
        ("sort=title,title", "sort"),
        ("match=some", "match"),
        ("count=roughly", "count"),
        ("deleted=only", "deleted"),
    ] {
        let answer = service.get(&format!("/posts?{query}")).await;
        assert_eq!(answer.problem(), (400, "malformed-request"), "{query}");
        assert_eq!(answer.body["parameter"], json!(parameter), "{query}");
    }
}

#[tokio::test]
async fn an_id_that_can_be_none_is_a_400() {
    let service = Service::new().await;
    let long = "x".repeat(10_000);
    for id in ["a%27b", "a%00b", "a%20b", "%C3%A9", "%ff", "a%2Fb", &long] {
        let answer = service.get(&format!("/post/{id}")).await;
        assert_eq!(answer.problem(), (400, "malformed-request"), "{id}");
    }
    // The keys of other views may be any text.
    let named = service.get("/author/Ann%20O%27Neill").await;
    assert_eq!(named.problem(), (404, "not-found"));
    let long = service.get(&format!("/author/{long}")).await;
    assert_eq!(long.problem(), (400, "malformed-request"));
}

#[tokio::test]
async fn unknown_views_and_paths_are_not_found() {
    let service = Service::new().await;
    for uri in [
        "/nothing",
        "/nothing/x",
        "/posts/p1",
        "/post/a/b",
        "/",
        "/post/",
    ] {
        assert_eq!(
            service.get(uri).await.problem(),
            (404, "not-found"),
            "{uri}"
        );
    }
}

#[tokio::test]
async fn only_reading_is_allowed() {
    let service = Service::new().await;
    service.write("p1", "one", "ann").await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        for uri in ["/post/p1", "/posts", "/post"] {
            let answer = service.send(method, uri, &[]).await;
            assert_eq!(
                answer.problem(),
                (405, "method-not-allowed"),
                "{method} {uri}"
            );
            assert_eq!(answer.header("allow"), Some("GET,HEAD"));
        }
    }
    let head = service.send("HEAD", "/post/p1", &[]).await;
    let get = service.get("/post/p1").await;
    assert_eq!((head.status, head.body), (200, Value::Null));
    for name in [header::ETAG, header::CONTENT_TYPE, header::CONTENT_LENGTH] {
        assert_eq!(head.headers.get(&name), get.headers.get(&name), "{name}");
    }
    assert_eq!(service.send("HEAD", "/post/p2", &[]).await.status, 404);
}

#[tokio::test]
async fn an_answer_that_is_not_json_cannot_be_had() {
    let service = Service::new().await;
    for uri in ["/posts", "/post/p1", "/post"] {
        let answer = service.send("GET", uri, &[("Accept", "text/html")]).await;
        assert_eq!(answer.problem(), (406, "not-acceptable"), "{uri}");
    }
}

#[tokio::test]
async fn a_token_that_is_none_is_a_400() {
    let service = Service::new().await;
    let answer = service
        .send("GET", "/posts", &[("Consistency-Token", "x")])
        .await;
    assert_eq!(answer.problem(), (400, "malformed-request"));
}

#[tokio::test]
async fn a_read_with_a_token_sees_the_write_or_says_that_it_does_not_yet() {
    let service = Service::new().await;
    let token = service.write("p1", "one", "ann").await;
    for uri in ["/post/p1", "/posts", "/post?title=one"] {
        let seen = service.get_with(uri, &token, Some("wait=5")).await;
        assert_eq!(seen.status, 200, "{uri}");
        assert_eq!(seen.header("preference-applied"), Some("wait=5"));
    }
    let change = Change::Write("two".to_owned(), "ann".to_owned());
    let ahead = service.log.change("p1", &change).await.unwrap();
    let late = service.get_with("/post/p1", &ahead, None).await;
    assert_eq!(late.problem(), (503, "not-yet-projected"));
    assert_eq!(late.header("retry-after"), Some("1"));
    let at_once = service.get_with("/post/p1", &ahead, Some("wait=0")).await;
    assert_eq!(at_once.status, 200);
    assert_eq!(at_once.body["data"]["title"], json!("one"));
    assert_eq!(at_once.header("preference-applied"), Some("wait=0"));
    let (waited, ()) = tokio::join!(
        service.get_with("/post/p1", &ahead, Some("respond-async, wait=30")),
        service.project()
    );
    assert_eq!(waited.body["data"]["title"], json!("two"));
    let without = service
        .send("GET", "/post/p1", &[("Prefer", "wait=3")])
        .await;
    assert_eq!(without.header("preference-applied"), None);
}

#[tokio::test]
async fn a_read_sees_all_the_writes_whose_tokens_it_brings() {
    let service = Service::new().await;
    let one = service.write("p1", "one", "ann").await.to_string();
    let two = service.write("p2", "one", "ann").await.to_string();
    let change = Change::Write("two".to_owned(), "ann".to_owned());
    let ahead = service.log.change("p1", &change).await.unwrap().to_string();
    let get = async |tokens: &[&str]| {
        let headers: Vec<_> = tokens.iter().map(|t| ("Consistency-Token", *t)).collect();
        service.send("GET", "/posts", &headers).await.status
    };
    let joined = format!("{one}, {two}");
    assert_eq!(get(&[&joined]).await, 200);
    assert_eq!(get(&[&one, &two]).await, 200);
    assert_eq!(get(&[&one, &ahead]).await, 503);
    assert_eq!(get(&[&format!("{one},{ahead}")]).await, 503);
    assert_eq!(get(&[&format!("{one},")]).await, 400);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_longest_wait() {
    let service = Service::new().await;
    let mut token = service.write("p1", "one", "ann").await;
    token.positions = vec![(Partition::new(0), Position::new(99))];
    let begun = tokio::time::Instant::now();
    let late = service
        .get_with("/post/p1", &token, Some("wait=3600"))
        .await;
    assert_eq!(late.problem(), (503, "not-yet-projected"));
    assert_eq!(late.header("preference-applied"), Some("wait=30"));
    let waited = begun.elapsed();
    assert!((29..32).contains(&waited.as_secs()), "{waited:?}");
}

#[tokio::test]
async fn a_token_of_another_history_is_never_satisfied() {
    let service = Service::new().await;
    let token = ConsistencyToken {
        history: HistoryId::new(Uuid::from_u128(7)),
        ..service.write("p1", "one", "ann").await
    };
    let answer = service.get_with("/post/p1", &token, None).await;
    assert_eq!(answer.problem(), (503, "not-yet-projected"));
    assert!(answer.body["detail"].as_str().unwrap().contains("history"));
}

#[tokio::test]
async fn a_store_that_is_down_is_a_503_that_tells_nothing_of_it() {
    let service = Service::new().await;
    let token = service.write("p1", "one", "ann").await;
    service.store.cut_off(true);
    tokio::time::sleep(crate::ALIAS_MAX_AGE).await;
    for uri in ["/post/p1", "/posts", "/post?title=one"] {
        for answer in [
            service.get(uri).await,
            service.get_with(uri, &token, None).await,
        ] {
            assert_eq!(answer.problem(), (503, "unavailable"), "{uri}");
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert!(!answer.body.to_string().contains("cut off"));
        }
    }
    service.store.cut_off(false);
    assert_eq!(service.get("/post/p1").await.status, 200);
}

#[tokio::test]
async fn a_view_that_has_not_been_built_is_unavailable_and_not_empty() {
    let service = Service::unbuilt();
    for uri in ["/post/p1", "/posts", "/post"] {
        assert_eq!(
            service.get(uri).await.problem(),
            (503, "unavailable"),
            "{uri}"
        );
    }
}
