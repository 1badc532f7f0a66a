//! How fast a client may say what begins nothing: pings, and what is turned down before a service has it.

use std::time::Duration;

use tokio::time::Instant;

/// One of them is due every so often.
const EVERY: Duration = Duration::from_millis(10);

/// How far a client may be ahead of that: a hundred at once.
const AHEAD: Duration = Duration::from_secs(1);

/// What a socket has said so far.
pub(super) struct Pace {
    /// When all of it would have been said, one by one.
    even: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            even: Instant::now(),
        }
    }

    /// When the next message may be read.
    pub(super) fn next(&self) -> Instant {
        self.even.checked_sub(AHEAD).unwrap_or(self.even)
    }

    /// Whether it may be now.
    pub(super) fn is_due(&self) -> bool {
        self.next() <= Instant::now()
    }

    /// One more was said.
    pub(super) fn count(&mut self) {
        self.even = self.even.max(Instant::now()) + EVERY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hundred_go_at_once_and_then_one_every_ten_milliseconds() {
        let mut pace = Pace::new();
        for _ in 0..101 {
            assert!(pace.is_due());
            pace.count();
        }
        for _ in 0..3 {
            assert!(!pace.is_due());
            tokio::time::advance(EVERY).await;
            assert!(pace.is_due());
            pace.count();
        }
    }
}
