//! `subscriptions` and `parked`: what a person on call does with subscriptions.
//!
//! Each is a request to the administration, as the admin listener has it: to one made here of the servers that the settings name;
//! or, where a running process has the log's file, to that process.

mod admin;
mod arguments;
mod parked;
mod show;
mod subscriptions;
mod table;

use super::commands::{Outcome, say};
use crate::App;
use crate::settings::Settings;
use admin::Admin;
pub(crate) use arguments::{Operation, Target, commands, operation};

/// Does what was asked of the subscriptions.
pub(super) async fn operate(app: &App, settings: Settings, operation: &Operation) -> Outcome {
    app.check()?;
    let admin = Admin::reach(app, settings).await?;
    let text = match operation {
        Operation::Subscriptions { by_partition, json } => {
            let listed = admin.get("subscriptions", &[], &[]).await?;
            if *json {
                pretty(&listed)?
            } else {
                subscriptions::listed(&admin::read(listed)?, *by_partition)
            }
        }
        Operation::Pause { name, reason } => {
            let body = serde_json::json!({"reason": reason});
            let paused = admin.post("subscriptions", name, "pause", &body).await?;
            let rests = paused.get("at_rest").and_then(serde_json::Value::as_bool);
            let how = match rests {
                Some(true) => "nothing is handled any more, and nothing is lost",
                _ => "what is being handled is finished first, and nothing is lost",
            };
            let (program, name) = (program(), word(name));
            format!(
                "{name} is paused: {how}\n\n  go on with:  {program} subscriptions resume {name}"
            )
        }
        Operation::Resume { name } => {
            let body = serde_json::json!({});
            admin.post("subscriptions", name, "resume", &body).await?;
            format!("{name} goes on")
        }
        Operation::Parked {
            subscription,
            limit,
            json,
        } => {
            let filter = subscription.iter();
            let filter: Vec<_> = filter.map(|name| ("subscription", name.as_str())).collect();
            let listed = admin.get("parked", &[], &filter).await?;
            if *json {
                pretty(&listed)?
            } else {
                parked::listed(&admin::read(listed)?, *limit)
            }
        }
        Operation::Show {
            name,
            sequence,
            payload,
            json,
        } => {
            let payload = if *payload { "true" } else { "false" };
            let parameters = [("sequence", sequence.as_str()), ("payload", payload)];
            let shown = admin.get("parked", &[name], &parameters).await?;
            if *json {
                pretty(&shown)?
            } else {
                show::shown(&admin::read(shown)?)
            }
        }
        Operation::Retry { name, target } => {
            let body = match target {
                Target::One(sequence) => serde_json::json!({"sequence": sequence}),
                Target::All => serde_json::json!({"all": true}),
            };
            let outcomes = admin.post("parked", name, "retry", &body).await?;
            return parked::outcomes(name, target, &admin::read(outcomes)?);
        }
        Operation::Skip {
            name,
            sequence,
            reason,
            partition,
            position,
        } => {
            let body = serde_json::json!({
                "sequence": sequence, "reason": reason, "partition": partition, "position": position
            });
            let outcomes = admin.post("parked", name, "skip", &body).await?;
            let target = Target::One(sequence.clone());
            return parked::outcomes(name, &target, &admin::read(outcomes)?);
        }
    };
    say(text.trim_end());
    Ok(())
}

/// JSON for programs.
fn pretty(data: &serde_json::Value) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(data)
}

/// How this program was called, for lines to paste.
pub(super) fn program() -> String {
    let called = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = called.as_deref().and_then(|path| path.file_name());
    name.map_or_else(
        || "tidelog".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// A word for a shell.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./@:+,=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
