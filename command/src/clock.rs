//! What time it is, for decisions.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};

/// What time it is for decisions ([`Context::now`](tidelog_domain::Context::now)), and for what the memory store records: that of
/// the machine, or, in a test, one that moves only when it is told to. A clone is another handle to the same clock.
///
/// The other event stores record by the clock of their database.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// The microseconds since the Unix epoch of a clock that stands still; `None` is the machine's clock.
    still: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// A clock that stands at `time`, to the microsecond, until it is [advanced](Clock::advance).
    #[must_use]
    pub fn at(time: DateTime<Utc>) -> Self {
        let micros = AtomicI64::new(time.timestamp_micros());
        Self {
            still: Some(Arc::new(micros)),
        }
    }

    /// What time it is, to the microsecond.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        let still = self.still.as_ref();
        still
            .and_then(|micros| DateTime::from_timestamp_micros(micros.load(Ordering::Relaxed)))
            .unwrap_or_else(|| Utc::now().trunc_subsecs(6))
    }

    /// Moves a clock that stands still by `time`, at most to the end of what can be said. The machine's clock cannot be moved.
    pub fn advance(&self, time: Duration) {
        if let Some(micros) = &self.still {
            let time = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
            let later = |now: i64| Some(now.saturating_add(time));
            // It always gives a value.
            let _ = micros.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_stands_still_until_it_is_advanced() {
        let clock = Clock::at(DateTime::UNIX_EPOCH);
        let other = clock.clone();
        assert_eq!(clock.now(), DateTime::UNIX_EPOCH);
        other.advance(Duration::from_secs(90));
        assert_eq!(clock.now().timestamp(), 90);
    }

    #[test]
    fn the_clock_of_the_machine_goes_by_itself() {
        let clock = Clock::default();
        let before = Utc::now().trunc_subsecs(6);
        clock.advance(Duration::from_secs(1_000_000));
        let now = clock.now();
        assert!(before <= now && now <= Utc::now(), "{before} {now}");
    }
}
