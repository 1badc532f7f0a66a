//! `send` and `emit` beside `@streamerson/core` and the bare commands of a send, on one Redis, each in processes of its own and in turn; and
//! whether memory stays flat.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tidelog_eventbus::messaging::{HandlerError, MessageContext, Messaging, Subject};
use tidelog_test_support::{Engine, Process, Server, streamerson_path};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::bare;

/// What the bench is called with to be a process that is measured; then the server's URL, the role, and the role's numbers.
pub(crate) const PEER: &str = "--messaging-peer";

/// How often each is measured, in turn.
const ROUNDS: usize = 5;

/// How many messages are not counted: connections are made, and programs are compiled.
const WARM_UP: usize = 1_000;

/// How many requests wait at once.
const AT_ONCE: [usize; 2] = [1, 100];

/// How many of the times that sends took are remembered: what is measured with them should not grow.
const MAX_TIMES: usize = 100_000;

/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(250);

#[derive(Clone, Serialize, Deserialize)]
struct Post {
    title: String,
    content: String,
}

const ECHO: Subject<Post, Post> = Subject::new("bench.echo");
const EMITTED: Subject<Post> = Subject::new("bench.emitted");

fn post() -> Post {
    Post {
        title: "A title".to_owned(),
        content: "x".repeat(100),
    }
}

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Tidelog,
    Streamerson,
    /// The limit.
    Bare,
}

const PEERS: [Peer; 3] = [Peer::Tidelog, Peer::Streamerson, Peer::Bare];

/// What is measured.
#[derive(Clone, Copy)]
enum Work {
    Send { at_once: usize },
    Emit { count: usize },
}

/// What a process found.
#[derive(Clone, Copy)]
struct Found {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Measures all with so many emits, and sends for `time`, in turn, and prints the medians.
pub(crate) async fn measure(emits: usize, time: Duration) {
    let redis = Server::start(Engine::Redis).await;
    println!(
        "Messaging: Redis {}, append-only file synced each second; @streamerson/core 0.0.19 on Node.js {}; a payload of 140 bytes; worker, \
         sender and Redis are a process each, with a thread for the work; {} s of sends, {emits} emits; medians of {ROUNDS} rounds in turn; \
         bare are the commands of a send alone\n",
        asked(&redis, "redis_version").await,
        node_version(),
        time.as_secs()
    );
    println!(
        "| | tidelog/s | p50, p99 | streamerson/s | p50, p99 | × | bare/s | of it |\n|---|---|---|---|---|---|---|---|"
    );
    let sends = AT_ONCE.map(|at_once| Work::Send { at_once });
    for work in sends.into_iter().chain([Work::Emit { count: emits }]) {
        let peers = match work {
            Work::Send { .. } => &PEERS[..],
            Work::Emit { .. } => &PEERS[..2],
        };
        let mut found = vec![Vec::new(); peers.len()];
        for round in 0..ROUNDS {
            // Another one begins each time, so that a drift of the machine is nobody's.
            for turn in 0..peers.len() {
                let number = (turn + round) % peers.len();
                found[number].push(run(&redis, peers[number], work, time).await);
            }
        }
        row(work, &found);
    }
    println!();
    memory(&redis, time * 5).await;
}

/// Prints what the peers found.
fn row(work: Work, found: &[Vec<Found>]) {
    let name = match work {
        Work::Send { at_once: 1 } => "sends one by one".to_owned(),
        Work::Send { at_once } => format!("sends, {at_once} at once"),
        Work::Emit { count } => format!("{count} emits"),
    };
    let median = |peer: &[Found], of: fn(&Found) -> f64| {
        let mut values: Vec<_> = peer.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let rates: Vec<_> = found
        .iter()
        .map(|peer| median(peer, |one| one.rate))
        .collect();
    let times = |peer: &[Found]| {
        let (p50, p99) = (
            median(peer, |one| one.p50_ms),
            median(peer, |one| one.p99_ms),
        );
        format!("{p50:.2}, {p99:.2} ms")
    };
    let limit = match rates[..] {
        [own, _, bare] => format!("{bare:.0} | {:.0} %", own / bare * 100.0),
        _ => " |".to_owned(),
    };
    println!(
        "| {name} | {:.0} | {} | {:.0} | {} | {:.2} | {limit} |",
        rates[0],
        times(&found[0]),
        rates[1],
        times(&found[1]),
        rates[0] / rates[1]
    );
}

/// Lets one of them do something, on an empty Redis.
async fn run(redis: &Server, peer: Peer, work: Work, time: Duration) -> Found {
    flush(redis).await;
    let (role, numbers) = match work {
        Work::Send { at_once } => ("send", vec![at_once, seconds(time)]),
        Work::Emit { count } => ("emit", vec![count]),
    };
    let worker = match work {
        Work::Send { .. } => Some(start(redis, peer, "worker", &[]).await),
        Work::Emit { .. } => None,
    };
    if let Some(worker) = &worker {
        worker.wait_for_line("ready").await;
    }
    let measured = start(redis, peer, role, &numbers).await;
    read(&measured.wait_for_line("measured ").await)
}

async fn start(redis: &Server, peer: Peer, role: &str, numbers: &[usize]) -> Process {
    let mut command = match peer {
        Peer::Tidelog | Peer::Bare => {
            let mut command = Process::command(std::env::current_exe().unwrap());
            let prefix = if peer == Peer::Bare { "bare-" } else { "" };
            command.args([PEER, redis.url(), &format!("{prefix}{role}")]);
            command
        }
        Peer::Streamerson => {
            let mut command = Process::command("node");
            let program = concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/benches/throughput/streamerson/peer.mjs"
            );
            let port = redis.url().rsplit(':').next().unwrap();
            command.args([program, port, role]);
            command.env("MODULES", streamerson_path().await);
            command
        }
    };
    command.args(numbers.iter().map(ToString::to_string));
    Process::start(command)
}

/// What a process says: how many, in how many seconds, p50 and p99 in milliseconds.
fn read(line: &str) -> Found {
    let numbers: Vec<f64> = line
        .split(' ')
        .skip(1)
        .map(|text| text.parse().unwrap())
        .collect();
    Found {
        rate: numbers[0] / numbers[1],
        p50_ms: numbers[2],
        p99_ms: numbers[3],
    }
}

/// Sends for `time`, 100 at once, and prints what memory its two processes and Redis have meanwhile.
async fn memory(redis: &Server, time: Duration) {
    flush(redis).await;
    let worker = start(redis, Peer::Tidelog, "worker", &[]).await;
    worker.wait_for_line("ready").await;
    let before = resident(worker.id());
    let sender = start(redis, Peer::Tidelog, "send", &[100, seconds(time)]).await;
    sender.wait_for_line("warm").await;
    let mut samples = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() + SAMPLE < time {
        let used = asked(redis, "used_memory").await.parse().unwrap_or(0.0);
        samples.push([resident(worker.id()), resident(sender.id()), used / MIB]);
        sleep(SAMPLE).await;
    }
    let found = read(&sender.wait_for_line("measured ").await);
    let idle = resident(worker.id());
    println!(
        "Memory in {} s of sends, 100 at once ({:.0} a second), MiB; the worker had {before:.1} before, {idle:.1} after\n",
        seconds(time),
        found.rate
    );
    println!("| | worker | sender | Redis |\n|---|---|---|---|");
    let parts = [
        ("first tenth", 0.0, 0.1),
        ("in the middle", 0.45, 0.55),
        ("last tenth", 0.9, 1.0),
        ("the most", 0.0, 1.0),
    ];
    for (name, from, to) in parts {
        let count = samples.len();
        let part = |share: f64| samples.iter().take(rounded(share, count)).count();
        let most = |of: usize| {
            let part = &samples[part(from)..part(to).max(part(from) + 1)];
            part.iter().map(|sample| sample[of]).fold(0.0, f64::max)
        };
        println!(
            "| {name} | {:.1} | {:.1} | {:.1} |",
            most(0),
            most(1),
            most(2)
        );
    }
    println!();
}

const MIB: f64 = 1_048_576.0;

/// `share` of `count`.
fn rounded(share: f64, count: usize) -> usize {
    (1..=count)
        .take_while(|number| *number as f64 <= share * count as f64)
        .count()
}

fn seconds(time: Duration) -> usize {
    usize::try_from(time.as_secs()).unwrap()
}

/// The memory that a process has, in MiB.
fn resident(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

async fn flush(redis: &Server) {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let flushed = redis::cmd("FLUSHALL").exec_async(&mut connection).await;
    flushed.unwrap();
}

/// What Redis says of itself.
async fn asked(redis: &Server, name: &str) -> String {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let info: String = redis::cmd("INFO")
        .query_async(&mut connection)
        .await
        .unwrap();
    let prefix = format!("{name}:");
    let value = info.lines().find_map(|line| line.strip_prefix(&prefix));
    value.unwrap_or_default().to_owned()
}

fn node_version() -> String {
    let said = std::process::Command::new("node")
        .arg("--version")
        .output()
        .unwrap();
    String::from_utf8_lossy(&said.stdout).trim().to_owned()
}

/// Is a process that is measured.
pub(crate) async fn peer(url: &str, role: &str, numbers: &[String]) {
    let numbers: Vec<usize> = numbers
        .iter()
        .map(|text| text.parse().expect("a number"))
        .collect();
    let messaging = Messaging::connect(url, "bench").unwrap();
    match (role, &numbers[..]) {
        ("bare-worker", []) => bare::work(url),
        ("bare-send", [at_once, seconds]) => {
            let time = Duration::from_secs(u64::try_from(*seconds).unwrap());
            let (count, took) = bare::send(url, *at_once, time);
            println!("measured {count} {} 0 0", took.as_secs_f64());
        }
        ("worker", []) => {
            let worker = messaging.worker("echo").concurrency(256);
            let worker = worker.handle(&ECHO, |post: Post, _: MessageContext| async move {
                Ok::<_, HandlerError>(post)
            });
            let _worker = worker.start().await.unwrap();
            println!("ready");
            std::future::pending::<()>().await;
        }
        ("send", [at_once, seconds]) => {
            let time = Duration::from_secs(u64::try_from(*seconds).unwrap());
            let warm_up = WARM_UP.div_ceil(*at_once);
            send(&messaging, *at_once, move |count, _| count < warm_up).await;
            println!("warm");
            let begun = Instant::now();
            let sent = send(&messaging, *at_once, move |_, begun| begun.elapsed() < time).await;
            said(begun, sent);
        }
        ("emit", [count]) => {
            let posts = vec![post(); *count];
            let warm_up = &posts[..WARM_UP.min(posts.len())];
            messaging.emit_all(&EMITTED, warm_up).await.unwrap();
            let begun = Instant::now();
            let ids = messaging.emit_all(&EMITTED, &posts).await.unwrap();
            println!(
                "measured {} {} 0 0",
                ids.len(),
                begun.elapsed().as_secs_f64()
            );
        }
        _ => panic!("{role} {numbers:?}?"),
    }
}

/// How many were sent, and how long the first of them took.
struct Sent {
    count: usize,
    took: Vec<Duration>,
}

/// Sends for as long as it is to go on, by how many one has sent and since when.
async fn send<G>(messaging: &Messaging, at_once: usize, goes_on: G) -> Vec<Sent>
where
    G: Fn(usize, Instant) -> bool + Clone + Send + 'static,
{
    let begun = Instant::now();
    let mut sending = JoinSet::new();
    for _ in 0..at_once {
        let (messaging, goes_on) = (messaging.clone(), goes_on.clone());
        sending.spawn(async move {
            let (post, max) = (post(), MAX_TIMES / at_once);
            let mut sent = Sent {
                count: 0,
                took: Vec::with_capacity(max),
            };
            while goes_on(sent.count, begun) {
                let begun = Instant::now();
                messaging.send(&ECHO, &post).await.unwrap();
                sent.count += 1;
                if sent.took.len() < max {
                    sent.took.push(begun.elapsed());
                }
            }
            sent
        });
    }
    sending.join_all().await
}

fn said(begun: Instant, sent: Vec<Sent>) {
    let elapsed = begun.elapsed().as_secs_f64();
    let count: usize = sent.iter().map(|one| one.count).sum();
    let mut took: Vec<_> = sent.into_iter().flat_map(|one| one.took).collect();
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!("measured {count} {elapsed} {} {}", at(50), at(99));
}
