//! The appender: group commit.
//!
//! A store has a few *lanes*, and each lane here is a task that takes whatever commands are waiting for its share of the
//! partitions, decides them in order, each on its predecessor's result, and appends them in one transaction. So a
//! transaction (and its fsync) is paid for once a batch, and a hot aggregate moves at the batch's rate.
//!
//! Nothing that a client does, least of all going away, can cancel a batch: it belongs to the lane.

mod batch;
mod cache;
mod error;
mod lane;
mod load;
mod replay;
mod running;
mod snapshotter;
mod work;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics::Histogram;
use tidelog_domain::{Partitions, Payload};
use tidelog_eventbus::CommitSignal;
use tidelog_telemetry::{traced, traceparent};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::clock::Clock;
use crate::store::EventStore;

use cache::StateCache;
use lane::Lane;
use replay::Replayer;
use running::RunningKeys;
use snapshotter::{Snapshotter, Tally};
use work::{Job, Reply};

pub use error::CommandError;
pub use snapshotter::SnapshotCounts;
pub use work::{Decide, Outcome, Precondition, StreamOutcome, Target, Work};

/// How often a command is decided at most: once, and again after each conflict.
pub const MAX_ATTEMPTS: u32 = 8;

/// The bounds of an appender.
#[derive(Clone, Debug)]
pub struct AppenderSettings {
    /// The most commands that wait for one lane. 4,096 unless said otherwise.
    pub queue_max_commands: usize,
    /// The most bytes that the waiting commands of all lanes hold together. 64 MiB unless said otherwise.
    pub queue_max_bytes: usize,
    /// How long a command may wait before it is turned down without having run, in milliseconds. 5 s unless said otherwise.
    pub queue_timeout_ms: u64,
    /// The most commands of one transaction. 512 unless said otherwise.
    pub batch_max_commands: usize,
    /// How many bytes of events a transaction has at most, before the last command that is taken into it. 4 MiB unless said
    /// otherwise.
    pub batch_max_bytes: usize,
    /// About how many bytes the states take that are kept at hand. 64 MiB unless said otherwise; 0 keeps none.
    pub cache_max_bytes: u64,
    /// After how many events of a stream a snapshot of its state is taken, again and again. 500 unless said otherwise; 0 for never,
    /// and then none is read either.
    ///
    /// Only where a state is made from all events: those of an entity carry the full state.
    pub snapshot_every_events: u64,
    /// How long reading streams may take before snapshots are taken of those that had 64 events to read or more, in milliseconds.
    /// 50 unless said otherwise.
    pub snapshot_slow_load_ms: u64,
    /// What time it is for decisions. The machine's clock unless said otherwise.
    pub clock: Clock,
}

impl Default for AppenderSettings {
    fn default() -> Self {
        Self {
            queue_max_commands: 4096,
            queue_max_bytes: 64 * 1024 * 1024,
            queue_timeout_ms: 5_000,
            batch_max_commands: 512,
            batch_max_bytes: 4 * 1024 * 1024,
            cache_max_bytes: 64 * 1024 * 1024,
            snapshot_every_events: 500,
            snapshot_slow_load_ms: 50,
            clock: Clock::default(),
        }
    }
}

/// Decides and appends commands, in batches. Cloning gives another handle to the same appender.
///
/// When the last handle is dropped, the lanes finish what is waiting and end.
#[derive(Clone)]
pub struct Appender {
    queues: Arc<[mpsc::Sender<Job>]>,
    partitions: Partitions,
    running: RunningKeys,
    replayer: Replayer,
    snapshots: Arc<Tally>,
    room: Arc<Semaphore>,
    queue_timeout: Duration,
    closing: CancellationToken,
    lanes: TaskTracker,
    took: Histogram,
}

impl fmt::Debug for Appender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appender")
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

impl Appender {
    /// Starts the lanes of `store`, whose log has `partitions`. After each commit it says on `signal` how far the log is.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn start(
        store: Arc<dyn EventStore>,
        partitions: Partitions,
        signal: CommitSignal,
        settings: AppenderSettings,
    ) -> Self {
        let cache = StateCache::new(settings.cache_max_bytes);
        let closing = CancellationToken::new();
        let lanes = TaskTracker::new();
        let snapshotter = Snapshotter::start(Arc::clone(&store), &settings, &lanes);
        let snapshots = snapshotter.tally();
        let queues = (0..store.lanes().max(1))
            .map(|number| {
                let (queue, waiting) = mpsc::channel(settings.queue_max_commands.max(1));
                let lane = Lane {
                    number,
                    store: Arc::clone(&store),
                    partitions,
                    cache: cache.clone(),
                    snapshotter: snapshotter.clone(),
                    signal: signal.clone(),
                    settings: settings.clone(),
                    appended: metrics::counter!("tidelog_events_appended_total"),
                };
                lanes.spawn(lane.run(waiting, closing.clone()));
                queue
            })
            .collect();
        lanes.close();
        Self {
            queues,
            partitions,
            running: RunningKeys::default(),
            snapshots,
            replayer: Replayer {
                store,
                partitions,
                cache,
            },
            room: Arc::new(Semaphore::new(
                settings.queue_max_bytes.min(Semaphore::MAX_PERMITS),
            )),
            queue_timeout: Duration::from_millis(settings.queue_timeout_ms),
            closing,
            lanes,
            took: metrics::histogram!("tidelog_append_duration_seconds"),
        }
    }

    /// Decides `work` and appends what it gives, and answers once that is durable.
    ///
    /// With a key that was used before it answers what was done then. While this appender works on the same key it is
    /// [`CommandError::InProgress`]; another process that does is waited for.
    ///
    /// Dropping the future does not take the command back once it was taken into a batch.
    ///
    /// # Errors
    ///
    /// [`CommandError`]. After every one but [`CommandError::InDoubt`] nothing was written, and nothing will be.
    pub async fn submit(&self, work: Work) -> Result<Outcome, CommandError> {
        let span = traced!(
            "append",
            waited_ms = Empty,
            attempts = Empty,
            events = Empty
        );
        let began = Instant::now();
        let done = self.append(work, span.clone()).instrument(span).await;
        self.took.record(began.elapsed());
        done
    }

    async fn append(&self, mut work: Work, span: Span) -> Result<Outcome, CommandError> {
        work.metadata.causation_id.get_or_insert(work.command_id);
        if work.metadata.correlation_id.is_empty() {
            work.metadata.correlation_id = work.command_id.to_string();
        }
        // Whoever handles the events goes on from here. Where nothing is exported, what the client said is kept.
        if let Some(own) = traceparent(&span) {
            work.metadata.traceparent = Some(own);
        }
        let metadata = Payload::of(&work.metadata)
            .map_err(|error| CommandError::defect(format!("metadata cannot be JSON: {error}")))?;
        let queue = self.queue_of(&work)?;
        let running = match &work.key {
            Some(key) => Some(self.running.take(key).ok_or(CommandError::InProgress)?),
            None => None,
        };
        let bytes = u32::try_from(work.size).unwrap_or(u32::MAX);
        let place = Arc::clone(&self.room)
            .try_acquire_many_owned(bytes)
            .map_err(|_| CommandError::Overloaded)?;
        let (reply, answer) = oneshot::channel();
        let job = Job {
            deadline: Instant::now() + self.queue_timeout,
            queued_at: Instant::now(),
            span,
            attempts: 0,
            metadata,
            work,
            running,
            reply,
            _place: place,
        };
        queue.try_send(job).map_err(|refused| match refused {
            TrySendError::Full(_) => CommandError::Overloaded,
            TrySendError::Closed(_) => CommandError::Closing,
        })?;
        // A lane answers every job. When it could not, because it panicked, nobody knows how far it came.
        let answer = answer.await.unwrap_or_else(|_| {
            Err(CommandError::in_doubt(
                "the appender broke off; its log says why",
            ))
        });
        match answer? {
            Reply::Done(outcome) => Ok(outcome),
            Reply::Before(replay) => self.replayer.outcome(replay).await,
        }
    }

    /// Takes no more commands, finishes those that wait or are in flight, and says whether all were done `within` the
    /// time.
    ///
    /// What is not done by then goes on as long as the runtime lives; its commands are answered, or in doubt.
    pub async fn close(&self, within: Duration) -> bool {
        self.closing.cancel();
        tokio::time::timeout(within, self.lanes.wait())
            .await
            .is_ok()
    }

    /// What became of snapshots since the start.
    #[must_use]
    pub fn snapshots(&self) -> SnapshotCounts {
        self.snapshots.counts()
    }

    /// How many commands wait for a lane to take them.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let queues = self.queues.iter();
        queues
            .map(|queue| queue.max_capacity() - queue.capacity())
            .sum()
    }

    /// The queue of the lane that `work` goes to: that of its first stream, always the same.
    fn queue_of(&self, work: &Work) -> Result<&mpsc::Sender<Job>, CommandError> {
        let first = work
            .targets
            .first()
            .ok_or_else(|| CommandError::defect("a command without a stream".to_owned()))?;
        let lane = first.stream.partition(self.partitions).index() % self.queues.len();
        self.queues
            .get(lane)
            .ok_or_else(|| CommandError::defect("an appender without a lane".to_owned()))
    }
}

#[cfg(test)]
mod tests;
