//! Commands over several aggregates.

use std::sync::Arc;

use serde_json::Value;
use tidelog_domain::{
    ConsistencyToken, Context, EventDraft, Lifecycle, Metadata, MultiStreamDecider, Refusal, State,
    Tenant,
};
use tracing::Instrument;
use uuid::Uuid;

use crate::appender::{Decide, Outcome, Target, Work};

use super::observed::SEVERAL;
use super::{
    CommandError, CommandId, CommandKey, CommandOutcome, CommandService, Precondition, request,
};

/// A command over several aggregates.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiStreamRequest {
    /// The command's name.
    pub name: String,
    /// Its body, which names the aggregates.
    pub body: Value,
    /// As in [`CommandRequest`](super::CommandRequest).
    pub metadata: Metadata,
    /// The command's identity, a new one for each command.
    pub command_id: Uuid,
    /// The key that it is not done twice under.
    pub key: Option<CommandKey>,
}

impl MultiStreamRequest {
    /// The command `name` with `body`.
    #[must_use]
    pub fn new(name: impl Into<String>, body: Value) -> Self {
        Self {
            name: name.into(),
            body,
            metadata: Metadata::default(),
            command_id: Uuid::now_v7(),
            key: None,
        }
    }

    /// The same, with this recorded with its events.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// The same command, done once however often it is executed with this `id`, which is also its identity.
    #[must_use]
    pub fn once(mut self, id: CommandId) -> Self {
        self.command_id = id.uuid();
        self.key = Some(id.key());
        self
    }

    /// The same, done once however often it is sent with `key`. The key counts within the command.
    #[must_use]
    pub fn with_key(mut self, key: CommandKey) -> Self {
        self.key = Some(key);
        self
    }
}

/// What a command over several aggregates did.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiStreamOutcome {
    /// Each of its aggregates, in the order of the command.
    pub aggregates: Vec<CommandOutcome>,
    /// Which positions a read must have seen to see all of it.
    pub token: ConsistencyToken,
    /// Whether events were appended; else the command changed nothing.
    pub appended: bool,
    /// Whether the command was done before, under the same key, and this is what it came to then.
    pub replayed: bool,
}

impl CommandService {
    /// The command over several aggregates that is called `name`.
    #[must_use]
    pub fn multi_stream(&self, name: &str) -> Option<&Arc<dyn MultiStreamDecider>> {
        self.definitions.multi_stream(name)
    }

    /// All commands over several aggregates, in no particular order.
    pub fn multi_streams(&self) -> impl Iterator<Item = &Arc<dyn MultiStreamDecider>> {
        self.definitions.multi_streams()
    }

    /// Handles a command over several aggregates, and answers once what it did is durable: to all of them, or to none.
    ///
    /// Keys and conflicts are as in [`CommandService::execute`].
    ///
    /// # Errors
    ///
    /// [`CommandError`]. After every one but [`CommandError::InDoubt`] nothing was written, and nothing will be.
    pub async fn execute_multi_stream(
        &self,
        request: MultiStreamRequest,
    ) -> Result<MultiStreamOutcome, CommandError> {
        let observed = self.tally.begin(SEVERAL, &request.name, &request.metadata);
        let span = observed.span.clone();
        let done = self.handle_multi_stream(request).instrument(span).await;
        observed.end(done.as_ref().map(|done| (done.appended, done.replayed)));
        done
    }

    async fn handle_multi_stream(
        &self,
        request: MultiStreamRequest,
    ) -> Result<MultiStreamOutcome, CommandError> {
        let key = request.key.as_ref().map(|key| key.scoped_to_all(&request));
        let Some(command) = self.multi_stream(&request.name) else {
            let name = request.name;
            return Err(CommandError::UnknownAggregate { category: name });
        };
        let streams = command.streams(&request.body);
        let streams = streams.map_err(|refusal| CommandError::RefusedForAll { refusal })?;
        let mut metadata = request.metadata;
        let tenant = super::tenant_of(&metadata)?;
        let mut targets = Vec::with_capacity(streams.len());
        for stream in streams {
            let decider = self.decider(stream.category());
            let decider = decider.ok_or_else(|| CommandError::UnknownAggregate {
                category: stream.category().to_owned(),
            })?;
            targets.push(Target {
                stream: stream.for_tenant(tenant.as_ref()),
                decider: Arc::clone(decider),
                required: Lifecycle::Live,
                precondition: Precondition::None,
            });
        }
        let deciders: Vec<_> = targets
            .iter()
            .map(|target| Arc::clone(&target.decider))
            .collect();
        metadata.causation_id = Some(request.command_id);
        let work = Work {
            command_id: request.command_id,
            metadata,
            size: request::bytes(&request.body),
            targets,
            key,
            decide: Box::new(AllStreams {
                command: Arc::clone(command),
                body: request.body,
            }),
        };
        let done = self.appender.submit(work).await?;
        let aggregates = done.streams.iter().zip(&deciders);
        let aggregates: Vec<_> = aggregates
            .map(|(stream, decider)| self.stream_outcome(decider.as_ref(), stream, &done))
            .collect();
        Ok(MultiStreamOutcome {
            token: self.token_of(&done, tenant.as_ref()),
            aggregates,
            appended: done.appended,
            replayed: done.replayed,
        })
    }

    /// What a read must have seen to see all of `done`.
    fn token_of(&self, done: &Outcome, tenant: Option<&Tenant>) -> ConsistencyToken {
        let mut positions: Vec<_> = done
            .streams
            .iter()
            .map(|stream| (stream.partition, stream.position))
            .collect();
        // Where two are in one partition, the later one tells of both.
        positions.sort_unstable_by(|a, b| (a.0, b.1).cmp(&(b.0, a.1)));
        positions.dedup_by_key(|(partition, _)| *partition);
        ConsistencyToken {
            history: self.history(),
            positions,
            tenant: tenant.map(Tenant::mark),
        }
    }
}

/// The decision of a command over several aggregates.
struct AllStreams {
    command: Arc<dyn MultiStreamDecider>,
    body: Value,
}

impl Decide for AllStreams {
    fn decide(
        &self,
        states: &[&State],
        context: &Context,
    ) -> Result<Vec<Vec<EventDraft>>, Refusal> {
        self.command.decide(states, &self.body, context)
    }
}
