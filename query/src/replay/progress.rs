//! How far a replay is, how fast, and how long it will take.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::Progress;

/// Measures one run of a replay.
#[derive(Debug)]
pub(super) struct Meter {
    building: Counter,
    comparison: Mutex<Counter>,
    is_comparing: AtomicBool,
}

/// Counts events.
#[derive(Debug)]
struct Counter {
    begun: Instant,
    /// Events that had been done when it began.
    before: AtomicU64,
    /// Events that are done.
    events: AtomicU64,
    /// Events that there are, as far as is known.
    of: AtomicU64,
}

impl Counter {
    fn new(of: u64) -> Self {
        Self {
            begun: Instant::now(),
            before: AtomicU64::new(0),
            events: AtomicU64::new(0),
            of: AtomicU64::new(of),
        }
    }

    fn add(&self, events: usize) {
        let events = u64::try_from(events).unwrap_or(u64::MAX);
        self.events.fetch_add(events, Ordering::Relaxed);
    }

    fn done(&self) -> u64 {
        let events = self.events.load(Ordering::Relaxed);
        events.saturating_sub(self.before.load(Ordering::Relaxed))
    }

    fn progress(&self, comparing: bool) -> Progress {
        Progress {
            events: self.events.load(Ordering::Relaxed),
            of: self.of.load(Ordering::Relaxed),
            per_second: per_second(self.done(), self.begun.elapsed()),
            comparing,
        }
    }
}

impl Meter {
    /// Of a run that begins now.
    pub(super) fn new() -> Self {
        Self {
            building: Counter::new(0),
            comparison: Mutex::new(Counter::new(0)),
            is_comparing: AtomicBool::new(false),
        }
    }

    /// So many events were folded by others before.
    pub(super) fn go_on_from(&self, events: u64) {
        self.building.before.store(events, Ordering::Relaxed);
        self.building.events.store(events, Ordering::Relaxed);
    }

    /// So many more are folded.
    pub(super) fn add(&self, events: usize) {
        self.building.add(events);
    }

    /// The log has so many events.
    pub(super) fn aim_at(&self, of: u64) {
        self.building.of.fetch_max(of, Ordering::Relaxed);
    }

    /// What was built is compared from now on, which reads so many events.
    pub(super) fn compare(&self, of: u64) {
        *self.comparison() = Counter::new(of);
        self.is_comparing.store(true, Ordering::Relaxed);
    }

    /// So many more are read for the comparison.
    pub(super) fn compared(&self, events: usize) {
        self.comparison().add(events);
    }

    /// The comparison is over.
    pub(super) fn build_on(&self) {
        self.is_comparing.store(false, Ordering::Relaxed);
    }

    /// How many events had been folded when this run began.
    pub(super) fn before(&self) -> u64 {
        self.building.before.load(Ordering::Relaxed)
    }

    /// How many events this run has folded.
    pub(super) fn folded(&self) -> u64 {
        self.building.done()
    }

    /// How far it is now.
    pub(super) fn progress(&self) -> Progress {
        if self.is_comparing.load(Ordering::Relaxed) {
            self.comparison().progress(true)
        } else {
            self.building.progress(false)
        }
    }

    fn comparison(&self) -> std::sync::MutexGuard<'_, Counter> {
        self.comparison
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
            comparing: false,
        };
        assert_eq!(meter.progress(), expected);
        assert_eq!(expected.eta_seconds(), Some(2));
        meter.add(4_000);
        assert_eq!(meter.progress().eta_seconds(), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_comparison_is_measured_by_itself() {
        let meter = Meter::new();
        meter.add(700);
        tokio::time::sleep(Duration::from_secs(5)).await;
        meter.compare(700);
        tokio::time::sleep(Duration::from_secs(1)).await;
        meter.compared(350);
        let expected = Progress {
            events: 350,
            of: 700,
            per_second: 350,
            comparing: true,
        };
        assert_eq!(meter.progress(), expected);
        meter.build_on();
        assert_eq!(meter.progress().events, 700);
        assert_eq!(meter.folded(), 700);
    }
}
