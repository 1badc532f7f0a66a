//! Why a whole batch, or a whole read, failed: one cause that becomes an error of each append.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use tidelog_domain::{Partition, Position};
use tidelog_eventbus::{LogError, StateError};

use super::AppendError;

/// Why a transaction or a read failed as a whole.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The database cannot be reached, or cannot do it now. Nothing was written.
    Unavailable(Cause),
    /// The commit's answer was lost and could not be found out.
    InDoubt(Cause),
    /// The log no longer has what was seen at this place.
    Diverged {
        /// Where it was noticed.
        partition: Partition,
        /// What was seen there.
        position: Position,
    },
    /// A row cannot be understood.
    Corrupt(String),
    /// The database refuses a statement, because of what is in it.
    Refused(String),
}

impl Failure {
    /// What becomes of the appends after one that failed so, when each is run by itself: `None` when they are not touched.
    pub(crate) fn of_what_follows(self) -> Option<Self> {
        match self {
            Self::Refused(_) => None,
            // They were not tried, so there is no doubt about them.
            Self::InDoubt(cause) => Some(Self::Unavailable(cause)),
            other => Some(other),
        }
    }

    /// The error of one append of the batch, or of a read of streams.
    pub(crate) fn append_error(&self) -> AppendError {
        match self {
            Self::Unavailable(cause) => AppendError::Unavailable(cause.boxed()),
            Self::InDoubt(cause) => AppendError::InDoubt(cause.boxed()),
            Self::Diverged { .. } => AppendError::Diverged,
            Self::Corrupt(what) => AppendError::Corrupt { what: what.clone() },
            Self::Refused(reason) => AppendError::Unwritable {
                reason: reason.clone(),
            },
        }
    }

    /// The error of a read of the log.
    pub(crate) fn log_error(self) -> LogError {
        match self {
            Self::Unavailable(cause) => LogError::Unavailable(cause.boxed()),
            Self::InDoubt(cause) => LogError::Unavailable(cause.boxed()),
            Self::Diverged {
                partition,
                position,
            } => LogError::Diverged {
                partition,
                position,
            },
            Self::Corrupt(what) => LogError::Corrupt { what },
            Self::Refused(reason) => LogError::Corrupt { what: reason },
        }
    }

    /// The error of a read or a write of a state record of `subscription`.
    pub(crate) fn state_error(self, subscription: &str) -> StateError {
        let what = match self {
            Self::Unavailable(cause) | Self::InDoubt(cause) => {
                return StateError::Unavailable(cause.boxed());
            }
            Self::Corrupt(what) | Self::Refused(what) => what,
            Self::Diverged { partition, .. } => format!("that of partition {partition}"),
        };
        StateError::Corrupt {
            what: format!("of {subscription}: {what}"),
        }
    }
}

#[cfg(any(feature = "mysql", feature = "sqlite"))]
impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let known = Err(error);
        #[cfg(feature = "mysql")]
        let known = known.or_else(super::mysql::error::failure);
        #[cfg(feature = "sqlite")]
        let known = known.or_else(super::sqlite::error::failure);
        known.unwrap_or_else(|error| match error {
            sqlx::Error::Decode(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnIndexOutOfBounds { .. } => Self::Corrupt(error.to_string()),
            other => Self::Unavailable(Cause::new(other)),
        })
    }
}

/// A cause that several errors share.
#[derive(Clone)]
pub(crate) struct Cause(Arc<dyn Error + Send + Sync>);

impl Cause {
    /// The cause `error`.
    pub(crate) fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(error.into()))
    }

    fn boxed(&self) -> Box<dyn Error + Send + Sync> {
        Box::new(self.clone())
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}
