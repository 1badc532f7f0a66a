//! What can be seen of a tail while it runs.

use std::time::Instant;

/// Whether the bus is there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TailState {
    /// It was not reached yet.
    Starting,
    /// It brings events.
    Reading,
    /// It is unavailable and tried again, without end; subscriptions go on from the log.
    Down {
        /// The error and its causes.
        reason: String,
        /// How often it failed in a row.
        attempts: u32,
    },
}

/// What can be seen of a tail.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TailStatus {
    /// Whether the bus is there.
    pub bus: TailState,
    /// Since when.
    pub since: Instant,
}

impl TailStatus {
    pub(super) fn new() -> Self {
        Self {
            bus: TailState::Starting,
            since: Instant::now(),
        }
    }

    pub(super) fn set(&mut self, bus: TailState) {
        if std::mem::discriminant(&self.bus) != std::mem::discriminant(&bus) {
            self.since = Instant::now();
        }
        self.bus = bus;
    }
}
