//! `subscriptions`: how far they are.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{program, word};
use crate::cli::table::{NOTHING, STATE, ago, counted, short, span, table};
use crate::{PartitionEntry, SubscriptionEntry, WorkState};

/// The most characters of a reason in a line.
const MAX_REASON: usize = 160;

/// What a stalled one is called, so that nobody overlooks it.
const STALLED: &str = "STALLED";

/// All of them, a line each or one a partition, and what to do about them.
pub(super) fn listed(all: &[SubscriptionEntry], by_partition: bool) -> String {
    let mut text = if by_partition {
        each_partition(all)
    } else {
        summary(all)
    };
    for own in all {
        text.push_str(&remarks(own));
    }
    text
}

fn summary(all: &[SubscriptionEntry]) -> String {
    let row = |own: &SubscriptionEntry| {
        [
            own.name.clone(),
            own.kind.name().to_owned(),
            state(own),
            behind(own.lag_events(), own.lag_seconds()),
            own.parked().to_string(),
            shares(own),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(
        ["NAME", "KIND", STATE, "BEHIND", "PARKED", "PARTITIONS"],
        &rows,
    )
}

fn each_partition(all: &[SubscriptionEntry]) -> String {
    let row = |name: &str, own: &PartitionEntry| {
        let heartbeat = own
            .heartbeat_seconds
            .map(|seconds| format!("{} ago", span(seconds)));
        [
            name.to_owned(),
            own.partition.to_string(),
            of_partition(own).to_owned(),
            behind(own.lag_events, own.lag_seconds),
            own.head.to_string(),
            own.checkpoint.to_string(),
            own.parked.to_string(),
            own.requests.to_string(),
            heartbeat.unwrap_or_else(|| NOTHING.to_owned()),
            own.owner.clone().unwrap_or_else(|| NOTHING.to_owned()),
        ]
    };
    let partitions = |own: &SubscriptionEntry| {
        let rows = own.partitions.iter().map(|entry| row(&own.name, entry));
        rows.collect::<Vec<_>>()
    };
    let rows: Vec<_> = all.iter().flat_map(partitions).collect();
    let head = [
        "NAME",
        "PARTITION",
        STATE,
        "BEHIND",
        "HEAD",
        "CHECKPOINT",
        "PARKED",
        "REQUESTS",
        "HEARTBEAT",
        "OWNER",
    ];
    table(head, &rows)
}

fn behind(events: u64, seconds: f64) -> String {
    if events == 0 {
        return NOTHING.to_owned();
    }
    format!("{}, {}", counted(events, "event"), span(seconds))
}

fn of_partition(own: &PartitionEntry) -> &'static str {
    if own.stalled {
        STALLED
    } else {
        own.state.name()
    }
}

/// What it amounts to: the worst of its partitions.
fn state(own: &SubscriptionEntry) -> String {
    if own.is_stalled() {
        return STALLED.to_owned();
    }
    let worst = own.partitions.iter().map(|own| own.state).max();
    worst.unwrap_or(WorkState::Starting).name().to_owned()
}

/// How many of its partitions are in which state, and on how many processes.
fn shares(own: &SubscriptionEntry) -> String {
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for own in &own.partitions {
        *states.entry(of_partition(own)).or_default() += 1;
    }
    let owners = own.partitions.iter().filter_map(|own| own.owner.as_deref());
    let owners = owners.collect::<std::collections::BTreeSet<_>>().len();
    let states = states
        .iter()
        .map(|(state, count)| format!("{count} {state}"));
    let states = states.collect::<Vec<_>>().join(", ");
    match owners {
        _ if states.is_empty() => "not begun".to_owned(),
        0 => states,
        1 => format!("{states}; in 1 process"),
        _ => format!("{states}; in {owners} processes"),
    }
}

/// What to know, and what to do, about one.
fn remarks(own: &SubscriptionEntry) -> String {
    let (name, program) = (&own.name, program());
    let mut text = String::new();
    if let Some(problem) = &own.problem {
        let problem = short(problem, MAX_REASON);
        let _ = writeln!(text, "\n{name}: not all can be told: {problem}");
    }
    let mut reasons: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for own in own
        .partitions
        .iter()
        .filter(|own| own.state != WorkState::Paused)
    {
        let reason = match (&own.reason, own.stalled) {
            (Some(reason), _) => reason.as_str(),
            (None, true) => without_reason(own),
            (None, false) => continue,
        };
        let partitions = reasons.entry((of_partition(own), reason)).or_default();
        partitions.push(own.partition.to_string());
    }
    for ((state, reason), partitions) in reasons {
        let partitions = numbered(&partitions);
        let reason = short(reason, MAX_REASON);
        let _ = writeln!(text, "\n{name}: {partitions} {state}: {reason}");
    }
    let mut paused = own
        .partitions
        .iter()
        .filter(|own| own.state == WorkState::Paused);
    if let Some(first) = paused.next() {
        let since = first.paused_since.map_or_else(
            || "for a replay".to_owned(),
            |since| format!("{} by an operator", ago(since)),
        );
        let reason = first
            .reason
            .as_deref()
            .map(|reason| format!(" ({})", short(reason, MAX_REASON)));
        let _ = writeln!(
            text,
            "\n{name}: paused {since}{}",
            reason.unwrap_or_default()
        );
        if first.paused_since.is_some() {
            let _ = writeln!(
                text,
                "  go on with:  {program} subscriptions resume {}",
                word(name)
            );
        }
    }
    let parked = u64::try_from(own.parked()).unwrap_or(u64::MAX);
    if parked > 0 {
        let _ = writeln!(text, "\n{name}: {} set aside", counted(parked, "sequence"));
        let _ = writeln!(
            text,
            "  see them with:  {program} parked --subscription {}",
            word(name)
        );
    }
    text
}

/// Why a partition stands still, where the record alone is known.
fn without_reason(own: &PartitionEntry) -> &'static str {
    match own.owner {
        Some(_) => {
            "its owner does not get on: see the log of that process, which `--by-partition` names"
        }
        None => "nobody works on it: start a process with the role eventbus",
    }
}

/// `partition 3 is`, `partitions 3, 4 are`.
fn numbered(partitions: &[String]) -> String {
    match partitions {
        [one] => format!("partition {one} is"),
        many => format!("partitions {} are", many.join(", ")),
    }
}
