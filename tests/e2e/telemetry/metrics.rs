//! `/metrics` of each role: as Prometheus' own checker wants it, and as `docs/operations.md` says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use reqwest::Method;
use serde_json::json;
use tidelog_test_support::promtool;

use crate::client::{must, send};
use crate::services::{Backends, Role, Service};
use crate::waiting::eventually;
use crate::websocket::kit::Socket;

const DOCUMENT: &str = include_str!("../../../docs/operations.md");

/// What a metric is: its type, and its labels.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

/// The table of the document.
fn documented() -> Families {
    let rows = DOCUMENT
        .lines()
        .filter(|line| line.starts_with("| `tidelog_"));
    let quoted = |cell: &str| {
        let parts = cell.split('`').skip(1).step_by(2);
        parts.map(str::to_owned).collect::<Vec<_>>()
    };
    let rows = rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let labels = quoted(cells[3]).into_iter().collect();
        (quoted(cells[1]).remove(0), (cells[2].to_owned(), labels))
    });
    rows.collect()
}

/// What a page has, its values aside. Checks that no label tells of one request or one document.
fn told(page: &str) -> Families {
    let mut told = Families::new();
    let mut last = String::new();
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            last = name.to_owned();
            let before = told.insert(last.clone(), (kind.to_owned(), BTreeSet::new()));
            assert_eq!(before, None, "{name} comes twice");
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&last), "{line} is not of {last}");
            let labels = line
                .split_once('{')
                .map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
            for label in labels.split("\",").filter(|label| !label.is_empty()) {
                let (name, value) = label.split_once("=\"").unwrap();
                assert!(!value.contains("made-up") && value.len() < 40, "{line}");
                if name != "le" {
                    told.get_mut(&last).unwrap().1.insert(name.to_owned());
                }
            }
        }
    }
    told
}

/// Has Prometheus' own checker look at a page.
async fn lint(page: &str) -> Result<(), String> {
    let mut checking = Command::new(promtool().await)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = checking.stdin.take().unwrap();
    input.write_all(page.as_bytes()).unwrap();
    drop(input);
    let ended = checking.wait_with_output().unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    match ended.status.success() && said.is_empty() {
        true => Ok(()),
        false => Err(said),
    }
}

/// Asks the services for what is done and for what is turned down.
async fn load(command: &Service, query: &Service) {
    let (commands, queries) = (command.commands(), query.queries());
    for number in 0..20 {
        let post = json!({"id": format!("made-up-{number}"), "title": "A", "content": "", "author_name": "Ann"});
        let written = commands.post("/post", &post).await;
        written.data(201);
        let path = format!("/post/made-up-{number}");
        queries.get_after(&path, written.token()).await.data(200);
        commands
            .patch(&path, &json!({"title": "A"}))
            .await
            .data(200);
    }
    assert_eq!(commands.post("/made-up", &json!({})).await.status, 404);
    assert_eq!(commands.delete("/post/made-up-none").await.status, 404);
    let odd = Method::from_bytes(b"MADE-UP").unwrap();
    let _ = send(queries.request(odd, "/made-up/made-up/made-up/made-up/made-up")).await;
}

/// Asks for an action, which makes no sense.
async fn act(service: &Service) {
    let pause = "/admin/api/subscriptions/nobody/pause";
    let paused = service.admin().post(pause, &json!({})).await;
    paused.problem(404, "not-found");
}

#[tokio::test]
async fn the_pages_are_as_prometheus_wants_them_and_as_documented() {
    let backends = Backends::for_a_gateway().await;
    let mut worker = backends.settings().to_vec();
    worker.push(("TIDELOG_AGGREGATES", "*"));
    let command = Service::start_with(Role::Command, &worker).await;
    let eventbus = Service::start(Role::EventBus, &backends).await;
    let query = Service::start(Role::Query, &backends).await;
    let bus = [("TIDELOG_BUS_URL", backends.bus_url.as_str())];
    let gateway = Service::start_with(Role::Gateway, &bus).await;
    load(&gateway, &query).await;
    let page = gateway.admin().get("/metrics").await.body;
    assert_eq!(lint(&page).await, Ok(()), "{page}");
    let dev = Service::start_with(Role::Dev, &[]).await;
    load(&dev, &dev).await;
    must(
        eventbus
            .admin()
            .request(Method::GET, "/admin/api/subscriptions"),
    )
    .await
    .data(200);
    act(&eventbus).await;
    let signed = [
        (
            "TIDELOG_AUTH_SECRET",
            "a-secret-of-at-least-32-bytes-for-tests",
        ),
        ("TIDELOG_AUTH_ISSUER", "https://issuer.example"),
        ("TIDELOG_AUTH_AUDIENCE", "tests"),
    ];
    let signed = Service::start_with(Role::Dev, &signed).await;
    let nobody = signed.queries().get("/posts").await;
    nobody.problem(401, "unauthenticated");
    let mut socket = Socket::of(&dev).await;
    socket.subscribe("1", "/posts", None).await;
    drop(socket);
    eventually("the socket to have ended", async || {
        let page = dev.admin().get("/metrics").await.body;
        let is_told = page.contains("tidelog_http_sockets_ended_total{");
        is_told.then_some(()).ok_or(page)
    })
    .await;
    let mut all = Families::new();
    for service in [&command, &eventbus, &query, &dev, &signed] {
        let admin = service.admin();
        let page = eventually("the backends to be told", async || {
            let page = admin.get("/metrics").await.body;
            let is_told = page.contains("tidelog_backend_up{");
            is_told.then_some(page.clone()).ok_or(page)
        })
        .await;
        assert_eq!(lint(&page).await, Ok(()), "{page}");
        for (name, (kind, labels)) in told(&page) {
            let (known, all) = all.entry(name).or_insert((kind.clone(), BTreeSet::new()));
            assert_eq!(*known, kind);
            all.extend(labels);
        }
    }
    assert_eq!(all, documented());
}

#[tokio::test]
async fn the_checker_turns_down_what_is_not_as_prometheus_wants_it() {
    let page =
        "# HELP tidelog_fooTotal A thing.\n# TYPE tidelog_fooTotal counter\ntidelog_fooTotal 1\n";
    let said = lint(page).await.unwrap_err();
    assert!(said.contains("_total"), "{said}");
}

#[tokio::test]
async fn what_is_done_is_counted() {
    let service = Service::start_with(Role::Dev, &[]).await;
    load(&service, &service).await;
    act(&service).await;
    let page = service.admin().get("/metrics").await.body;
    for (name, labels, value) in [
        (
            "tidelog_commands_total",
            &[
                "aggregate=\"post\"",
                "command=\"create\"",
                "outcome=\"appended\"",
            ][..],
            20,
        ),
        (
            "tidelog_commands_total",
            &[
                "aggregate=\"post\"",
                "command=\"patch\"",
                "outcome=\"unchanged\"",
            ],
            20,
        ),
        (
            "tidelog_commands_total",
            &[
                "aggregate=\"post\"",
                "command=\"delete\"",
                "outcome=\"refused\"",
            ],
            1,
        ),
        ("tidelog_events_appended_total", &[], 20),
        (
            "tidelog_admin_actions_total",
            &["action=\"subscription.pause\"", "outcome=\"refused\""],
            1,
        ),
        ("tidelog_append_duration_seconds_count", &[], 41),
        (
            "tidelog_subscription_events_total",
            &[
                "subscription=\"post\"",
                "kind=\"view\"",
                "outcome=\"handled\"",
            ],
            20,
        ),
        (
            "tidelog_http_requests_total",
            &[
                "service=\"command\"",
                "method=\"POST\"",
                "route=\"/{aggregate}\"",
                "status=\"201\"",
            ],
            20,
        ),
        (
            "tidelog_http_requests_total",
            &[
                "service=\"query\"",
                "method=\"other\"",
                "route=\"other\"",
                "status=\"404\"",
            ],
            1,
        ),
        (
            "tidelog_http_request_duration_seconds_count",
            &["service=\"query\"", "route=\"/{name}/{id}\""],
            20,
        ),
        ("tidelog_append_queue_commands", &[], 0),
        ("tidelog_ready", &["part=\"all\""], 1),
    ] {
        let is_it = |line: &&str| {
            let rest = line.strip_prefix(name);
            let rest = rest.filter(|rest| rest.starts_with(['{', ' ']));
            rest.is_some_and(|rest| labels.iter().all(|label| rest.contains(label)))
        };
        let line = page
            .lines()
            .find(is_it)
            .unwrap_or_else(|| panic!("no {name} {labels:?} in\n{page}"));
        assert_eq!(
            line.rsplit(' ').next(),
            Some(value.to_string().as_str()),
            "{line}"
        );
    }
}
