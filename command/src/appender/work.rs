//! What an appender is asked to do, and what it answers.

use std::sync::Arc;

use tidelog_domain::{
    AppendKey, Context, Decider, EventDraft, IdempotencyKey, Lifecycle, Metadata, Partition,
    Payload, Position, Refusal, State, StreamId, Version,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use tracing::Span;
use uuid::Uuid;

use super::error::CommandError;
use super::replay::Replay;
use super::running::RunningKey;

/// A command over one or several streams, which are appended to atomically.
pub struct Work {
    /// The command's identity: the cause of its events, and what [`Context::new_id`] is derived from.
    pub command_id: Uuid,
    /// What is recorded with each of its events, and what the decision sees. Where it names no cause and no correlation, both are
    /// the command's identity.
    pub metadata: Metadata,
    /// The streams that it is about, each named once. The first decides which lane it goes to.
    pub targets: Vec<Target>,
    /// The key that it is not done twice under, if its client brought one.
    pub key: Option<IdempotencyKey>,
    /// The decision.
    pub decide: Box<dyn Decide>,
    /// About how many bytes it holds while it waits.
    pub size: usize,
}

/// A stream that a command is about, and what must hold for it.
#[derive(Clone)]
pub struct Target {
    /// The stream.
    pub stream: StreamId,
    /// What makes a state from its events.
    pub decider: Arc<dyn Decider>,
    /// Where in its life the aggregate must be.
    pub required: Lifecycle,
    /// Which version the client expects.
    pub precondition: Precondition,
}

/// Which version of a stream a client expects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Any: a conflict is decided again.
    #[default]
    None,
    /// One of these: with any other the command fails, and is not decided again.
    OneOf(Vec<Version>),
}

impl Precondition {
    /// Whether a stream at `version` is as expected.
    #[must_use]
    pub fn holds(&self, version: Version) -> bool {
        match self {
            Self::None => true,
            Self::OneOf(versions) => versions.contains(&version),
        }
    }

    /// What tells it from others, for the fingerprint of a request: recorded, so it must never change.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::None => "any".to_owned(),
            Self::OneOf(versions) => {
                let versions = versions.iter().map(ToString::to_string);
                versions.collect::<Vec<_>>().join(",")
            }
        }
    }
}

impl From<Version> for Precondition {
    fn from(version: Version) -> Self {
        Self::OneOf(vec![version])
    }
}

/// A decision over the states of a command's targets: pure, and made again after a conflict.
pub trait Decide: Send + Sync + 'static {
    /// What happens to each target, in their order; nothing at all means that the command changes nothing.
    ///
    /// `states` has one state a target. They are as [`Target::required`] says.
    ///
    /// # Errors
    ///
    /// Why nothing happens.
    fn decide(&self, states: &[&State], context: &Context)
    -> Result<Vec<Vec<EventDraft>>, Refusal>;
}

/// What a command did, durably.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its streams, in the order of its targets.
    pub streams: Vec<StreamOutcome>,
    /// Whether anything was appended; if not, the command changed nothing, and that was confirmed in the log.
    pub appended: bool,
    /// Whether this was done before, under the same key: then it is what the command came to that time.
    pub replayed: bool,
}

/// Where a stream is after a command.
#[derive(Clone, Debug)]
pub struct StreamOutcome {
    /// The stream.
    pub stream: StreamId,
    /// The partition of the log that has it.
    pub partition: Partition,
    /// Its version.
    pub version: Version,
    /// The position of its last event; [`Position::START`] when it has none.
    pub position: Position,
    /// Its state.
    pub state: State,
}

/// A command in the queue of a lane.
pub(super) struct Job {
    /// When it is too late to begin.
    pub(super) deadline: Instant,
    /// When it came.
    pub(super) queued_at: Instant,
    /// The span of its append; none where traces are not exported.
    pub(super) span: Span,
    /// How often it was decided and its append turned down.
    pub(super) attempts: u32,
    /// The metadata of its events, as JSON.
    pub(super) metadata: Payload,
    pub(super) work: Work,
    /// Keeps others of this process from beginning on the same key.
    pub(super) running: Option<RunningKey>,
    pub(super) reply: oneshot::Sender<Result<Reply, CommandError>>,
    /// Its share of the bytes that may wait; given back when it is answered.
    pub(super) _place: OwnedSemaphorePermit,
}

/// What a lane answers.
pub(super) enum Reply {
    /// The command was done.
    Done(Outcome),
    /// It had been done before.
    Before(Replay),
}

impl Job {
    /// The key of its append: recorded, when the command happens, or only looked up.
    pub(super) fn key(&self, records: bool) -> Option<AppendKey> {
        self.work.key.map(|key| AppendKey { key, records })
    }

    /// A lane has taken it.
    pub(super) fn taken(&self) {
        if self.attempts == 0 && !self.span.is_disabled() {
            let waited = u64::try_from(self.queued_at.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.span.record("waited_ms", waited);
        }
    }

    /// Tells the client, if it is still there. Its key is free by then.
    pub(super) fn answer(self, result: Result<Reply, CommandError>) {
        drop(self.running);
        self.span.record("attempts", self.attempts + 1);
        // A client that went away does not need to know.
        let _ = self.reply.send(result);
    }
}
