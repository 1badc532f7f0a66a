//! Waiting before the next try: exponential, with full jitter, without end.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The waits between tries: each drawn evenly from zero up to a bound that doubles from `first` to `cap`.
///
/// Full jitter spreads those who failed together; there is no last try.
#[derive(Debug)]
pub struct Backoff {
    builder: ExponentialBuilder,
    bounds: ExponentialBackoff,
    cap: Duration,
    attempts: u32,
}

impl Backoff {
    /// Waits of at most `first` at first, and at most `cap` in the end.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Self {
        let builder = ExponentialBuilder::new()
            .with_min_delay(first)
            .with_max_delay(cap)
            .without_max_times();
        Self {
            builder,
            bounds: builder.build(),
            cap,
            attempts: 0,
        }
    }

    /// How long to wait now, after another failure.
    pub fn next_wait(&mut self) -> Duration {
        self.attempts = self.attempts.saturating_add(1);
        let bound = self.bounds.next().unwrap_or(self.cap);
        rand::random_range(Duration::ZERO..=bound)
    }

    /// How often it failed in a row.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// It went well: the next failure is the first again.
    pub fn reset(&mut self) {
        if self.attempts > 0 {
            self.attempts = 0;
            self.bounds = self.builder.build();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_cap_and_never_end() {
        let (first, cap) = (Duration::from_millis(10), Duration::from_millis(500));
        let mut backoff = Backoff::new(first, cap);
        let mut bound = first;
        for attempt in 1..=1000 {
            let wait = backoff.next_wait();
            assert!(wait <= bound, "{wait:?} in try {attempt}, above {bound:?}");
            assert_eq!(backoff.attempts(), attempt);
            bound = (bound * 2).min(cap);
        }
    }

    #[test]
    fn waits_are_spread_over_the_whole_range() {
        let cap = Duration::from_millis(100);
        let mut backoff = Backoff::new(cap, cap);
        let waits: Vec<_> = (0..1000).map(|_| backoff.next_wait()).collect();
        assert!(waits.iter().any(|wait| *wait < cap / 4));
        assert!(waits.iter().any(|wait| *wait > cap * 3 / 4));
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_secs(60));
        for _ in 0..20 {
            backoff.next_wait();
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(1));
        assert_eq!(backoff.attempts(), 1);
    }
}
