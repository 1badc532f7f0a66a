//! The pages in a browser, on real servers: every page and every action, by who may and who may not. The scripts are in
//! `tests/pages`; their pictures are kept in `target/pages`.

use std::collections::BTreeSet;

use tidelog_test_support::{Process, browser_path};

use reqwest::Method;
use serde_json::json;
use tidelog::settings::AdminTokens;

use super::{ANN, WALL, tokens};
use crate::client::{Client, must};
use crate::operations::{POISON, Site};
use crate::reactions::kit::{copying, on_servers};
use crate::services::{Backends, Role, Service};

/// The actions of the routes that end in `{action}`.
const ACTIONS: [(&str, &[&str]); 3] = [
    ("/subscriptions/{name}", &["pause", "resume", "restart"]),
    ("/parked/{name}", &["retry", "skip"]),
    ("/views/{name}", &["replay", "rollback", "clean"]),
];

/// How often the post with a history is changed.
const CHANGES: usize = 30;

/// Runs a script, of which the words after its name are arguments, against the administration at `address`, and gives the routes that it
/// visited.
pub(crate) async fn run(script: &str, address: &str) -> BTreeSet<String> {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut command = Process::command("node");
    command
        .current_dir(format!("{root}/tests/pages"))
        .args(script.split(' '))
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("BROWSER", browser_path().await)
        .env("ADMIN", format!("http://{address}"))
        .env("OPERATOR", ANN)
        .env("READER", WALL)
        .env("SHOTS", format!("{root}/target/pages"));
    let mut process = Process::start(command);
    let status = process.wait().await;
    let output = process.output();
    assert!(status.success(), "{script}: {output}");
    let lines = process.stdout();
    let visited = lines
        .iter()
        .filter_map(|line| line.strip_prefix("visited "))
        .map(str::to_owned);
    visited.collect()
}

/// The routes that the pages have, by their source.
fn routes() -> BTreeSet<String> {
    let source = include_str!("../../../src/admin/pages/mod.rs");
    let routes = source.split(".route(").skip(1).map(|rest| {
        let path = rest.split('"').nth(1).unwrap();
        path.replace("{view}", "{name}")
            .replace("{event}", "{name}")
    });
    let mut all = BTreeSet::new();
    for path in routes {
        let path = path.trim_end_matches('/');
        match path.strip_suffix("/{action}") {
            Some(of) => {
                let (_, actions) = ACTIONS.iter().find(|(own, _)| *own == of).unwrap();
                for action in *actions {
                    all.insert(format!("GET /admin{of}/{action}"));
                    all.insert(format!("POST /admin{of}/{action}"));
                }
            }
            None if path == "/sign-out" => {
                all.insert(format!("POST /admin{path}"));
            }
            None => {
                all.insert(format!("GET /admin{path}"));
            }
        }
    }
    all.insert("POST /admin/sign-in".to_owned());
    all
}

#[tokio::test]
async fn every_page_and_action_works_for_who_may_and_not_for_others() {
    let site = Site::new().await;
    for number in 0..25 {
        site.write(&format!("post-{number:02}")).await;
    }
    site.write("bad").await;
    let payload = site.tamper("post/bad", 1, POISON).await;
    site.write("worse").await;
    site.tamper("post/worse", 1, POISON).await;
    // One has a history.
    site.write("told").await;
    for number in 1..=CHANGES {
        site.patch("told", &format!("Draft {number}")).await;
    }
    let commands = site.command.commands();
    commands.delete("/post/told").await.data(200);
    let tokens = tokens();
    let mut settings = site.backends.settings().to_vec();
    settings.push(("TIDELOG_ADMIN_TOKENS", &tokens));
    let mut service = Service::start_with(Role::EventBus, &settings).await;
    let query = site.start(Role::Query).await;
    let queries = query.queries();

    let address = service.admin().address().to_owned();
    let mut visited = with_a_reaction().await;
    visited.extend(run("looking.mjs", &address).await);
    visited.extend(run("pages.mjs", &address).await);
    let patched = site.patch("bad", "B").await;

    // The cause is mended: what was set aside is tried again, and nothing is lost.
    site.tamper("post/bad", 1, &payload).await;
    visited.extend(run("mended.mjs", &address).await);
    let read = queries
        .get_after("/post/bad", patched.token())
        .await
        .data(200);
    assert_eq!(read["title"], "B");

    let missing: Vec<_> = routes().difference(&visited).cloned().collect();
    assert!(missing.is_empty(), "no script visits {missing:?}");
    // Neither the secrets nor a session are in what the process said.
    let output = service.process().output();
    assert!(!output.contains(ANN) && !output.contains(WALL), "{output}");
    service.stop(tidelog_test_support::Signal::Term).await;
}

/// Visits the pages of a program that reacts to its own events.
async fn with_a_reaction() -> BTreeSet<String> {
    let backends = Backends::fresh().await;
    let mut settings = on_servers(&backends);
    settings.admin_tokens = AdminTokens::parse(&tokens()).unwrap();
    let (running, _) = copying(settings).await;
    let commands = Client::new(running.command_addr().unwrap());
    let create = commands.request(Method::POST, "/note");
    let create = create.header("x-correlation-id", "story-7");
    let note = json!({"id": "n", "text": "A"});
    must(create.json(&note)).await.data(201);
    let visited = run("reaction.mjs", running.admin_addr().unwrap()).await;
    assert!(running.stop().await);
    visited
}

#[tokio::test]
async fn pages_are_kept_apart_from_other_sites_by_their_headers() {
    let service = Service::start_with(Role::Dev, &[]).await;
    let page = service.admin().get("/admin").await;
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.body.contains("<title>Overview"), "{}", page.body);
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cache-control", "no-store"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(page.headers[name], value, "{name}");
    }
}
