//! The trace of a request, across processes.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tidelog::prelude::*;
use tidelog::settings::Settings;
use tidelog::{App, Client as InProcess, CommandRequest, Failure, Metadata, Reaction};
use tidelog_telemetry::Export;
use tidelog_test_support::{OtlpReceiver, ReceivedSpan, Signal, free_port};
use tracing_subscriber::layer::SubscriberExt;

use crate::client::must;
use crate::log::connect;
use crate::services::{Backends, CommandLine, Role, Service};
use crate::waiting::eventually;

/// The span of a client that is traced itself.
const CLIENT: &str = "00f067aa0ba902b7";

/// What a client says of its trace, which is `trace`.
fn traceparent(trace: &str) -> String {
    format!("00-{trace}-{CLIENT}-01")
}

/// A trace of a test's own.
fn new_trace() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// The settings of a service that exports to `collector`, at once.
fn exporting<'a>(backends: &'a Backends, collector: &'a OtlpReceiver) -> Vec<(&'a str, &'a str)> {
    let mut settings = backends.settings().to_vec();
    settings.push(("TIDELOG_OTLP_ENDPOINT", collector.endpoint()));
    settings.push(("OTEL_BSP_SCHEDULE_DELAY", "100"));
    settings
}

/// The tree of a trace, but for what the relay of the role `eventbus`, which is there in case that there is no other, published once more.
fn tree(collector: &OtlpReceiver, trace: &str) -> String {
    let tree = collector.tree(trace);
    let lines = tree
        .lines()
        .filter(|line| !line.ends_with("relay (eventbus)"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Waits until a trace is this tree.
async fn becomes(collector: &OtlpReceiver, trace: &str, expected: &str) {
    eventually("the trace to be complete", async || {
        let tree = tree(collector, trace);
        (tree == expected).then_some(()).ok_or(tree)
    })
    .await;
}

fn span<'a>(spans: &'a [ReceivedSpan], name: &str, role: &str) -> &'a ReceivedSpan {
    let is_it = |span: &&ReceivedSpan| span.name == name && span.role() == role;
    spans.iter().find(is_it).expect("the span is there")
}

fn post(id: &str) -> Value {
    json!({"id": id, "title": "A", "content": "", "author_name": "Ann"})
}

#[tokio::test]
async fn the_trace_of_a_request_goes_through_three_processes() {
    let (collector, backends) = (OtlpReceiver::start().await, Backends::fresh().await);
    let settings = exporting(&backends, &collector);
    let command = Service::start_with(Role::Command, &settings).await;
    let eventbus = Service::start_with(Role::EventBus, &settings).await;
    let query = Service::start_with(Role::Query, &settings).await;
    let trace = new_trace();
    let request = command.commands().request(Method::POST, "/post");
    let request = request.header("traceparent", traceparent(&trace));
    let written = must(request.header("x-correlation-id", "mine").json(&post("1"))).await;
    written.data(201);
    let request = query.queries().request(Method::GET, "/post/1");
    let request = request.header("traceparent", traceparent(&trace));
    let request = request.header("consistency-token", written.token());
    must(request.header("prefer", "wait=30")).await.data(200);

    let expected = "request (command)\n  command (command)\n    append (command)\n      project (eventbus)\n      \
                    relay (command)\nrequest (query)\n";
    becomes(&collector, &trace, expected).await;
    let spans = collector.spans_of(&trace);
    for (role, route, status) in [
        ("command", "/{aggregate}", "201"),
        ("query", "/{name}/{id}", "200"),
    ] {
        let request = span(&spans, "request", role);
        assert_eq!(request.parent_id, CLIENT);
        assert_eq!(request.attribute("status"), status);
        assert_eq!(request.attribute("http.route"), route);
        assert_eq!(request.attribute("trace_id"), trace);
        assert_eq!(request.resource["service.name"], "tidelog");
    }
    let of_command = span(&spans, "command", "command");
    let of_command = ["aggregate", "name", "outcome"].map(|name| of_command.attribute(name));
    assert_eq!(of_command, ["post", "create", "appended"]);
    let append = span(&spans, "append", "command");
    assert_eq!(
        ["attempts", "events"].map(|name| append.attribute(name)),
        ["1", "1"]
    );
    let project = span(&spans, "project", "eventbus");
    let names = ["subscription", "position", "outcome"];
    assert_eq!(
        names.map(|name| project.attribute(name)),
        ["post", "1", "handled"]
    );
    let mut instances: Vec<_> = spans
        .iter()
        .map(|span| &span.resource["service.instance.id"])
        .collect();
    instances.sort_unstable();
    instances.dedup();
    assert_eq!(instances.len(), 3, "each process has a name of its own");
    // Who asks how a process is has no trace.
    assert!(
        collector
            .spans()
            .iter()
            .all(|span| !span.attribute("http.route").contains("health"))
    );
    drop((command, eventbus, query));
}

#[tokio::test]
async fn a_command_through_a_gateway_is_one_trace_with_what_its_worker_does() {
    let (collector, backends) = (OtlpReceiver::start().await, Backends::for_a_gateway().await);
    let mut settings = exporting(&backends, &collector);
    settings.push(("TIDELOG_AGGREGATES", "*"));
    let worker = Service::start_with(Role::Command, &settings).await;
    let settings = exporting(&backends, &collector);
    let settings: Vec<_> = settings
        .into_iter()
        .filter(|(name, _)| !["DATABASE_URL", "MONGODB_URL"].contains(name))
        .collect();
    let gateway = Service::start_with(Role::Gateway, &settings).await;
    let trace = new_trace();
    let request = gateway.commands().request(Method::POST, "/post");
    let request = request.header("traceparent", traceparent(&trace));
    must(request.json(&post("1"))).await.data(201);
    let expected = "request (gateway)\n  message (command)\n    request (command)\n      command (command)\n        \
                    append (command)\n          relay (command)\n";
    becomes(&collector, &trace, expected).await;
    drop((worker, gateway));
}

#[tokio::test]
async fn what_is_tried_again_belongs_to_the_trace_of_the_request() {
    let (collector, backends) = (OtlpReceiver::start().await, Backends::fresh().await);
    let settings = exporting(&backends, &collector);
    let command = Service::start_with(Role::Command, &settings).await;
    let trace = new_trace();
    let request = command.commands().request(Method::POST, "/post");
    let request = request.header("traceparent", traceparent(&trace));
    must(request.json(&post("1"))).await.data(201);
    let mut log = connect(&backends.database_url).await;
    let right: Vec<u8> = sqlx::query_scalar("SELECT payload FROM events")
        .fetch_one(&mut log)
        .await
        .unwrap();
    let set = "UPDATE events SET payload = ?";
    sqlx::query(set)
        .bind("\"poison\"")
        .execute(&mut log)
        .await
        .unwrap();
    let eventbus = Service::start_with(Role::EventBus, &settings).await;
    let admin = eventbus.admin();
    eventually("the event to be parked", async || {
        let parked = admin.get("/admin/api/parked").await.json();
        let state = parked["data"][0]["state"].clone();
        (state == "parked").then_some(()).ok_or(parked.to_string())
    })
    .await;
    sqlx::query(set)
        .bind(right)
        .execute(&mut log)
        .await
        .unwrap();
    let retried = CommandLine::new(&["parked", "retry", "post", "1"]);
    retried.with(backends.settings()).run().await.succeeded();

    let tries = |name: &str| {
        let mut spans = collector.spans_of(&trace);
        let append = span(&spans, "append", "command").span_id.clone();
        spans.retain(|span| {
            span.name == name && span.role() == "eventbus" && span.parent_id == append
        });
        spans.sort_by_key(|span| span.time);
        spans
            .iter()
            .map(|span| span.attribute("outcome").to_owned())
            .collect::<Vec<_>>()
    };
    eventually("the last try to be exported", async || {
        let retries = tries("retry");
        let is_done = retries.last().is_some_and(|last| last == "handled");
        is_done.then_some(()).ok_or(format!("{retries:?}"))
    })
    .await;
    let (first, retries) = (tries("project"), tries("retry"));
    assert!(
        !first.is_empty() && first.iter().all(|outcome| outcome == "failed"),
        "{first:?}"
    );
    // Four times by the policy, and once because somebody asked for it.
    assert_eq!(retries, ["failed", "failed", "failed", "failed", "handled"]);
    drop((command, eventbus));
}

#[tokio::test]
async fn a_trace_that_its_client_does_not_record_is_not_recorded() {
    let (collector, backends) = (OtlpReceiver::start().await, Backends::fresh().await);
    let settings = exporting(&backends, &collector);
    let mut service = Service::start_with(Role::All, &settings).await;
    let (quiet, told) = (new_trace(), new_trace());
    for (id, trace, flags) in [("1", &quiet, "00"), ("2", &told, "01")] {
        let request = service.commands().request(Method::POST, "/post");
        let request = request.header("traceparent", format!("00-{trace}-{CLIENT}-{flags}"));
        must(request.json(&post(id))).await.data(201);
    }
    // What is left is exported at the end.
    assert_eq!(service.stop(Signal::Term).await, Some(0));
    assert!(!collector.spans_of(&told).is_empty());
    assert_eq!(collector.tree(&quiet), "");
}

#[tokio::test]
async fn a_collector_that_is_away_holds_up_nothing_and_is_told_of_once() {
    let backends = Backends::fresh().await;
    let away = format!("http://127.0.0.1:{}", free_port());
    let mut settings = backends.settings().to_vec();
    settings.push(("TIDELOG_OTLP_ENDPOINT", &away));
    settings.push(("OTEL_BSP_SCHEDULE_DELAY", "10"));
    let mut service = Service::start_with(Role::Command, &settings).await;
    const LINE: &str = "traces cannot be exported";
    let written = Cell::new(0);
    let write = async || {
        let id = written.replace(written.get() + 1).to_string();
        service.commands().post("/post", &post(&id)).await.data(201);
    };
    eventually("the loss to be told", async || {
        write().await;
        let output = service.process().output();
        output.contains(LINE).then_some(()).ok_or(output)
    })
    .await;
    for _ in 0..20 {
        write().await;
    }
    assert_eq!(
        service.stop(Signal::Term).await,
        Some(0),
        "{}",
        service.process().output()
    );
    let output = service.process().output();
    assert_eq!(output.matches(LINE).count(), 1, "{output}");
}

/// What is noted by the reaction below.
#[entity]
struct Note {
    text: String,
}

/// Writes a second note for each first one.
struct Echo(&'static OnceLock<InProcess>);

impl Reaction for Echo {
    const NAME: &'static str = "echo";
    type Event = EntityEvent<Note>;

    async fn react(&self, e: &tidelog::Recorded<Self::Event>) -> Result<(), Failure> {
        if let (false, Some(client)) = (e.stream_id.ends_with("-echo"), self.0.get()) {
            let echo = CommandRequest::new("note", "create", json!({"text": "echo"}));
            client
                .execute(echo.to(format!("{}-echo", e.stream_id)))
                .await?;
        }
        Ok(())
    }
}

/// The tree of a command that no request brought, and of what the reaction makes of it.
const WITH_ECHO: &str = "\
command (all)
  append (all)
    project (all)
    react (all)
      command (all)
        append (all)
          project (all)
          react (all)
          relay (all)
    relay (all)
";

#[tokio::test]
async fn what_a_reaction_does_belongs_to_the_trace_of_its_event() {
    static WRITER: OnceLock<InProcess> = OnceLock::new();
    let collector = OtlpReceiver::start().await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let export = Export {
        endpoint: collector.endpoint().to_owned(),
        sample: 1.0,
        service: "notes".to_owned(),
        instance: "here".to_owned(),
        role: "all",
    };
    let (layer, exporting) = export.begin().unwrap();
    // While there is only one, whether a span is wanted is asked in the thread that makes the first of its kind, which may be another
    // test's, where nothing listens; and that answer is kept for all.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    // All tasks of this test run in this thread.
    let subscriber = tracing_subscriber::registry().with(layer);
    let listening = tracing::subscriber::set_default(subscriber);
    let program = App::new("notes").entity::<Note>().reaction(Echo(&WRITER));
    let program = program.mount(Settings::in_memory()).await.unwrap();
    assert!(WRITER.set(program.client()).is_ok());
    let trace = new_trace();
    let note = CommandRequest::new("note", "create", json!({"text": "first"})).to("a");
    let metadata = Metadata {
        traceparent: Some(traceparent(&trace)),
        ..Metadata::default()
    };
    program
        .client()
        .execute(note.with_metadata(metadata))
        .await
        .unwrap();
    becomes(&collector, &trace, WITH_ECHO).await;
    assert!(program.stop().await);
    drop(listening);
    let ended = tokio::task::spawn_blocking(move || exporting.end(Duration::from_secs(60)));
    assert!(ended.await.unwrap());
}
