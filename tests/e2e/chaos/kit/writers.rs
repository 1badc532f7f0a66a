//! Clients that write to tallies, and insist that each write is accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::GROUPS;
use crate::client::Client;

/// How many clients write at once.
const CLIENTS: usize = 8;

/// What is written.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) streams: usize,
    /// How long each client waits after a write.
    pub(crate) pause: Duration,
    pub(crate) seed: u64,
}

/// Clients at work.
pub(crate) struct Writers {
    tasks: JoinSet<()>,
    written: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Writers {
    pub(crate) fn start(commands: &Client, load: Load) -> Self {
        let (written, stop) = (Arc::default(), Arc::default());
        let mut tasks = JoinSet::new();
        for client in 0..CLIENTS {
            let (written, stop) = (Arc::clone(&written), Arc::clone(&stop));
            tasks.spawn(write(commands.clone(), client, load, written, stop));
        }
        Self {
            tasks,
            written,
            stop,
        }
    }

    /// How many writes were accepted so far. Fails when one was not.
    pub(crate) fn written(&mut self) -> usize {
        if let Some(Err(ended)) = self.tasks.try_join_next() {
            std::panic::resume_unwind(ended.into_panic());
        }
        self.written.load(Ordering::Relaxed)
    }

    /// Waits for more writes.
    pub(crate) async fn write(&mut self, more: usize) {
        let until = self.written() + more;
        while self.written() < until {
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends them. Fails when a write was not accepted.
    pub(crate) async fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        }
        eprintln!("{} writes were accepted, none was refused", self.written());
    }
}

/// Writes to each `CLIENTS`-th stream: nobody else does.
async fn write(
    commands: Client,
    client: usize,
    load: Load,
    written: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) {
    let mut random = StdRng::seed_from_u64(load.seed + client as u64);
    let mine: Vec<_> = (client..load.streams).step_by(CLIENTS).collect();
    for stream in &mine {
        begin(&commands, &stream.to_string(), &groups(&mut random)).await;
        written.fetch_add(1, Ordering::Relaxed);
    }
    while !stop.load(Ordering::Relaxed) {
        let stream = mine[random.random_range(0..mine.len())].to_string();
        let amount = random.random_range(1..1_000);
        add(&commands, &stream, amount, &groups(&mut random)).await;
        written.fetch_add(1, Ordering::Relaxed);
        sleep(load.pause).await;
    }
}

/// One group, or two.
fn groups(random: &mut StdRng) -> Vec<String> {
    let mut group = || format!("g{}", random.random_range(0..GROUPS));
    let (one, other) = (group(), group());
    if one < other {
        vec![one, other]
    } else {
        vec![one]
    }
}

/// Begins a tally.
pub(crate) async fn begin(commands: &Client, id: &str, groups: &[String]) {
    let body = json!({"id": id, "groups": groups});
    commands.post("/tally/begin", &body).await.data(201);
}

/// Adds to a tally.
pub(crate) async fn add(commands: &Client, id: &str, amount: u64, groups: &[String]) {
    let body = json!({"amount": amount, "groups": groups});
    let path = format!("/tally/{id}/add");
    commands.post(&path, &body).await.data(200);
}
