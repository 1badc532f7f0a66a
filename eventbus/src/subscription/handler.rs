//! What a subscription does with events.

use async_trait::async_trait;
use tidelog_domain::{Partition, Position, RecordedEvent};

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
    /// Whether it wants `event`. What it does not want moves the checkpoint all the same.
    ///
    /// Asked after the gate, so that a filter can never hide a hole.
    fn wants(&self, event: &RecordedEvent) -> bool {
        let _ = event;
        true
    }

    /// Handles a batch of wanted events of one partition, in order; never empty.
    ///
    /// # Errors
    ///
    /// [`HandlerError::Transient`] when it is to be tried again as it is; [`HandlerError::Permanent`] when one event
    /// cannot be handled. After either, any of the events may have been handled.
    async fn handle(
        &self,
        partition: Partition,
        events: &[RecordedEvent],
    ) -> Result<(), HandlerError>;
}

/// Why a batch was not handled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandlerError {
    /// Something that the handler needs is unavailable: the batch is tried again with back-off, without end.
    #[error("something that the handler needs is unavailable")]
    Transient(#[source] Cause),
    /// This event, by this code, cannot be handled. The events before it are handled without it; then the
    /// subscription stops at it.
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
