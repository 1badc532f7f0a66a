//! Setting a sequence aside that cannot go on, so that all others can.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tidelog_domain::{RecordedEvent, causes};

use super::delivery::{Undelivered, sequences_of};
use super::sorting::Sorted;
use super::status::PartitionState;
use super::work::{Leave, Work};
use crate::failure::FailureKind;
use crate::parking::{ParkedState, Why};
use crate::state::{SkippedEvent, TroubleKind};

/// How long to wait before another look whether there is room, at a cap that was reached.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Work {
    /// One event cannot be handled, and nothing before it is open: its sequences are set aside, in the same write that passes it.
    pub(super) async fn cannot_be_handled(
        &mut self,
        sorted: &mut Sorted<'_>,
        event: &RecordedEvent,
        failure: &Undelivered,
    ) -> Result<(), Leave> {
        let running = Arc::clone(&self.running);
        let policy = &running.options.policy;
        let reason = causes(failure);
        let kind = policy.kind_of(failure.cause());
        if kind == FailureKind::Transient {
            return self.back_off(&reason).await;
        }
        // A filter that is broken, too, says nothing of what the event belongs to.
        let Ok(names) = sequences_of(&*running.handler, event) else {
            self.stay_failed(event.position, &reason).await?;
            return self.retry_some().await;
        };
        if names.is_empty() {
            self.pass_over_alone(event, &reason);
        }
        let growth = self.progress.parked.growth(&names);
        if !self.has_room(growth) {
            return self.wait_for_room(growth).await;
        }
        let why = self.why(kind, reason, 0);
        if !names.is_empty() {
            self.tell_set_aside(event, &names, &why);
        }
        // What was sorted to wait before it.
        sorted.pass(event.position, &mut self.progress.parked);
        self.progress.parked.set_aside(event.position, &names, &why);
        self.progress.cursor = event.cursor();
        self.retries.schedule(&names, kind, policy, 1);
        self.stuck.reset();
        self.write_checkpoint().await?;
        self.is_well();
        Ok(())
    }

    /// Why a sequence is set aside after its event was tried `attempts` times before.
    pub(super) fn why(&self, kind: FailureKind, error: String, attempts: u32) -> Why {
        let policy = &self.running.options.policy;
        let last = attempts.saturating_add(1) >= policy.attempts;
        let state = match kind {
            FailureKind::Park => ParkedState::Parked,
            FailureKind::Permanent if last => ParkedState::Parked,
            _ => ParkedState::Retrying,
        };
        Why {
            error,
            counts: !matches!(kind, FailureKind::RetryAfter(_)),
            state,
            not_before: match kind {
                FailureKind::RetryAfter(delay) => chrono::TimeDelta::from_std(delay)
                    .ok()
                    .and_then(|delay| Utc::now().checked_add_signed(delay)),
                _ => None,
            },
            at: Utc::now(),
        }
    }

    /// Says that sequences are set aside.
    pub(super) fn tell_set_aside(&self, event: &RecordedEvent, sequences: &[String], why: &Why) {
        let subscription = &*self.running.records.subscription;
        let (partition, position, id) = (self.partition, event.position, event.id);
        let (stream, event_type, reason) = (&event.stream, &*event.event_type, &why.error);
        if why.state == ParkedState::Parked {
            tracing::error!(
                subscription, %partition, %position, event = %id, %stream, event_type, ?sequences, %reason,
                "an event cannot be handled: its sequence is parked until somebody retries or skips it, and all others \
                 go on (`parked` lists what waits)"
            );
        } else {
            tracing::warn!(
                subscription, %partition, %position, event = %id, %stream, event_type, ?sequences, %reason,
                "an event cannot be handled: its sequence is set aside and tried again, and all others go on"
            );
        }
    }

    /// Whether so many sequences more may be set aside.
    pub(super) fn has_room(&self, growth: usize) -> bool {
        growth == 0 || self.progress.parked.len() + growth <= self.running.options.policy.max_parked
    }

    fn fullness(&self) -> String {
        let (parked, max) = (
            self.progress.parked.len(),
            self.running.options.policy.max_parked,
        );
        format!("{parked} sequences are set aside, of {max} that may be")
    }

    /// Waits until so many sequences more may be set aside: nothing is dropped.
    pub(super) async fn wait_for_room(&mut self, growth: usize) -> Result<(), Leave> {
        if !self.has_room(growth) {
            self.progress.trouble(TroubleKind::Full, &self.fullness());
            self.write_checkpoint().await?;
        }
        while !self.has_room(growth) {
            let parked = self.progress.parked.len();
            let max = self.running.options.policy.max_parked;
            self.set_state(PartitionState::Full { parked, max });
            self.retry_some().await?;
            self.pause_for(LOOK_AGAIN).await?;
        }
        Ok(())
    }

    /// Passes over an event that cannot be handled and belongs to no sequence: there is nothing that could wait with it.
    pub(super) fn pass_over_alone(&mut self, event: &RecordedEvent, error: &str) {
        let reason = format!("it cannot be handled, and belongs to no sequence: {error}");
        self.pass_over(event, &[], reason);
    }

    /// Passes over an event for good, because somebody said so, and remembers that.
    pub(super) fn pass_over(
        &mut self,
        event: &RecordedEvent,
        sequences: &[String],
        reason: String,
    ) {
        tracing::warn!(
            subscription = %self.running.records.subscription, partition = %self.partition,
            position = %event.position, event = %event.id, stream = %event.stream, reason,
            "an event is skipped"
        );
        self.progress.skip(SkippedEvent {
            position: event.position,
            sequences: sequences.to_vec(),
            reason,
            at: Utc::now(),
        });
    }
}
