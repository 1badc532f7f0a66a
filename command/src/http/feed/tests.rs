//! The feed as a client sees it, on the log in memory.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use serde_json::Value;
use tidelog_domain::{Cursor, Partitions, Position, StreamId};
use tower::ServiceExt;

use super::*;
use crate::fixtures::*;
use crate::store::{EventStore, InMemoryEventStore};

struct Client {
    store: Arc<WatchedStore>,
    app: Router,
}

impl Client {
    fn new() -> Self {
        let store = WatchedStore::new();
        let app = tidelog_http::open_to_all(tidelog_http::app(feed_router(
            "blog",
            Arc::clone(&store) as _,
        )));
        Self { store, app }
    }

    async fn get(&self, query: &str) -> (u16, Value) {
        get_from(&self.app, query).await
    }

    /// The data of a page, and what comes after it.
    async fn page(&self, query: &str) -> (Vec<Value>, String) {
        let (status, mut body) = self.get(query).await;
        assert_eq!(status, 200, "{body}");
        let Value::Array(data) = body["data"].take() else {
            unreachable!("{body}")
        };
        (data, body["next"].as_str().unwrap().to_owned())
    }
}

async fn get_from(app: &Router, query: &str) -> (u16, Value) {
    let request = Request::get(format!("/events{query}")).body(Body::empty());
    let response = app.clone().oneshot(request.unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap())
}

/// The partition of the posts that are written here.
fn partition() -> Partition {
    StreamId::new("post", "1").unwrap().partition(PARTITIONS)
}

#[tokio::test]
async fn a_partition_is_read_page_by_page_in_order_and_to_the_end() {
    let client = Client::new();
    for title in ["a", "b", "c"] {
        client.store.rival("post/1", retitled(title)).await;
    }
    let partition = partition();
    let (first, next) = client
        .page(&format!("?partition={partition}&limit=2"))
        .await;
    let (second, end) = client
        .page(&format!("?partition={partition}&limit=2&after={next}"))
        .await;
    let events = first.iter().chain(&second);
    let titles: Vec<_> = events
        .map(|event| &event["data"]["state"]["title"])
        .collect();
    assert_eq!(titles, ["a", "b", "c"]);
    assert_eq!(first[0]["source"], "/blog/post");
    assert_eq!(first[0]["position"], "1");
    // At the end the cursor stays, until there is more.
    let rest = format!("?partition={partition}&after={end}");
    assert_eq!(client.page(&rest).await, (Vec::new(), end.clone()));
    client.store.rival("post/1", retitled("d")).await;
    let (more, later) = client.page(&rest).await;
    assert_eq!(more[0]["data"]["state"]["title"], "d");
    assert_ne!(later, end);
}

#[tokio::test]
async fn an_event_is_what_the_bus_has_to_the_byte() {
    let client = Client::new();
    client.store.rival("post/1", retitled("a")).await;
    let event = &client.store.events("post/1").await[0];
    let request = Request::get(format!("/events?partition={}", partition()));
    let response = client
        .app
        .clone()
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let wire = String::from_utf8(wire::encode("blog", event).unwrap()).unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert!(
        body.starts_with(&format!(r#"{{"data":[{wire}],"next":"#)),
        "{body}"
    );
}

#[tokio::test]
async fn a_cursor_before_the_first_event_can_be_kept_too() {
    let client = Client::new();
    let (none, start) = client.page("?partition=0").await;
    assert!(none.is_empty());
    assert_eq!(
        client.page(&format!("?partition=0&after={start}")).await.1,
        start
    );
}

#[tokio::test]
async fn a_cursor_of_a_past_that_is_over_is_gone() {
    let client = Client::new();
    client.store.rival("post/1", retitled("a")).await;
    let partition = partition();
    let (_, next) = client.page(&format!("?partition={partition}")).await;
    let gone = async |after: &str| {
        let (status, body) = client
            .get(&format!("?partition={partition}&after={after}"))
            .await;
        (status, body["type"].as_str().map(str::to_owned))
    };
    let expected = (410, Some("urn:tidelog:problem:history-changed".to_owned()));
    // Another event at the position: the log went back in time, and nobody has declared it yet.
    let at = FeedCursor::read(&next).unwrap();
    let other = FeedCursor {
        at: Cursor::at(
            at.at.position,
            tidelog_domain::EventId::new(uuid::Uuid::now_v7()),
        ),
        ..at
    };
    assert_eq!(gone(&other.to_string()).await, expected);
    // A position that the log does not have.
    let ahead = FeedCursor {
        at: Cursor {
            position: Position::new(9),
            ..at.at
        },
        ..at
    };
    assert_eq!(gone(&ahead.to_string()).await, expected);
    assert_eq!(gone(&next).await.0, 200);
    client.store.renew_history().await.unwrap();
    assert_eq!(gone(&next).await, expected);
}

#[tokio::test]
async fn the_heads_say_whose_log_it_is_and_where_it_ends() {
    let client = Client::new();
    client.store.rival("post/1", retitled("a")).await;
    client.store.rival("post/1", retitled("b")).await;
    let heads = async |query: &str| get_from(&client.app, &format!("/heads{query}")).await;
    let (status, body) = heads("").await;
    assert_eq!(status, 200);
    let history = client.store.identity().await.unwrap().history;
    let expected: Vec<_> = PARTITIONS
        .iter()
        .map(|one| if one == partition() { "2" } else { "0" })
        .collect();
    assert_eq!(
        body,
        serde_json::json!({"data": {"app": "blog", "history": history.to_string(), "heads": expected}})
    );
    let (status, body) = heads("?partition=0").await;
    assert_eq!((status, &body["parameter"]), (400, &"partition".into()));
}

#[tokio::test]
async fn a_cursor_without_an_id_is_a_position() {
    let client = Client::new();
    for title in ["a", "b"] {
        client.store.rival("post/1", retitled(title)).await;
    }
    let partition = partition();
    let history = client.store.identity().await.unwrap().history;
    let after = format!("1.{history}.{partition}-1");
    let (events, _) = client
        .page(&format!("?partition={partition}&after={after}"))
        .await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["data"]["state"]["title"], "b");
}

#[tokio::test]
async fn what_does_not_fit_is_named() {
    let client = Client::new();
    let (_, zero) = client.page("?partition=0").await;
    for (query, name, parameter) in [
        (String::new(), "malformed-request", "partition"),
        ("?partition=".to_owned(), "malformed-request", "partition"),
        ("?partition=16".to_owned(), "malformed-request", "partition"),
        ("?partition=-1".to_owned(), "malformed-request", "partition"),
        (
            "?partition=0&partition=1".to_owned(),
            "malformed-request",
            "partition",
        ),
        (
            "?partition=0&limit=0".to_owned(),
            "malformed-request",
            "limit",
        ),
        (
            "?partition=0&limit=1001".to_owned(),
            "malformed-request",
            "limit",
        ),
        (
            "?partition=0&after=1".to_owned(),
            "malformed-request",
            "after",
        ),
        (
            format!("?partition=1&after={zero}"),
            "malformed-request",
            "after",
        ),
        (
            "?partition=0&from=1".to_owned(),
            "unknown-parameter",
            "from",
        ),
    ] {
        let (status, body) = client.get(&query).await;
        assert_eq!(status, 400, "{query}");
        assert_eq!(
            body["type"],
            format!("urn:tidelog:problem:{name}"),
            "{query}"
        );
        assert_eq!(body["parameter"], parameter, "{query}");
    }
}

/// A log that is away, or never answers.
struct Away {
    silent: AtomicBool,
}

#[async_trait]
impl LogReader for Away {
    async fn identity(&self) -> Result<LogIdentity, LogError> {
        InMemoryEventStore::new(Partitions::DEFAULT)
            .identity()
            .await
    }

    async fn heads(&self) -> Result<Vec<Position>, LogError> {
        Ok(Vec::new())
    }

    async fn read(
        &self,
        _: Partition,
        _: Cursor,
        _: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        if self.silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        Err(LogError::Unavailable("db.example:3306 refused".into()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_away_is_said_without_its_internals() {
    for silent in [false, true] {
        let log = Arc::new(Away {
            silent: silent.into(),
        });
        let app = tidelog_http::open_to_all(tidelog_http::app(feed_router("blog", log)));
        let (status, body) = get_from(&app, "?partition=0").await;
        assert_eq!(status, 503);
        assert_eq!(body["type"], "urn:tidelog:problem:unavailable");
        assert!(!body.to_string().contains("db.example"), "{body}");
    }
}
