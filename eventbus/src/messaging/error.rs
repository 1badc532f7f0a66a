//! What goes wrong with messages.

use std::time::Duration;

use crate::failure::Failure;
use crate::subscription::Cause;

use super::names::InvalidName;

/// Why a message bus did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageBusError {
    /// It cannot be reached, or cannot answer now.
    #[error("the message bus is unavailable")]
    Unavailable(#[source] Cause),
    /// It has no room.
    #[error("the message bus is full: give it more memory, or start workers for what waits on it")]
    Full(#[source] Cause),
    /// No group of workers has ever handled the channel of a request.
    #[error("no worker handles this subject")]
    NoGroup,
    /// The server takes no message of this size.
    #[error(
        "the message has {bytes} bytes, and the server takes {max}: send less, or raise its bound"
    )]
    TooLarge {
        /// How many bytes it has.
        bytes: usize,
        /// The most it may have.
        max: usize,
    },
    /// Its form has no way to say this. Nothing was sent.
    #[error("the message bus cannot carry this: {0}")]
    Unfit(Cause),
}

impl MessageBusError {
    #[cfg(feature = "redis")]
    pub(crate) fn unfit(what: impl Into<Cause>) -> Self {
        Self::Unfit(what.into())
    }

    #[cfg(any(feature = "redis", feature = "nats"))]
    pub(crate) fn unavailable(cause: impl Into<Cause>) -> Self {
        Self::Unavailable(cause.into())
    }

    /// Whether it is certain that nothing was put on the bus: it had no room, there was no group, or no connection was made at all. Else
    /// what was to be put there may be there.
    #[must_use]
    pub fn nothing_was_put(&self) -> bool {
        match self {
            Self::Full(_) | Self::NoGroup | Self::TooLarge { .. } | Self::Unfit(_) => true,
            Self::Unavailable(cause) => is_of_connecting(cause),
        }
    }
}

/// Whether there was no connection, rather than that one broke.
fn is_of_connecting(cause: &Cause) -> bool {
    #[cfg(feature = "redis")]
    if cause.is::<crate::RedisConnectError>() {
        return true;
    }
    #[cfg(feature = "nats")]
    if cause.is::<crate::NatsConnectError>() {
        return true;
    }
    let _ = cause;
    false
}

/// Why a message was not emitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// The payload cannot be written as JSON.
    #[error("the payload cannot be written as JSON")]
    Encode(#[source] serde_json::Error),
    /// It is too large.
    #[error("the message has {bytes} bytes, and {max} is the most: send less, or where it is")]
    TooLarge {
        /// How many bytes it has, metadata included.
        bytes: usize,
        /// The most it may have.
        max: usize,
    },
    /// The bus did not take it, or did not say so: it may be there, or may not.
    #[error(transparent)]
    Bus(MessageBusError),
}

impl From<MessageBusError> for EmitError {
    fn from(error: MessageBusError) -> Self {
        match error {
            MessageBusError::TooLarge { bytes, max } => Self::TooLarge { bytes, max },
            error => Self::Bus(error),
        }
    }
}

/// Why a request has no reply.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The payload cannot be written as JSON.
    #[error("the payload cannot be written as JSON")]
    Encode(#[source] serde_json::Error),
    /// It is too large.
    #[error("the message has {bytes} bytes, and {max} is the most: send less, or where it is")]
    TooLarge {
        /// How many bytes it has, metadata included.
        bytes: usize,
        /// The most it may have.
        max: usize,
    },
    /// No group of workers has ever handled the subject.
    #[error("no worker handles the subject {subject}: start one, or correct the name")]
    UnknownSubject {
        /// The subject, and its shard.
        subject: String,
    },
    /// No reply came in time. The request may have been handled, or may not.
    #[error("no reply came within {} ms", after.as_millis())]
    TimedOut {
        /// How long it was waited for.
        after: Duration,
    },
    /// The handler's answer is an error.
    #[error("{0}")]
    Refused(ReplyError),
    /// The reply is not of the subject's type.
    #[error("the reply is not of the type that was expected")]
    Decode(#[source] serde_json::Error),
    /// A request with this id waits for its reply in this process already.
    #[error("a request with this message id waits for its reply already")]
    DuplicateId,
    /// More values came than were taken: take them as they come.
    #[error("more than {max} values came that nobody took")]
    TooSlow {
        /// How many values wait at most.
        max: usize,
    },
    /// The values are not complete: a worker failed in the middle, and the next try ended otherwise.
    #[error("the request was tried again after {came} values, and ended otherwise")]
    CutShort {
        /// How many values came.
        came: u32,
    },
    /// The messaging handle is closed.
    #[error("messaging is closed")]
    Closed,
    /// The bus did not take it.
    #[error(transparent)]
    Bus(MessageBusError),
}

/// An error as a handler's answer: it goes to the caller, word for word.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReplyError {
    /// What programs go by: `not-found`.
    pub code: String,
    /// What people read. It goes to the caller: nothing secret.
    #[serde(default)]
    pub detail: String,
}

impl ReplyError {
    /// The code of a request whose handler failed: the failure itself is in the worker's log.
    pub const FAILED: &str = "failed";

    /// The code of a request whose payload is not of the subject's type.
    pub const MALFORMED: &str = "malformed";

    /// The code of a request that was put off beyond the time that its caller waits.
    pub const UNAVAILABLE: &str = "unavailable";

    /// The code of a reply that is too large to be sent.
    pub const TOO_LARGE: &str = "too-large";

    /// An answer with this code and detail.
    pub fn new(code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            detail: detail.into(),
        }
    }
}

impl std::fmt::Display for ReplyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

/// Why a handler did not handle a message. Any error becomes a permanent [`Failure`] by `?`.
///
/// | it is | a request | an emitted message |
/// |---|---|---|
/// | [`ReplyError`] | its caller has it, at once | as a permanent failure |
/// | [`Failure::permanent`], a panic | its caller has the code `failed`, at once | tried again with back-off, [`attempts`](crate::FailurePolicy::attempts) times in all; then a dead letter |
/// | [`Failure::transient`] | tried again while its caller waits, then `unavailable` | tried again with back-off, without end |
/// | [`Failure::retry_after`] | the same, then | the same, then |
/// | [`Failure::park`] | its caller has the code `failed`, at once | a dead letter at once |
/// | [`Failure::skip`] | its caller has the code `failed`, at once | passed over for good, with a line in the log |
#[derive(Debug)]
pub enum HandlerError {
    /// An error as the answer.
    Refused(ReplyError),
    /// It was not handled.
    Failed(Failure),
}

impl From<ReplyError> for HandlerError {
    fn from(error: ReplyError) -> Self {
        Self::Refused(error)
    }
}

impl From<Failure> for HandlerError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::Failed(Failure::permanent(error))
    }
}

/// Why a worker does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// Its group's name cannot be.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// It has nothing to do.
    #[error("the worker has no handlers: add one with Worker::handle")]
    NoHandlers,
    /// Two handlers are for one subject.
    #[error("the worker has two handlers for {subject}")]
    TwoHandlers {
        /// The subject, and its shard.
        subject: String,
    },
    /// The bus did not let it join its group.
    #[error(transparent)]
    Bus(#[from] MessageBusError),
}
