//! Reactions: side effects of events.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt, stream};
use tidelog_domain::{
    EventReader, EventSet, Partition, Recorded, RecordedEvent, StreamId, Upcasters, causes,
};
use tracing::Instrument;
use tracing::field::Empty;

use crate::failure::{Failure, FailureKind, FailurePolicy};
use crate::start::Start;
use crate::subscription::{
    EventFailure, Handled, Handler, HandlerError, HandlerKind, panic_message,
};
use crate::traces::{span_of, told};

/// How many streams of one batch a reaction works on at once, at most.
pub const STREAMS_AT_ONCE: usize = 16;

/// A reaction as a user writes it: what is to happen elsewhere when something has happened here, such as a mail that is sent.
///
/// - Each event is given to it *at least once*: after a crash, or when another process takes over, it gets again what it was at. By
///   `e.id`, which never changes, a receiver can tell.
/// - The events of a stream come in order, one after the other; streams are worked on side by side, up to [`STREAMS_AT_ONCE`] of a
///   partition.
/// - An error, of any type, sets the stream aside, while all others go on; it is tried again as the [policy](Reaction::policy) says, and then
///   parked for an operator. [`Failure`] has the words for what is to be done otherwise. A panic is as an error.
///
/// ```
/// # extern crate tidelog_domain as tidelog;
/// use tidelog::prelude::*;
/// use tidelog_eventbus::{Failure, Reaction};
///
/// #[events("user")]
/// enum UserEvent {
///     Joined { mail: String },
/// }
///
/// struct Welcome;
///
/// impl Reaction for Welcome {
///     const NAME: &'static str = "welcome";
///     type Event = UserEvent;
///
///     async fn react(&self, e: &Recorded<UserEvent>) -> Result<(), Failure> {
///         let UserEvent::Joined { mail } = &e.event;
///         // Send it, with `e.id` as the mail's id, so that nobody gets it twice.
///         println!("{}: welcome, {mail}", e.id);
///         Ok(())
///     }
/// }
/// ```
pub trait Reaction: Send + Sync + 'static {
    /// What it is called: a lower-case letter followed by up to 63 of `a-z 0-9 _ -`. Its state is kept under this name: with another
    /// one it starts anew.
    const NAME: &'static str;

    /// What it listens to.
    type Event: EventSet;

    /// How many events of a partition it is given at once, at most. How far it is, is written down after each batch: so many may
    /// be repeated after a crash, and are finished before a stop. Make it smaller where an event takes long.
    const BATCH_MAX_EVENTS: usize = 500;

    /// Where it starts when it runs for the first time: at the beginning, unless said otherwise. Later it goes on where it was.
    fn start(&self) -> Start {
        Start::Beginning
    }

    /// What is done about events that it cannot handle.
    fn policy(&self) -> FailurePolicy {
        FailurePolicy::default()
    }

    /// Does what is to be done about `e`. When it returns `Ok`, that MUST be durable.
    ///
    /// It may be dropped at any await when the process stops; then it is given the event again.
    fn react(&self, e: &Recorded<Self::Event>) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A reaction as a subscription runs it: names and bytes outside, the types inside.
pub trait ReactionDefinition: Handler + 'static {
    /// Its name.
    fn name(&self) -> &str;

    /// Where it starts when it runs for the first time.
    fn start(&self) -> Start;

    /// What is done about events that it cannot handle.
    fn policy(&self) -> FailurePolicy;

    /// How many events of a partition it is given at once, at most.
    fn batch_max_events(&self) -> usize;

    /// What brings older events to the shapes that it reads: checked when the program starts.
    fn upcasters(&self) -> &Upcasters;
}

/// Runs a [`Reaction`].
pub struct ReactionHandler<R: Reaction> {
    reaction: R,
    policy: FailurePolicy,
    reader: EventReader<R::Event>,
}

impl<R: Reaction> ReactionHandler<R> {
    /// Runs `reaction`.
    #[must_use]
    pub fn new(reaction: R) -> Self {
        Self {
            policy: reaction.policy(),
            reaction,
            reader: EventReader::new(),
        }
    }

    /// Reacts to the events of one stream, in order, up to the first that fails.
    async fn stream(&self, events: Vec<&RecordedEvent>) -> Handled {
        let mut handled = Handled::default();
        for event in events {
            let position = event.position;
            // A panic is caught wherever it comes from: decoding runs upcasters, which are a user's too.
            let span = span_of(event, || {
                tracing::info_span!(
                    "react", subscription = R::NAME, partition = %event.partition, position = %position,
                    outcome = Empty, otel.status_code = Empty
                )
            });
            let reacting = self.event(event).instrument(span.clone());
            let reacting = AssertUnwindSafe(reacting).catch_unwind().await;
            let reacted = reacting.unwrap_or_else(|panic| Err(panicked(&panic_message(&*panic))));
            match reacted.map_err(|failure| self.judged(failure)) {
                Ok(()) => told(&span, "handled"),
                Err(failure) if failure.kind == FailureKind::Skip => {
                    told(&span, "skipped");
                    handled.skipped.push((position, causes(&*failure.cause)));
                }
                Err(failure) => {
                    told(&span, "failed");
                    handled.failed.push(EventFailure { position, failure });
                    break;
                }
            }
        }
        handled
    }

    /// What the policy makes of a failure that does not say itself what is to be done.
    fn judged(&self, failure: Failure) -> Failure {
        let kind = self.policy.judge(&failure);
        Failure { kind, ..failure }
    }

    async fn event(&self, event: &RecordedEvent) -> Result<(), Failure> {
        let recorded = self.reader.read(event)?;
        let reacting = self.reaction.react(&recorded);
        reacting.await
    }
}

fn panicked(message: &str) -> Failure {
    Failure::permanent(format!("the reaction panicked: {message}"))
}

#[async_trait]
impl<R: Reaction> Handler for ReactionHandler<R> {
    fn kind(&self) -> HandlerKind {
        HandlerKind::Reaction
    }

    fn wants(&self, event: &RecordedEvent) -> bool {
        self.reader.filter().matches(event)
    }

    async fn handle(
        &self,
        _: Partition,
        events: &[RecordedEvent],
    ) -> Result<Handled, HandlerError> {
        let streams = by_stream(events).into_iter();
        let streams: Vec<_> = streams.map(|events| self.stream(events)).collect();
        let mut streams = stream::iter(streams).buffer_unordered(STREAMS_AT_ONCE);
        let mut handled = Handled::default();
        while let Some(of_one) = streams.next().await {
            handled.failed.extend(of_one.failed);
            handled.skipped.extend(of_one.skipped);
        }
        handled.failed.sort_by_key(|failed| failed.position);
        handled.skipped.sort_by_key(|(position, _)| *position);
        Ok(handled)
    }
}

impl<R: Reaction> ReactionDefinition for ReactionHandler<R> {
    fn name(&self) -> &str {
        R::NAME
    }

    fn start(&self) -> Start {
        self.reaction.start()
    }

    fn policy(&self) -> FailurePolicy {
        self.policy.clone()
    }

    fn batch_max_events(&self) -> usize {
        R::BATCH_MAX_EVENTS.max(1)
    }

    fn upcasters(&self) -> &Upcasters {
        self.reader.upcasters()
    }
}

/// The events of each stream, in order; the streams in the order of their first.
fn by_stream(events: &[RecordedEvent]) -> Vec<Vec<&RecordedEvent>> {
    let mut places: HashMap<&StreamId, usize> = HashMap::new();
    let mut streams: Vec<Vec<&RecordedEvent>> = Vec::new();
    for event in events {
        let place = *places.entry(&event.stream).or_insert(streams.len());
        match streams.get_mut(place) {
            Some(stream) => stream.push(event),
            None => streams.push(vec![event]),
        }
    }
    streams
}

#[cfg(test)]
mod tests;
