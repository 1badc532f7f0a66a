//! The pages in a browser, on real servers: every page and every action, by who may and who may not. The scripts are in
//! `tests/pages`; their pictures are kept in `target/pages`.

use std::collections::BTreeSet;

use tidelog_test_support::{Process, browser_path};

use super::{ANN, WALL, tokens};
use crate::client::Client;
use crate::operations::{POISON, Site};
use crate::services::{Role, Service};

/// The actions of the routes that end in `{action}`.
const ACTIONS: [(&str, &[&str]); 3] = [
    ("/subscriptions/{name}", &["pause", "resume"]),
    ("/parked/{name}", &["retry", "skip"]),
    ("/views/{name}", &["replay", "rollback", "clean"]),
];

/// Runs a script, with its arguments, against the administration at `admin`, and gives the routes that it visited.
pub(crate) async fn run(script: &str, arguments: &[&str], admin: &Client) -> BTreeSet<String> {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut command = Process::command("node");
    command
        .arg(format!("{root}/tests/pages/{script}"))
        .args(arguments)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("BROWSER", browser_path().await)
        .env("ADMIN", format!("http://{}", admin.address()))
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
    let tokens = tokens();
    let mut settings = site.backends.settings().to_vec();
    settings.push(("TIDELOG_ADMIN_TOKENS", &tokens));
    let mut service = Service::start_with(Role::EventBus, &settings).await;
    let query = site.start(Role::Query).await;
    let queries = query.queries();

    let mut visited = run("pages.mjs", &[], &service.admin()).await;
    let patched = site.patch("bad", "B").await;

    // The cause is mended: what was set aside is tried again, and nothing is lost.
    site.tamper("post/bad", 1, &payload).await;
    visited.extend(run("mended.mjs", &[], &service.admin()).await);
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
