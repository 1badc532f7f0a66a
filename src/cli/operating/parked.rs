//! `parked`: what is set aside, and what came of trying it again.

use std::fmt::Write;

use super::{Target, program, word};
use crate::cli::commands::{self, say};
use crate::cli::exit::{Exit, ended};
use crate::cli::table::{STATE, ago, counted, end_of, short, table};
use crate::{Outcome, ParkedEntry, SequenceState, SkippedEntry};

/// The most characters of an error in a line of the list.
const MAX_ERROR: usize = 72;

/// A line each for the first `limit` of them, how many more there are, and what to do about them.
pub(super) fn listed(all: &[ParkedEntry], limit: usize) -> String {
    let Some(first) = all.first() else {
        return "nothing is set aside".to_owned();
    };
    let row = |own: &ParkedEntry| {
        [
            own.subscription.clone(),
            own.sequence.clone(),
            own.state.name().to_owned(),
            ago(own.since),
            own.attempts.to_string(),
            own.partition.to_string(),
            own.first.to_string(),
            why(own),
        ]
    };
    let rows: Vec<_> = all.iter().take(limit).map(row).collect();
    let head = [
        "SUBSCRIPTION",
        "SEQUENCE",
        STATE,
        "SINCE",
        "TRIES",
        "PARTITION",
        "POSITION",
        "WHY",
    ];
    let mut text = table(head, &rows);
    let more = all.len().saturating_sub(limit);
    if more > 0 {
        let _ = writeln!(
            text,
            "… and {more} more: {} parked --limit {}",
            program(),
            all.len()
        );
    }
    // One that an operator can do something about.
    let mut parked = all.iter().filter(|own| own.state == SequenceState::Parked);
    let example = parked.next().unwrap_or(first);
    text.push_str(&next_steps(example));
    text
}

/// What to do about one.
pub(super) fn next_steps(own: &ParkedEntry) -> String {
    let (program, name, sequence) = (program(), word(&own.subscription), word(&own.sequence));
    format!(
        "\n  see one:                      {program} parked show {name} {sequence}\n  \
           when the cause is mended:     {program} parked retry {name} {sequence}    (or --all)\n  \
           pass over its first event:    {program} parked skip {name} {sequence} --reason '…'\n"
    )
}

/// Why it is set aside, in a line.
fn why(own: &ParkedEntry) -> String {
    match &own.behind {
        Some(behind) => format!("waits behind {}", short(behind, MAX_ERROR)),
        None => end_of(&own.error, MAX_ERROR),
    }
}

/// What came of a retry or a skip: an error when something is still set aside.
pub(super) fn outcomes(name: &str, target: &Target, all: &[Outcome]) -> commands::Outcome {
    let what = match target {
        Target::One(sequence) => format!("{name} {sequence}"),
        Target::All => name.to_owned(),
    };
    if all.is_empty() {
        say(&format!("{what}: nothing is set aside"));
        return Ok(());
    }
    let mut failed = Vec::new();
    for own in all {
        let partition = own.partition;
        if !own.done {
            say(&format!(
                "{what}: asked for in partition {partition}; {}",
                open(name, own)
            ));
        } else if own.parked.is_empty() {
            say(&format!("{what}: goes on (partition {partition})"));
        } else {
            failed.extend(&own.parked);
        }
    }
    let Some(first) = failed.first() else {
        return Ok(());
    };
    let mut text = format!("{what}: cannot be handled still");
    if failed.len() > 1 {
        let more = u64::try_from(failed.len()).unwrap_or(u64::MAX);
        let _ = write!(text, ", {} are set aside", counted(more, "sequence"));
    }
    let _ = write!(text, ": {}", why(first));
    if first.state == SequenceState::Retrying {
        text.push_str(" (it is tried again by itself)");
    }
    let _ = write!(
        text,
        "\n\n  see it with:  {} parked show {} {}",
        program(),
        word(name),
        word(&first.sequence)
    );
    Err(ended(Exit::Attention, text))
}

/// Whether all is done, for who was told what came of it before: else something is to be seen to.
pub(super) fn is_done(all: &[Outcome]) -> commands::Outcome {
    match all.iter().all(|own| own.parked.is_empty()) {
        true => Ok(()),
        false => Err(ended(Exit::Attention, "")),
    }
}

/// The events that were skipped.
pub(super) fn skipped(all: &[SkippedEntry]) -> String {
    if all.is_empty() {
        return "nothing was skipped".to_owned();
    }
    let row = |own: &SkippedEntry| {
        [
            own.sequences.join(" "),
            ago(own.at),
            own.partition.to_string(),
            own.position.to_string(),
            short(&own.reason, MAX_ERROR),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let head = ["SEQUENCE", "SKIPPED", "PARTITION", "POSITION", "WHY"];
    table(head, &rows)
}

/// Why something is not done yet.
fn open(name: &str, own: &Outcome) -> String {
    match &own.owner {
        _ if own.paused => format!(
            "{name} is paused: it is done after `{} subscriptions resume {}`",
            program(),
            word(name)
        ),
        None => {
            "nobody works on it now: it is done as soon as a process with the role eventbus runs"
                .to_owned()
        }
        Some(owner) => format!("{owner} is at it: look again with `{} parked`", program()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many sequences that are set aside, of which the last one alone waits for an operator.
    fn set_aside(count: u64) -> Vec<ParkedEntry> {
        let entry = |n: u64| {
            let state = if n == count { "parked" } else { "retrying" };
            serde_json::from_value(serde_json::json!({
                "subscription": "post", "partition": 3, "sequence": format!("p{n}"), "state": state,
                "first": n, "last": n, "attempts": 1, "error": "why", "since": "2026-05-01T12:00:00Z",
            }))
        };
        (1..=count).map(|n| entry(n).unwrap()).collect()
    }

    #[test]
    fn a_long_list_is_cut_and_says_how_many_more_there_are() {
        let all = set_aside(4_096);
        let text = listed(&all, 100);
        let lines = text.lines().filter(|line| line.starts_with("post "));
        assert_eq!(lines.count(), 100, "{text}");
        assert!(text.contains("… and 3996 more: "), "{text}");
        assert!(text.contains(" parked --limit 4096\n"), "{text}");
        // What to do is shown by one that an operator can do something about, wherever that is.
        assert!(text.contains("parked retry post p4096"), "{text}");
    }

    #[test]
    fn a_list_that_fits_is_whole() {
        for limit in [100, 101] {
            let text = listed(&set_aside(100), limit);
            let lines = text.lines().filter(|line| line.starts_with("post "));
            assert_eq!(lines.count(), 100, "{text}");
            assert!(!text.contains("more"), "{text}");
        }
        assert_eq!(listed(&[], 100), "nothing is set aside");
    }
}
