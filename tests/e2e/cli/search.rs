//! The search over HTTP: pages, cursors, what is turned down.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Ground, names, write};

/// Reads `path` page by page, to its end.
async fn pages(ground: &Ground, path: &str) -> Vec<String> {
    let admin = ground.admin();
    let (mut all, mut after) = (Vec::new(), String::new());
    for _ in 0..200 {
        let page = admin.get(&format!("{path}{after}")).await;
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        let events = page["data"].as_array().unwrap();
        assert!(events.len() <= 7, "{page}");
        all.extend(names(events));
        if page["more"] == false {
            return all;
        }
        after = format!("&after={}", page["next"].as_str().unwrap());
    }
    panic!("it does not end");
}

#[tokio::test]
async fn pages_give_each_event_once_in_the_order_of_time() {
    for ground in Ground::both().await {
        for number in 0..40 {
            write(&ground.site.commands, &format!("p{number}"), "A", "c").await;
        }
        let newest = pages(&ground, "/admin/api/events?limit=7").await;
        let expected: Vec<_> = (0..40)
            .rev()
            .map(|number| format!("post/p{number}@1"))
            .collect();
        assert_eq!(newest, expected);
        let mut oldest = pages(
            &ground,
            "/admin/api/events?limit=7&order=oldest&correlation=c",
        )
        .await;
        oldest.reverse();
        assert_eq!(oldest, expected);
        let each: BTreeSet<_> = newest.iter().collect();
        assert_eq!(each.len(), 40);
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_turned_down_by_name() {
    let ground = Ground::dev().await;
    write(&ground.site.commands, "a", "A", "c").await;
    let admin = ground.admin();
    for (query, parameter) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("order=sideways", "order"),
        ("since=yesterday", "since"),
        ("stream=post", "stream"),
        ("causation=1", "causation"),
        ("after=nonsense", "after"),
        ("payload=yes", "payload"),
    ] {
        let refused = admin.get(&format!("/admin/api/events?{query}")).await;
        let problem = refused.problem(400, "malformed-request");
        assert_eq!(problem["parameter"], parameter, "{query}");
    }
    let unknown = admin.get("/admin/api/events?where=1").await;
    unknown.problem(400, "unknown-parameter");
    let other = "1.00000000-0000-4000-8000-000000000000.0-1";
    let gone = admin.get(&format!("/admin/api/events?after={other}")).await;
    gone.problem(410, "history-changed");
    let stream = admin.get("/admin/api/streams/post/nobody").await;
    stream.problem(404, "not-found");
}

#[tokio::test]
async fn the_events_of_a_stream_come_page_by_page() {
    let ground = Ground::dev().await;
    let commands = &ground.site.commands;
    write(commands, "a", "Sesame", "c").await;
    for number in 0..4 {
        super::retitle(commands, "a", &format!("A{number}"), "c").await;
    }
    let admin = ground.admin();
    let path = "/admin/api/streams/post/a";
    let first = admin.get(&format!("{path}?limit=3")).await;
    assert_eq!(first.json()["next"], 3);
    let data = first.data(200);
    assert_eq!(
        (&data["stream"], &data["version"]),
        (&Value::from("post/a"), &Value::from(5))
    );
    assert!(!first.body.contains("Sesame"), "{}", first.body);
    let rest = admin.get(&format!("{path}?after=3&payload=true")).await;
    assert_eq!(
        names(rest.data(200)["events"].as_array().unwrap()),
        ["post/a@4", "post/a@5"]
    );
    assert_eq!(rest.json()["next"], Value::Null);
    assert!(rest.body.contains("A3"), "{}", rest.body);
}
