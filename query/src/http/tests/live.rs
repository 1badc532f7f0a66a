//! Live queries over HTTP.

use axum::body::BodyDataStream;
use futures_util::StreamExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;

const LIVE: &str = "text/event-stream";

/// How long an event may take: far more than it needs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A live connection.
pub(super) struct Live {
    status: u16,
    headers: HeaderMap,
    body: BodyDataStream,
}

/// An event as a client reads it.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) data: Value,
}

impl Live {
    async fn open(app: &Router, uri: &str, headers: &[(&str, &str)]) -> Self {
        Self::open_as(app, &Caller::anybody(), uri, headers).await
    }

    pub(super) async fn open_as(
        app: &Router,
        caller: &Caller,
        uri: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        let request = Request::builder().extension(caller.clone()).uri(uri);
        let mut request = request.header(header::ACCEPT, LIVE);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.into_data_stream(),
        }
    }

    /// The next frame; `None` at the end.
    pub(super) async fn frame(&mut self) -> Option<String> {
        let frame = timeout(PATIENCE, self.body.next()).await.expect("in time");
        frame.map(|bytes| String::from_utf8(bytes.unwrap().to_vec()).unwrap())
    }

    pub(super) async fn event(&mut self) -> Event {
        let frame = self.frame().await.unwrap();
        assert!(frame.ends_with("\n\n"), "{frame:?}");
        let field = |name: &str| {
            let mut lines = frame.lines();
            let line = lines.find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().to_owned()
        };
        Event {
            id: field("id: "),
            name: field("event: "),
            data: serde_json::from_str(&field("data: ")).unwrap(),
        }
    }
}

#[tokio::test]
async fn a_document_is_told_as_server_sent_events_and_gone_on_from() {
    let service = Service::new().await;
    service.write("p1", "one", "ann").await;
    let mut live = Live::open(&service.app, "/post/p1?fields=title", &[]).await;
    assert_eq!(live.status, 200);
    assert_eq!(live.headers["content-type"], LIVE);
    assert_eq!(live.headers["cache-control"], "no-store");
    assert_eq!(live.frame().await.unwrap(), "retry: 1000\n\n");
    let state = live.event().await;
    assert_eq!(state.name, "state");
    assert_eq!(state.data, json!({"data": {"id": "p1", "title": "one"}}));
    service.write("p1", "two", "ann").await;
    let changed = live.event().await;
    assert_eq!(
        (changed.name.as_str(), &changed.data["data"]["title"]),
        ("changed", &json!("two"))
    );
    drop(live);
    service.delete("p1").await;
    let last = [("Last-Event-ID", changed.id.as_str())];
    let mut live = Live::open(&service.app, "/post/p1?fields=title", &last).await;
    assert_eq!(live.frame().await.unwrap(), "retry: 1000\n\n");
    let removed = live.event().await;
    assert_eq!(
        (removed.name.as_str(), &removed.data),
        ("removed", &json!({"id": "p1"}))
    );
    // Another question begins anew.
    service.write("p2", "one", "ann").await;
    let mut live = Live::open(&service.app, "/post/p2", &last).await;
    live.frame().await;
    assert_eq!(live.event().await.name, "reset");
    assert_eq!(live.event().await.name, "state");
}

#[tokio::test]
async fn a_list_is_told_as_server_sent_events() {
    let service = Service::new().await;
    service.write("p1", "one", "ann").await;
    service.write("p2", "two", "ann").await;
    let mut live = Live::open(&service.app, "/posts?title=one&sort=-created_at", &[]).await;
    live.frame().await;
    let page = live.event().await;
    assert_eq!(page.name, "page");
    assert_eq!(page.data["data"].as_array().unwrap().len(), 1);
    service.write("p2", "one", "ann").await;
    let changed = live.event().await;
    assert_eq!(
        (changed.name.as_str(), &changed.data["data"]["id"]),
        ("changed", &json!("p2"))
    );
    service.write("p1", "two", "ann").await;
    let removed = live.event().await;
    assert_eq!(
        (removed.name.as_str(), &removed.data),
        ("removed", &json!({"id": "p1"}))
    );
}

#[tokio::test]
async fn what_cannot_be_told_live_is_refused() {
    let service = Service::new().await;
    service.write("p1", "one", "ann").await;
    service.write("p2", "one", "ann").await;
    let live = [("Accept", LIVE)];
    for (path, expected) in [
        ("/post/p9", (404, "not-found")),
        ("/nothing/p1", (404, "not-found")),
        ("/posts/p1", (404, "not-found")),
        ("/post?title=one", (406, "not-acceptable")),
        ("/post/p1/history", (406, "not-acceptable")),
        ("/post/p1?version=1", (400, "malformed-request")),
        ("/posts?limit=1", (400, "malformed-request")),
        ("/posts?count=exact", (400, "unknown-parameter")),
        ("/posts?after=x", (400, "unknown-parameter")),
        ("/posts?colour=red", (400, "unknown-parameter")),
    ] {
        let answer = service.send("GET", path, &live).await;
        assert_eq!(answer.problem(), expected, "{path}");
    }
    let odd = [("Accept", LIVE), ("Last-Event-ID", "7")];
    let answer = service.send("GET", "/post/p1", &odd).await;
    assert_eq!(answer.problem(), (400, "malformed-request"));
    let unbuilt = Service::unbuilt();
    let answer = unbuilt.send("GET", "/posts", &live).await;
    assert_eq!(answer.problem(), (503, "unavailable"));
}

#[tokio::test]
async fn without_the_log_nothing_is_told_live() {
    let mut service = Service::new().await;
    service.write("p1", "one", "ann").await;
    let catalog = Catalog::new(vec![posts(), authors()]).unwrap();
    let reads = Arc::new(service.store.clone());
    let queries = QueryService::new(catalog, reads, LiveViews::default());
    service.app = tidelog_http::open_to_all(tidelog_http::app(query_router(
        queries,
        QuerySettings::default(),
    )));
    let answer = service.send("GET", "/post/p1", &[("Accept", LIVE)]).await;
    assert_eq!(answer.problem(), (503, "unavailable"));
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains("`database_url`"), "{detail}");
}

#[tokio::test]
async fn live_connections_are_bounded_and_end_at_once_when_the_service_stops() {
    let mut service = Service::new().await;
    service.write("p1", "one", "ann").await;
    let catalog = Catalog::new(vec![posts(), authors()]).unwrap();
    let stop = CancellationToken::new();
    let reads = Arc::new(service.store.clone());
    let queries = QueryService::new(catalog, reads, LiveViews::default())
        .with_log(Arc::new(service.log.store.clone()))
        .with_stop(stop.clone());
    let settings = QuerySettings {
        max_live: 2,
        ..QuerySettings::default()
    };
    service.app = tidelog_http::open_to_all(tidelog_http::app(query_router(queries, settings)));
    let mut one = Live::open(&service.app, "/post/p1", &[]).await;
    let two = Live::open(&service.app, "/posts", &[]).await;
    let third = service.send("GET", "/post/p1", &[("Accept", LIVE)]).await;
    assert_eq!(third.problem(), (503, "overloaded"));
    assert!(third.header("retry-after").is_some());
    assert_eq!(service.get("/post/p1").await.status, 200);
    // Room is made by who goes.
    drop(two);
    let mut two = loop {
        let two = Live::open(&service.app, "/posts", &[]).await;
        if two.status == 200 {
            break two;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    stop.cancel();
    for live in [&mut one, &mut two] {
        while live.frame().await.is_some() {}
    }
}
