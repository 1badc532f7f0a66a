//! `events`, `show`, `streams` and `audit`: what is in the log.

mod arguments;
mod audit;
mod events;
mod show;
mod stream;

use std::error::Error;
use std::io::IsTerminal;

use indicatif::ProgressBar;
use serde_json::Value;

use super::admin::Admin;
use super::commands::{Outcome, say};
use super::operating::{program, word};
use super::table::{counted, table};
use crate::App;
use crate::settings::Settings;
pub(crate) use arguments::{Looking, commands, looking};

/// Shows what was asked for.
pub(super) async fn look(app: &App, settings: Settings, looking: &Looking) -> Outcome {
    app.check()?;
    let admin = Admin::reach(app, settings).await?;
    match looking {
        Looking::Events(asked) if asked.follow => events::follow(&admin, asked).await,
        Looking::Events(asked) => events::list(&admin, asked).await,
        Looking::Show {
            event,
            payload,
            json,
        } => show::show(&admin, event, *payload, *json).await,
        Looking::Streams {
            prefix,
            after,
            limit,
            json,
        } => streams(&admin, prefix, after.clone(), *limit, *json).await,
        Looking::Stream { stream, at, json } => stream::show(&admin, stream, *at, *json).await,
        Looking::Difference {
            stream,
            versions,
            json,
        } => stream::compare(&admin, stream, *versions, *json).await,
        Looking::Audit {
            before,
            limit,
            json,
        } => audit::audit(&admin, *before, *limit, *json).await,
    }
}

/// How many streams are asked for at once.
const STREAMS_AT_ONCE: u32 = 1_000;

async fn streams(
    admin: &Admin,
    prefix: &str,
    mut after: Option<String>,
    limit: u32,
    json: bool,
) -> Outcome {
    let (mut all, mut left) = (Vec::new(), limit);
    while left > 0 {
        let some = left.min(STREAMS_AT_ONCE).to_string();
        let mut parameters = vec![("prefix", prefix), ("limit", &some)];
        parameters.extend(after.as_deref().map(|after| ("after", after)));
        let mut page = admin.page("streams", &[], &parameters).await?;
        let found = members(&mut page, "data");
        left = left.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        all.extend(found);
        after = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    if json {
        say(&serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    if all.is_empty() {
        say("there are no such streams");
        return Ok(());
    }
    let row = |own: &Value| [text(own, "stream"), number(own, "version")];
    let rows: Vec<_> = all.iter().map(row).collect();
    say(table(["STREAM", "VERSION"], &rows).trim_end());
    if let Some(after) = after {
        let (program, prefix, after) = (program(), word(prefix), word(&after));
        say(&format!(
            "\nthere may be more:  {program} streams {prefix} --after {after}"
        ));
    }
    Ok(())
}

/// The list `name` of an answer.
fn members(page: &mut Value, name: &str) -> Vec<Value> {
    match page.get_mut(name).map(Value::take) {
        Some(Value::Array(members)) => members,
        _ => Vec::new(),
    }
}

/// The text `name` of an entry.
fn text(entry: &Value, name: &str) -> String {
    let text = entry.get(name).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

/// The number `name` of an entry.
fn number(entry: &Value, name: &str) -> String {
    entry.get(name).map_or_else(String::new, Value::to_string)
}

/// What a long search tells who watches it on a terminal: how far back it has looked.
struct Searched {
    bar: ProgressBar,
    looked_at: u64,
}

impl Searched {
    fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        Self { bar, looked_at: 0 }
    }

    /// Takes in how far a page of the search, or its problem, has looked.
    fn note(&mut self, page: &Value) {
        let looked_at = page.get("looked_at").and_then(Value::as_u64);
        self.looked_at += looked_at.unwrap_or_default();
        let to = page.get("looked_to").and_then(Value::as_str);
        let to = to.map(|to| format!(" to {to}")).unwrap_or_default();
        let events = counted(self.looked_at, "event");
        self.bar.set_message(format!("looked{to}, at {events}"));
        self.bar.tick();
    }
}

impl Drop for Searched {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// What went wrong on the way.
type Failure = Box<dyn Error>;
