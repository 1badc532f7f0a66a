//! Outages, told once when they begin and once when they are over.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tidelog_domain::Partition;

/// One log line when the first of several workers begins to fail, one when the last is well again.
pub(crate) struct Outage {
    who: String,
    failing: Mutex<Failing>,
}

#[derive(Default)]
struct Failing {
    workers: BTreeSet<Option<Partition>>,
    since: Option<Instant>,
}

impl Outage {
    /// For the workers of `who`.
    pub(crate) fn new(who: impl Into<String>) -> Self {
        Self {
            who: who.into(),
            failing: Mutex::default(),
        }
    }

    /// The worker on `partition` (`None`: one for all of them) failed.
    pub(crate) fn failed(&self, partition: Option<Partition>, reason: &str) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if failing.workers.insert(partition) && failing.workers.len() == 1 {
            failing.since = Some(Instant::now());
            tracing::warn!(who = %self.who, %reason, "it fails, and is tried again until it works");
        }
    }

    /// The worker on `partition` is well.
    pub(crate) fn recovered(&self, partition: Option<Partition>) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if failing.workers.remove(&partition) && failing.workers.is_empty() {
            let lasted = failing.since.take().map(|since| since.elapsed());
            tracing::info!(who = %self.who, ?lasted, "it works again");
        }
    }
}
