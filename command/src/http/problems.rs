//! From what went wrong with a command to a problem document.

use std::error::Error;
use std::time::Duration;

use axum::http::{HeaderValue, header};
use serde_json::json;
use tidelog_domain::{Refusal, StreamId, Version, causes};
use tidelog_http::{Problem, ProblemKind};

use crate::gateway::Unanswered;
use crate::handling::{CommandError, Precondition};

use super::preconditions::Preconditions;

/// When to come back after a moment of overload, of absence of the store, or of many conflicts.
const SOON: Duration = Duration::from_secs(1);

/// When to come back after what an operator has to put right.
const LATER: Duration = Duration::from_secs(60);

/// What a request was about.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) category: &'a str,
    /// The id that the client named.
    pub(super) id: Option<&'a str>,
    pub(super) command: &'a str,
    pub(super) preconditions: &'a Preconditions,
    /// Whether it is about several aggregates, which its body names.
    pub(super) several: bool,
    /// Whether the request brought an idempotency key.
    pub(super) has_key: bool,
}

impl Subject<'_> {
    /// The problem document of `error`. What is not the client's business goes to the log, in the request's span.
    pub(super) fn problem(&self, error: &CommandError) -> Problem {
        match error {
            CommandError::Refused { refusal, .. } | CommandError::RefusedForAll { refusal } => {
                self.refused(refusal)
            }
            CommandError::UnknownAggregate { .. } => {
                Problem::new(ProblemKind::NotFound, format!("{error}. Check the path."))
            }
            CommandError::InvalidId(source) => Problem::new(
                ProblemKind::MalformedRequest,
                format!("The id cannot be one: {source}. Correct it."),
            ),
            CommandError::PreconditionFailed { stream, actual } => self.unexpected(stream, *actual),
            CommandError::Conflict { stream, attempts } => Problem::new(
                ProblemKind::Conflict,
                format!(
                    "{} kept changing while the command was decided, {attempts} times. Nothing was written. Send it again.",
                    named(stream)
                ),
            )
            .retry_after(SOON),
            CommandError::InProgress => Problem::new(
                ProblemKind::RequestInProgress,
                "A request with this Idempotency-Key is in progress. Send it again later to get its answer.",
            )
            .retry_after(SOON),
            CommandError::KeyReused => Problem::new(
                ProblemKind::IdempotencyKeyReused,
                "This Idempotency-Key came with another request before. Nothing was written. Use a new key for each new \
                 request, and send a request again unchanged.",
            ),
            CommandError::TooLarge {
                stream,
                bytes,
                limit,
            } => Problem::new(
                ProblemKind::TooLarge,
                format!(
                    "What would be recorded of {} has {bytes} bytes, and the limit is {limit}. Nothing was written. \
                     Make it smaller.",
                    named(stream)
                ),
            ),
            CommandError::Overloaded => Problem::new(
                ProblemKind::Overloaded,
                "Too many commands are waiting. This one was not run. Send it again later.",
            )
            .retry_after(SOON),
            CommandError::Closing => Problem::new(
                ProblemKind::Unavailable,
                "This service is stopping. The command was not run. Send it again.",
            )
            .retry_after(SOON),
            CommandError::Unavailable(_) => {
                tracing::warn!(error = causes(error), "a command could not be written");
                Problem::new(
                    ProblemKind::Unavailable,
                    "The event store is not available. Nothing was written. Send the command again later.",
                )
                .retry_after(SOON)
            }
            CommandError::Diverged => {
                tracing::error!(error = causes(error), "a command could not be written");
                Problem::new(
                    ProblemKind::Unavailable,
                    "The event store was restored or replaced, and waits for its operator. Nothing was written.",
                )
                .retry_after(LATER)
            }
            CommandError::InDoubt(_) => {
                tracing::error!(error = causes(error), "a command is in doubt");
                self.in_doubt("it was once, or not at all")
            }
            CommandError::Unreadable { .. }
            | CommandError::Corrupt { .. }
            | CommandError::Defect { .. } => internal(error),
        }
    }

    /// The problem document of a command that no worker has answered.
    pub(super) fn unanswered(&self, why: &Unanswered) -> Problem {
        let nothing = match why {
            Unanswered::InDoubt => {
                return self.in_doubt("it was once, or not at all, or is still to be");
            }
            Unanswered::Defect => return Problem::internal(),
            Unanswered::TooLarge { bytes, max } => {
                let what = format!(
                    "What would be sent to the workers has {bytes} bytes, and the limit is {max}. Nothing was written. Make it \
                     smaller."
                );
                return Problem::new(ProblemKind::TooLarge, what);
            }
            Unanswered::NoWorkers => {
                let name = self.category;
                let what = format!(
                    "No worker takes the commands of {name}: start one with --aggregates {name}. Nothing was written."
                );
                Problem::new(ProblemKind::Unavailable, what)
            }
            Unanswered::Full => Problem::new(
                ProblemKind::Overloaded,
                "The message bus has no room. Nothing was written. Send the command again later.",
            ),
            Unanswered::Unavailable => Problem::new(
                ProblemKind::Unavailable,
                "The workers cannot be reached. Nothing was written. Send the command again later.",
            ),
        };
        nothing.retry_after(SOON)
    }

    pub(super) fn refused(&self, refusal: &Refusal) -> Problem {
        let subject = self.named();
        match refusal {
            Refusal::UnknownCommand => Problem::new(
                ProblemKind::NotFound,
                format!("{} has no command {}.", self.category, self.command),
            ),
            Refusal::Invalid(errors) => Problem::new(
                ProblemKind::Invalid,
                format!(
                    "The body does not fit what {} of {} takes. Nothing was written. Correct what `errors` names.",
                    self.command, self.category
                ),
            )
            .with_errors(errors),
            Refusal::Rejected { code, detail } => {
                Problem::new(ProblemKind::Rejected, detail).with("code", json!(code))
            }
            Refusal::NotFound => Problem::new(
                ProblemKind::NotFound,
                format!("There is no {subject}. Check the id, or create it."),
            ),
            Refusal::AlreadyExists if self.preconditions.none_match => Problem::new(
                ProblemKind::PreconditionFailed,
                format!(
                    "There is, or was, a {subject}, and If-None-Match wants none. Nothing was written."
                ),
            ),
            Refusal::AlreadyExists => Problem::new(
                ProblemKind::AlreadyExists,
                format!(
                    "There is, or was, a {subject}, and an id is never used again. Choose another, or leave it out to get \
                     a new one."
                ),
            ),
            Refusal::Deleted => Problem::new(
                ProblemKind::Deleted,
                format!("The {subject} was deleted. It takes no more commands; create another."),
            ),
            // What cannot be read or written, and what later versions of the domain may add.
            other => internal(other),
        }
    }

    /// The aggregate is at another version than `If-Match` wants.
    fn unexpected(&self, stream: &StreamId, actual: Version) -> Problem {
        let wanted = match &self.preconditions.version {
            Precondition::OneOf(versions) if !versions.is_empty() => {
                let versions: Vec<String> = versions.iter().map(|v| format!("\"{v}\"")).collect();
                versions.join(" or ")
            }
            _ => "what no version has".to_owned(),
        };
        let problem = Problem::new(
            ProblemKind::PreconditionFailed,
            format!(
                "{} is at version \"{actual}\", and If-Match wants {wanted}. Nothing was written. Read it again and decide \
                 anew.",
                named(stream)
            ),
        );
        match HeaderValue::from_str(&format!("\"{actual}\"")) {
            Ok(tag) if actual > Version::NONE => problem.with_header(header::ETAG, tag),
            _ => problem,
        }
    }

    fn in_doubt(&self, what_became: &str) -> Problem {
        let advice = match self.id {
            _ if self.has_key => {
                "Send it again with the same Idempotency-Key: it is done once.".to_owned()
            }
            Some(_) => format!(
                "Read the {} to find out before you send it again.",
                self.named()
            ),
            None if self.several => {
                "Read the aggregates that it names to find out before you send it again.".to_owned()
            }
            None => {
                "Look for it before you send it again: another creation makes another.".to_owned()
            }
        };
        let problem = Problem::new(
            ProblemKind::InDoubt,
            format!(
                "Whether the command was written could not be found out in time: {what_became}. {advice}"
            ),
        );
        if self.has_key {
            problem.retry_after(SOON)
        } else {
            problem
        }
    }

    fn named(&self) -> String {
        match self.id {
            Some(id) => format!("{} with the id {id}", self.category),
            None => self.category.to_owned(),
        }
    }
}

fn named(stream: &StreamId) -> String {
    format!("The {} with the id {}", stream.category(), stream.id())
}

fn internal(error: &dyn Error) -> Problem {
    tracing::error!(error = causes(error), "a command could not be handled");
    Problem::internal()
}
