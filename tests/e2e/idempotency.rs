//! Idempotency keys over several command services on one log.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;
use tidelog_test_support::unique_name;

use crate::client::{Answer, Client, must};
use crate::log::{assert_dense, read};
use crate::services::{Backends, Role, Service};

const ROUNDS: usize = 20;

/// Creates a post with `key`, and sends it again while another request with the key is in progress.
async fn create(service: &Client, key: &str, title: &str) -> Answer {
    let post = json!({"title": title, "content": "-", "author_name": "-"});
    loop {
        let request = service
            .request(Method::POST, "/post")
            .header("idempotency-key", format!("\"{key}\""))
            .json(&post);
        let answer = must(request).await;
        if answer.status != 409 {
            return answer;
        }
        answer.problem(409, "request-in-progress");
    }
}

#[tokio::test]
async fn the_same_key_at_two_command_services_at_once_is_one_event_and_one_answer() {
    let backends = Backends::fresh().await;
    let services = [
        Service::start(Role::Command, &backends).await,
        Service::start(Role::Command, &backends).await,
    ];
    let [one, two] = services.each_ref().map(Service::commands);
    let mut ids = BTreeSet::new();
    for _ in 0..ROUNDS {
        let key = unique_name();
        let answers: [Answer; 4] = tokio::join!(
            create(&one, &key, "a"),
            create(&two, &key, "a"),
            create(&one, &key, "a"),
            create(&two, &key, "a"),
        )
        .into();
        let first = answers[0].data(201);
        for answer in &answers {
            assert_eq!(answer.data(201), first);
            assert_eq!(answer.header("etag"), "\"1\"");
            assert_eq!(answer.token(), answers[0].token());
        }
        let fresh = |answer: &&Answer| !answer.headers.contains_key("idempotency-replayed");
        assert_eq!(answers.iter().filter(fresh).count(), 1);
        let other = create(&two, &key, "b").await;
        other.problem(422, "idempotency-key-reused");
        ids.insert(first["id"].as_str().expect("an id").to_owned());
    }
    let rows = read(&backends.database_url).await;
    assert_dense(&rows);
    let written: Vec<&str> = rows.iter().map(|row| row.id()).collect();
    assert_eq!(written.len(), ROUNDS, "each key is one event");
    assert_eq!(
        BTreeSet::from_iter(written.into_iter().map(str::to_owned)),
        ids
    );
}
