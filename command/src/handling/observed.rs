//! What is told of each command: its span, and how it came out.

use std::collections::HashMap;
use std::sync::OnceLock;

use metrics::Counter;
use tidelog_domain::Metadata;
use tidelog_telemetry::{adopt, traced};
use tracing::Span;
use tracing::field::Empty;

use super::CommandError;

/// What stands for a name that is none of this program's: clients can think of many.
const UNKNOWN: &str = "unknown";

/// What stands for the aggregate of a command over several.
pub(super) const SEVERAL: &str = "several";

/// How a command can come out.
const OUTCOMES: [&str; 9] = [
    "appended",
    "unchanged",
    "replayed",
    "refused",
    "conflict",
    "overloaded",
    "unavailable",
    "in-doubt",
    "failed",
];

/// The counters of a command, one an outcome: made when it is needed for the first time, as looking one up by its labels takes longer
/// than all else that is told of a command.
type Counters = [OnceLock<Counter>; OUTCOMES.len()];

/// How the commands of a program came out, by aggregate and command.
#[derive(Default)]
pub(super) struct Tally {
    known: HashMap<String, HashMap<String, Counters>>,
}

impl Tally {
    /// Also of this command.
    pub(super) fn add(&mut self, aggregate: &str, command: &str) {
        let of_aggregate = self.known.entry(aggregate.to_owned()).or_default();
        of_aggregate.entry(command.to_owned()).or_default();
    }

    /// A command of these names begins. A caller without a span of its own may name the trace that it belongs to in `metadata`.
    pub(super) fn begin(
        &self,
        aggregate: &str,
        command: &str,
        metadata: &Metadata,
    ) -> Observed<'_> {
        let of_aggregate = self.known.get_key_value(aggregate);
        let of_command = of_aggregate.and_then(|(_, all)| all.get_key_value(command));
        let aggregate = of_aggregate.map_or(UNKNOWN, |(name, _)| name);
        let (command, counters) =
            of_command.map_or((UNKNOWN, None), |(name, all)| (name, Some(all)));
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
        Observed {
            aggregate,
            command,
            counters,
            span,
        }
    }
}

/// A command that is being handled.
pub(super) struct Observed<'a> {
    aggregate: &'a str,
    command: &'a str,
    counters: Option<&'a Counters>,
    pub(super) span: Span,
}

impl Observed<'_> {
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
        let counter = || {
            let (aggregate, command) = (self.aggregate.to_owned(), self.command.to_owned());
            metrics::counter!(
                "tidelog_commands_total", "aggregate" => aggregate, "command" => command, "outcome" => outcome
            )
        };
        let place = OUTCOMES.iter().position(|own| *own == outcome);
        let known = self.counters.zip(place);
        match known.and_then(|(counters, place)| counters.get(place)) {
            Some(known) => known.get_or_init(counter).increment(1),
            None => counter().increment(1),
        }
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
