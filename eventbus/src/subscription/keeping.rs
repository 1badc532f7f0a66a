//! Keeping a partition while it is worked on: its checkpoint is written, its lease renewed, and what others want of it is noticed.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use tidelog_domain::{Position, causes};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Running;
use super::lease::{Held, Lease, renewal};
use super::observer::Seen;
use super::work::{Leave, Work};

/// How long to wait before another look at a record that could not be read.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Work {
    /// When the record is to be written next: soon, when events were passed over that nobody wanted or a trouble is over; else in time
    /// to keep the lease.
    pub(super) fn write_at(&self) -> Instant {
        let options = &self.running.options;
        let delay = if self.lease.tells(&self.progress) {
            renewal(options.lease)
        } else {
            options.idle_checkpoint_delay
        };
        self.lease.written_at() + delay
    }

    pub(super) async fn checkpoint_if_due(&mut self, had_effect: bool) -> Result<(), Leave> {
        if had_effect || Instant::now() >= self.write_at() {
            self.write_checkpoint().await?;
        }
        Ok(())
    }

    /// Writes the record, however long that takes.
    pub(super) async fn write_checkpoint(&mut self) -> Result<(), Leave> {
        loop {
            match self.lease.write(&self.progress).await {
                Ok(held) => {
                    self.progress.done.clear();
                    self.tell_progress(Position::START);
                    return leave_unless_held(held);
                }
                Err(error) => self.back_off(&causes(&error)).await?,
            }
        }
    }

    /// Whether the subscription stops, or somebody changed the record.
    pub(super) fn is_interrupted(&self) -> bool {
        let seen = self.seen.borrow();
        let changed = seen.as_ref().map(|seen| seen.revision);
        self.running.stop.is_cancelled() || changed > Some(self.lease.revision())
    }

    /// Waits, keeps the lease alive, and leaves when there is a reason to.
    pub(super) async fn pause_for(&mut self, wait: Duration) -> Result<(), Leave> {
        let until = Instant::now() + wait;
        let mut renew_at = self.lease.written_at() + renewal(self.running.options.lease);
        loop {
            tokio::select! {
                biased;
                interruption = interrupted(&self.running, &mut self.seen, self.lease.revision()) => {
                    self.meet(interruption).await?;
                }
                () = tokio::time::sleep_until(until) => return Ok(()),
                () = tokio::time::sleep_until(renew_at) => {
                    if let Ok(held) = self.lease.write(&self.progress).await {
                        leave_unless_held(held)?;
                    }
                    renew_at = Instant::now() + renewal(self.running.options.lease);
                }
            }
        }
    }

    /// What an interruption means.
    pub(super) async fn meet(&mut self, interruption: Interruption) -> Result<(), Leave> {
        match interruption {
            Interruption::Stop => Err(Leave::Stopping),
            Interruption::RecordChanged => match self.lease.reload().await {
                Ok(held) => leave_unless_held(held),
                Err(_) => {
                    // The next write of the checkpoint finds out, and says so when it fails.
                    tokio::time::sleep(LOOK_AGAIN).await;
                    Ok(())
                }
            },
        }
    }
}

/// Keeps the lease alive until the work is done, however long it takes and waits for its turn.
///
/// The work goes on while the lease is renewed: both may wait for the same connection, and work that is not polled would hold its
/// place in the queue before the renewal for ever.
pub(super) async fn keep_alive<T>(
    lease: &mut Lease,
    lasts: Duration,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    let mut renew_at = lease.written_at() + renewal(lasts);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep_until(renew_at) => {}
        }
        // Whatever comes of it, the work finishes; then the checkpoint finds out whose record it is.
        match select(&mut work, pin!(lease.renew())).await {
            Either::Left((done, renewing)) => {
                let _ = renewing.await;
                return done;
            }
            Either::Right(_) => renew_at = Instant::now() + renewal(lasts),
        }
    }
}

/// Something that work must look at before it goes on.
pub(super) enum Interruption {
    Stop,
    RecordChanged,
}

/// Waits until the subscription stops, or somebody changed the record since `revision`. The stop comes first: a record
/// that changed and cannot be read must not hold it up.
pub(super) async fn interrupted(
    running: &Running,
    seen: &mut watch::Receiver<Option<Seen>>,
    revision: u64,
) -> Interruption {
    loop {
        if running.stop.is_cancelled() {
            return Interruption::Stop;
        }
        let changed = seen
            .borrow_and_update()
            .as_ref()
            .is_some_and(|seen| seen.revision > revision);
        if changed {
            return Interruption::RecordChanged;
        }
        tokio::select! {
            biased;
            () = running.stop.cancelled() => return Interruption::Stop,
            // The observer ends only with the subscription.
            changed = seen.changed() => if changed.is_err() {
                return Interruption::Stop;
            },
        }
    }
}

fn leave_unless_held(held: Held) -> Result<(), Leave> {
    match held {
        Held::Yes => Ok(()),
        Held::Paused => Err(Leave::Paused),
        Held::Wanted => Err(Leave::HandOver),
        Held::Lost => Err(Leave::Lost),
    }
}
