//! `subscriptions` and `parked`: what a person on call does with subscriptions.
//!
//! Each is a request to the administration, wherever that is.

mod arguments;
mod parked;
mod show;
mod subscriptions;

use super::admin::{self, Admin};
use super::commands::{Outcome, say};
use crate::App;
use crate::settings::Settings;
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
                subscriptions::listed(&admin::read::<Vec<_>>(listed)?, *by_partition)
            }
        }
        Operation::Pause { name, reason, json } => {
            let body = serde_json::json!({"reason": reason});
            let paused = admin.post("subscriptions", name, "pause", &body).await?;
            if *json {
                pretty(&paused)?
            } else {
                paused_as(name, &paused)
            }
        }
        Operation::Resume { name, json } => {
            let body = serde_json::json!({});
            let resumed = admin.post("subscriptions", name, "resume", &body).await?;
            if *json {
                pretty(&resumed)?
            } else {
                format!("{name} goes on")
            }
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
                parked::listed(&admin::read::<Vec<_>>(listed)?, *limit)
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
                show::shown(&admin::read::<Vec<_>>(shown)?)
            }
        }
        Operation::Skipped { name, json } => {
            let skipped = admin.get("skipped", &[name], &[]).await?;
            if *json {
                pretty(&skipped)?
            } else {
                parked::skipped(&admin::read::<Vec<_>>(skipped)?)
            }
        }
        Operation::Retry { name, target, json } => {
            let body = match target {
                Target::One(sequence) => serde_json::json!({"sequence": sequence}),
                Target::All => serde_json::json!({"all": true}),
            };
            let outcomes = admin.post("parked", name, "retry", &body).await?;
            return tell(name, target, outcomes, *json);
        }
        Operation::Skip {
            name,
            sequence,
            reason,
            partition,
            position,
            json,
        } => {
            let body = serde_json::json!({
                "sequence": sequence, "reason": reason, "partition": partition, "position": position
            });
            let outcomes = admin.post("parked", name, "skip", &body).await?;
            return tell(name, &Target::One(sequence.clone()), outcomes, *json);
        }
    };
    say(text.trim_end());
    Ok(())
}

/// What is said of a subscription that was paused.
fn paused_as(name: &str, paused: &serde_json::Value) -> String {
    let rests = paused.get("at_rest").and_then(serde_json::Value::as_bool);
    let how = match rests {
        Some(true) => "nothing is handled any more, and nothing is lost",
        _ => "what is being handled is finished first, and nothing is lost",
    };
    let (program, name) = (program(), word(name));
    format!("{name} is paused: {how}\n\n  go on with:  {program} subscriptions resume {name}")
}

/// Tells what came of a retry or a skip.
fn tell(name: &str, target: &Target, outcomes: serde_json::Value, json: bool) -> Outcome {
    let text = pretty(&outcomes)?;
    let outcomes: Vec<_> = admin::read(outcomes)?;
    if json {
        say(&text);
        return parked::is_done(&outcomes);
    }
    parked::outcomes(name, target, &outcomes)
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
pub(super) fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./@:+,=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
