//! What clients see who ask for ten times what the command service can bear, and beside a thousand who are slow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, sleep_until};

use crate::commands::{Found, a_second};
use crate::http::Connection;
use crate::posts::CONTENT;
use crate::services::Services;

/// How many clients find out what the service can bear.
const CLIENTS: usize = 64;

/// How many times that is asked for.
const TIMES: u32 = 10;

/// On how many connections.
const CONNECTIONS: usize = 1_024;

/// How many are slow.
const SLOW: usize = 1_000;

/// How often the probes ask.
const PROBE: Duration = Duration::from_millis(100);

/// How many seconds it may take at most to be as before.
const MAX_RECOVERY: u32 = 30;

/// What became of the requests of a while.
#[derive(Default)]
struct Load {
    /// How long each took that was done.
    done: Vec<Duration>,
    /// How long each took that was turned down.
    refused: Vec<Duration>,
    /// How many were answered by each status; 0 where the connection was lost.
    statuses: BTreeMap<u16, usize>,
}

impl Load {
    fn add(&mut self, status: u16, took: Duration) {
        *self.statuses.entry(status).or_default() += 1;
        match status {
            201 => self.done.push(took),
            _ => self.refused.push(took),
        }
    }

    fn join(mut self, other: Self) -> Self {
        self.done.extend(other.done);
        self.refused.extend(other.refused);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self
    }

    fn asked(&self) -> usize {
        self.statuses.values().sum()
    }

    fn p99(&self) -> Duration {
        Found::of(self.done.clone(), Duration::from_secs(1)).p99
    }

    fn print(&self, what: &str, time: Duration) {
        let done = Found::of(self.done.clone(), time);
        let refused = match self.refused.is_empty() {
            true => String::new(),
            false => format!("{:.1?}", Found::of(self.refused.clone(), time).p99),
        };
        println!(
            "| {what} | {:.0} | {:.0} | {:.1?} | {:.1?} | {refused} | {:?} |",
            a_second(self.asked(), time),
            done.rate,
            done.p50,
            done.p99,
            self.statuses
        );
    }
}

/// Measures, and prints what it found: `time` for each normal load, and for the overload.
pub(crate) async fn measure(time: Duration, overload: Duration) {
    let services = Services::start().await;
    println!(
        "POST to the command service, one event each: three processes, MySQL, Redis and MongoDB with their default durability\n"
    );
    println!(
        "| | asked a second | done a second | p50 | p99 | p99 of what is turned down | by status |\n|---|---|---|---|---|---|---|"
    );
    let endless = f64::INFINITY;
    offered(&services, CLIENTS, endless, Duration::from_secs(2)).await;
    let most = offered(&services, CLIENTS, endless, time).await;
    most.print(
        &format!("all it can bear: {CLIENTS} clients without a pause"),
        time,
    );
    let bearable = a_second(most.done.len(), time);
    let half = offered(&services, CLIENTS, bearable / 2.0, time).await;
    half.print("half of that, at an even pace", time);

    let before = services.resident_of_command();
    let probing = Probing::begin(services.command_admin.clone());
    let memory = Memory::begin(services.command_process());
    let over = offered(
        &services,
        CONNECTIONS,
        bearable * f64::from(TIMES),
        overload,
    )
    .await;
    over.print(
        &format!("{TIMES} times what it can bear, on {CONNECTIONS} connections"),
        overload,
    );
    let (probes, highest) = (probing.end().await, memory.end().await);
    let recovered = recovery(&services, bearable / 2.0, half.p99()).await;
    println!(
        "\np99 of what was done: {:.2} times that of all it can bear, {:.2} times that of half. \
         Probes: {} answered, the slowest in {:.0?}, {} not. \
         Memory: {before:.0} MiB before, at most {highest:.0} MiB. As before after {recovered} s.\n",
        ratio(over.p99(), most.p99()),
        ratio(over.p99(), half.p99()),
        probes.0.len(),
        probes.0.iter().max().copied().unwrap_or_default(),
        probes.1,
    );

    println!(
        "| | asked a second | done a second | p50 | p99 | p99 of what is turned down | by status |\n|---|---|---|---|---|---|---|"
    );
    let alone = offered(&services, CLIENTS, bearable / 2.0, time).await;
    alone.print("half of what it can bear", time);
    let slow = Slow::begin(&services.command).await;
    let beside = offered(&services, CLIENTS, bearable / 2.0, time).await;
    beside.print(&format!("the same beside {SLOW} slow clients"), time);
    let left = slow.end().await;
    println!(
        "\np99 beside them: {:.2} times. {left} of the {SLOW} were still connected at the end.\n",
        ratio(beside.p99(), alone.p99())
    );
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

/// Asks for `rate` posts a second on so many connections, each waiting for its answer before it asks again.
async fn offered(services: &Services, connections: usize, rate: f64, time: Duration) -> Load {
    let tickets = Arc::new(AtomicU32::new(0));
    let pause = Duration::from_secs_f64(1.0 / rate);
    let began = tokio::time::Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let (address, tickets) = (services.command.clone(), tickets.clone());
        clients.spawn(async move {
            let mut load = Load::default();
            let mut connection = None;
            loop {
                let at = began + pause * tickets.fetch_add(1, Ordering::Relaxed);
                if at.max(tokio::time::Instant::now()) >= began + time {
                    return load;
                }
                sleep_until(at).await;
                let begun = Instant::now();
                let status = post(&mut connection, &address).await.unwrap_or(0);
                load.add(status, begun.elapsed());
            }
        });
    }
    let loads = clients.join_all().await.into_iter();
    loads.fold(Load::default(), Load::join)
}

/// Makes a post, and gives the status; the connection is made anew where it is lost.
async fn post(connection: &mut Option<Connection>, address: &str) -> Option<u16> {
    let body = format!(r#"{{"title":"A title","content":"{CONTENT}","author_name":"Ann"}}"#);
    let mut own = match connection.take() {
        Some(own) => own,
        None => Connection::try_open(address).await.ok()?,
    };
    let answer = own.try_post("/post", &body).await.ok()?;
    *connection = Some(own);
    Some(answer.status)
}

/// After how many seconds at `rate` the p99 is no more than twice `normal` again.
async fn recovery(services: &Services, rate: f64, normal: Duration) -> u32 {
    for second in 1..=MAX_RECOVERY {
        let load = offered(services, CLIENTS, rate, Duration::from_secs(1)).await;
        if load.refused.is_empty() && load.p99() <= normal * 2 {
            return second;
        }
    }
    MAX_RECOVERY + 1
}

/// Asks a listener of the administration whether it lives, all the time.
struct Probing {
    ends: Arc<AtomicBool>,
    asking: tokio::task::JoinHandle<(Vec<Duration>, usize)>,
}

impl Probing {
    fn begin(address: String) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let until = ends.clone();
        let asking = tokio::spawn(async move {
            let (mut took, mut failed) = (Vec::new(), 0);
            let mut ticks = interval(PROBE);
            while !until.load(Ordering::Relaxed) {
                ticks.tick().await;
                for path in ["/health/live", "/health/ready", "/metrics"] {
                    let begun = Instant::now();
                    let answered = async {
                        let mut connection = Connection::try_open(&address).await.ok()?;
                        let answer = connection.try_get(path).await.ok()?;
                        (answer.status == 200).then_some(())
                    };
                    match answered.await {
                        Some(()) => took.push(begun.elapsed()),
                        None => failed += 1,
                    }
                }
            }
            (took, failed)
        });
        Self { ends, asking }
    }

    /// How long each answer took, and how many there were not.
    async fn end(self) -> (Vec<Duration>, usize) {
        self.ends.store(true, Ordering::Relaxed);
        self.asking.await.unwrap()
    }
}

/// Looks at how much memory a process has in use.
struct Memory {
    ends: Arc<AtomicBool>,
    looking: tokio::task::JoinHandle<f64>,
}

impl Memory {
    fn begin(process: String) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let until = ends.clone();
        let looking = tokio::spawn(async move {
            let mut highest = 0_f64;
            while !until.load(Ordering::Relaxed) {
                highest = highest.max(crate::subscribing::resident(&process));
                sleep(PROBE).await;
            }
            highest
        });
        Self { ends, looking }
    }

    /// The most that it was, in MiB.
    async fn end(self) -> f64 {
        self.ends.store(true, Ordering::Relaxed);
        self.looking.await.unwrap()
    }
}

/// Clients who send a head, or a body, a byte a second, or never read the answers that they ask for.
struct Slow {
    ends: Arc<AtomicBool>,
    clients: JoinSet<bool>,
}

impl Slow {
    async fn begin(address: &str) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for number in 0..SLOW {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let ends = ends.clone();
            clients.spawn(async move {
                let begins = match number % 3 {
                    0 => "POST /post HTTP/1.1\r\nhost: localhost\r\nx: ".to_owned(),
                    1 => "POST /post HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{".to_owned(),
                    _ => "GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100),
                };
                let mut is_there = stream.write_all(begins.as_bytes()).await.is_ok();
                while !ends.load(Ordering::Relaxed) {
                    sleep(Duration::from_secs(1)).await;
                    is_there = is_there && (number % 3 == 2 || stream.write_all(b" ").await.is_ok());
                }
                is_there
            });
        }
        Self { ends, clients }
    }

    /// How many of them could still send at the end.
    async fn end(self) -> usize {
        self.ends.store(true, Ordering::Relaxed);
        let there = self.clients.join_all().await;
        there.into_iter().filter(|is_there| *is_there).count()
    }
}
