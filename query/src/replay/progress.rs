//! How far a replay is, how fast, and how long it will take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::Progress;

/// Measures one run of a replay.
#[derive(Debug)]
pub(super) struct Meter {
    begun: Instant,
    /// Events that had been folded when the run began.
    before: AtomicU64,
    /// Events that are folded.
    events: AtomicU64,
    /// Events that the log has, as far as is known.
    of: AtomicU64,
}

impl Meter {
    /// Of a run that begins now.
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            before: AtomicU64::new(0),
            events: AtomicU64::new(0),
            of: AtomicU64::new(0),
        }
    }

    /// So many events were folded by others before.
    pub(super) fn go_on_from(&self, events: u64) {
        self.before.store(events, Ordering::Relaxed);
        self.events.store(events, Ordering::Relaxed);
    }

    /// So many more are folded.
    pub(super) fn add(&self, events: usize) {
        let events = u64::try_from(events).unwrap_or(u64::MAX);
        self.events.fetch_add(events, Ordering::Relaxed);
    }

    /// The log has so many events.
    pub(super) fn aim_at(&self, of: u64) {
        self.of.fetch_max(of, Ordering::Relaxed);
    }

    /// How many events had been folded when this run began.
    pub(super) fn before(&self) -> u64 {
        self.before.load(Ordering::Relaxed)
    }

    /// How many events this run has folded.
    pub(super) fn folded(&self) -> u64 {
        let events = self.events.load(Ordering::Relaxed);
        events.saturating_sub(self.before())
    }

    /// How far it is now.
    pub(super) fn progress(&self) -> Progress {
        Progress {
            events: self.events.load(Ordering::Relaxed),
            of: self.of.load(Ordering::Relaxed),
            per_second: per_second(self.folded(), self.begun.elapsed()),
        }
    }
}

/// So many events in this time, as events a second.
fn per_second(events: u64, time: Duration) -> u64 {
    let ms = time.as_millis().max(1);
    let per_second = u128::from(events) * 1_000 / ms;
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_of_this_run_and_tells_how_long_the_rest_takes() {
        let meter = Meter::new();
        meter.go_on_from(1_000);
        meter.aim_at(9_000);
        assert_eq!(meter.progress().eta_seconds(), None);
        tokio::time::sleep(Duration::from_secs(2)).await;
        meter.add(4_000);
        let expected = Progress {
            events: 5_000,
            of: 9_000,
            per_second: 2_000,
        };
        assert_eq!(meter.progress(), expected);
        assert_eq!(expected.eta_seconds(), Some(2));
        meter.add(4_000);
        assert_eq!(meter.progress().eta_seconds(), Some(0));
    }
}
