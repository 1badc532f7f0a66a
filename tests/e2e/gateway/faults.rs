//! Workers, gateways and the bus die in the middle: each command is done once, and nobody is told otherwise.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;
use tidelog::Failure;
use tidelog::messaging::{HandlerError, MessageContext, Messaging, Subject};
use tidelog_test_support::{Engine, Server, ServerOptions, Signal, TcpProxy, unique_name};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};

use super::{created, creating, gateway, post, worker};
use crate::client::{Client, must, send};
use crate::log::{assert_dense, read};
use crate::messaging::on_each_server;
use crate::services::{Backends, Role, Service};
use crate::waiting::{BOUND, eventually};

/// A subject of a program's own.
const NOTED: Subject<u64, u64> = Subject::new("shop.noted");

on_each_server!(
    a_worker_killed_after_the_commit_and_before_its_reply_leaves_the_answer_to_another,
    an_answer_that_does_not_come_is_in_doubt_and_its_key_finds_it,
    a_gateway_killed_while_it_waits_loses_its_client_and_nothing_else,
    a_bus_that_is_restarted_in_the_middle_loses_and_doubles_nothing,
    without_a_bus_nothing_is_written_and_that_is_said,
    a_worker_that_stops_finishes_what_it_has_begun,
    a_gateway_that_stops_answers_what_it_has_taken,
);

/// A worker that reaches the bus through `network`.
async fn worker_behind(network: &TcpProxy, backends: &Backends) -> Service {
    let backends = Backends {
        bus_url: network.url(&backends.bus_url),
        ..backends.clone()
    };
    worker(&backends, "*").await
}

async fn a_worker_killed_after_the_commit_and_before_its_reply_leaves_the_answer_to_another(
    engine: Engine,
) {
    let (server, backends) = Backends::with_a_bus_of_its_own(engine).await;
    let network = TcpProxy::start(server.port()).await;
    let mut first = worker_behind(&network, &backends).await;
    let gateway = gateway(&backends, &[("TIDELOG_GATEWAY_TIMEOUT", "50s")]).await;
    let stalled = network.stall_at(b"tidelog.reply");
    // Without an id and without a key.
    let body = json!({"title": "A title", "content": "", "author_name": "Ann"});
    let answer = creating(&gateway.commands(), &body, None);
    stalled.await;
    let written = read(&backends.database_url).await;
    assert_eq!(written.len(), 1, "it is committed");
    first.kill();
    let _second = worker(&backends, "*").await;
    let answer = answer.await.expect("a task");
    assert_eq!(answer.data(201)["id"], written[0].id());
    assert!(!answer.headers.contains_key("idempotency-replayed"));
    assert_eq!(read(&backends.database_url).await, written, "once");
}

async fn an_answer_that_does_not_come_is_in_doubt_and_its_key_finds_it(engine: Engine) {
    let (server, backends) = Backends::with_a_bus_of_its_own(engine).await;
    let network = TcpProxy::start(server.port()).await;
    let mut first = worker_behind(&network, &backends).await;
    let gateway = gateway(&backends, &[("TIDELOG_GATEWAY_TIMEOUT", "2s")]).await;
    let commands = gateway.commands();
    let stalled = network.stall_at(b"tidelog.reply");
    let key = unique_name();
    let answer = creating(&commands, &post("1"), Some(&key));
    stalled.await;
    let answer = answer.await.expect("a task");
    let problem = answer.problem(504, "in-doubt");
    assert!(
        problem["detail"]
            .as_str()
            .expect("a detail")
            .contains("Idempotency-Key")
    );
    answer.header("retry-after");
    first.kill();
    let _second = worker(&backends, "*").await;
    let again = creating(&commands, &post("1"), Some(&key))
        .await
        .expect("a task");
    assert_eq!(again.data(201)["id"], "1");
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(read(&backends.database_url).await.len(), 1);
}

async fn a_gateway_killed_while_it_waits_loses_its_client_and_nothing_else(engine: Engine) {
    let (server, backends) = Backends::with_a_bus_of_its_own(engine).await;
    let network = TcpProxy::start(server.port()).await;
    let worker = worker_behind(&network, &backends).await;
    let mut first = gateway(&backends, &[]).await;
    let stalled = network.stall_at(b"tidelog.reply");
    let key = unique_name();
    let request = first
        .commands()
        .request(Method::POST, "/post")
        .json(&post("1"));
    let request = request.header("idempotency-key", format!("\"{key}\""));
    let lost = tokio::spawn(send(request));
    stalled.await;
    first.kill();
    assert!(lost.await.expect("a task").is_err());
    network.pass();
    let second = gateway(&backends, &[]).await;
    let again = creating(&second.commands(), &post("1"), Some(&key))
        .await
        .expect("a task");
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(read(&backends.database_url).await.len(), 1);
    drop(worker);
}

/// Creates a post, again and again with the same key, until it is there.
async fn insist(commands: Client, id: String) {
    let key = unique_name();
    let deadline = Instant::now() + BOUND;
    loop {
        let answer = creating(&commands, &post(&id), Some(&key));
        let answer = answer.await.expect("a task");
        match answer.status {
            201 => return,
            503 | 504 | 409 => assert!(Instant::now() < deadline, "{answer:?}"),
            _ => panic!("{answer:?}"),
        }
        sleep(Duration::from_millis(25)).await;
    }
}

async fn a_bus_that_is_restarted_in_the_middle_loses_and_doubles_nothing(engine: Engine) {
    let (mut server, backends) = Backends::with_a_bus_of_its_own(engine).await;
    let _workers = [
        worker(&backends, "*").await,
        worker(&backends, "post").await,
    ];
    let gateway = gateway(&backends, &[("TIDELOG_GATEWAY_TIMEOUT", "4s")]).await;
    let commands = gateway.commands();
    let ids: BTreeSet<String> = (0..120).map(|number| format!("p-{number}")).collect();
    let mut clients = JoinSet::new();
    let mut done = 0;
    for id in &ids {
        clients.spawn(insist(commands.clone(), id.clone()));
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client");
        done += 1;
        if done == 20 || done == 60 {
            server.kill();
            let down = commands.post("/post", &post("down")).await;
            assert!([503, 504].contains(&down.status), "{down:?}");
            server.restart().await;
        }
    }
    let rows = read(&backends.database_url).await;
    assert_dense(&rows);
    let of_ids: Vec<&str> = rows
        .iter()
        .map(|row| row.id())
        .filter(|id| *id != "down")
        .collect();
    assert_eq!(of_ids.len(), ids.len(), "each once");
    assert_eq!(
        of_ids
            .into_iter()
            .map(str::to_owned)
            .collect::<BTreeSet<_>>(),
        ids
    );
}

async fn without_a_bus_nothing_is_written_and_that_is_said(engine: Engine) {
    let (mut server, backends) = Backends::with_a_bus_of_its_own(engine).await;
    server.kill();
    // It starts all the same.
    let gateway = gateway(&backends, &[]).await;
    let commands = gateway.commands();
    let answer = commands.post("/post", &post("1")).await;
    answer.problem(503, "unavailable");
    answer.header("retry-after");
    server.restart().await;
    let _worker = worker(&backends, "*").await;
    created(&commands, "/post", &post("1")).await;
}

async fn a_worker_that_stops_finishes_what_it_has_begun(engine: Engine) {
    let (_server, backends) = Backends::with_a_bus_of_its_own(engine).await;
    let mut first = worker(&backends, "*").await;
    let _second = worker(&backends, "*").await;
    let gateway = gateway(&backends, &[]).await;
    let mut clients = JoinSet::new();
    for client in 0..8 {
        let commands = gateway.commands();
        clients.spawn(async move {
            for number in 0..40 {
                let id = format!("p-{client}-{number}");
                let request = commands.request(Method::POST, "/post").json(&post(&id));
                must(request).await.data(201);
            }
        });
    }
    let metrics = async || first.admin().get("/metrics").await.body;
    let own = "aggregate=\"post\",command=\"create\",outcome=\"appended\"";
    eventually("the first worker to run commands", async || {
        let metrics = metrics().await;
        metrics.contains(own).then_some(()).ok_or(metrics)
    })
    .await;
    assert_eq!(
        first.stop(Signal::Term).await,
        Some(0),
        "{}",
        first.process().output()
    );
    clients.join_all().await;
    assert_eq!(read(&backends.database_url).await.len(), 320);
}

async fn a_gateway_that_stops_answers_what_it_has_taken(engine: Engine) {
    let (server, backends) = Backends::with_a_bus_of_its_own(engine).await;
    let network = TcpProxy::start(server.port()).await;
    let _worker = worker_behind(&network, &backends).await;
    let mut gateway = gateway(&backends, &[("TIDELOG_SHUTDOWN_GRACE", "50s")]).await;
    let stalled = network.stall_at(b"tidelog.reply");
    let answer = creating(&gateway.commands(), &post("1"), None);
    stalled.await;
    gateway.process().signal(Signal::Term);
    gateway.process().wait_for_line("stopping").await;
    network.pass();
    answer.await.expect("a task").data(201);
    assert_eq!(gateway.stop(Signal::Term).await, Some(0));
    assert_eq!(gateway.role, Role::Gateway);
}

/// The rule of a file in `deploy/redis`, for the stock program.
fn rule(file: &str) -> Vec<String> {
    let rule = file.trim().replace("APP", "tidelog");
    let (_, rule) = rule.split_once("user ").expect("a user");
    // What is in brackets is one word.
    let (words, selector) = rule.split_once(" (").unwrap_or((rule, ""));
    let words = words.split(' ').map(str::to_owned);
    let selector = (!selector.is_empty()).then(|| format!("({selector}"));
    words.chain(selector).collect()
}

#[tokio::test]
async fn a_gateway_and_a_worker_do_with_the_documented_rights() {
    let (redis, backends) = Backends::with_a_bus_of_its_own(Engine::Redis).await;
    let client = redis::Client::open(redis.url()).expect("a URL");
    let mut connection = client
        .get_multiplexed_async_connection()
        .await
        .expect("Redis");
    let at = |user: &str| Backends {
        bus_url: redis.url().replace("://", &format!("://{user}:PASSWORD@")),
        ..backends.clone()
    };
    for file in [
        include_str!("../../../deploy/redis/gateway.acl"),
        include_str!("../../../deploy/redis/worker.acl"),
    ] {
        let mut acl = redis::cmd("ACL");
        acl.arg("SETUSER").arg(rule(file));
        let _: String = acl.query_async(&mut connection).await.expect("a rule");
    }
    let mut worker = worker(&at("tidelog"), "*").await;
    let mut patient = gateway(&at("tidelog_gateway"), &[]).await;
    let mut gateway = gateway(&at("tidelog_gateway"), &[("TIDELOG_GATEWAY_TIMEOUT", "1s")]).await;
    patient.commands().post("/post", &post("1")).await.data(201);
    assert_eq!(worker.stop(Signal::Term).await, Some(0));
    // It takes back what nobody has begun.
    gateway
        .commands()
        .post("/post", &post("2"))
        .await
        .problem(504, "in-doubt");
    eventually("the command to be taken back", async || {
        let mut xlen = redis::cmd("XLEN");
        xlen.arg("{tidelog:messages:tidelog.command.post}");
        let left: u64 = xlen
            .query_async(&mut connection.clone())
            .await
            .expect("Redis");
        if left == 0 {
            Ok(())
        } else {
            Err(left.to_string())
        }
    })
    .await;
    assert_eq!(gateway.stop(Signal::Term).await, Some(0));
    assert_eq!(patient.stop(Signal::Term).await, Some(0));
    for service in [worker, gateway, patient] {
        let said = service.process().output();
        assert!(!said.contains("NOPERM"), "{said}");
    }
    assert_eq!(read(&backends.database_url).await.len(), 1);
}

/// A NATS with the account of `deploy/nats/gateways.conf`, its commented lines included where `sends`, and the backends of each user.
async fn nats_for_gateways(sends: bool) -> (Server, impl Fn(&str) -> Backends) {
    let account = include_str!("../../../deploy/nats/gateways.conf").replace("APP", "tidelog");
    let account = match sends {
        true => account.replace("# \"", "\""),
        false => account,
    };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("gateways.conf");
    std::fs::write(&file, account).expect("a file");
    let options = ServerOptions {
        arguments: ["-c", &file.to_string_lossy()].map(str::to_owned).to_vec(),
        ..ServerOptions::default()
    };
    let server = Server::start_with(Engine::Nats, options).await;
    let (url, backends) = (server.url().to_owned(), Backends::fresh().await);
    let at = move |user: &str| Backends {
        bus_url: url.replace("://", &format!("://{user}:PASSWORD@")),
        ..backends.clone()
    };
    (server, at)
}

#[tokio::test]
async fn a_gateway_and_a_worker_do_with_the_documented_rights_on_nats() {
    let (server, at) = nats_for_gateways(false).await;
    let mut worker = worker(&at("worker"), "*").await;
    let patient = gateway(&at("gateway"), &[]).await;
    let gateway = gateway(&at("gateway"), &[("TIDELOG_GATEWAY_TIMEOUT", "1s")]).await;
    created(&patient.commands(), "/post", &post("1")).await;
    for number in 2..30 {
        let post = post(&number.to_string());
        patient.commands().post("/post", &post).await.data(201);
    }
    let _subscribed = Service::start(Role::EventBus, &at("worker")).await;
    assert_eq!(worker.stop(Signal::Term).await, Some(0));
    // It takes back what nobody has begun.
    let unanswered = gateway.commands().post("/post", &post("0")).await;
    unanswered.problem(504, "in-doubt");
    let said = server.log();
    let mut refused = said.lines().filter(|line| line.contains("Violation"));
    assert_eq!(refused.next(), None);
    assert_eq!(read(&at("worker").database_url).await.len(), 29);
}

#[tokio::test]
async fn a_user_with_all_the_documented_rights_on_nats_emits_sends_and_handles() {
    let (_server, at) = nats_for_gateways(true).await;
    let messaging = |user: &str| Messaging::connect(&at(user).bus_url, "tidelog").expect("a URL");
    let (emitter, worker) = (messaging("gateway"), messaging("worker"));
    emitter.emit(&NOTED, &1).await.expect("it is emitted");
    worker.emit(&NOTED, &2).await.expect("it is emitted");
    let running = worker
        .worker("g")
        .handle(&NOTED, |number: u64, _: MessageContext| async move {
            match number {
                0 => Ok(0),
                _ => Err(HandlerError::from(Failure::permanent("no"))),
            }
        })
        .start()
        .await
        .expect("it joins");
    assert_eq!(worker.send(&NOTED, &0).await.expect("a reply"), 0);
    let letters = worker.dead_letters("g", &NOTED).expect("a group");
    eventually("dead letters", async || match letters.list(None, 9).await {
        Ok(dead) if dead.len() == 2 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let dead = letters.list(None, 9).await.expect("dead letters");
    assert!(letters.retry(&dead[0].entry).await.expect("NATS"));
    running.stop().await;
}
