//! The past over HTTP.

use async_trait::async_trait;
use tidelog_domain::{RecordedEvent, StreamId, Version};
use tidelog_eventbus::{LogError, LogIdentity, StreamReader};

use super::*;

/// A log that cannot be reached.
struct Away;

fn away() -> LogError {
    LogError::Unavailable("no route to 10.0.0.1".into())
}

#[async_trait]
impl LogReader for Away {
    async fn identity(&self) -> Result<LogIdentity, LogError> {
        Err(away())
    }

    async fn heads(&self) -> Result<Vec<Position>, LogError> {
        Err(away())
    }

    async fn read(
        &self,
        _: Partition,
        _: Cursor,
        _: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        Err(away())
    }
}

#[async_trait]
impl StreamReader for Away {
    async fn read_stream(
        &self,
        _: &StreamId,
        _: Version,
        _: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        Err(away())
    }
}

#[tokio::test]
async fn a_history_is_told_page_by_page_without_a_gap() {
    let service = Service::new().await;
    for n in 1..=5 {
        service.write("p1", &format!("title {n}"), "ann").await;
        service.write("p2", "beside", "bob").await;
    }
    service.delete("p1").await;
    let (mut told, mut path) = (Vec::new(), "/post/p1/history?limit=2".to_owned());
    let mut pages = 0;
    loop {
        let page = service.get(&path).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let data = page.body["data"].as_array().unwrap();
        assert!((1..=2).contains(&data.len()), "{}", page.body);
        told.extend(data.clone());
        pages += 1;
        let Some(next) = page.body["next"].as_str() else {
            break;
        };
        path = format!("/post/p1/history?limit=2&after={next}");
    }
    assert_eq!(pages, 3);
    let versions: Vec<_> = told.iter().map(|event| event["version"].clone()).collect();
    assert_eq!(versions, (1..=6).map(|n| json!(n)).collect::<Vec<_>>());
    assert_eq!(told[5]["type"], "post.deleted");
    assert_eq!(
        told[1]["data"],
        json!({"state": {"title": "title 2", "author": "ann"}, "before": {"title": "title 1"}})
    );
    let names: Vec<&String> = told[0].as_object().unwrap().keys().collect();
    let expected = [
        "id",
        "type",
        "version",
        "schema_version",
        "recorded_at",
        "data",
        "metadata",
    ];
    assert_eq!(names, expected);
    // Behind the last one there is nothing, which is no error; of what never was, there is.
    let end = service.get("/post/p1/history?after=6").await;
    assert_eq!(end.body, json!({"data": [], "next": null}));
    for path in ["/post/p9/history", "/post/p9/history?after=3"] {
        let missing = service.get(path).await;
        assert_eq!(missing.problem(), (404, "not-found"), "{path}");
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_told_as_it_was_stored() {
    let service = Service::new().await;
    service
        .log
        .append("p1", "post.created", &json!("odd"))
        .await;
    let future = json!({"state": {"title": "later"}, "before": {}});
    service
        .log
        .append_as("p1", "post.updated", 9, &future)
        .await;
    let page = service.get("/post/p1/history").await;
    let data = &page.body["data"];
    assert_eq!(data[0]["data"], "odd");
    assert_eq!(
        (&data[1]["data"], &data[1]["schema_version"]),
        (&future, &json!(9))
    );
    assert_eq!(data[1]["unreadable"], json!(true));
    let unread = service.get("/post/p1?version=2").await;
    assert_eq!(unread.problem(), (500, "internal"));
}

#[tokio::test]
async fn a_document_is_shown_as_it_was_after_a_version_and_at_a_time() {
    let service = Service::new().await;
    for title in ["one", "two", "three"] {
        service.write("p1", title, "ann").await;
        // Times differ by what the log's clock resolves.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    service.delete("p1").await;
    let events = service.log.all().await;
    for (n, title) in ["one", "two", "three"].iter().enumerate() {
        let version = n + 1;
        let then = service.get(&format!("/post/p1?version={version}")).await;
        assert_eq!(then.body["data"]["title"], json!(title));
        assert_eq!(then.body["data"]["version"], json!(version));
        let tag = then.header("etag").unwrap().to_owned();
        assert!(tag.starts_with(&format!("\"{version}.")), "{tag}");
        let path = format!("/post/p1?version={version}");
        let again = service.send("GET", &path, &[("If-None-Match", &tag)]).await;
        assert_eq!(again.status, 304);
        // Right then, and between it and the next one.
        for later in [0, 1] {
            let at = events[n].recorded_at + chrono::TimeDelta::milliseconds(later);
            let at = at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
            let found = service.get(&format!("/post/p1?at={at}&fields=title")).await;
            assert_eq!(
                found.body["data"],
                json!({"id": "p1", "title": title}),
                "{at}"
            );
        }
    }
    let gone = service.get("/post/p1?version=4").await;
    assert_eq!(gone.problem(), (404, "not-found"));
    let gone = service.get("/post/p1?version=4&deleted=include").await;
    let data = &gone.body["data"];
    assert_eq!(
        (&data["title"], &data["deleted"]),
        (&json!("three"), &json!(true))
    );
    for missing in ["version=5", "at=1999-01-01T00:00:00Z"] {
        let missing = service.get(&format!("/post/p1?{missing}")).await;
        assert_eq!(missing.problem(), (404, "not-found"));
    }
    let unborn = service.get("/post/p9?version=1").await;
    assert_eq!(unborn.problem(), (404, "not-found"));
}

#[tokio::test]
async fn what_has_no_single_past_and_what_makes_no_sense_is_refused() {
    let service = Service::new().await;
    service.write("p1", "one", "ann").await;
    for (path, expected) in [
        ("/author/ann/history", (404, "not-found")),
        ("/posts/p1/history", (404, "not-found")),
        ("/nothing/p1/history", (404, "not-found")),
        ("/author/ann?version=1", (400, "unknown-parameter")),
        (
            "/author/ann?at=2026-01-31T12:00:00Z",
            (400, "unknown-parameter"),
        ),
        ("/post/p1?version=0", (400, "malformed-request")),
        ("/post/p1?version=+1", (400, "malformed-request")),
        (
            "/post/p1?version=99999999999999999999",
            (400, "malformed-request"),
        ),
        ("/post/p1?at=yesterday", (400, "malformed-request")),
        (
            "/post/p1?version=1&at=2026-01-31T12:00:00Z",
            (400, "malformed-request"),
        ),
        ("/post/p1?version[gt]=1", (400, "unknown-parameter")),
        ("/post/p1/history?sort=id", (400, "unknown-parameter")),
        ("/post/p1/history?limit=0", (400, "malformed-request")),
        ("/post/p1/history?after=x", (400, "malformed-request")),
    ] {
        let answer = service.get(path).await;
        assert_eq!(answer.problem(), expected, "{path}");
    }
}

#[tokio::test]
async fn without_the_log_only_the_past_is_unavailable() {
    let mut service = Service::new().await;
    service.write("p1", "one", "ann").await;
    let catalog = || Catalog::new(vec![posts(), authors()]).unwrap();
    let reads = Arc::new(service.store.clone());
    let none = QueryService::new(catalog(), reads.clone(), LiveViews::default());
    let gone = QueryService::new(catalog(), reads, LiveViews::default()).with_log(Arc::new(Away));
    for (queries, says) in [(none, "`database_url`"), (gone, "cannot be reached")] {
        service.app = tidelog_http::open_to_all(tidelog_http::app(query_router(
            queries,
            QuerySettings::default(),
        )));
        assert_eq!(service.get("/post/p1").await.status, 200);
        for path in ["/post/p1/history", "/post/p1?version=1"] {
            let answer = service.get(path).await;
            assert_eq!(answer.problem(), (503, "unavailable"), "{path}");
            assert!(answer.header("retry-after").is_some());
            let detail = answer.body["detail"].as_str().unwrap();
            assert!(
                detail.contains(says) && !detail.contains("10.0"),
                "{detail}"
            );
        }
    }
}
