//! `events`: those that fit, or those that are yet to come.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::arguments::Events;
use super::{Failure, Searched, members, text};
use crate::cli::admin::Admin;
use crate::cli::commands::{Outcome, Told, say, say_error};
use crate::cli::exit::Exit;
use crate::cli::table::{NOTHING, table};

/// How many are asked for at once.
const AT_ONCE: u32 = 500;

/// How often it is asked for new ones.
const INTERVAL: Duration = Duration::from_millis(300);

/// The pause after something was unavailable.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows the events that fit.
pub(super) async fn list(admin: &Admin, asked: &Events) -> Outcome {
    let order = if asked.oldest { "oldest" } else { "newest" };
    let (mut all, mut after, mut left) = (Vec::new(), None, asked.limit);
    let mut searched = Searched::new();
    while left > 0 {
        let mut page = page(admin, asked, order, left.min(AT_ONCE), after.as_deref()).await?;
        searched.note(&page);
        tell_unreadable(&mut page);
        let found = members(&mut page, "data");
        left = left.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        if asked.json {
            found.iter().for_each(|event| say(&event.to_string()));
        } else {
            all.extend(found);
        }
        after = next(&page);
        let is_more = page.get("more").and_then(Value::as_bool);
        if is_more != Some(true) || after.is_none() {
            break;
        }
    }
    drop(searched);
    if !asked.json {
        say(shown(&all, asked.payload).trim_end());
    }
    Ok(())
}

/// Shows the events that fit as they come, until it is told to stop.
pub(super) async fn follow(admin: &Admin, asked: &Events) -> Outcome {
    let mut told = Told::new()?;
    let mut asked = asked.clone();
    if !asked.parameters.iter().any(|(name, _)| *name == "since") {
        asked.parameters.push(("since", "now".to_owned()));
    }
    let (mut after, mut is_away) = (None, false);
    loop {
        let asking = page(admin, &asked, "oldest", AT_ONCE, after.as_deref());
        let page = tokio::select! {
            page = asking => page,
            _ = told.wait() => return Ok(()),
        };
        let pause = match page {
            Ok(mut page) => {
                is_away = false;
                tell_unreadable(&mut page);
                for event in members(&mut page, "data") {
                    say(&line(&event, &asked));
                }
                after = next(&page).or(after);
                // From now on the cursor says where it is.
                asked.parameters.retain(|(name, _)| *name != "since");
                let is_more = page.get("more").and_then(Value::as_bool);
                if is_more == Some(true) {
                    continue;
                }
                INTERVAL
            }
            Err(error) if Exit::of(&*error) == Exit::Unavailable && after.is_some() => {
                if !std::mem::replace(&mut is_away, true) {
                    say_error(&format!("note: {error}; trying again"));
                }
                PAUSE
            }
            Err(error) => return Err(error),
        };
        tokio::select! {
            () = sleep(pause) => {}
            _ = told.wait() => return Ok(()),
        }
    }
}

/// One page.
async fn page(
    admin: &Admin,
    asked: &Events,
    order: &str,
    limit: u32,
    after: Option<&str>,
) -> Result<Value, Failure> {
    let limit = limit.to_string();
    let payload = if asked.payload { "true" } else { "false" };
    let mut parameters = vec![("order", order), ("limit", &limit), ("payload", payload)];
    let own = asked.parameters.iter();
    parameters.extend(own.map(|(name, value)| (*name, value.as_str())));
    parameters.extend(after.map(|after| ("after", after)));
    admin.page("events", &[], &parameters).await
}

fn next(page: &Value) -> Option<String> {
    page.get("next")?.as_str().map(str::to_owned)
}

/// Says which rows could not be understood.
fn tell_unreadable(page: &mut Value) {
    for row in members(page, "unreadable") {
        let why = text(&row, "why");
        say_error(&format!(
            "warning: a row of the log cannot be understood: {why}"
        ));
    }
}

/// Events as a table; with payloads, each below its row.
fn shown(all: &[Value], with_payload: bool) -> String {
    if all.is_empty() {
        return "there are no such events".to_owned();
    }
    let row = |event: &Value| {
        let correlation = text(event, "correlationid");
        [
            text(event, "time"),
            text(event, "type"),
            name(event),
            place(event),
            if correlation.is_empty() {
                NOTHING.to_owned()
            } else {
                correlation
            },
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let table = table(["TIME", "TYPE", "EVENT", "PLACE", "CORRELATION"], &rows);
    if !with_payload {
        return table;
    }
    let mut lines = table.lines();
    let mut text = format!("{}\n", lines.next().unwrap_or_default());
    for (line, event) in lines.zip(all) {
        text.push_str(&format!("{line}\n    {}\n", payload(event)));
    }
    text
}

/// An event in a line, while more come.
fn line(event: &Value, asked: &Events) -> String {
    if asked.json {
        return event.to_string();
    }
    let line = format!(
        "{}  {:<24}  {:<32}  {}",
        text(event, "time"),
        text(event, "type"),
        name(event),
        place(event)
    );
    match asked.payload {
        true => format!("{line}\n    {}", payload(event)),
        false => line,
    }
}

/// `post/7f3a@3`.
fn name(event: &Value) -> String {
    format!(
        "{}@{}",
        text(event, "subject"),
        text(event, "streamversion")
    )
}

/// `12:481`.
fn place(event: &Value) -> String {
    let partition = super::number(event, "partition");
    format!("{partition}:{}", text(event, "position"))
}

fn payload(event: &Value) -> String {
    event.get("data").map_or_else(String::new, Value::to_string)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_a_row_whose_payload_stands_below_it() {
        let event = json!({
            "time": "2026-05-01T12:00:00.000000Z", "type": "post.created", "subject": "post/1", "streamversion": "1",
            "partition": 3, "position": "7", "correlationid": "c", "data": {"title": "A"},
        });
        let plain = |text: String| anstream::adapter::strip_str(&text).to_string();
        let text = plain(shown(std::slice::from_ref(&event), false));
        let row = "2026-05-01T12:00:00.000000Z  post.created  post/1@1  3:7    c";
        assert_eq!(text.lines().nth(1), Some(row), "{text}");
        assert!(!text.contains("title"), "{text}");
        let text = plain(shown(&[event], true));
        let below: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(below, [row, "    {\"title\":\"A\"}"]);
    }
}
