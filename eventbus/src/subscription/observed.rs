//! What is told of events that are given to a handler: a span each, and counts.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tidelog_domain::{Position, RecordedEvent};
use tracing::field::Empty;

use super::Running;
use super::delivery::{Delivered, Undelivered};
use super::handler::{HandlerError, HandlerKind};
use crate::traces::{Spans, Which};

/// Why events are given to a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    /// They come next.
    Live,
    /// They were given to it before.
    Again,
}

impl Running {
    /// What those who watch call it.
    fn watched_as(&self) -> &str {
        let name = self.handler.watched_as();
        name.unwrap_or(&self.records.subscription)
    }

    /// The spans of those of `portion` that the handler wants. (What a reaction does has spans of its own: more than one event at a time
    /// is worked on there.)
    pub(super) fn spans(&self, portion: &[RecordedEvent], occasion: Occasion) -> Spans {
        let subscription = self.watched_as();
        let handler = &*self.handler;
        let wants =
            |event: &&RecordedEvent| catch_unwind(AssertUnwindSafe(|| handler.wants(event)));
        let wanted = portion.iter().filter(|event| wants(event).unwrap_or(false));
        match (occasion, handler.kind()) {
            (Occasion::Live, HandlerKind::Reaction) => Spans::default(),
            (Occasion::Live, HandlerKind::View) => Spans::of(wanted, Which::Recent, |event| {
                tracing::info_span!(
                    "project", subscription, partition = %event.partition, position = %event.position,
                    outcome = Empty, otel.status_code = Empty
                )
            }),
            (Occasion::Again, _) => Spans::of(wanted, Which::All, |event| {
                tracing::info_span!(
                    "retry", subscription, partition = %event.partition, position = %event.position,
                    outcome = Empty, otel.status_code = Empty
                )
            }),
        }
    }

    /// Counts what became of a portion, and ends its spans.
    pub(super) fn observe(&self, spans: Spans, delivered: &Result<Option<Delivered>, Undelivered>) {
        spans.end(|position| outcome(delivered, position));
        let (handled, failed, skipped) = match delivered {
            Ok(None) => return,
            Ok(Some(all)) => {
                let (failed, skipped) = (all.handled.failed.len(), all.handled.skipped.len());
                (all.wanted.saturating_sub(failed + skipped), failed, skipped)
            }
            Err(_) => (0, 1, 0),
        };
        for (outcome, events) in [
            ("handled", handled),
            ("failed", failed),
            ("skipped", skipped),
        ] {
            if events > 0 {
                metrics::counter!(
                    "tidelog_subscription_events_total",
                    "subscription" => self.watched_as().to_owned(), "kind" => self.handler.kind().name(),
                    "outcome" => outcome
                )
                .increment(u64::try_from(events).unwrap_or(u64::MAX));
            }
        }
    }
}

/// What became of the event at `position`.
fn outcome(delivered: &Result<Option<Delivered>, Undelivered>, position: Position) -> &'static str {
    match delivered {
        Ok(None) => "handled",
        Ok(Some(Delivered { handled, .. })) => {
            let mut failed = handled.failed.iter();
            let mut skipped = handled.skipped.iter();
            if failed.any(|own| own.position == position) {
                "failed"
            } else if skipped.any(|(own, _)| *own == position) {
                "skipped"
            } else {
                "handled"
            }
        }
        Err(Undelivered::Failed(HandlerError::Transient(_))) => "unavailable",
        Err(Undelivered::Failed(HandlerError::Permanent { position: own, .. }))
            if *own != position =>
        {
            // Nothing is wrong with this one: it is given to the handler once more, without that other one.
            "again"
        }
        Err(_) => "failed",
    }
}
