//! Command handling: from an aggregate's name and a body to events in the log.

mod definitions;
mod key;
mod multi_stream;
mod observed;
mod request;
mod sweep;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tidelog_domain::{
    CommandInput, CommandSpec, ConsistencyToken, Context, Decider, EventDraft, HistoryId,
    IdempotencyKey, InvalidStreamId, Lifecycle, Metadata, MultiStreamDecider, Refusal, State,
    StreamId, Tenant,
};
use tidelog_eventbus::{CommitSignal, LogIdentity};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument;
use uuid::Uuid;

use crate::appender::{
    Appender, AppenderSettings, Decide, Outcome, SnapshotCounts, StreamOutcome, Target, Work,
};
use crate::store::EventStore;

pub use crate::appender::{CommandError, Precondition};
pub use definitions::Definitions;
pub(crate) use key::Sent;
pub use key::{CommandId, CommandKey, InvalidKey, MAX_KEY_LENGTH};
pub use multi_stream::{MultiStreamOutcome, MultiStreamRequest};
use observed::{SEVERAL, Tally};
pub use request::{CommandOutcome, CommandRequest};
pub use sweep::KEYS_KEPT_FOR;

/// Handles the commands of a program's aggregates: what the HTTP service and in-process clients call.
pub struct CommandService {
    definitions: Definitions,
    appender: Appender,
    tally: Tally,
    history: RwLock<HistoryId>,
    /// Ends the sweep when the service is dropped.
    _sweep: DropGuard,
}

/// Two aggregates, or commands over several, have the same name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there are two aggregates, or commands over several, called {name}: rename one")]
pub struct DuplicateAggregate {
    /// The name.
    pub name: String,
}

impl CommandService {
    /// Handles commands of the aggregates that `deciders` run, on the log `store`, which is what `identity` says.
    ///
    /// It starts the store's lanes, and a task that forgets idempotency keys older than [`KEYS_KEPT_FOR`]. After each commit it says on `signal` how far the log is.
    ///
    /// # Errors
    ///
    /// [`DuplicateAggregate`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn new(
        deciders: impl IntoIterator<Item = Arc<dyn Decider>>,
        store: Arc<dyn EventStore>,
        identity: LogIdentity,
        signal: CommitSignal,
        settings: AppenderSettings,
    ) -> Result<Self, DuplicateAggregate> {
        let definitions = Definitions::new(deciders)?;
        let mut tally = Tally::default();
        for decider in definitions.deciders() {
            for command in decider.commands() {
                tally.add(decider.category(), &command.name);
            }
        }
        let stop = CancellationToken::new();
        tokio::spawn(sweep::run(Arc::clone(&store), stop.clone()));
        Ok(Self {
            _sweep: stop.drop_guard(),
            definitions,
            tally,
            appender: Appender::start(store, identity.partitions, signal, settings),
            history: RwLock::new(identity.history),
        })
    }

    /// The same, which also handles commands over several of its aggregates.
    ///
    /// # Errors
    ///
    /// [`DuplicateAggregate`].
    pub fn with_multi_stream(
        mut self,
        commands: impl IntoIterator<Item = Arc<dyn MultiStreamDecider>>,
    ) -> Result<Self, DuplicateAggregate> {
        self.definitions = self.definitions.with_multi_stream(commands)?;
        for command in self.definitions.multi_streams() {
            self.tally.add(SEVERAL, command.name());
        }
        Ok(self)
    }

    /// What became of snapshots since the start.
    #[must_use]
    pub fn snapshots(&self) -> SnapshotCounts {
        self.appender.snapshots()
    }

    /// What it handles.
    #[must_use]
    pub const fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// The aggregate called `category`.
    #[must_use]
    pub fn decider(&self, category: &str) -> Option<&Arc<dyn Decider>> {
        self.definitions.decider(category)
    }

    /// All aggregates, in no particular order.
    pub fn deciders(&self) -> impl Iterator<Item = &Arc<dyn Decider>> {
        self.definitions.deciders()
    }

    /// Handles a command, and answers once what it did is durable.
    ///
    /// A command whose key was used before is answered as it was then: its state is made again from the events up to its version.
    /// A creation with a key, and without an id, gets one that follows from the key (a UUIDv8).
    ///
    /// A command that changes nothing is a success, confirmed in the log. One that others keep getting in the way of is decided
    /// again, at most [`MAX_ATTEMPTS`](crate::appender::MAX_ATTEMPTS) times, unless it names a version.
    ///
    /// # Errors
    ///
    /// [`CommandError`]. After every one but [`CommandError::InDoubt`] nothing was written, and nothing will be.
    pub async fn execute(&self, request: CommandRequest) -> Result<CommandOutcome, CommandError> {
        let (aggregate, command) = (&request.category, &request.input.name);
        let observed = self.tally.begin(aggregate, command, &request.metadata);
        let done = self.handle(request).instrument(observed.span.clone()).await;
        observed.end(done.as_ref().map(|done| (done.appended, done.replayed)));
        done
    }

    async fn handle(&self, request: CommandRequest) -> Result<CommandOutcome, CommandError> {
        let key = request.key.as_ref().map(|key| key.scoped(&request));
        let CommandRequest {
            category, input, ..
        } = request;
        let Some(decider) = self.decider(&category) else {
            return Err(CommandError::UnknownAggregate { category });
        };
        let mut metadata = request.metadata;
        let tenant = tenant_of(&metadata)?;
        let stream = stream(
            decider.as_ref(),
            request.id.as_deref(),
            &input,
            key.as_ref(),
        )?
        .for_tenant(tenant.as_ref());
        let required = check(decider.as_ref(), &stream, &input)?;
        metadata.causation_id = Some(request.command_id);
        let work = Work {
            command_id: request.command_id,
            metadata,
            size: request::bytes(&input.body),
            targets: vec![Target {
                stream,
                decider: Arc::clone(decider),
                required,
                precondition: request.precondition,
            }],
            key,
            decide: Box::new(OneCommand {
                decider: Arc::clone(decider),
                input,
            }),
        };
        let done = self.appender.submit(work).await;
        self.outcome(decider.as_ref(), &done?)
    }

    /// Takes no more commands, finishes those that wait or are in flight, and says whether all were done `within` the
    /// time.
    pub async fn close(&self, within: Duration) -> bool {
        self.appender.close(within).await
    }

    /// How many commands wait for a lane to take them.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.appender.waiting()
    }

    fn outcome(
        &self,
        decider: &dyn Decider,
        done: &Outcome,
    ) -> Result<CommandOutcome, CommandError> {
        let first = done.streams.first();
        let stream = first.ok_or_else(|| CommandError::defect("no stream was answered".into()))?;
        Ok(self.stream_outcome(decider, stream, done))
    }

    /// What a command did to one stream.
    fn stream_outcome(
        &self,
        decider: &dyn Decider,
        stream: &StreamOutcome,
        done: &Outcome,
    ) -> CommandOutcome {
        CommandOutcome {
            id: stream.stream.id().to_owned(),
            version: stream.version,
            data: decider.show(&stream.state),
            token: ConsistencyToken {
                history: self.history(),
                positions: vec![(stream.partition, stream.position)],
                tenant: stream.stream.tenant().map(|tenant| tenant.mark()),
            },
            appended: done.appended,
            replayed: done.replayed,
        }
    }

    fn history(&self) -> HistoryId {
        *self.history.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log has the history `history` now: tokens name it from here on. Whoever watches the log says so.
    pub fn history_is(&self, history: HistoryId) {
        *self.history.write().unwrap_or_else(PoisonError::into_inner) = history;
    }
}

impl fmt::Debug for CommandService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aggregates: Vec<_> = self.deciders().map(|own| own.category()).collect();
        let several: Vec<_> = self.multi_streams().map(|own| own.name()).collect();
        f.debug_struct("CommandService")
            .field("aggregates", &aggregates)
            .field("multi_stream", &several)
            .finish_non_exhaustive()
    }
}

/// The command `name` of an aggregate.
pub(crate) fn spec<'a>(decider: &'a dyn Decider, name: &str) -> Option<&'a CommandSpec> {
    decider.commands().iter().find(|spec| spec.name == name)
}

/// Whose command it is that comes with `metadata`.
fn tenant_of(metadata: &Metadata) -> Result<Option<Tenant>, CommandError> {
    let tenant = metadata.tenant.as_deref().map(Tenant::new).transpose();
    tenant.map_err(|invalid| CommandError::InvalidId(invalid.into()))
}

/// The stream that a command is about, still without its tenant. A creating command may leave the id to us: with a key, the same each time.
fn stream(
    decider: &dyn Decider,
    id: Option<&str>,
    input: &CommandInput,
    key: Option<&IdempotencyKey>,
) -> Result<StreamId, CommandError> {
    let creates =
        spec(decider, &input.name).is_some_and(|spec| spec.lifecycle == Lifecycle::Missing);
    let named = match id {
        Some(id) => StreamId::new(decider.category(), id),
        None if creates => {
            let id = key.map_or_else(Uuid::now_v7, key::derived_id);
            StreamId::new(decider.category(), &id.to_string())
        }
        None => Err(InvalidStreamId::Id),
    };
    named.map_err(CommandError::InvalidId)
}

/// Checks what can be checked without the state, and says what state the command needs.
fn check(
    decider: &dyn Decider,
    stream: &StreamId,
    input: &CommandInput,
) -> Result<Lifecycle, CommandError> {
    let spec = spec(decider, &input.name).ok_or(Refusal::UnknownCommand);
    spec.and_then(|spec| decider.check(input).map(|()| spec.lifecycle))
        .map_err(|refusal| CommandError::Refused {
            stream: stream.clone(),
            refusal,
        })
}

/// The decision of a command to one aggregate.
struct OneCommand {
    decider: Arc<dyn Decider>,
    input: CommandInput,
}

impl Decide for OneCommand {
    fn decide(
        &self,
        states: &[&State],
        context: &Context,
    ) -> Result<Vec<Vec<EventDraft>>, Refusal> {
        states
            .iter()
            .map(|state| self.decider.decide(state, &self.input, context))
            .collect()
    }
}

#[cfg(test)]
mod property;
