//! Given events of several aggregates, when a command over all of them, then events of each.

use crate::context::Context;
use crate::decider::State;
use crate::multi_stream::{Aggregates, MultiStreamCommand, MultiStreamDecision};

use super::given::differ;

/// Several aggregates, to each of which its `events` have happened: `given_all::<Transfer>((vec![…], vec![…]))`.
#[must_use]
pub fn given_all<C: MultiStreamCommand>(
    events: <C::Aggregates as Aggregates>::Events,
) -> GivenAll<C> {
    GivenAll {
        states: C::Aggregates::evolved(events),
        context: super::context(),
        command: std::marker::PhantomData,
    }
}

/// Several aggregates at some point in their lives; see [`given_all`].
pub struct GivenAll<C> {
    states: Vec<State>,
    context: Context,
    command: std::marker::PhantomData<fn() -> C>,
}

impl<C: MultiStreamCommand> GivenAll<C> {
    /// Decides in this context; without it at the Unix epoch, by nobody.
    #[must_use]
    pub fn within(self, context: Context) -> Self {
        Self { context, ..self }
    }

    /// Decides `command`. Whether it names an aggregate that is missing or has ended is not looked at: the framework does.
    ///
    /// # Panics
    ///
    /// Never: the states are those of its own aggregates.
    #[must_use]
    #[track_caller]
    #[expect(clippy::panic, reason = "tests fail loudly")]
    pub fn when(self, command: C) -> OutcomeOfAll<C> {
        let states: Vec<&State> = self.states.iter().collect();
        let Some(states) = C::Aggregates::states(&states) else {
            panic!("the states are of other aggregates");
        };
        OutcomeOfAll(command.decide(states, &self.context))
    }
}

/// What a command over several aggregates came to; see [`GivenAll::when`].
pub struct OutcomeOfAll<C: MultiStreamCommand>(MultiStreamDecision<C>);

impl<C: MultiStreamCommand> OutcomeOfAll<C> {
    /// Expects just these events of each.
    ///
    /// # Panics
    ///
    /// When it is otherwise.
    #[track_caller]
    pub fn then(self, expected: <C::Aggregates as Aggregates>::Events) {
        if !matches!(&self.0, Ok(events) if *events == expected) {
            differ(&Ok::<_, C::Rejection>(expected), &self.0);
        }
    }

    /// Expects this rejection.
    ///
    /// # Panics
    ///
    /// When it is otherwise.
    #[track_caller]
    pub fn then_rejected(self, expected: C::Rejection) {
        if !matches!(&self.0, Err(rejection) if *rejection == expected) {
            let expected: MultiStreamDecision<C> = Err(expected);
            differ(&expected, &self.0);
        }
    }
}
