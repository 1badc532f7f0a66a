//! Giving events to a handler, in portions that shrink around an event that it cannot handle.

use std::any::Any;
use std::borrow::Cow;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tidelog_domain::{Partition, Position, RecordedEvent};

use super::handler::{Handled, Handler, HandlerError};

/// Why a portion was not handled.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undelivered {
    #[error(transparent)]
    Failed(#[from] HandlerError),
    #[error("the handler panicked: {0}")]
    Panicked(String),
}

/// What became of events that were given to a handler.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) handled: Handled,
    /// How many it wanted.
    pub(super) wanted: usize,
}

/// Gives the wanted ones of `events` to `handler`, and says what became of them; nothing when there were none.
pub(super) async fn deliver(
    handler: &dyn Handler,
    partition: Partition,
    events: &[RecordedEvent],
) -> Result<Option<Delivered>, Undelivered> {
    let handling = async {
        let wanted = wanted(handler, events);
        if wanted.is_empty() {
            return Ok(None);
        }
        let handled = handler.handle(partition, &wanted).await?;
        let wanted = wanted.len();
        Ok(Some(Delivered { handled, wanted }))
    };
    match AssertUnwindSafe(handling).catch_unwind().await {
        Ok(handled) => handled.map_err(Undelivered::Failed),
        Err(panic) => Err(Undelivered::Panicked(message(&*panic))),
    }
}

/// The sequences that `event` belongs to; nothing when the handler does not want it.
pub(super) fn sequences(
    handler: &dyn Handler,
    event: &RecordedEvent,
) -> Result<Option<Vec<String>>, Undelivered> {
    match std::panic::catch_unwind(AssertUnwindSafe(|| handler.wants(event))) {
        Ok(false) => Ok(None),
        // A filter that is broken says nothing of what the event belongs to.
        Ok(true) | Err(_) => sequences_of(handler, event).map(Some),
    }
}

/// The sequences that `event` belongs to, should the handler want it.
pub(super) fn sequences_of(
    handler: &dyn Handler,
    event: &RecordedEvent,
) -> Result<Vec<String>, Undelivered> {
    match std::panic::catch_unwind(AssertUnwindSafe(|| handler.sequences(event))) {
        Ok(told) => told.map_err(Undelivered::Failed),
        Err(panic) => Err(Undelivered::Panicked(message(&*panic))),
    }
}

/// What the handler wants; nothing is copied when that is all.
fn wanted<'e>(handler: &dyn Handler, events: &'e [RecordedEvent]) -> Cow<'e, [RecordedEvent]> {
    match events.iter().position(|event| !handler.wants(event)) {
        None => Cow::Borrowed(events),
        Some(first_unwanted) => {
            let (before, rest) = events.split_at(first_unwanted);
            let rest = rest.iter().filter(|event| handler.wants(event));
            Cow::Owned(before.iter().chain(rest).cloned().collect())
        }
    }
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "without a message".to_owned())
}

impl Undelivered {
    /// Whether the same portion may be handled later, as it is.
    pub(super) const fn is_transient(&self) -> bool {
        matches!(self, Self::Failed(HandlerError::Transient(_)))
    }

    /// The event that cannot be handled, if that is known.
    const fn culprit(&self) -> Option<Position> {
        match self {
            Self::Failed(HandlerError::Permanent { position, .. }) => Some(*position),
            Self::Failed(HandlerError::Transient(_)) | Self::Panicked(_) => None,
        }
    }

    /// What went wrong.
    pub(super) fn cause(&self) -> &(dyn std::error::Error + 'static) {
        match self {
            Self::Failed(
                HandlerError::Permanent { source, .. } | HandlerError::Transient(source),
            ) => &**source,
            Self::Panicked(_) => self,
        }
    }

    /// As an error of the handler, for an event at `position`.
    pub(super) fn into_handler_error(self, position: Position) -> HandlerError {
        match self {
            Self::Failed(error) => error,
            Self::Panicked(_) => HandlerError::Permanent {
                position,
                source: self.into(),
            },
        }
    }
}

/// A batch on its way to a handler.
pub(super) struct Portions<'e> {
    rest: &'e [RecordedEvent],
    size: usize,
}

impl<'e> Portions<'e> {
    /// All in one portion, at first.
    pub(super) const fn of(batch: &'e [RecordedEvent]) -> Self {
        Self {
            rest: batch,
            size: batch.len(),
        }
    }

    /// What is to be handled next; `None` when all is done.
    pub(super) fn current(&self) -> Option<&'e [RecordedEvent]> {
        let current = self.rest.get(..self.size)?;
        (!current.is_empty()).then_some(current)
    }

    /// The current portion is done.
    pub(super) fn done(&mut self) {
        self.rest = self.rest.get(self.size..).unwrap_or_default();
        self.size = self.rest.len();
    }

    /// Takes the part before the event that cannot be handled as the next portion, and then that event alone; where it
    /// is not known which one it is, half of the portion. `None` when it is alone already: its position is given.
    pub(super) fn narrow(&mut self, failure: &Undelivered) -> Option<Position> {
        let first = self.rest.first().map(|event| event.position)?;
        if self.size <= 1 {
            return Some(first);
        }
        let before = failure.culprit().and_then(|culprit| {
            let current = self.rest.get(..self.size)?;
            current.iter().position(|event| event.position == culprit)
        });
        self.size = before.unwrap_or(self.size / 2).max(1);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{event, events};

    fn sizes(portions: &Portions<'_>) -> Vec<u64> {
        let current = portions.current().unwrap_or_default();
        current.iter().map(|e| e.position.number()).collect()
    }

    #[test]
    fn what_comes_before_the_culprit_goes_first_and_then_the_culprit_alone() {
        let batch = events(0, 11..=15);
        let mut portions = Portions::of(&batch);
        let failure = Undelivered::Failed(HandlerError::permanent(&event(0, 13), "poison"));
        assert_eq!(portions.narrow(&failure), None);
        assert_eq!(sizes(&portions), [11, 12]);
        portions.done();
        assert_eq!(sizes(&portions), [13, 14, 15]);
        assert_eq!(portions.narrow(&failure), None);
        assert_eq!(sizes(&portions), [13]);
        assert_eq!(portions.narrow(&failure), Some(Position::new(13)));
        assert_eq!(sizes(&portions), [13]);
        portions.done();
        assert_eq!(sizes(&portions), [14, 15]);
        portions.done();
        assert_eq!(portions.current(), None);
    }

    #[test]
    fn an_unknown_culprit_is_looked_for_by_halves() {
        for culprit in 1..=1_000 {
            let batch = events(0, 1..=1_000);
            let mut portions = Portions::of(&batch);
            let failure = Undelivered::Panicked(String::new());
            let (mut tries, mut found) = (0, None);
            while found.is_none() {
                tries += 1;
                if sizes(&portions).contains(&culprit) {
                    found = portions.narrow(&failure);
                } else {
                    portions.done();
                }
            }
            assert_eq!(found, Some(Position::new(culprit)));
            assert!(tries < 100, "{tries} tries");
        }
    }

    #[test]
    fn a_culprit_outside_of_the_portion_does_no_harm() {
        for wrong in [1, 99] {
            let batch = events(0, 11..=13);
            let mut portions = Portions::of(&batch);
            let failure = Undelivered::Failed(HandlerError::permanent(&event(0, wrong), "?"));
            assert_eq!(portions.narrow(&failure), None);
            assert!(
                !sizes(&portions).is_empty() && sizes(&portions).len() < 3,
                "{:?}",
                sizes(&portions)
            );
        }
    }
}
