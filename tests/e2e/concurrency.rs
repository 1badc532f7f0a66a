//! Several command services on one log.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};
use tidelog_test_support::unique_name;
use tokio::task::JoinSet;

use crate::client::{Client, must};
use crate::log::{Row, assert_dense, read};
use crate::services::{Backends, Role, Service};

const CLIENTS: usize = 32;
const PATCHES_EACH: usize = 12;
const POSTS: usize = 10;

/// A patch that was acknowledged.
struct Patched {
    post: usize,
    version: i64,
    patch: Value,
}

#[tokio::test]
async fn two_command_services_lose_no_update_of_the_same_posts() {
    let backends = Backends::fresh().await;
    let services = [
        Service::start(Role::Command, &backends).await,
        Service::start(Role::Command, &backends).await,
    ];
    let ids: Vec<String> = (0..POSTS).map(|number| format!("hot-{number}")).collect();
    for id in &ids {
        let post = json!({"id": id, "title": "-", "content": "-", "author_name": "-"});
        services[0].commands().post("/post", &post).await.data(201);
    }
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(patches(
            number,
            services[number % 2].commands(),
            ids.clone(),
        ));
    }
    let acknowledged: Vec<Patched> = clients.join_all().await.into_iter().flatten().collect();

    let rows = read(&backends.database_url).await;
    assert_dense(&rows);
    let rows: BTreeMap<_, _> = rows
        .iter()
        .map(|row| ((row.id(), row.version), row))
        .collect();
    for patched in &acknowledged {
        let id = ids[patched.post].as_str();
        let [before, after] =
            [patched.version - 1, patched.version].map(|version| rows[&(id, version)]);
        assert_is_patch(before, after, &patched.patch);
    }
    assert_eq!(acknowledged.len(), CLIENTS * PATCHES_EACH);
    assert_eq!(
        rows.len(),
        POSTS + acknowledged.len(),
        "each acknowledged patch is one event, and there is no other"
    );
}

/// One client: patches all posts in turn, one field at a time, each second time on condition of the version it saw last.
async fn patches(number: usize, service: Client, ids: Vec<String>) -> Vec<Patched> {
    let mut seen = vec![1; ids.len()];
    let mut acknowledged = Vec::new();
    for round in 0..PATCHES_EACH {
        let post = (number + round) % ids.len();
        let field = ["title", "content", "author_name"][(number + round) % 3];
        let patch = json!({field: unique_name()});
        loop {
            let mut request = service
                .request(Method::PATCH, &format!("/post/{}", ids[post]))
                .json(&patch);
            let on_condition = round % 2 == 0;
            if on_condition {
                request = request.header("if-match", format!("\"{}\"", seen[post]));
            }
            let answer = must(request).await;
            match answer.status {
                200 => {
                    let version = answer.data(200)["version"].as_i64().expect("a version");
                    assert!(
                        !on_condition || version == seen[post] + 1,
                        "If-Match \"{}\" let through {answer:?}",
                        seen[post]
                    );
                    seen[post] = version;
                    acknowledged.push(Patched {
                        post,
                        version,
                        patch,
                    });
                    break;
                }
                412 if on_condition => {
                    answer.problem(412, "precondition-failed");
                    // A patch that changes nothing tells the version.
                    let current = service
                        .patch(&format!("/post/{}", ids[post]), &json!({}))
                        .await;
                    seen[post] = current.data(200)["version"].as_i64().expect("a version");
                }
                // Allowed after many conflicts: the client tries again.
                409 if !on_condition => drop(answer.problem(409, "conflict")),
                _ => panic!("{answer:?}"),
            }
        }
    }
    acknowledged
}

/// Checks that the event `after` changed what the patch names, and nothing that another client had written.
fn assert_is_patch(before: &Row, after: &Row, patch: &Value) {
    let mut expected = before.state().clone();
    for (field, value) in patch.as_object().expect("a patch") {
        expected.insert(field.clone(), value.clone());
    }
    assert_eq!(
        *after.state(),
        expected,
        "{patch} after {before:?} gave {after:?}"
    );
}
