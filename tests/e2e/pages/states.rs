//! What a stream was after each of its events, and what changed between two of them, as programs ask for it.

use serde_json::{Value, json};

use super::get;
use crate::client::Client;
use crate::services::{Role, Service};

/// What is said of the stream of the post `a`.
async fn said(admin: &Client, query: &str) -> Value {
    let path = format!("/admin/api/streams/post/a?{query}");
    get(admin, &path, &[]).await.data(200)
}

#[tokio::test]
async fn a_stream_is_told_with_its_states_and_what_changed_between_two() {
    let service = Service::start_with(Role::Dev, &[]).await;
    let (commands, admin) = (service.commands(), service.admin());
    let post = json!({"id": "a", "title": "A", "content": "", "author_name": "Ann"});
    commands.post("/post", &post).await.data(201);
    for title in ["B", "C"] {
        let change = json!({"title": title});
        commands.patch("/post/a", &change).await.data(200);
    }
    commands.delete("/post/a").await.data(200);

    let plain = said(&admin, "").await;
    assert_eq!(plain["version"], 4);
    assert_eq!((plain.get("states"), plain.get("difference")), (None, None));

    let page = said(&admin, "states=true&after=1&limit=2").await;
    let state = |title: &str| json!({"title": title, "content": "", "author_name": "Ann"});
    let expected = json!([
        {"version": 2, "lifecycle": "live", "state": state("B")},
        {"version": 3, "lifecycle": "live", "state": state("C")},
    ]);
    assert_eq!(page["states"], expected);
    assert_eq!(page["events"].as_array().unwrap().len(), 2);
    let last = said(&admin, "states=true&after=3").await;
    assert_eq!(last["states"][0]["lifecycle"], "ended");

    let changed = json!([{"path": "/title", "before": "A", "after": "C"}]);
    let expected = json!({"version": 3, "compare": 1, "changes": changed, "more": 0});
    let both = said(&admin, "version=3&compare=1").await;
    assert_eq!(both["difference"], expected);
    // The one before is meant unless another is named, and before the first there is nothing.
    let first = said(&admin, "version=1").await;
    assert_eq!(first["difference"]["compare"], 0);
    let changes = first["difference"]["changes"].as_array().unwrap();
    assert!(changes.iter().all(|own| own.get("before").is_none()));
    assert_eq!(changes.len(), 3);

    for wrong in [
        "version=5",
        "version=0",
        "version=1&compare=5",
        "states=true&limit=101",
    ] {
        let path = format!("/admin/api/streams/post/a?{wrong}");
        let problem = get(&admin, &path, &[])
            .await
            .problem(400, "malformed-request");
        assert!(problem["parameter"].is_string(), "{problem}");
    }
    // The record of what was done is no aggregate's.
    let pause = "/admin/api/subscriptions/nobody/pause";
    super::post(&admin, pause, &[], &json!({}))
        .await
        .problem(404, "not-found");
    let path = "/admin/api/streams/tidelog/operations?states=true";
    let record = get(&admin, path, &[]).await.data(200);
    assert_eq!(
        (&record["states"], &record["states_end"]["version"]),
        (&json!([]), &json!(1))
    );
}
