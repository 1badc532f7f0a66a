//! What cannot be recorded is not done.

use serde_json::json;
use tidelog_test_support::{Engine, Server};

use super::{get, post, record};
use crate::services::{Backends, Role, Service};
use crate::waiting::eventually;

#[tokio::test]
async fn an_action_that_cannot_be_recorded_is_not_done() {
    let mut mysql = Server::start(Engine::MySql).await;
    let backends = Backends::fresh_on(&mysql).await;
    let service = Service::start(Role::EventBus, &backends).await;
    let admin = service.admin();
    let is_paused = async || {
        let listed = get(&admin, "/admin/api/subscriptions", &[]).await.data(200);
        let all = listed.as_array().unwrap().iter();
        let mut posts = all.filter(|own| own["name"] == "post");
        let partitions = posts.next().unwrap()["partitions"].clone();
        let partitions = partitions.as_array().unwrap().clone();
        (!partitions.is_empty())
            .then(|| partitions.iter().any(|own| own["state"] == "paused"))
            .ok_or_else(|| listed.to_string())
    };
    let paused = eventually("the view to be there", is_paused).await;
    assert!(!paused);

    // The pause itself would only need the read models' store.
    mysql.kill();
    let pause = "/admin/api/subscriptions/post/pause";
    let answer = post(&admin, pause, &[], &json!({"reason": "a move"})).await;
    let problem = answer.problem(503, "unavailable");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("not done"), "{detail}");
    get(&admin, "/admin/api/audit", &[])
        .await
        .problem(503, "unavailable");

    mysql.restart().await;
    eventually("the record to be read", async || {
        let answer = get(&admin, "/admin/api/audit", &[]).await;
        (answer.status == 200).then_some(()).ok_or(answer.body)
    })
    .await;
    assert!(record(&admin, &[]).await.is_empty());
    assert!(!eventually("the view to be there", is_paused).await);
}
