//! What a subscription does with events.

use async_trait::async_trait;
use tidelog_domain::{Partition, Position, RecordedEvent};

use crate::failure::{Failure, FailureKind};

/// The cause of a failure.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What a subscription does with the events of the log: a projector, or a reaction.
///
/// - The events of a partition come in order and none is left out, other than those that it does not want.
/// - It MUST be repeatable: after a failure or a crash it gets again what it may have handled before, and it may for
///   a moment run beside another one that took over. Its effect tells by the position (or the event's id).
/// - When it returns `Ok`, the effect of every event MUST be durable: the checkpoint is written after it.
/// - Partitions are handled side by side; one partition is never handled twice at once by one subscription.
#[async_trait]
pub trait Handler: Send + Sync {
    /// What it makes of events, for those who watch it. A view, unless said otherwise.
    fn kind(&self) -> HandlerKind {
        HandlerKind::View
    }

    /// What it is called by those who watch it, where that is another name than its subscription's.
    fn watched_as(&self) -> Option<&str> {
        None
    }

    /// Whether it wants `event`. What it does not want moves the checkpoint all the same.
    ///
    /// Asked after the gate, so that a filter can never hide a hole.
    fn wants(&self, event: &RecordedEvent) -> bool {
        let _ = event;
        true
    }

    /// The sequences that `event`, a wanted one, belongs to: events of one sequence are handled in order, and wait together when one of
    /// them cannot be handled. Its stream, unless said otherwise. Nothing waits with an event of none: when that cannot be handled, it is
    /// passed over, and recorded as skipped.
    ///
    /// # Errors
    ///
    /// [`HandlerError::Permanent`] when it cannot be told. If such an event cannot be handled, its whole partition waits at it: there
    /// is no telling what else would have to wait.
    fn sequences(&self, event: &RecordedEvent) -> Result<Vec<String>, HandlerError> {
        Ok(vec![event.stream.to_string()])
    }

    /// Handles a batch of wanted events of one partition, in order; never empty. Says which events were not handled, if any.
    ///
    /// # Errors
    ///
    /// [`HandlerError::Transient`] when it is to be tried again as it is; [`HandlerError::Permanent`] when one event
    /// cannot be handled. After either, any of the events may have been handled.
    async fn handle(
        &self,
        partition: Partition,
        events: &[RecordedEvent],
    ) -> Result<Handled, HandlerError>;

    /// Is told that an operator has `event`, which could not be handled, passed over for good: the later ones of its sequences come
    /// as if it had been handled. Most need not know.
    ///
    /// # Errors
    ///
    /// [`HandlerError`]: it is told again, until that goes well.
    async fn skip(&self, event: &RecordedEvent) -> Result<(), HandlerError> {
        let _ = event;
        Ok(())
    }
}

/// What a handler makes of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandlerKind {
    /// Documents.
    View,
    /// Something that happens elsewhere.
    Reaction,
}

impl HandlerKind {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Reaction => "reaction",
        }
    }
}

/// What became of a batch: by default, all of it was handled.
#[derive(Debug, Default)]
pub struct Handled {
    /// The events that were not. No later event of the batch that shares a sequence with one of them was handled either, nor any
    /// that shares one with such an event, and so on, without being listed; everything else was.
    pub failed: Vec<EventFailure>,
    /// The events that the handler passed over for good, each with its reason: they are recorded. Later ones of their sequences
    /// were handled.
    pub skipped: Vec<(Position, String)>,
}

impl Handled {
    /// The first event that was not handled, for who can do no more than stop at it.
    pub(super) fn first_failure(handled: Option<Self>) -> Option<HandlerError> {
        let failed = handled?.failed;
        let first = failed.into_iter().min_by_key(|failed| failed.position)?;
        Some(match first.failure.kind {
            FailureKind::Transient => HandlerError::Transient(first.failure.cause),
            _ => HandlerError::Permanent {
                position: first.position,
                source: first.failure.cause,
            },
        })
    }
}

/// An event that was not handled.
#[derive(Debug)]
pub struct EventFailure {
    /// Where it is.
    pub position: Position,
    /// Why, and what is to be done about it.
    pub failure: Failure,
}

/// Why a batch was not handled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandlerError {
    /// Something that the handler needs is unavailable: the batch is tried again with back-off, without end.
    #[error("something that the handler needs is unavailable")]
    Transient(#[source] Cause),
    /// This event, by this code, cannot be handled. The events before it are handled without it; then its sequences are set
    /// aside.
    #[error("the event at position {position} cannot be handled")]
    Permanent {
        /// The event's position.
        position: Position,
        /// Why.
        #[source]
        source: Cause,
    },
}

impl HandlerError {
    /// Something is unavailable: try again later.
    pub fn transient(source: impl Into<Cause>) -> Self {
        Self::Transient(source.into())
    }

    /// `event` cannot be handled.
    pub fn permanent(event: &RecordedEvent, source: impl Into<Cause>) -> Self {
        Self::Permanent {
            position: event.position,
            source: source.into(),
        }
    }
}
