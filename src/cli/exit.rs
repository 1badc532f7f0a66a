//! What the exit status of a command says.

use std::error::Error;

use tidelog_command::store::{AppendError, OpenError};
use tidelog_eventbus::{LogError, Retry, StateError};
use tidelog_query::ReplayError;
use tidelog_query::store::ReadError;

use super::admin::{Refused, Unreachable};
use crate::StartError;
use crate::admin::audit::NotRecorded;
use crate::backends::BackendError;
use crate::settings::InvalidSettings;

/// The same for people: below the help.
pub(super) const HELP: &str = "Exit status:\n  \
    0  done\n  \
    1  failed\n  \
    2  asked wrongly: a flag, a setting\n  \
    3  something is unavailable now: try again\n  \
    4  there is no such thing: event, stream, view, subscription, sequence\n  \
    5  done, and there is something to see to: what doctor found, migrations that are due, what is set aside still, a comparison that differs\n  \
    6  not permitted";

/// How a command ended that did not do all that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// It failed, and will again.
    Failed,
    /// It was asked for something that it cannot do.
    Usage,
    /// Something is not there now.
    Unavailable,
    /// There is no such thing.
    NotFound,
    /// It is done, and somebody has to look at what came of it.
    Attention,
    /// It is not permitted.
    Forbidden,
}

/// The end of a command, in words of its own; without words, all was said before.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Ended {
    pub(super) exit: Exit,
    pub(super) text: String,
}

/// An end in these words.
pub(super) fn ended(exit: Exit, text: impl Into<String>) -> Box<dyn Error> {
    let text = text.into();
    Box::new(Ended { exit, text })
}

impl Exit {
    /// The process' exit status.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unavailable => 3,
            Self::NotFound => 4,
            Self::Attention => 5,
            Self::Forbidden => 6,
        }
    }

    /// What `error` comes to: what the first of it and its causes says that says something.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(exit) = known(error) {
                return exit;
            }
            next = error.source();
        }
        Self::Failed
    }

    /// What an answer with this status comes to.
    const fn of_status(status: u16) -> Self {
        match status {
            400 | 406 | 412..=415 | 422 => Self::Usage,
            401 | 403 => Self::Forbidden,
            404 | 410 => Self::NotFound,
            // Somebody else is at it, or too many are.
            409 | 429 | 502..=504 => Self::Unavailable,
            _ => Self::Failed,
        }
    }
}

fn known(error: &(dyn Error + 'static)) -> Option<Exit> {
    let passing = |retry: Retry| (retry != Retry::Never).then_some(Exit::Unavailable);
    None.or_else(|| Some(error.downcast_ref::<Ended>()?.exit))
        .or_else(|| Some(Exit::of_status(error.downcast_ref::<Refused>()?.status)))
        .or_else(|| {
            error
                .downcast_ref::<Unreachable>()
                .map(|_| Exit::Unavailable)
        })
        .or_else(|| {
            error
                .downcast_ref::<NotRecorded>()
                .map(|_| Exit::Unavailable)
        })
        .or_else(|| error.downcast_ref::<InvalidSettings>().map(|_| Exit::Usage))
        .or_else(|| of_start(error.downcast_ref::<StartError>()?))
        .or_else(|| of_backend(error.downcast_ref::<BackendError>()?))
        .or_else(|| of_opening(error.downcast_ref::<OpenError>()?))
        .or_else(|| of_replay(error.downcast_ref::<ReplayError>()?))
        .or_else(|| passing(error.downcast_ref::<LogError>()?.retry()))
        .or_else(|| passing(error.downcast_ref::<ReadError>()?.retry()))
        .or_else(|| passing(error.downcast_ref::<StateError>()?.retry()))
        .or_else(|| passing(error.downcast_ref::<AppendError>()?.retry()))
}

fn of_start(error: &StartError) -> Option<Exit> {
    match error {
        StartError::Backend(error) => of_backend(error),
        StartError::Settings(_) | StartError::Tls(_) | StartError::Gateway(_) => Some(Exit::Usage),
        _ => None,
    }
}

fn of_backend(error: &BackendError) -> Option<Exit> {
    match error {
        BackendError::Settings(_) | BackendError::NotBuilt { .. } => Some(Exit::Usage),
        #[cfg(feature = "servers")]
        BackendError::Server(unfit) if unfit.may_pass() => Some(Exit::Unavailable),
        _ => None,
    }
}

fn of_opening(error: &OpenError) -> Option<Exit> {
    match error {
        OpenError::Unreachable(_) => Some(Exit::Unavailable),
        OpenError::MayNotMigrate { .. } => Some(Exit::Forbidden),
        _ => None,
    }
}

fn of_replay(error: &ReplayError) -> Option<Exit> {
    match error {
        ReplayError::AlreadyRunning { .. }
        | ReplayError::NotBuilt { .. }
        | ReplayError::KeptChanging { .. } => Some(Exit::Unavailable),
        ReplayError::NothingBefore { .. } | ReplayError::NothingOf { .. } => Some(Exit::NotFound),
        ReplayError::Differs { .. } | ReplayError::SetAside { .. } => Some(Exit::Attention),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(error: &(dyn Error + 'static)) -> u8 {
        Exit::of(error).code()
    }

    #[test]
    fn an_end_says_what_kind_it_is() {
        let away = || "away".into();
        assert_eq!(code(&LogError::Unavailable(away())), 3);
        let restored = LogError::Corrupt {
            what: String::new(),
        };
        assert_eq!(code(&restored), 1);
        let below = ReplayError::Log(LogError::Unavailable(away()));
        assert_eq!(code(&below), 3);
        let place = String::new();
        let opening = BackendError::Log {
            place,
            source: OpenError::Unreachable(away()),
        };
        assert_eq!(code(&opening), 3);
        let missing = InvalidSettings::File {
            path: String::new(),
            reason: String::new(),
        };
        let missing = StartError::Backend(BackendError::Settings(missing));
        assert_eq!(code(&missing), 2);
        assert_eq!(code(&*ended(Exit::Attention, "")), 5);
        assert_eq!(code(&std::fmt::Error), 1);
    }

    #[test]
    fn an_answer_of_the_administration_says_it_too() {
        let refused = |status| {
            code(&Refused {
                status,
                problem: serde_json::Value::Null,
                advice: String::new(),
            })
        };
        let statuses = [400, 403, 404, 409, 422, 500, 503];
        assert_eq!(statuses.map(refused), [2, 6, 4, 3, 2, 1, 3]);
    }
}
