//! Subscriptions: every event of the log, in order, to one handler.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::log::LogReader;
use crate::state::StateStore;
use crate::tail::Tail;

mod catch_up;
mod handler;
mod status;

pub use catch_up::{CatchUp, CatchUpError, CatchUpProgress};
pub use handler::{Cause, Handler, HandlerError};
pub use status::{PartitionState, PartitionStatus, SubscriptionStatus};

/// The bounds and times of a subscription.
#[derive(Clone, Debug)]
pub struct SubscriptionOptions {
    /// How many events a batch from the bus has, at most. 500.
    pub live_batch_max_events: usize,
    /// How many events a page from the log has, at most. 5,000.
    pub log_page_max_events: usize,
    /// How many partitions read, handle and write at once, at most. 8.
    pub concurrent_partitions: usize,
    /// How long a state record may stay unchanged before its owner counts as dead, on the observer's own clock. 5 s.
    pub lease: Duration,
    /// Whether the partitions are taken at start from whoever has them: right where one process at a time runs the
    /// subscription. True.
    pub take_over_at_start: bool,
    /// How often the state records are looked at: how soon a pause is noticed. 200 ms.
    pub watch_interval: Duration,
    /// How long a checkpoint that only passed over unwanted events may wait to be written. 100 ms.
    pub idle_checkpoint_delay: Duration,
    /// How long an event that failed for good waits for its next try, at most. 30 s.
    pub failed_retry_max: Duration,
}

impl Default for SubscriptionOptions {
    fn default() -> Self {
        Self {
            live_batch_max_events: 500,
            log_page_max_events: 5_000,
            concurrent_partitions: 8,
            lease: Duration::from_secs(5),
            take_over_at_start: true,
            watch_interval: Duration::from_millis(200),
            idle_checkpoint_delay: Duration::from_millis(100),
            failed_retry_max: Duration::from_secs(30),
        }
    }
}

/// A subscription: a name, a handler, and where its state, the log and the tail are.
pub struct Subscription {
    name: String,
    owner: String,
    handler: Arc<dyn Handler>,
    states: Arc<dyn StateStore>,
    log: Arc<dyn LogReader>,
    tail: Tail,
    options: SubscriptionOptions,
    status: SubscriptionStatus,
}

/// Why a subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscriptionEnd {
    /// It was told to stop: batches in flight were finished, their checkpoints written, the partitions handed over.
    Stopped,
    /// The checkpoints belong to another history than the log has now: a view has to be built anew.
    HistoryChanged,
}

impl Subscription {
    /// The subscription `name`, run by the process `owner` (a text that no other process has, ever).
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        owner: impl Into<String>,
        handler: Arc<dyn Handler>,
        states: Arc<dyn StateStore>,
        log: Arc<dyn LogReader>,
        tail: Tail,
    ) -> Self {
        let name = name.into();
        Self {
            status: SubscriptionStatus::new(&name, tail.partitions()),
            name,
            owner: owner.into(),
            handler,
            states,
            log,
            tail,
            options: SubscriptionOptions::default(),
        }
    }

    /// With other bounds and times than the defaults.
    #[must_use]
    pub fn with_options(mut self, options: SubscriptionOptions) -> Self {
        self.options = options;
        self
    }

    /// What can be seen of it while it runs.
    #[must_use]
    pub fn status(&self) -> SubscriptionStatus {
        self.status.clone()
    }

    /// Runs until `shutdown`, or until the log has another history.
    pub async fn run(self, shutdown: CancellationToken) -> SubscriptionEnd {
        let _ = (
            &self.name,
            &self.owner,
            &self.handler,
            &self.states,
            &self.log,
            &self.tail,
            &self.options,
        );
        shutdown.cancelled().await;
        SubscriptionEnd::Stopped
    }
}
