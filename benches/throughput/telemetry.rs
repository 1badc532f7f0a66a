//! What telemetry costs: commands, and the view that follows them, by processes that export nothing, no trace, one of a hundred, and all.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use metrics_exporter_prometheus::PrometheusBuilder;
use tidelog_domain::{EntityView, ViewDefinition};
use tidelog_eventbus::{EventBus, InProcessEventBus};
use tidelog_query::store::{MongoOptions, MongoReadStore, ReadStore};
use tidelog_telemetry::{Export, Exporting, traced, traceparent};
use tidelog_test_support::{Engine, Process, Server, fresh_mongodb_database, fresh_mysql_database};
use tracing::Instrument;
use tracing::field::Empty;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::posts::{Posts, schema};
use crate::projecting::Following;
use crate::services::free_address;

/// What the bench is called with to be a process that is measured; then its [`Kind`], the collector, the log, the read store and how many
/// events.
pub(crate) const MEASURED: &str = "--measured-telemetry";

/// How often each is measured, in turn.
const ROUNDS: usize = 4;

/// How many events are not counted: connections are made, and memory is taken.
const WARM_UP: usize = 2_000;

/// Which part of the traces a process exports; none: it has no collector.
const KINDS: [(&str, &str); 4] = [
    ("off", "nothing is exported"),
    ("0", "no trace is recorded"),
    ("0.01", "one of a hundred"),
    ("1", "every trace"),
];

/// What a process found.
struct Found {
    commands: f64,
    projected: f64,
    /// Microseconds of processor time an event.
    cpu: f64,
    /// Nanoseconds of what is done about telemetry for a command.
    told: f64,
}

/// Measures each kind, with so many events each, and the same without telemetry's collector by another build of this bench, if there is
/// one. Prints a table.
pub(crate) async fn measure(events: usize, beside: Option<&str>) {
    let mysql = Server::start(Engine::MySql).await;
    let mongodb = Server::start(Engine::MongoDb).await;
    let collector = collector().await;
    let this = std::env::current_exe().unwrap();
    let this = this.to_str().unwrap();
    let mut all: Vec<_> = KINDS.map(|(kind, what)| (this, kind, what)).into();
    if let Some(other) = beside {
        all.insert(0, (other, "off", "the other build, which exports nothing"));
    }
    println!(
        "{events} commands of 64 clients on MySQL while a view in MongoDB follows, by processes in turn: medians of {ROUNDS}\n"
    );
    let mut found: Vec<Vec<Found>> = all.iter().map(|_| Vec::new()).collect();
    for round in 0..ROUNDS {
        // Forth and back, so that a drift of the machine is nobody's.
        let mut order: Vec<_> = (0..all.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for number in order {
            let (program, kind, _) = all[number];
            let log = fresh_mysql_database(&mysql).await;
            let store = fresh_mongodb_database(&mongodb);
            let mut process = Process::command(program);
            let events = events.to_string();
            process.args([MEASURED, kind, &collector, &log, &store, &events]);
            let process = Process::start(process);
            let line = process.wait_for_line("measured ").await;
            let numbers: Vec<f64> = line
                .split(' ')
                .skip(1)
                .map(|text| text.parse().unwrap())
                .collect();
            found[number].push(Found {
                commands: numbers[0],
                projected: numbers[1],
                cpu: numbers[2],
                told: numbers[3],
            });
        }
    }
    println!(
        "| traces | commands/s | into the view/s | processor time an event | of the first |\n|---|---|---|---|---|"
    );
    let first = median(&found[0], |own| own.cpu);
    for ((_, _, what), found) in all.iter().zip(&found) {
        let cpu = median(found, |own| own.cpu);
        println!(
            "| {what} | {:.0} | {:.0} | {cpu:.1} µs | {:.3} |",
            median(found, |own| own.commands),
            median(found, |own| own.projected),
            cpu / first
        );
    }
    let off = &found[usize::from(beside.is_some())];
    let (told, cpu) = (median(off, |own| own.told), median(off, |own| own.cpu));
    println!(
        "\nWhere nothing is exported, what is done about a command for telemetry's sake takes {told:.0} ns: {:.2} % of its processor time\n",
        told / 10.0 / cpu
    );
}

fn median(found: &[Found], of: impl Fn(&Found) -> f64) -> f64 {
    let mut values: Vec<_> = found.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    f64::midpoint(values[middle], values[(values.len() - 1) / 2])
}

/// A collector that throws away what it gets, and its address.
async fn collector() -> String {
    let address = free_address();
    let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
    let router = Router::new().route("/v1/traces", post(async |_: axum::body::Bytes| ()));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// A process that is measured: logs and counts as the program does, and exports as `kind` says.
pub(crate) async fn measured(kind: &str, collector: &str, log: &str, store: &str, events: usize) {
    let exporting = listen(kind, collector);
    let posts = Arc::new(Posts::on(&format!("{log}?ssl-mode=disabled")).await);
    let options = MongoOptions::default();
    let store = MongoReadStore::connect(store, &options).await.unwrap();
    let store: Arc<dyn ReadStore> = Arc::new(store);
    let bus: Arc<dyn EventBus> = Arc::new(InProcessEventBus::new());
    let view: Arc<dyn ViewDefinition> = Arc::new(EntityView::new(schema()));
    let running = Following::start(&posts, &store, &bus, view);
    running.built().await;
    running.while_clients_write(&posts, WARM_UP).await;
    let told = telling().await;
    let (before, began) = (processor_time(), Instant::now());
    let (commands, projected) = running.while_clients_write(&posts, events).await;
    let took = processor_time().saturating_sub(before);
    assert!(began.elapsed() > Duration::from_secs(1), "too few events");
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    let each = took.as_secs_f64() * 1e6 / events as f64;
    println!("measured {commands:.0} {projected:.0} {each:.2} {told:.1}");
    running.stop().await;
    let ended = tokio::task::spawn_blocking(|| {
        exporting.is_none_or(|exporting| exporting.end(Duration::from_secs(10)))
    });
    assert!(
        ended.await.unwrap(),
        "the last traces could not be exported"
    );
}

/// How many nanoseconds that takes which is done for each command so that it can be told of: its spans, or none, its count and its time.
async fn telling() -> f64 {
    const TIMES: u32 = 100_000;
    let counter = metrics::counter!("bench_commands_total", "outcome" => "appended");
    let took = metrics::histogram!("bench_append_duration_seconds");
    let began = Instant::now();
    for _ in 0..TIMES {
        let command = traced!(
            "command",
            aggregate = "post",
            name = "create",
            outcome = Empty
        );
        let append = async {
            let append = traced!(
                "append",
                waited_ms = Empty,
                attempts = Empty,
                events = Empty
            );
            let began = Instant::now();
            black_box(traceparent(&append));
            async { black_box(()) }.instrument(append).await;
            took.record(began.elapsed());
        };
        append.instrument(command.clone()).await;
        command.record("outcome", "appended");
        counter.increment(1);
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES)
}

fn listen(kind: &str, collector: &str) -> Option<Exporting> {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::set_global_recorder(recorder).unwrap();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = lines.with_filter(EnvFilter::new("sqlx=error,warn"));
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = vec![lines.boxed()];
    let exporting = kind.parse().ok().map(|sample| {
        let export = Export {
            endpoint: collector.to_owned(),
            sample,
            service: "bench".to_owned(),
            instance: "bench".to_owned(),
            role: "all",
        };
        let (layer, exporting) = export.begin().unwrap();
        layers.push(layer.boxed());
        exporting
    });
    tracing_subscriber::registry().with(layers).init();
    exporting
}

/// The processor time that this process has had, in ticks of 10 ms.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.map(|own| own.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
