//! Views and replays beside a running `dev`, which has the file: by way of its administration.

use serde_json::{Value, json};

use super::{Ground, write};
use crate::waiting::eventually;

#[tokio::test]
async fn a_view_is_replayed_and_rolled_back_beside_a_running_dev() {
    let ground = Ground::dev().await;
    let mut token = String::new();
    for number in 0..30 {
        let written = write(&ground.site.commands, &format!("p{number}"), "A", "c").await;
        token = written.token().to_owned();
    }
    let read = ground.site.queries.get_after("/post/p29", &token).await;
    read.data(200);
    let collection = async || {
        let views = ground.json(&["views", "--json"]).await;
        let mut views = views.as_array().unwrap().clone().into_iter();
        let view = views.find(|view| view["view"] == "post").unwrap();
        view["collection"].as_str().unwrap().to_owned()
    };
    let first = collection().await;
    let said = ground.says(&["replay", "post", "--compare", "full"]).await;
    let second = collection().await;
    assert_ne!(first, second);
    for part in [&*second, "30 documents compared with the log: all equal"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    let said = ground.says(&["replay", "post", "--progress", "json"]).await;
    let last: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["state"], &last["view"]),
        (&json!("done"), &json!("post"))
    );
    let third = collection().await;
    let said = ground.says(&["views", "rollback", "post"]).await;
    assert!(said.contains(&second), "{said}");
    assert_eq!(collection().await, second);
    let listed = ground.says(&["views"]).await;
    let line = listed.lines().find(|line| line.starts_with("post "));
    assert!(
        line.is_some_and(|line| line.contains(&second) && line.contains(&third)),
        "{listed}"
    );
    let cleaned = ground.json(&["views", "clean", "post", "--json"]).await;
    assert_eq!(cleaned["retired"], third);
    ground.site.queries.get("/post/p7").await.data(200);
}

#[tokio::test]
async fn a_slow_replay_beside_a_running_dev_shows_how_far_it_is_and_outlives_who_asked() {
    let ground = Ground::dev().await;
    for number in 0..30 {
        write(&ground.site.commands, &format!("p{number}"), "A", "c").await;
    }
    let slow = ["replay", "post", "--throttle", "5", "--progress", "json"];
    let (mut process, _home) = ground.command(&slow).start();
    eventually("the replay to be shown", async || {
        let lines = process.stdout();
        let is_building = lines.iter().any(|line| line.contains("\"building\""));
        is_building.then_some(()).ok_or_else(|| process.output())
    })
    .await;
    process.signal(tidelog_test_support::Signal::Int);
    assert_eq!(process.wait().await.code(), Some(1), "{}", process.output());
    let told = process.stderr().join("\n");
    assert!(told.contains("goes on in the running process"), "{told}");
    let listed = ground.says(&["views"]).await;
    assert!(listed.contains("is being built"), "{listed}");
    // Two at a time it does not do.
    let refused = ground.cli(&["replay", "post"]).await;
    assert_eq!(refused.code, Some(3), "{}", refused.output);
}

#[tokio::test]
async fn a_number_to_compare_is_for_servers_alone() {
    let ground = Ground::dev().await;
    write(&ground.site.commands, "a", "A", "c").await;
    let refused = ground.cli(&["replay", "post", "--compare", "7"]).await;
    assert_eq!(refused.code, Some(2), "{}", refused.output);
}
