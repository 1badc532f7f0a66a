//! Who may do what, by HTTP as anybody can send it.

use serde_json::json;

use super::{ANN, WALL, actions, bearer, get, post, record, tokens};
use crate::services::{Role, Service};
use crate::waiting::eventually;

/// Waits until the views are built, so that every action has something to work on.
async fn built(admin: &crate::client::Client, headers: &[(&str, &str)]) {
    eventually("the views to be built", async || {
        let views = get(admin, "/admin/api/views", headers).await.json();
        let all = views["data"].as_array().cloned().unwrap_or_default();
        let all_built = !all.is_empty() && all.iter().all(|view| !view["version"].is_null());
        all_built.then_some(()).ok_or_else(|| views.to_string())
    })
    .await;
}

#[tokio::test]
async fn each_action_is_done_for_those_who_may_and_refused_to_all_others() {
    let tokens = tokens();
    let service = Service::start_with(Role::Dev, &[("TIDELOG_ADMIN_TOKENS", &tokens)]).await;
    let admin = service.admin();
    let (ann, wall) = (bearer(ANN), bearer(WALL));
    let (ann, wall) = (
        ("authorization", ann.as_str()),
        ("authorization", wall.as_str()),
    );
    built(&admin, &[ann]).await;

    let foreign_origin = ("origin", "http://evil.example");
    for (path, body) in actions() {
        for (who, headers, status, problem) in [
            ("nobody", vec![], 401, "unauthenticated"),
            (
                "a wrong token",
                vec![("authorization", "Bearer 0123456789abcdef")],
                401,
                "unauthenticated",
            ),
            ("a reader", vec![wall], 403, "forbidden"),
            (
                "a page of another site",
                vec![ann, ("sec-fetch-site", "cross-site")],
                403,
                "forbidden",
            ),
            (
                "a page of a neighbour",
                vec![ann, ("sec-fetch-site", "same-site")],
                403,
                "forbidden",
            ),
            (
                "a page of another origin",
                vec![ann, foreign_origin],
                403,
                "forbidden",
            ),
            (
                "a page without an origin",
                vec![ann, ("origin", "null")],
                403,
                "forbidden",
            ),
        ] {
            let answer = post(&admin, path, &headers, &body).await;
            assert_eq!(answer.status, status, "{path} by {who}: {answer:?}");
            answer.problem(status, problem);
        }
    }
    assert_eq!(
        record(&admin, &[wall]).await,
        Vec::<serde_json::Value>::new()
    );

    for (path, body) in actions() {
        let own_origin = format!("http://{}", admin.address());
        let headers = [
            ann,
            ("sec-fetch-site", "same-origin"),
            ("origin", own_origin.as_str()),
        ];
        let answer = post(&admin, path, &headers, &body).await;
        assert!(
            ![401, 403, 500, 503].contains(&answer.status),
            "{path}: {answer:?}"
        );
    }
    let recorded = record(&admin, &[wall]).await;
    let names: Vec<_> = recorded
        .iter()
        .rev()
        .map(|own| own["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "subscription.pause",
            "subscription.resume",
            "parked.retry",
            "parked.skip",
            "view.replay",
            "view.rollback",
            "view.clean"
        ]
    );
    assert!(recorded.iter().all(|own| own["by"] == "ann"));
    // Neither secret is anywhere in what the process said.
    let output = service.process().output();
    assert!(!output.contains(ANN) && !output.contains(WALL), "{output}");
}

#[tokio::test]
async fn without_tokens_whoever_is_on_the_machine_may_act_and_no_page_of_anybody_else() {
    let service = Service::start_with(Role::Dev, &[]).await;
    let admin = service.admin();
    built(&admin, &[]).await;
    for (path, body) in actions() {
        for headers in [
            [("sec-fetch-site", "cross-site")],
            [("origin", "http://evil.example")],
            [("host", "evil.example:5050")],
        ] {
            let answer = post(&admin, path, &headers, &body).await;
            assert_eq!(answer.status, 403, "{path} {headers:?}: {answer:?}");
            answer.problem(403, "forbidden");
        }
    }
    let rebound = get(&admin, "/admin/api/views", &[("host", "evil.example")]).await;
    let problem = rebound.problem(403, "forbidden");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("evil.example") && detail.contains("TIDELOG_ADMIN_TOKENS"),
        "{detail}"
    );
    assert!(record(&admin, &[]).await.is_empty());
    // What watches a process does not sign in.
    for path in ["/health/live", "/health/ready", "/metrics"] {
        let open = get(&admin, path, &[("host", "evil.example")]).await;
        assert_eq!(open.status, 200, "{path}");
    }
    let paused = post(
        &admin,
        "/admin/api/subscriptions/post/pause",
        &[],
        &json!({}),
    )
    .await;
    paused.data(200);
    let recorded = record(&admin, &[]).await;
    assert_eq!(
        (&recorded[0]["by"], &recorded[0]["via"]),
        (&json!("local"), &json!("api"))
    );
}

#[tokio::test]
async fn beyond_the_machine_nobody_may_act_who_is_not_named() {
    let everywhere = crate::services::free_address().replace("127.0.0.1", "0.0.0.0");
    let service = Service::launch(
        Role::Dev,
        &[
            ("TIDELOG_ADMIN_ADDR", &everywhere),
            ("TIDELOG_INSECURE_NO_AUTH", "true"),
        ],
    );
    let admin = crate::client::Client::new(&everywhere.replace("0.0.0.0", "127.0.0.1"));
    eventually("it to be ready", async || {
        let request = admin.request(reqwest::Method::GET, "/health/ready");
        match crate::client::send(request).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            answer => Err(format!("{answer:?} {}", service.process().output())),
        }
    })
    .await;
    built(&admin, &[]).await;
    for (path, body) in actions() {
        let refused = post(&admin, path, &[], &body)
            .await
            .problem(403, "forbidden");
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("TIDELOG_ADMIN_TOKENS"), "{path}: {detail}");
    }
    let output = service.process().output();
    assert!(output.contains("listens beyond this machine"), "{output}");
}
