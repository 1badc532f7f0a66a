//! Given events, when a command, then events: of aggregates written in Rust.

use std::fmt::Debug;

use crate::aggregate::{Aggregate, Decision, Event};
use crate::context::Context;

/// An aggregate to which `events` have happened.
///
/// # Panics
///
/// When an event follows one that ends the aggregate.
#[must_use]
#[track_caller]
pub fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A> {
    let mut given = Given {
        aggregate: A::default(),
        ended: false,
        context: super::context(),
    };
    for event in events {
        assert!(!given.ended, "nothing can happen after the end: {event:?}");
        given.ended = A::Event::is_terminal(event.event_type());
        given.aggregate.evolve(&event);
    }
    given
}

/// An aggregate at some point in its life; see [`given`].
pub struct Given<A: Aggregate> {
    aggregate: A,
    ended: bool,
    context: Context,
}

impl<A: Aggregate> Given<A> {
    /// Decides in this context; without it at the Unix epoch, by nobody.
    #[must_use]
    pub fn within(self, context: Context) -> Self {
        Self { context, ..self }
    }

    /// Decides `command`.
    ///
    /// Whether the command may come at all, to an aggregate that is missing or exists, is the framework's business and
    /// is not looked at.
    ///
    /// # Panics
    ///
    /// When the aggregate has ended: the framework lets no command through.
    #[must_use]
    #[track_caller]
    pub fn when(self, command: A::Command) -> Outcome<A> {
        assert!(
            !self.ended,
            "the aggregate has ended: no command reaches it"
        );
        Outcome {
            decision: self.aggregate.decide(command, &self.context),
            aggregate: self.aggregate,
        }
    }
}

/// What a command came to; see [`Given::when`].
pub struct Outcome<A: Aggregate> {
    aggregate: A,
    decision: Decision<A>,
}

impl<A: Aggregate> Outcome<A> {
    /// Expects just these events, in this order; that each of them can be stored and read back; and that the aggregate takes
    /// them.
    ///
    /// # Panics
    ///
    /// When it is otherwise.
    #[track_caller]
    pub fn then(mut self, expected: impl IntoIterator<Item = A::Event>) {
        let expected: Vec<_> = expected.into_iter().collect();
        match self.decision {
            Ok(events) if events == expected => {
                for event in &events {
                    require_storable(event);
                    self.aggregate.evolve(event);
                }
            }
            other => differ(&Ok::<_, A::Rejection>(expected), &other),
        }
    }

    /// Expects that nothing happens, and that it is no rejection.
    ///
    /// # Panics
    ///
    /// When it is otherwise.
    #[track_caller]
    pub fn then_nothing(self) {
        self.then([]);
    }

    /// Expects this rejection.
    ///
    /// # Panics
    ///
    /// When it is otherwise.
    #[track_caller]
    pub fn then_rejected(self, expected: A::Rejection) {
        match self.decision {
            Err(rejection) if rejection == expected => {}
            other => differ(&Err::<Vec<A::Event>, _>(expected), &other),
        }
    }
}

/// Says what was expected and what happened.
#[track_caller]
pub(super) fn differ(expected: &impl Debug, actual: &impl Debug) -> ! {
    panic!("expected {expected:#?}\nbut it was {actual:#?}")
}

/// Requires that an event is the same after it was stored.
#[track_caller]
fn require_storable<E: Event>(event: &E) {
    let payload = event
        .encode()
        .unwrap_or_else(|error| panic!("{event:?} cannot be stored: {error}"));
    match E::decode(event.event_type(), event.schema_version(), &payload) {
        Ok(read) if read == *event => {}
        Ok(read) => panic!("{event:?} is read back from the log as {read:?}"),
        Err(error) => panic!("{event:?} cannot be read back from the log: {error}"),
    }
}
