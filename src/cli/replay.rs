//! `replay`: a view is built anew from the log.

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tidelog_query::{Mended, Only, Replay, ReplayError, ReplayOptions, Replayed, ReplayedOnly};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::arguments::{Replaying, Shown};
use super::commands::{Outcome, Told, say};
use super::views;
use crate::App;
use crate::settings::Settings;
use progress::Watched;

mod progress;

/// How often a line of JSON says how far it is.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Builds a view anew, beside the version that is read, and switches to it; or makes some of its documents what the log says.
pub(super) async fn replay(app: &App, settings: Settings, asked: &Replaying) -> Outcome {
    app.check()?;
    let view = asked.view.as_str();
    let definition = views::find(app, view)?;
    let curl = curl_options(asked.only.as_ref());
    let (log, store) = views::open(app, settings, &curl, &format!("/{view}/replay")).await?;
    let cancel = CancellationToken::new();
    let replay = Replay::new(store, log).with_options(options(app, asked));
    let watched = Mutex::new(Watched::new(asked.progress));
    let note = |told: tidelog_query::ReplayProgress<'_>| seen(&watched).note(told);
    let (line, told) = match &asked.only {
        None => {
            let running = replay.run(definition, &note, &cancel);
            let replayed = watch(asked, &watched, &cancel, running).await?;
            (done(&replayed)?, told(&replayed))
        }
        Some(only) => {
            let running = replay.run_only(definition, only, &note, &cancel);
            let replayed = watch(asked, &watched, &cancel, running).await?;
            (done(&replayed)?, told_of_some(&replayed))
        }
    };
    match asked.progress {
        Shown::Json => say(&line.to_string()),
        Shown::Bar => told.iter().for_each(|line| say(line)),
    }
    Ok(())
}

/// Waits for a replay, shows how far it is, and cancels it when the process is told to stop.
async fn watch<T>(
    asked: &Replaying,
    watched: &Mutex<Watched>,
    cancel: &CancellationToken,
    running: impl Future<Output = Result<T, ReplayError>>,
) -> Result<T, Box<dyn Error>> {
    let mut told = Told::new()?;
    tokio::pin!(running);
    let mut ticks = interval(LINE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let replayed = loop {
        tokio::select! {
            replayed = &mut running => break replayed?,
            _ = told.wait() => {
                cancel.cancel();
                break running.await?;
            }
            _ = ticks.tick(), if asked.progress == Shown::Json => say(&seen(watched).line(&asked.view).to_string()),
        }
    };
    seen(watched).finish();
    Ok(replayed)
}

fn seen(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What curl needs to ask a running process for the same.
fn curl_options(only: Option<&Only>) -> String {
    let body = match only {
        None => return "-X POST ".to_owned(),
        Some(Only::Document(key)) => json!({"document": key}),
        Some(Only::Aggregate(name)) => json!({"aggregate": name}),
    };
    let quoted = body.to_string().replace('\'', "'\\''");
    format!("-X POST -H 'content-type: application/json' -d '{quoted}' ")
}

/// The options of a replay of `app` that was `asked` for.
fn options(app: &App, asked: &Replaying) -> ReplayOptions {
    let mut options = ReplayOptions {
        max_events_per_second: asked.throttle,
        compare: asked.compare,
        keep: asked.keep,
        ..ReplayOptions::default()
    };
    if let Some(policy) = app.policies().get(&asked.view) {
        options.policy.clone_from(policy);
    }
    options
}

/// The last line for programs.
fn done(replayed: &impl Serialize) -> Result<Value, serde_json::Error> {
    let mut line = json!({"state": "done"});
    if let (Some(line), Value::Object(replayed)) =
        (line.as_object_mut(), serde_json::to_value(replayed)?)
    {
        line.extend(replayed);
    }
    Ok(line)
}

/// What is said to people of a view that was replayed.
fn told(replayed: &Replayed) -> Vec<String> {
    let documents = replayed.documents.map_or_else(
        || "documents not counted".to_owned(),
        |documents| format!("{documents} documents"),
    );
    let resumed = match replayed.resumed {
        0 => String::new(),
        before => format!(" after {before} of a replay that went away"),
    };
    let mut lines = vec![format!(
        "{} is read from {} now (version {}): {} events{resumed}, {documents}",
        replayed.view, replayed.collection, replayed.number, replayed.events
    )];
    if let Some(compared) = &replayed.compared {
        lines.push(format!(
            "{} documents compared with the log: all equal, hash {}",
            compared.documents, compared.hash
        ));
    }
    if replayed.parked > 0 {
        lines.push(format!(
            "{} documents are set aside, because an event of theirs cannot be folded: see `parked`",
            replayed.parked
        ));
    }
    lines
}

/// What is said to people of documents that were replayed alone.
fn told_of_some(replayed: &ReplayedOnly) -> Vec<String> {
    let documents = replayed.documents.iter();
    documents
        .map(|document| {
            let what = match document.mended {
                Mended::Unchanged => "was right",
                Mended::Corrected => "differed from the log, and is right now",
                Mended::Restored => "was missing, and is there now",
                Mended::Removed => "should not have been there, and is deleted now",
                Mended::Absent => "is not there, and the log has nothing of it",
                _ => "is right now",
            };
            format!(
                "{} of {} ({}): {what}",
                document.id, replayed.view, replayed.collection
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_curl_is_to_send_survives_the_shell() {
        assert_eq!(curl_options(None), "-X POST ");
        let quoted = curl_options(Some(&Only::Document("a'b\"c".to_owned())));
        assert_eq!(
            quoted,
            r#"-X POST -H 'content-type: application/json' -d '{"document":"a'\''b\"c"}' "#
        );
    }
}
