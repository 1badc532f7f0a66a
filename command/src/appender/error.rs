//! Why a command did not happen, or is not known to have happened.

use std::error::Error;
use std::sync::Arc;

use tidelog_domain::{
    DecodeError, InvalidStreamId, Partition, Position, Refusal, StreamId, Version,
};
use tidelog_eventbus::Retry;

use crate::store::AppendError;

/// Why a command did not happen. After every one but [`CommandError::InDoubt`] nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no aggregate of this name.
    #[error("there is no aggregate called {category:?}")]
    UnknownAggregate {
        /// The name.
        category: String,
    },
    /// The id cannot be one.
    #[error("the id is not valid")]
    InvalidId(#[source] InvalidStreamId),
    /// The aggregate says no, or is not in the state for it.
    #[error("the command to {stream} was refused")]
    Refused {
        /// The aggregate.
        stream: StreamId,
        /// Why.
        #[source]
        refusal: Refusal,
    },
    /// A command over several aggregates does not fit its schema, or does not name them as it must.
    #[error("the command was refused")]
    RefusedForAll {
        /// Why.
        #[source]
        refusal: Refusal,
    },
    /// The aggregate is not at a version that the client expects.
    #[error("{stream} is at version {actual}, which is not what the client expects")]
    PreconditionFailed {
        /// The aggregate.
        stream: StreamId,
        /// Its version.
        actual: Version,
    },
    /// Others changed the aggregate each time that the command was decided.
    #[error("{stream} changed {attempts} times while the command was decided")]
    Conflict {
        /// The aggregate.
        stream: StreamId,
        /// How often it was tried.
        attempts: u32,
    },
    /// What was decided is larger than an event, or an append, may be.
    #[error("what would be appended to {stream} has {bytes} bytes, and the limit is {limit}")]
    TooLarge {
        /// The aggregate.
        stream: StreamId,
        /// The bytes of the event, or of all events.
        bytes: usize,
        /// The most there may be.
        limit: usize,
    },
    /// This process is working on a command with the same key. It was not run a second time.
    #[error("a command with the same idempotency key is in progress")]
    InProgress,
    /// The key was used for another request. Nothing was written.
    #[error("the idempotency key belongs to another request")]
    KeyReused,
    /// Too many commands are waiting, or this one waited too long. It was not run.
    #[error("too many commands are waiting")]
    Overloaded,
    /// The appender is closing. The command was not run.
    #[error("the service is stopping")]
    Closing,
    /// The event store cannot be reached, or cannot write now.
    #[error("the event store is unavailable")]
    Unavailable(#[source] Arc<dyn Error + Send + Sync>),
    /// Whether it was written could not be found out in time.
    #[error("whether the command was committed could not be found out in time")]
    InDoubt(#[source] Arc<dyn Error + Send + Sync>),
    /// The log went back in time: an operator must act before anything is written.
    #[error(
        "the log lost events that this process has seen: it was restored or replaced; stop the services, then run \
         `doctor --new-history`"
    )]
    Diverged,
    /// The stored events of a stream cannot be read, so that nothing can be decided on it.
    #[error(
        "{event_type}, version {version} of {stream}, at {partition}-{position}, cannot be read"
    )]
    Unreadable {
        /// The stream.
        stream: StreamId,
        /// The version of the event.
        version: Version,
        /// The partition that has it.
        partition: Partition,
        /// Its position there.
        position: Position,
        /// Its stored name.
        event_type: Arc<str>,
        /// Why.
        #[source]
        source: Arc<DecodeError>,
    },
    /// What is stored cannot be understood.
    #[error("the log has a row that cannot be understood: {what}")]
    Corrupt {
        /// Which, and why.
        what: String,
    },
    /// A defect: an aggregate panicked, or gave what cannot be stored.
    #[error("a defect: {what}")]
    Defect {
        /// What.
        what: String,
    },
}

impl CommandError {
    /// What a caller may do. [`Retry::AfterReload`] wants a look at the aggregate before the command is sent again.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self {
            Self::PreconditionFailed { .. } => Retry::AfterReload,
            Self::Conflict { .. }
            | Self::InProgress
            | Self::Overloaded
            | Self::Closing
            | Self::Unavailable(_) => Retry::AfterBackoff,
            Self::UnknownAggregate { .. }
            | Self::InvalidId(_)
            | Self::Refused { .. }
            | Self::RefusedForAll { .. }
            | Self::TooLarge { .. }
            | Self::KeyReused
            | Self::InDoubt(_)
            | Self::Diverged
            | Self::Unreadable { .. }
            | Self::Corrupt { .. }
            | Self::Defect { .. } => Retry::Never,
        }
    }

    pub(crate) const fn defect(what: String) -> Self {
        Self::Defect { what }
    }

    pub(super) fn in_doubt(why: &'static str) -> Self {
        Self::InDoubt(Arc::from(Box::<dyn Error + Send + Sync>::from(why)))
    }
}

impl From<AppendError> for CommandError {
    /// The error of a command whose append failed for good. A conflict comes here only when nobody decides again.
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Conflict { stream, .. } | AppendError::Superseded { stream } => {
                Self::Conflict {
                    stream,
                    attempts: 1,
                }
            }
            AppendError::Unwritable { reason } => Self::defect(reason),
            AppendError::KeyReused => Self::KeyReused,
            AppendError::Replayed(_) => Self::defect("a replay was taken for an error".to_owned()),
            AppendError::Unavailable(source) => Self::Unavailable(source.into()),
            AppendError::InDoubt(source) => Self::InDoubt(source.into()),
            AppendError::Diverged => Self::Diverged,
            AppendError::Corrupt { what } => Self::Corrupt { what },
        }
    }
}
