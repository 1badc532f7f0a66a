//! `show`: one event, and what happened because of the same request.

use std::fmt::Write;

use serde_json::Value;
use uuid::Uuid;

use super::{Failure, Searched, text};
use crate::admin::log::{CausedEvent, Chain, CommandNode};
use crate::cli::admin::{Admin, Refused, read};
use crate::cli::commands::{Outcome, say};

/// What of a CloudEvent is a line of its own.
const ATTRIBUTES: [(&str, &str); 13] = [
    ("event", "type"),
    ("id", "id"),
    ("stream", "subject"),
    ("version", "streamversion"),
    ("recorded", "time"),
    ("partition", "partition"),
    ("position", "position"),
    ("shape", "schemaversion"),
    ("correlation", "correlationid"),
    ("causation", "causationid"),
    ("actor", "actor"),
    ("tenant", "tenant"),
    ("trace", "traceparent"),
];

/// Shows the event that is called `name`.
pub(super) async fn show(admin: &Admin, name: &str, payload: bool, json: bool) -> Outcome {
    let shown = find(admin, name, payload).await?;
    if json {
        say(&serde_json::to_string_pretty(&shown)?);
        return Ok(());
    }
    let event = shown.get("event").unwrap_or(&Value::Null);
    let mut out = described(event);
    let chain = shown.get("chain").filter(|chain| !chain.is_null());
    if let Some(chain) = chain {
        let id = Uuid::try_parse(&text(event, "id")).unwrap_or_default();
        out.push_str(&tree(&read(chain.clone())?, id));
    }
    say(out.trim_end());
    Ok(())
}

/// Asks for it, and has the search go on for as long as there is something left to look at.
async fn find(admin: &Admin, name: &str, payload: bool) -> Result<Value, Failure> {
    let payload = if payload { "true" } else { "false" };
    let mut searched = Searched::new();
    let mut after: Option<String> = None;
    loop {
        let mut parameters = vec![("payload", payload)];
        parameters.extend(after.as_deref().map(|after| ("after", after)));
        let error = match admin.get("events", &[name], &parameters).await {
            Ok(shown) => return Ok(shown),
            Err(error) => error,
        };
        let refused = error.downcast_ref::<Refused>();
        let next = refused.and_then(|refused| {
            searched.note(&refused.problem);
            refused.problem.get("next")?.as_str()
        });
        match next {
            Some(next) => after = Some(next.to_owned()),
            None => return Err(error),
        }
    }
}

fn described(event: &Value) -> String {
    let mut out = String::new();
    for (name, attribute) in ATTRIBUTES {
        match event.get(attribute) {
            None | Some(Value::Null) => {}
            Some(Value::String(value)) => {
                let _ = writeln!(out, "{name:<13}{value}");
            }
            Some(value) => {
                let _ = writeln!(out, "{name:<13}{value}");
            }
        }
    }
    let _ = match event.get("data") {
        Some(data) => writeln!(out, "{:<13}{data:#}", "payload"),
        None => {
            let bytes = super::number(event, "databytes");
            writeln!(out, "{:<13}{bytes} bytes (shown with --payload)", "payload")
        }
    };
    out
}

/// The chain as a tree, in which `own` is marked.
fn tree(chain: &Chain, own: Uuid) -> String {
    let mut out = format!("\nrequest {}\n", chain.correlation_id);
    commands(&mut out, &chain.commands, "", own);
    if chain.more {
        out.push_str("… there may be more: events --correlation shows them\n");
    }
    out
}

fn commands(out: &mut String, all: &[CommandNode], indent: &str, own: Uuid) {
    for (at, command) in all.iter().enumerate() {
        let is_last = at + 1 == all.len();
        let (branch, below) = branches(is_last);
        let id = command.id.map(|id| id.to_string());
        let id = id.as_deref().unwrap_or("of no known id");
        let _ = writeln!(out, "{indent}{branch}command {id}");
        events(out, &command.events, &format!("{indent}{below}"), own);
    }
}

fn events(out: &mut String, all: &[CausedEvent], indent: &str, own: Uuid) {
    for (at, event) in all.iter().enumerate() {
        let is_last = at + 1 == all.len();
        let (branch, below) = branches(is_last);
        let mark = if event.id == own { "  ←" } else { "" };
        let time = event.recorded_at.format("%Y-%m-%d %H:%M:%S%.3f UTC");
        let (name, stream, version) = (&event.event_type, &event.stream, event.version);
        let _ = writeln!(
            out,
            "{indent}{branch}{name}  {stream}@{version}  {time}{mark}"
        );
        commands(out, &event.commands, &format!("{indent}{below}"), own);
    }
}

/// What stands before an entry, and before those below it.
const fn branches(is_last: bool) -> (&'static str, &'static str) {
    if is_last {
        ("└─ ", "   ")
    } else {
        ("├─ ", "│  ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_a_tree() {
        let event = |id: u128, commands| CausedEvent {
            id: Uuid::from_u128(id),
            event_type: "post.created".to_owned(),
            stream: format!("post/{id}"),
            version: 1,
            partition: 0,
            position: 1,
            recorded_at: chrono::DateTime::UNIX_EPOCH,
            commands,
        };
        let command = |id: Option<u128>, events| CommandNode {
            id: id.map(Uuid::from_u128),
            events,
        };
        let inner = command(Some(1), vec![event(2, Vec::new())]);
        let chain = Chain {
            correlation_id: "c".to_owned(),
            commands: vec![
                command(Some(9), vec![event(1, vec![inner]), event(3, Vec::new())]),
                command(None, vec![event(4, Vec::new())]),
            ],
            more: false,
        };
        let time = "1970-01-01 00:00:00.000 UTC";
        let id = |id| Uuid::from_u128(id);
        assert_eq!(
            tree(&chain, id(2)),
            format!(
                "\nrequest c\n\
                 ├─ command {}\n\
                 │  ├─ post.created  post/1@1  {time}\n\
                 │  │  └─ command {}\n\
                 │  │     └─ post.created  post/2@1  {time}  ←\n\
                 │  └─ post.created  post/3@1  {time}\n\
                 └─ command of no known id\n   \
                    └─ post.created  post/4@1  {time}\n",
                id(9),
                id(1)
            )
        );
    }
}
