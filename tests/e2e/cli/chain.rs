//! What a reaction caused hangs under what caused it; and a reaction is told where to go on by a running process.

use std::sync::atomic::Ordering;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, must};
use crate::reactions::kit::{copying, on_servers};
use crate::services::Backends;
use crate::waiting::eventually;

#[tokio::test]
async fn a_reactions_command_hangs_under_the_event_that_it_reacted_to() {
    let backends = Backends::fresh().await;
    let (running, given) = copying(on_servers(&backends)).await;
    let commands = Client::new(running.command_addr().unwrap());
    let admin = Client::new(running.admin_addr().unwrap());
    let create = commands.request(Method::POST, "/note");
    let create = create.header("x-correlation-id", "story-7");
    must(create.json(&json!({"id": "n", "text": "A"})))
        .await
        .data(201);

    let path = "/admin/api/events/note%2Fcopy-n@1";
    let shown = eventually("the copy", async || {
        let shown = admin.get(path).await;
        match shown.status {
            200 => Ok(shown.data(200)),
            _ => Err(shown.body),
        }
    })
    .await;
    let chain = &shown["chain"];
    assert_eq!(chain["correlation_id"], "story-7");
    let commands = chain["commands"].as_array().unwrap();
    assert_eq!(commands.len(), 1, "{chain:#}");
    let first = &commands[0]["events"][0];
    assert_eq!(first["stream"], "note/n");
    let caused = &first["commands"][0];
    assert_eq!(caused["id"], first["id"]);
    assert_eq!(caused["events"][0]["stream"], "note/copy-n");
    assert_eq!(caused["events"][0]["commands"], json!([]));

    // Told to go on from the beginning, it is given both again, and copies none twice.
    let has_been_given = async |count: usize| {
        eventually("the reaction to be given them", async || {
            let has = given.load(Ordering::Relaxed);
            (has >= count).then_some(()).ok_or_else(|| has.to_string())
        })
        .await;
    };
    has_been_given(2).await;
    let restart = "/admin/api/reactions/copy/restart";
    for wrong in [json!({}), json!({"from": "somewhere"})] {
        admin.post(restart, &wrong).await.problem(422, "invalid");
    }
    let done = admin.post(restart, &json!({"from": "beginning"})).await;
    assert_eq!(done.data(200)["from"], "beginning");
    has_been_given(4).await;
    let view = admin
        .post("/admin/api/reactions/note/restart", &json!({"from": "now"}))
        .await;
    view.problem(422, "invalid");
    let listed = admin.get("/admin/api/streams?prefix=note").await.data(200);
    let listed: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|own| own["version"].clone())
        .collect();
    assert_eq!(listed, [Value::from(1), Value::from(1)]);
    assert!(running.stop().await);
}
