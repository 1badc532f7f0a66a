//! How soon a request is turned away that is too much.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;

/// The time between two answers that turn away, where more come at once.
const PACE: Duration = Duration::from_millis(1);

/// The longest that such an answer waits: what its `Retry-After` says at least.
const MOST: Duration = Duration::from_secs(1);

/// The answers of one kind that turn requests away. Cloning gives another handle to the same.
///
/// To turn a request away takes a processor for a while, and who asks again at once takes it again: a few clients without patience would leave no time
/// for those who were let in. So such answers leave at a pace, a thousand a second, and a client has to wait for its own. An answer of which there are
/// few leaves at once; none waits for longer than a second, so with `n` connections there are at most `n` a second beyond that.
#[derive(Clone)]
pub(super) struct Refusals {
    began: Instant,
    next: Arc<Mutex<Next>>,
}

/// When the next answer may leave, since any beginning.
#[derive(Default)]
struct Next(Duration);

impl Next {
    /// How long the answer has to wait that would leave at `time`.
    fn wait(&mut self, time: Duration) -> Duration {
        let leaves = self.0.clamp(time, time + MOST);
        self.0 = leaves + PACE;
        leaves - time
    }
}

impl Refusals {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            next: Arc::default(),
        }
    }

    /// Waits until one more may be turned away.
    pub(super) async fn turn(&self) {
        let wait = {
            // Nothing panics while it is held.
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            next.wait(self.began.elapsed())
        };
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_turned_away_alone_is_told_at_once_and_many_at_a_pace() {
        let mut next = Next::default();
        let second = Duration::from_secs(1);
        assert_eq!(next.wait(second), Duration::ZERO);
        let waits: Vec<_> = (0..3).map(|_| next.wait(second)).collect();
        assert_eq!(waits, [PACE, PACE * 2, PACE * 3]);
        assert_eq!(next.wait(second * 2), Duration::ZERO);
    }

    #[test]
    fn nobody_waits_for_longer_than_a_second() {
        let mut next = Next::default();
        let longest = (0..5_000).map(|_| next.wait(MOST)).max();
        assert_eq!(longest, Some(MOST));
        assert_eq!(next.wait(MOST + MOST / 2), MOST / 2 + PACE);
    }
}
