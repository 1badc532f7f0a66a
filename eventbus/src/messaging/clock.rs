//! What time it is at the server of a bus: how old a message is, nobody else's clock says.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::lock::lock;

/// What the server's clock said, since 1970, and when.
struct Said {
    time: Duration,
    asked: Instant,
}

/// The server's clock, as far as is known; ours until it is asked.
pub(super) struct Clock(Mutex<Said>);

impl Default for Clock {
    fn default() -> Self {
        Self(Mutex::new(Said::now(None)))
    }
}

impl Said {
    fn now(time: Option<Duration>) -> Self {
        let own = || SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            time: time.unwrap_or_else(|| own().unwrap_or_default()),
            asked: Instant::now(),
        }
    }
}

impl Clock {
    /// The server has just said that it is so late; `None` where it does not say.
    pub(super) fn set(&self, time: Option<Duration>) {
        *lock(&self.0) = Said::now(time);
    }

    /// How long ago it was asked.
    #[cfg(feature = "nats")]
    pub(super) fn asked(&self) -> Duration {
        lock(&self.0).asked.elapsed()
    }

    /// How long ago it was so late there.
    pub(super) fn since(&self, time: Duration) -> Duration {
        let said = lock(&self.0);
        (said.time + said.asked.elapsed()).saturating_sub(time)
    }
}
