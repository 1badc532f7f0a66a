//! What is told of each command: its span, and how it came out.

use tidelog_domain::Metadata;
use tidelog_telemetry::{adopt, traced};
use tracing::Span;
use tracing::field::Empty;

use super::CommandError;

/// What stands for a name that is none of this program's: clients can think of many.
const UNKNOWN: &str = "unknown";

/// What stands for the aggregate of a command over several.
pub(super) const SEVERAL: &str = "several";

/// A command that is being handled.
pub(super) struct Observed {
    aggregate: String,
    command: String,
    pub(super) span: Span,
}

impl Observed {
    /// The command of these names, each of which is one of the program's.
    /// A caller without a span of its own may name the trace that it belongs to in `metadata`.
    pub(super) fn begin(
        aggregate: Option<&str>,
        command: Option<&str>,
        metadata: &Metadata,
    ) -> Self {
        let (aggregate, command) = (aggregate.unwrap_or(UNKNOWN), command.unwrap_or(UNKNOWN));
        let span = traced!(
            "command",
            aggregate,
            name = command,
            outcome = Empty,
            otel.status_code = Empty
        );
        if let (true, Some(trace)) = (Span::current().is_none(), &metadata.traceparent) {
            adopt(&span, trace);
        }
        Self {
            aggregate: aggregate.to_owned(),
            command: command.to_owned(),
            span,
        }
    }

    /// It is done; `appended` and `replayed` say what it came to.
    pub(super) fn end(self, done: Result<(bool, bool), &CommandError>) {
        let outcome = match done {
            Ok((_, true)) => "replayed",
            Ok((true, _)) => "appended",
            Ok((false, _)) => "unchanged",
            Err(error) => failed(error),
        };
        self.span.record("outcome", outcome);
        if matches!(outcome, "unavailable" | "in-doubt" | "failed") {
            self.span.record("otel.status_code", "ERROR");
        }
        let Self {
            aggregate, command, ..
        } = self;
        metrics::counter!("tidelog_commands_total", "aggregate" => aggregate, "command" => command, "outcome" => outcome)
            .increment(1);
    }
}

/// How a command came out that did not happen.
const fn failed(error: &CommandError) -> &'static str {
    match error {
        CommandError::UnknownAggregate { .. }
        | CommandError::InvalidId(_)
        | CommandError::Refused { .. }
        | CommandError::RefusedForAll { .. }
        | CommandError::TooLarge { .. }
        | CommandError::KeyReused => "refused",
        CommandError::PreconditionFailed { .. }
        | CommandError::Conflict { .. }
        | CommandError::InProgress => "conflict",
        CommandError::Overloaded => "overloaded",
        CommandError::Closing | CommandError::Unavailable(_) | CommandError::Diverged => {
            "unavailable"
        }
        CommandError::InDoubt(_) => "in-doubt",
        CommandError::Unreadable { .. }
        | CommandError::Corrupt { .. }
        | CommandError::Defect { .. } => "failed",
    }
}
