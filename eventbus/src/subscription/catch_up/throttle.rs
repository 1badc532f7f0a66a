//! A bound on how fast a catch-up goes, so that it leaves something to others.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How often in a second a throttled catch-up reads a page, about: often enough to be smooth.
const PAGES_PER_SECOND: usize = 4;

/// So many events a second, at most. Cloning gives another handle to the same: all who have one share them.
#[derive(Clone, Debug)]
pub struct Throttle {
    per_second: NonZeroU32,
    /// When the next events may pass: those before are paid for by then.
    next: Arc<Mutex<Instant>>,
}

impl Throttle {
    /// Lets `per_second` events pass a second.
    #[must_use]
    pub fn new(per_second: NonZeroU32) -> Self {
        Self {
            per_second,
            next: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// Waits until `events` may pass.
    pub async fn pass(&self, events: usize) {
        sleep_until(self.book(events)).await;
    }

    /// How many events are to be asked for at once.
    pub(super) fn page(&self, max_events: usize) -> usize {
        let per_second = usize::try_from(self.per_second.get()).unwrap_or(usize::MAX);
        max_events.min((per_second / PAGES_PER_SECOND).max(1))
    }

    /// When these events may pass; whoever comes after them waits for as long as they take.
    fn book(&self, events: usize) -> Instant {
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        let cost = Duration::from_secs(1) * events / self.per_second.get();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = (*next).max(Instant::now());
        *next = begin + cost;
        begin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_share_it_get_so_many_events_a_second_together() {
        let throttle = Throttle::new(NonZeroU32::new(1_000).unwrap());
        let other = throttle.clone();
        let first = throttle.book(500);
        let later = [other.book(250), throttle.book(250), other.book(1)];
        let later = later.map(|at| at.duration_since(first).as_millis());
        assert_eq!(later, [500, 750, 1_000]);
    }

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        let throttle = Throttle::new(NonZeroU32::MAX);
        let first = throttle.book(1);
        std::thread::sleep(Duration::from_millis(2));
        let second = throttle.book(1);
        assert!(second.duration_since(first) >= Duration::from_millis(2));
    }

    #[test]
    fn pages_are_small_enough_to_be_smooth() {
        let page = |per_second| Throttle::new(NonZeroU32::new(per_second).unwrap()).page(5_000);
        assert_eq!([page(1), page(4_000), page(1_000_000)], [1, 1_000, 5_000]);
    }
}
