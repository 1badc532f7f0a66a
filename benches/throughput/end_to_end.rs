//! From a write to the read that sees it, over HTTP: POST, MySQL, Redis, MongoDB, GET.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep_until};

use crate::commands::{Found, a_second};
use crate::services::{Client, Services};

/// How many writes a second are begun at an even pace, whether or not those before are done.
const PACE: u32 = 500;

/// How many clients write as fast as they can.
const CLIENTS: [usize; 2] = [64, 256];

/// How often a write is followed to its read while others write as fast as they can.
const PROBE: Duration = Duration::from_millis(20);

/// Measures, and prints what it found.
pub(crate) async fn measure(time: Duration) {
    let services = Arc::new(Services::start().await);
    println!(
        "POST to the command service, then GET with its token from the query service: three processes, MySQL, Redis and MongoDB with their \
         default durability, {time:?} each\n"
    );
    println!("| | writes/s | p50 | p99 | most |\n|---|---|---|---|---|");
    // Whatever is made at the first use is made.
    paced(&services, Duration::from_secs(1)).await;
    let each = paced(&services, time).await;
    print(
        &format!("{PACE} writes a second, each read"),
        each,
        time,
        None,
    );
    for clients in CLIENTS {
        let (written, each) = as_fast_as_can_be(&services, clients, time).await;
        let what = format!("{clients} clients write as fast as they can, one in 20 ms is read");
        print(&what, each, time, Some(written));
    }
    println!();
}

fn print(what: &str, each: Vec<Duration>, time: Duration, written: Option<usize>) {
    let found = Found::of(each, time);
    let rate = written.map_or(found.rate, |written| a_second(written, time));
    println!(
        "| {what} | {rate:.0} | {:.2?} | {:.2?} | {:.2?} |",
        found.p50, found.p99, found.most
    );
}

/// How long each of the writes took until it was read, from when it was to begin.
async fn paced(services: &Arc<Services>, time: Duration) -> Vec<Duration> {
    let idle: Arc<Mutex<Vec<Client>>> = Arc::default();
    let mut running = JoinSet::new();
    let began = tokio::time::Instant::now();
    let pause = Duration::from_secs(1) / PACE;
    for number in 0.. {
        let at = began + pause * number;
        if at > began + time {
            break;
        }
        sleep_until(at).await;
        let (services, idle) = (services.clone(), idle.clone());
        running.spawn(async move {
            let client = idle.lock().await.pop();
            let mut client = match client {
                Some(client) => client,
                None => Client::of(&services).await,
            };
            client.write_and_read().await;
            idle.lock().await.push(client);
            at.elapsed()
        });
    }
    running.join_all().await
}

/// How many writes were acknowledged, and how long some took until they were read.
async fn as_fast_as_can_be(
    services: &Arc<Services>,
    clients: usize,
    time: Duration,
) -> (usize, Vec<Duration>) {
    let (ends, written) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut writing = JoinSet::new();
    for _ in 0..clients {
        let (services, ends, written) = (services.clone(), ends.clone(), written.clone());
        writing.spawn(async move {
            let mut client = Client::of(&services).await;
            while !ends.load(Ordering::Relaxed) {
                client.write().await;
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut probing = Vec::new();
    let mut client = Client::of(services).await;
    let (began, mut ticks) = (Instant::now(), interval(PROBE));
    while began.elapsed() < time {
        ticks.tick().await;
        let began = Instant::now();
        client.write_and_read().await;
        probing.push(began.elapsed());
    }
    let written = written.load(Ordering::Relaxed);
    ends.store(true, Ordering::Relaxed);
    writing.join_all().await;
    (written, probing)
}
