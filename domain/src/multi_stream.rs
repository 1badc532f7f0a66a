//! Commands over several aggregates: what happens, happens to all of them or to none.

use std::fmt::Debug;
use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::aggregate::{Aggregate, Named, Rejection};
use crate::context::Context;
use crate::decider::{EventDraft, FieldError, Lifecycle, Refusal, State, draft};
use crate::entity::{BodySchema, InvalidSchema};
use crate::stream::StreamId;

/// A command over several aggregates, which is appended to all of their streams in one transaction: a struct, its fields the JSON
/// body of `POST /{name}`. `#[multi_stream_command]` makes it one, but for the decision.
///
/// ```
/// # extern crate tidelog_domain as tidelog;
/// use tidelog::prelude::*;
///
/// #[aggregate]
/// struct Account {
///     cents: u64,
/// }
/// # #[commands]
/// # enum AccountCommand {
/// #     #[create]
/// #     Open,
/// #     Deposit { cents: u64 },
/// #     Withdraw { cents: u64 },
/// # }
/// # #[events("account")]
/// # enum AccountEvent {
/// #     Opened,
/// #     Deposited { cents: u64 },
/// #     Withdrawn { cents: u64 },
/// # }
/// # #[rejections]
/// # enum AccountRejection {
/// #     TooLittle,
/// # }
/// # impl Aggregate for Account {
/// #     type Command = AccountCommand;
/// #     type Event = AccountEvent;
/// #     type Rejection = AccountRejection;
/// #     fn decide(&self, command: AccountCommand, _: &Context) -> Decision<Self> {
/// #         match command {
/// #             AccountCommand::Withdraw { cents } if cents > self.cents => Err(AccountRejection::TooLittle),
/// #             AccountCommand::Withdraw { cents } => Ok(vec![AccountEvent::Withdrawn { cents }]),
/// #             AccountCommand::Deposit { cents } => Ok(vec![AccountEvent::Deposited { cents }]),
/// #             AccountCommand::Open => Ok(vec![AccountEvent::Opened]),
/// #         }
/// #     }
/// #     fn evolve(&mut self, event: &AccountEvent) {
/// #         match event {
/// #             AccountEvent::Deposited { cents } => self.cents += cents,
/// #             AccountEvent::Withdrawn { cents } => self.cents -= cents,
/// #             AccountEvent::Opened => {}
/// #         }
/// #     }
/// # }
///
/// /// Moves money from one account to another.
/// #[multi_stream_command]
/// struct Transfer {
///     from: String,
///     to: String,
///     cents: u64,
/// }
///
/// impl MultiStreamCommand for Transfer {
///     type Aggregates = (Account, Account);
///     type Rejection = AccountRejection;
///
///     fn ids(&self) -> [String; 2] {
///         [self.from.clone(), self.to.clone()]
///     }
///
///     fn decide(&self, (from, to): (&Account, &Account), ctx: &Context) -> MultiStreamDecision<Self> {
///         let cents = self.cents;
///         Ok((
///             from.decide(AccountCommand::Withdraw { cents }, ctx)?,
///             to.decide(AccountCommand::Deposit { cents }, ctx)?,
///         ))
///     }
/// }
///
/// let transfer = Transfer { from: "ann".into(), to: "bob".into(), cents: 5 };
/// use AccountEvent::{Deposited, Withdrawn};
/// given_all::<Transfer>((vec![Deposited { cents: 9 }], vec![]))
///     .when(transfer)
///     .then((vec![Withdrawn { cents: 5 }], vec![Deposited { cents: 5 }]));
/// ```
pub trait MultiStreamCommand:
    DeserializeOwned + JsonSchema + Named + Send + Sync + 'static
{
    /// The aggregates that it is about, by kind: a tuple of 2 to 4. All must exist, and none may have ended.
    type Aggregates: Aggregates;
    /// Why it may say no.
    type Rejection: Rejection;

    /// The ids of the aggregates, in the order of [`MultiStreamCommand::Aggregates`]. No aggregate may be there twice: a body that
    /// names one twice is refused.
    fn ids(&self) -> <Self::Aggregates as Aggregates>::Ids;

    /// Decides what happens to each of them.
    ///
    /// An aggregate to which nothing happens counts all the same: the others' events are appended only if it is still in the
    /// state that was decided on. No event at all means that the command changes nothing, and is answered as a success.
    ///
    /// # Errors
    ///
    /// The domain's own rejection: nothing is appended to any of them.
    fn decide(
        &self,
        states: <Self::Aggregates as Aggregates>::States<'_>,
        ctx: &Context,
    ) -> MultiStreamDecision<Self>;
}

/// What the decision of a [`MultiStreamCommand`] gives: the events of each aggregate, or why nothing may happen.
pub type MultiStreamDecision<C> = Result<
    <<C as MultiStreamCommand>::Aggregates as Aggregates>::Events,
    <C as MultiStreamCommand>::Rejection,
>;

/// The kinds of the aggregates that a [`MultiStreamCommand`] is about: a tuple of 2 to 4 aggregates.
pub trait Aggregates: 'static {
    /// The id of each: `[String; 2]`.
    type Ids: AsRef<[String]>;
    /// The state of each: `(&A, &B)`.
    type States<'a>;
    /// The events of each: `(Vec<A::Event>, Vec<B::Event>)`.
    type Events: Debug + PartialEq;

    /// Their names, in order.
    const NAMES: &'static [&'static str];

    /// The types of `states`, in order; `None` where they are others'.
    fn states<'a>(states: &[&'a State]) -> Option<Self::States<'a>>;

    /// The state of each after its events.
    fn evolved(events: Self::Events) -> Vec<State>;

    /// The events of each, to be stored.
    ///
    /// # Errors
    ///
    /// When one cannot be JSON.
    fn drafts(events: &Self::Events) -> Result<Vec<Vec<EventDraft>>, serde_json::Error>;
}

/// The state of an `A` after `events`.
fn evolved<A: Aggregate>(events: &[A::Event]) -> State {
    let mut aggregate = A::default();
    for event in events {
        aggregate.evolve(event);
    }
    State::new(Lifecycle::Live, aggregate)
}

macro_rules! tuple_of_aggregates {
    ($count:literal: $($aggregate:ident $index:tt),+) => {
        impl<$($aggregate: Aggregate),+> Aggregates for ($($aggregate,)+) {
            type Ids = [String; $count];
            type States<'a> = ($(&'a $aggregate,)+);
            type Events = ($(Vec<$aggregate::Event>,)+);

            const NAMES: &'static [&'static str] = &[$($aggregate::NAME),+];

            fn states<'a>(states: &[&'a State]) -> Option<Self::States<'a>> {
                Some(($(states.get($index)?.get::<$aggregate>()?,)+))
            }

            fn evolved(events: Self::Events) -> Vec<State> {
                vec![$(evolved::<$aggregate>(&events.$index)),+]
            }

            fn drafts(events: &Self::Events) -> Result<Vec<Vec<EventDraft>>, serde_json::Error> {
                Ok(vec![$(events.$index.iter().map(draft).collect::<Result<_, _>>()?),+])
            }
        }
    };
}

tuple_of_aggregates!(2: A 0, B 1);
tuple_of_aggregates!(3: A 0, B 1, C 2);
tuple_of_aggregates!(4: A 0, B 1, C 2, D 3);

/// A command over several aggregates whose types are not known where it is run.
///
/// All of it is pure and synchronous.
pub trait MultiStreamDecider: Send + Sync + 'static {
    /// The command's name: `POST /{name}`.
    fn name(&self) -> &str;

    /// The roles of which a caller needs one, where callers sign in; without one every caller that is signed in may.
    fn roles(&self) -> Vec<&str> {
        Vec::new()
    }

    /// The JSON Schema (draft 2020-12) of its body.
    fn schema(&self) -> &Value;

    /// The names of the aggregates that it is about, in order.
    fn categories(&self) -> &[&str];

    /// Checks a body, and says which streams it is about: one for each of [`MultiStreamDecider::categories`], all different.
    ///
    /// # Errors
    ///
    /// [`Refusal::Invalid`].
    fn streams(&self, body: &Value) -> Result<Vec<StreamId>, Refusal>;

    /// Decides, on one state for each stream, a body that [`MultiStreamDecider::streams`] let pass. It gives the events of each
    /// stream; no event at all: it changes nothing.
    ///
    /// # Errors
    ///
    /// Why nothing happens.
    fn decide(
        &self,
        states: &[&State],
        body: &Value,
        ctx: &Context,
    ) -> Result<Vec<Vec<EventDraft>>, Refusal>;
}

/// Runs a [`MultiStreamCommand`] that is written in Rust.
pub struct TypedMultiStreamDecider<C: MultiStreamCommand> {
    schema: Value,
    body: BodySchema,
    command: PhantomData<fn() -> C>,
}

impl<C: MultiStreamCommand> TypedMultiStreamDecider<C> {
    /// Runs `C`.
    ///
    /// # Errors
    ///
    /// [`InvalidSchema`] when the schema of its body cannot be used.
    pub fn new() -> Result<Self, InvalidSchema> {
        let schema = crate::variant::sent_schema::<C>();
        Ok(Self {
            body: BodySchema::compile(&schema)?,
            schema,
            command: PhantomData,
        })
    }
}

impl<C: MultiStreamCommand> MultiStreamDecider for TypedMultiStreamDecider<C> {
    fn name(&self) -> &str {
        C::NAME
    }

    fn roles(&self) -> Vec<&str> {
        C::roles().to_vec()
    }

    fn schema(&self) -> &Value {
        &self.schema
    }

    fn categories(&self) -> &[&str] {
        C::Aggregates::NAMES
    }

    fn streams(&self, body: &Value) -> Result<Vec<StreamId>, Refusal> {
        self.body.check(body).map_err(Refusal::Invalid)?;
        let command: C = read(body)?;
        let ids = command.ids();
        let mut streams: Vec<StreamId> = Vec::with_capacity(C::Aggregates::NAMES.len());
        for (category, id) in C::Aggregates::NAMES.iter().zip(ids.as_ref()) {
            let stream = StreamId::new(category, id)
                .map_err(|error| invalid(format!("the {category} {id:?} cannot be: {error}")))?;
            if streams.contains(&stream) {
                return Err(invalid(format!(
                    "it names the {category} {id} twice: name each aggregate once"
                )));
            }
            streams.push(stream);
        }
        Ok(streams)
    }

    fn decide(
        &self,
        states: &[&State],
        body: &Value,
        ctx: &Context,
    ) -> Result<Vec<Vec<EventDraft>>, Refusal> {
        let command: C = read(body)?;
        let states = C::Aggregates::states(states).ok_or(Refusal::NotFound)?;
        let events = command
            .decide(states, ctx)
            .map_err(|no| Refusal::Rejected {
                code: no.code(),
                detail: no.detail(),
            })?;
        C::Aggregates::drafts(&events).map_err(Refusal::Unwritable)
    }
}

/// The command that `body` is.
fn read<C: DeserializeOwned>(body: &Value) -> Result<C, Refusal> {
    C::deserialize(body).map_err(|error| invalid(error.to_string()))
}

/// Something is wrong with a body as a whole.
fn invalid(message: String) -> Refusal {
    Refusal::Invalid(vec![FieldError {
        field: String::new(),
        message,
    }])
}
