//! Clients with one command in flight each, and what came of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::task::JoinSet;

use crate::post::{Contender, Miss, PostCommand, changed, created};

/// For how long a run goes before it counts: connections are made, statements prepared, caches filled.
const WARM_UP: Duration = Duration::from_secs(1);

/// The aggregate that all clients change in [`Load::Hot`].
const HOT: &str = "hot";

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Each creates posts of its own, and changes each three times.
    Own,
    /// All change one and the same post.
    Hot,
}

/// What a run found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Acknowledged a second.
    pub(crate) rate: f64,
    /// From the first attempt to the acknowledgement.
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// How often a command was sent again.
    pub(crate) conflicts: u64,
    /// How many commands failed.
    pub(crate) errors: u64,
    /// What the first of them said.
    pub(crate) error: Option<String>,
    /// Which part of the machine other programs took meanwhile, from 0 to 1.
    pub(crate) others: f64,
    /// How many were acknowledged, the warm-up's too.
    pub(crate) acknowledged: u64,
}

impl Found {
    /// Whether the log has what was acknowledged: each command is one event. One that failed may have been written.
    pub(crate) fn check(&self, events: u64) -> anyhow::Result<()> {
        ensure!(
            (self.acknowledged..=self.acknowledged + self.errors).contains(&events),
            "{} commands were acknowledged and {} failed, but the log has {events} events",
            self.acknowledged,
            self.errors
        );
        Ok(())
    }
}

/// When a run counts.
#[derive(Clone, Copy)]
struct Window {
    begin: Instant,
    end: Instant,
}

/// What a client has seen.
#[derive(Default)]
struct Tally {
    acknowledged: u64,
    conflicts: u64,
    errors: u64,
    error: Option<String>,
    /// How long each took that was acknowledged within the window.
    took: Vec<Duration>,
}

/// Lets `clients` send commands to `contender` for `time`.
///
/// # Errors
///
/// When the hot post cannot be created.
pub(crate) async fn run(
    contender: &Arc<dyn Contender>,
    load: Load,
    clients: usize,
    time: Duration,
) -> anyhow::Result<Found> {
    let mut all = Tally::default();
    if load == Load::Hot {
        let create = PostCommand::Create(created(0));
        let made = contender.send(HOT, &create).await;
        made.map_err(|miss| anyhow::anyhow!("the hot post cannot be created: {miss:?}"))?;
        all.acknowledged += 1;
    }
    let begin = Instant::now() + WARM_UP;
    let end = begin + time;
    let mut running = JoinSet::new();
    for client in 0..clients {
        let contender = contender.clone();
        running.spawn(async move {
            let window = Window { begin, end };
            client_of(contender.as_ref(), load, client, window).await
        });
    }
    for tally in running.join_all().await {
        all.add(tally);
    }
    Ok(all.found(time))
}

/// One client, until the window ends.
async fn client_of(contender: &dyn Contender, load: Load, client: usize, window: Window) -> Tally {
    let mut tally = Tally::default();
    let mut number = 0;
    while Instant::now() < window.end {
        let (id, command) = match load {
            Load::Hot => (HOT.to_owned(), PostCommand::Change(changed(number))),
            // In the order of time, as the ids are that contenders make themselves.
            Load::Own => {
                let id = format!("{:010}-{client:04}", number / 4);
                let command = if number.is_multiple_of(4) {
                    PostCommand::Create(created(number))
                } else {
                    PostCommand::Change(changed(number))
                };
                (id, command)
            }
        };
        let sent = tally.send(contender, &id, &command, window).await;
        // After a failure nobody knows what the post is like; the client leaves it.
        number = if sent {
            number + 1
        } else {
            (number / 4 + 1) * 4
        };
    }
    tally
}

impl Tally {
    /// Sends a command, after a conflict again until the window ends, and says whether it was acknowledged.
    async fn send(
        &mut self,
        contender: &dyn Contender,
        id: &str,
        command: &PostCommand,
        window: Window,
    ) -> bool {
        let began = Instant::now();
        loop {
            let sent = contender.send(id, command).await;
            let now = Instant::now();
            match sent {
                Ok(()) => {
                    self.acknowledged += 1;
                    if (window.begin..window.end).contains(&now) {
                        self.took.push(now - began);
                    }
                    return true;
                }
                Err(Miss::Conflict) => self.conflicts += 1,
                Err(Miss::Failed(error)) => {
                    self.errors += 1;
                    self.error.get_or_insert(error);
                    return false;
                }
            }
            if now >= window.end {
                return false;
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.conflicts += other.conflicts;
        self.errors += other.errors;
        self.error = self.error.take().or(other.error);
        self.took.extend(other.took);
    }

    fn found(mut self, time: Duration) -> Found {
        self.took.sort_unstable();
        let last = self.took.len().saturating_sub(1);
        let at = |percent: usize| self.took.get(last * percent / 100).copied();
        Found {
            rate: self.took.len() as f64 / time.as_secs_f64(),
            p50: at(50).unwrap_or_default(),
            p99: at(99).unwrap_or_default(),
            conflicts: self.conflicts,
            errors: self.errors,
            error: self.error,
            others: 0.0,
            acknowledged: self.acknowledged,
        }
    }
}
