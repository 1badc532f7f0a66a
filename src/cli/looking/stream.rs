//! `streams show`: the events of one stream, and what it was after them.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Failure, number, text};
use crate::admin::log::{Difference, History};
use crate::cli::admin::{Admin, read};
use crate::cli::commands::{Outcome, say};
use crate::cli::exit::{Exit, ended};
use crate::cli::operating::{program, word};
use crate::cli::table::{counted, short, table};

/// How many events are shown, the last of them.
const EVENTS: u64 = 100;

/// The most characters of a value in a difference.
const MAX_VALUE: usize = 72;

/// Shows `stream` as it was at the version `at`, or as it is.
pub(super) async fn show(admin: &Admin, stream: &str, at: Option<u64>, json: bool) -> Outcome {
    let at = match at {
        Some(at) => at,
        None => page(admin, stream, &[("limit", 1)]).await?.version,
    };
    let before = at.saturating_sub(EVENTS);
    let parameters = [("after", before), ("limit", at - before), ("version", at)];
    let history = page(admin, stream, &parameters).await?;
    if json {
        let state = history.states.as_ref().and_then(|states| states.last());
        let shown = json!({
            "stream": history.stream, "version": at, "last": history.version, "events": history.events,
            "lifecycle": state.and_then(|own| own.lifecycle.as_ref()),
            "state": state.and_then(|own| own.state.as_ref()),
            "why": why(&history),
        });
        say(&serde_json::to_string_pretty(&shown)?);
    } else {
        say(shown(&history, at, before)?.trim_end());
    }
    Ok(())
}

/// Shows what is different between two versions of `stream`.
pub(super) async fn compare(
    admin: &Admin,
    stream: &str,
    (before, after): (u64, u64),
    json: bool,
) -> Outcome {
    let parameters = [("limit", 1), ("compare", before), ("version", after)];
    let history = page(admin, stream, &parameters).await?;
    let difference = history.difference.ok_or("the answer has no difference")?;
    if json {
        say(&serde_json::to_string_pretty(&difference)?);
    } else {
        say(told(&difference).trim_end());
    }
    match difference.why {
        None => Ok(()),
        Some(_) => Err(ended(Exit::Attention, "")),
    }
}

/// A page of the events of `stream`, with the states after them.
async fn page(admin: &Admin, stream: &str, parameters: &[(&str, u64)]) -> Result<History, Failure> {
    let Some((category, id)) = stream.split_once('/') else {
        let text =
            format!("{stream:?} is no stream: it is a category and an id, such as post/7f3a");
        return Err(ended(Exit::Usage, text));
    };
    let values: Vec<_> = parameters
        .iter()
        .map(|(_, value)| value.to_string())
        .collect();
    let names = parameters.iter().map(|(name, _)| *name);
    let mut all: Vec<_> = names.zip(values.iter().map(String::as_str)).collect();
    all.push(("states", "true"));
    read(admin.get("streams", &[category, id], &all).await?)
}

/// Why there is no state after the last event of a page.
fn why(history: &History) -> Option<&str> {
    let last = history.states.as_ref().and_then(|states| states.last());
    let own = last.and_then(|own| own.why.as_deref());
    own.or(history.states_end.as_ref().map(|end| end.why.as_str()))
}

fn shown(history: &History, at: u64, before: u64) -> Result<String, Failure> {
    let row = |event: &Value| {
        let place = format!(
            "{}:{}",
            number(event, "partition"),
            number(event, "position")
        );
        [
            number(event, "streamversion").trim_matches('"').to_owned(),
            text(event, "time"),
            text(event, "type"),
            place.replace('"', ""),
            text(event, "id"),
        ]
    };
    let rows: Vec<_> = history.events.iter().map(row).collect();
    let mut out = table(["VERSION", "TIME", "TYPE", "POSITION", "ID"], &rows);
    let (program, stream) = (program(), word(&history.stream));
    if before > 0 {
        let _ = writeln!(
            out,
            "… and {} before these:  {program} streams show {stream} --at {before}",
            counted(before, "event")
        );
    }
    let last = history.states.as_ref().and_then(|states| states.last());
    match last.and_then(|own| Some((own.state.as_ref()?, own.lifecycle.as_deref()))) {
        Some((state, lifecycle)) => {
            let ended = match lifecycle {
                Some("ended") => ", which has ended",
                _ => "",
            };
            let state = serde_json::to_string_pretty(state)?;
            let _ = writeln!(out, "\n{} at version {at}{ended}:\n{state}", history.stream);
        }
        None => {
            let why = why(history).unwrap_or("it is not told");
            let _ = writeln!(out, "\nno state at version {at}: {why}");
        }
    }
    if at < history.version {
        let last = history.version;
        let _ = writeln!(out, "\nits last version is {last}");
    }
    Ok(out)
}

/// A difference, a line a change.
fn told(difference: &Difference) -> String {
    let Difference {
        version,
        compare,
        changes,
        more,
        why,
    } = difference;
    if let Some(why) = why {
        return format!("versions {compare} and {version} cannot be compared: {why}");
    }
    if changes.is_empty() {
        return format!("versions {compare} and {version} are the same");
    }
    let value = |value: &Option<Value>| match value {
        Some(value) => short(&value.to_string(), MAX_VALUE),
        None => "(nothing)".to_owned(),
    };
    let mut out = format!("from version {compare} to version {version}:\n");
    for change in changes {
        let path = match change.path.as_str() {
            "" => "(all of it)",
            path => path,
        };
        let (before, after) = (value(&change.before), value(&change.after));
        let _ = writeln!(out, "  {path}: {before} → {after}");
    }
    if *more > 0 {
        let more = u64::try_from(*more).unwrap_or(u64::MAX);
        let _ = writeln!(out, "… and {}", counted(more, "more change"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_a_line_a_change() {
        let difference = |changes: Value, more: u64, why: Value| {
            let difference =
                json!({"version": 3, "compare": 1, "changes": changes, "more": more, "why": why});
            told(&serde_json::from_value(difference).unwrap())
        };
        let changes = json!([
            {"path": "/title", "before": "A", "after": "B"},
            {"path": "/tags/0", "after": null},
            {"path": "/author", "before": {"name": "Ann"}},
        ]);
        assert_eq!(
            difference(changes, 1, Value::Null),
            "from version 1 to version 3:\n  /title: \"A\" → \"B\"\n  /tags/0: (nothing) → null\n  \
             /author: {\"name\":\"Ann\"} → (nothing)\n… and 1 more change\n"
        );
        let none = difference(json!([]), 0, Value::Null);
        assert_eq!(none, "versions 1 and 3 are the same");
        let why = difference(json!([]), 0, json!("It cannot be read."));
        assert!(
            why.ends_with("cannot be compared: It cannot be read."),
            "{why}"
        );
    }
}
