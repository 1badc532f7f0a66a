//! The record of what was done.

use serde_json::json;

use super::{ANN, bearer, get, post, record, tokens};
use crate::services::{CommandLine, Role, Service};

#[tokio::test]
async fn an_action_is_recorded_with_who_what_why_and_what_came_of_it() {
    let tokens = tokens();
    let service = Service::start_with(Role::Dev, &[("TIDELOG_ADMIN_TOKENS", &tokens)]).await;
    let (admin, ann) = (service.admin(), bearer(ANN));
    let headers = [
        ("authorization", ann.as_str()),
        ("x-correlation-id", "conversation-7"),
    ];
    let pause = "/admin/api/subscriptions/post/pause";
    crate::waiting::eventually("the view to be there", async || {
        let answer = post(&admin, pause, &headers, &json!({"reason": "a move"})).await;
        (answer.status == 200)
            .then_some(())
            .ok_or_else(|| answer.body.clone())
    })
    .await;
    let skip = json!({"sequence": "nobody", "reason": "a test"});
    let skipped = post(&admin, "/admin/api/parked/post/skip", &headers, &skip).await;
    skipped.problem(404, "not-found");

    let recorded = record(&admin, &headers[..1]).await;
    let (skip, pause) = (&recorded[0], &recorded[1]);
    assert_eq!(
        (&pause["action"], &pause["target"], &pause["said"]["reason"]),
        (
            &json!("subscription.pause"),
            &json!("post"),
            &json!("a move")
        )
    );
    assert_eq!(
        (&pause["by"], &pause["via"], &pause["correlation_id"]),
        (&json!("ann"), &json!("api"), &json!("conversation-7"))
    );
    assert_eq!(pause["ended"]["outcome"], "done", "{pause}");
    assert!(pause["at"].as_str() <= pause["ended_at"].as_str());
    assert_eq!(skip["ended"]["outcome"], "refused", "{skip}");
    assert!(skip["ended"]["detail"].as_str().unwrap().contains("nobody"));

    // It is in the log itself, so it is there after a restart, and in the feed.
    let mut service = service;
    service.restart().await;
    let again = record(&service.admin(), &headers[..1]).await;
    assert_eq!(again, recorded);
}

#[tokio::test]
async fn the_record_is_read_page_by_page_without_a_gap() {
    let service = Service::start_with(Role::Dev, &[]).await;
    let admin = service.admin();
    for number in 0..25 {
        let body = json!({"reason": number.to_string()});
        post(&admin, "/admin/api/subscriptions/nobody/pause", &[], &body)
            .await
            .problem(404, "not-found");
    }
    let mut reasons = Vec::new();
    let mut path = "/admin/api/audit?limit=4".to_owned();
    loop {
        let page = get(&admin, &path, &[]).await.json();
        let entries = page["data"].as_array().unwrap();
        assert!(entries.len() <= 4 && entries.iter().all(|own| own["ended"].is_object()));
        let said = entries.iter().map(|own| own["said"]["reason"].clone());
        reasons.extend(said);
        let Some(next) = page["next"].as_u64() else {
            break;
        };
        path = format!("/admin/api/audit?limit=4&before={next}");
    }
    let all: Vec<_> = (0..25)
        .rev()
        .map(|number| json!(number.to_string()))
        .collect();
    assert_eq!(reasons, all);
    for path in ["/admin/api/audit?before=x", "/admin/api/audit?after=1"] {
        get(&admin, path, &[])
            .await
            .problem(400, "malformed-request");
    }
}

#[tokio::test]
async fn what_the_command_line_does_on_servers_is_recorded_too() {
    let backends = crate::services::Backends::fresh().await;
    let service = Service::start(Role::EventBus, &backends).await;
    let run = CommandLine::new(&["subscriptions", "pause", "post", "--reason", "a move"]);
    let run = run.with(backends.settings()).with([("USER", "ann")]);
    crate::waiting::eventually("the view to be there", async || {
        let views = get(&service.admin(), "/admin/api/views/post", &[])
            .await
            .json();
        (!views["data"]["version"].is_null())
            .then_some(())
            .ok_or_else(|| views.to_string())
    })
    .await;
    run.run().await.succeeded();
    let recorded = record(&service.admin(), &[]).await;
    let by = recorded[0]["by"].as_str().unwrap();
    assert!(by.starts_with("ann@") && by.len() > "ann@".len(), "{by}");
    assert_eq!(recorded[0]["via"], "cli");
    assert_eq!(recorded[0]["ended"]["outcome"], "done");
}
