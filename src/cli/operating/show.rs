//! `parked show`: one sequence, and the event that it waits at.

use std::fmt::Write;

use super::parked::next_steps;
use crate::cli::table::{ago, counted, wrapped};
use crate::{ParkedEventEntry, SequenceState, ShownEvent};

/// What stands below the values.
const INDENT: &str = "              ";

/// One after the other.
pub(super) fn shown(all: &[ParkedEventEntry]) -> String {
    let mut text = String::new();
    for own in all {
        if !text.is_empty() {
            text.push('\n');
        }
        one(&mut text, own);
    }
    if let Some(first) = all.first() {
        text.push_str(&next_steps(&first.parked));
    }
    text
}

fn one(text: &mut String, own: &ParkedEventEntry) {
    let parked = &own.parked;
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<14}{value}");
    };
    line("subscription", &parked.subscription);
    line("sequence", &parked.sequence);
    let waits_for = match (&parked.behind, parked.state) {
        (Some(behind), _) => format!("waiting behind {behind}: retry that one"),
        (None, SequenceState::Retrying) => "retrying: it is tried again by itself".to_owned(),
        (None, _) => "parked: it waits for you".to_owned(),
    };
    line("state", &waits_for);
    let since = parked.since.format("%Y-%m-%d %H:%M:%S UTC");
    line("since", &format!("{since} ({})", ago(parked.since)));
    line("tries", &parked.attempts.to_string());
    line(
        "where",
        &format!(
            "partition {}, positions {} to {}",
            parked.partition, parked.first, parked.last
        ),
    );
    if !parked.error.is_empty() {
        line("error", &wrapped(&parked.error, 100, INDENT));
    }
    match &own.event {
        None => line("event", "the log has none there"),
        Some(event) => of_event(&mut line, event),
    }
}

fn of_event(line: &mut impl FnMut(&str, &str), event: &ShownEvent) {
    line("event", &format!("{} {}", event.event_type, event.id));
    line(
        "  stream",
        &format!("{}, version {}", event.stream, event.version),
    );
    line(
        "  recorded",
        &event
            .recorded_at
            .format("%Y-%m-%d %H:%M:%S%.3f UTC")
            .to_string(),
    );
    line("  shape", &format!("version {}", event.schema_version));
    line("  metadata", &event.metadata.to_string());
    match &event.payload {
        Some(payload) => line("  payload", &payload.to_string()),
        None => line(
            "  payload",
            &format!(
                "{} (shown with --payload)",
                counted(
                    u64::try_from(event.payload_bytes).unwrap_or(u64::MAX),
                    "byte"
                )
            ),
        ),
    }
}
