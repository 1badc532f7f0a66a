//! What could not be handled: seen, mended, tried again, passed over.

use serde_json::json;

use super::{POISON, Site, is_set_aside};
use crate::client::must;
use crate::services::Role;
use reqwest::Method;

#[tokio::test]
async fn a_poison_event_is_found_and_tried_again_in_order_after_the_cause_is_mended() {
    let site = Site::new().await;
    let bad = site.write("bad").await;
    let good = site.write("good").await;
    let payload = site.tamper("post/bad", 1, POISON).await;
    let eventbus = site.start(Role::EventBus).await;
    let query = site.start(Role::Query).await;
    let (admin, queries) = (eventbus.admin(), query.queries());
    let parked = is_set_aside(&admin, "bad", "parked").await;
    assert_eq!(
        (&parked["attempts"], &parked["subscription"]),
        (&json!(5), &json!("post"))
    );
    let patched = site.patch("bad", "B").await;

    // The others go on; who wrote this one hears why it is not seen.
    queries
        .get_after("/post/good", good.token())
        .await
        .data(200);
    for (token, why) in [(bad.token(), "set it aside"), (patched.token(), "")] {
        let read = queries
            .request(Method::GET, "/post/bad")
            .header("consistency-token", token)
            .header("prefer", "wait=1");
        let problem = must(read).await.problem(503, "not-yet-projected");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(why), "{detail}");
    }

    let listed = site.cli(&["parked"]).await.succeeded();
    let line = listed
        .stdout
        .lines()
        .find(|line| line.contains("bad"))
        .unwrap();
    assert!(
        line.contains("parked") && line.contains("expected struct"),
        "{line}"
    );
    assert!(
        listed.stdout.contains("parked retry post bad"),
        "{}",
        listed.stdout
    );
    let shown = site
        .cli(&["parked", "show", "post", "bad"])
        .await
        .succeeded();
    for part in [
        "post.created",
        "post/bad, version 1",
        "correlation_id",
        "expected struct",
    ] {
        // The error is broken into lines.
        let words: Vec<_> = shown.stdout.split_whitespace().collect();
        assert!(
            words.join(" ").contains(part),
            "no {part} in\n{}",
            shown.stdout
        );
    }
    assert!(shown.stdout.contains("--payload"), "{}", shown.stdout);
    let shown = site
        .cli(&["parked", "show", "post", "bad", "--payload"])
        .await
        .succeeded();
    assert!(
        shown.stdout.contains(&format!("payload     {POISON}")),
        "{}",
        shown.stdout
    );

    let in_vain = site.cli(&["parked", "retry", "post", "bad"]).await;
    assert_eq!(in_vain.code, Some(5), "{}", in_vain.output);
    assert!(
        in_vain.output.contains("cannot be handled still"),
        "{}",
        in_vain.output
    );
    site.tamper("post/bad", 1, &payload).await;
    let retried = site
        .cli(&["parked", "retry", "post", "bad"])
        .await
        .succeeded();
    assert!(
        retried.stdout.contains("post bad: goes on"),
        "{}",
        retried.stdout
    );
    let read = queries
        .get_after("/post/bad", patched.token())
        .await
        .data(200);
    assert_eq!((&read["title"], &read["version"]), (&json!("B"), &json!(2)));
    let listed = site.cli(&["parked"]).await.succeeded();
    assert!(
        listed.stdout.contains("nothing is set aside"),
        "{}",
        listed.stdout
    );
    let again = site.cli(&["parked", "retry", "post", "bad"]).await;
    assert_eq!(again.code, Some(4), "{}", again.output);
    assert!(again.output.contains("or not any more"), "{}", again.output);
}

#[tokio::test]
async fn the_first_event_of_a_sequence_is_passed_over_for_a_reason_that_is_kept() {
    let site = Site::new().await;
    site.write("bad").await;
    site.tamper("post/bad", 1, POISON).await;
    let eventbus = site.start(Role::EventBus).await;
    let query = site.start(Role::Query).await;
    let (admin, queries) = (eventbus.admin(), query.queries());
    let first = is_set_aside(&admin, "bad", "parked").await["first"].clone();
    let patched = site.patch("bad", "B").await;

    let skip = "/admin/api/parked/post/skip";
    for (body, status, kind) in [
        (json!({"sequence": "bad"}), 422, "invalid"),
        (json!({"sequence": "bad", "reason": "  "}), 422, "invalid"),
        (
            json!({"sequence": "bad", "reason": "x", "all": true}),
            422,
            "invalid",
        ),
        (json!({"sequence": "good", "reason": "x"}), 404, "not-found"),
        (
            json!({"sequence": "bad", "reason": "x", "position": 99}),
            412,
            "precondition-failed",
        ),
    ] {
        admin.post(skip, &body).await.problem(status, kind);
    }
    let all = json!({"all": true});
    let unknown = admin.post("/admin/api/parked/nothing/retry", &all).await;
    let problem = unknown.problem(404, "not-found");
    assert!(
        problem["detail"].as_str().unwrap().contains("post"),
        "{problem}"
    );
    let too_much = json!({"sequence": "bad", "reason": "x".repeat(70_000)});
    admin.post(skip, &too_much).await.problem(413, "too-large");

    let reason = "the order was a test";
    let body = json!({"sequence": "bad", "reason": reason, "position": first});
    let skipped = admin.post(skip, &body).await.data(200);
    assert_eq!(
        (&skipped[0]["done"], &skipped[0]["parked"]),
        (&json!(true), &json!([]))
    );
    let read = queries
        .get_after("/post/bad", patched.token())
        .await
        .data(200);
    assert_eq!((&read["title"], &read["version"]), (&json!("B"), &json!(2)));
    let kept = admin.get("/admin/api/skipped/post").await.data(200);
    assert_eq!(
        (&kept[0]["reason"], &kept[0]["position"]),
        (&json!(reason), &first)
    );
    // Another skip has nothing to pass over.
    admin.post(skip, &body).await.problem(404, "not-found");
}

#[tokio::test]
async fn all_that_is_set_aside_is_tried_again_at_once() {
    let site = Site::new().await;
    let mut payloads = Vec::new();
    for id in ["bad", "worse"] {
        site.write(id).await;
        payloads.push((id, site.tamper(&format!("post/{id}"), 1, POISON).await));
    }
    let eventbus = site.start(Role::EventBus).await;
    let admin = eventbus.admin();
    for (id, payload) in payloads {
        is_set_aside(&admin, id, "parked").await;
        site.tamper(&format!("post/{id}"), 1, &payload).await;
    }
    site.cli(&["parked", "retry", "post", "--all"])
        .await
        .succeeded();
    assert_eq!(admin.get("/admin/api/parked").await.data(200), json!([]));
}
