//! A lane: the task that decides and appends for its share of the partitions, batch after batch.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use futures_util::FutureExt;
use metrics::Counter;
use tidelog_domain::Partitions;
use tidelog_eventbus::CommitSignal;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store::EventStore;

use super::AppenderSettings;
use super::batch::Batch;
use super::cache::StateCache;
use super::error::CommandError;
use super::load::load;
use super::snapshotter::Snapshotter;
use super::work::Job;

/// How long a batch waits at most for the clients that the last one answered, once it has a command: they are likely to send
/// the next one at once, and a command that comes just too late waits for two transactions. Short beside a transaction.
const GATHER_FOR: Duration = Duration::from_micros(100);

pub(super) struct Lane {
    pub(super) number: usize,
    pub(super) store: Arc<dyn EventStore>,
    pub(super) partitions: Partitions,
    pub(super) cache: StateCache,
    pub(super) snapshotter: Snapshotter,
    pub(super) signal: CommitSignal,
    pub(super) settings: AppenderSettings,
    /// Counts the events.
    pub(super) appended: Counter,
}

impl Lane {
    /// Works until the queue is closed and everything in it is answered.
    pub(super) async fn run(self, mut queue: mpsc::Receiver<Job>, closing: CancellationToken) {
        let mut jobs = Vec::new();
        let mut expected = 0;
        while self.take(&mut jobs, &mut queue, &closing).await {
            self.gather(&mut jobs, &mut queue, expected).await;
            let batch = std::mem::take(&mut jobs);
            let answered = batch.len();
            match AssertUnwindSafe(self.commit(batch)).catch_unwind().await {
                Ok(again) => jobs = again,
                // The commands went with the batch, which their clients are told. The lane must go on.
                Err(_) => tracing::error!(lane = self.number, "a batch panicked"),
            }
            expected = answered + queue.len();
        }
    }

    /// Fills `jobs` up with what is waiting. False when there is nothing left and there will be nothing.
    async fn take(
        &self,
        jobs: &mut Vec<Job>,
        queue: &mut mpsc::Receiver<Job>,
        closing: &CancellationToken,
    ) -> bool {
        let max = self.settings.batch_max_commands.max(1);
        if jobs.is_empty() {
            if !closing.is_cancelled() {
                tokio::select! {
                    biased;
                    () = closing.cancelled() => {}
                    taken = queue.recv_many(jobs, max) => return taken > 0,
                }
            }
            queue.close();
            return queue.recv_many(jobs, max).await > 0;
        }
        while jobs.len() < max
            && let Ok(job) = queue.try_recv()
        {
            jobs.push(job);
        }
        true
    }

    /// Lets the clients run until `jobs` has as many as are `expected`, but not for long.
    async fn gather(&self, jobs: &mut Vec<Job>, queue: &mut mpsc::Receiver<Job>, expected: usize) {
        let enough = expected.min(self.settings.batch_max_commands);
        // The clock of the machine: a timer of the runtime counts in milliseconds.
        let began = Clock::now();
        while jobs.len() < enough && began.elapsed() < GATHER_FOR {
            tokio::task::yield_now().await;
            while jobs.len() < enough
                && let Ok(job) = queue.try_recv()
            {
                jobs.push(job);
            }
        }
    }

    /// Decides and appends one batch, and gives back the commands that are to come again.
    async fn commit(&self, jobs: Vec<Job>) -> Vec<Job> {
        let jobs = in_time(jobs);
        let known = load(&jobs, self.store.as_ref(), &self.cache, &self.snapshotter).await;
        let mut batch = Batch::new(
            known,
            self.partitions,
            self.settings.batch_max_bytes,
            self.settings.clock.now(),
        );
        for job in jobs {
            batch.decide(job);
        }
        let appends = batch.take_appends();
        let results = if appends.is_empty() {
            Vec::new()
        } else {
            self.store.append(self.number, appends).await
        };
        let settled = batch.settle(results, &self.cache, &self.snapshotter);
        if !settled.heads.is_empty() {
            self.appended.increment(settled.events);
            self.signal.committed(settled.heads);
        }
        settled.again
    }
}

/// Leaves out the commands that nobody waits for any more, and turns down those that waited too long.
fn in_time(jobs: Vec<Job>) -> Vec<Job> {
    let now = Instant::now();
    let mut left = Vec::with_capacity(jobs.len());
    for job in jobs {
        if job.attempts > 0 || (job.deadline >= now && !job.reply.is_closed()) {
            job.taken();
            left.push(job);
        } else {
            job.answer(Err(CommandError::Overloaded));
        }
    }
    left
}
