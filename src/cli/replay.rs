//! `replay`: a view is built anew from the log.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tidelog_query::{Replay, ReplayOptions, Replayed};
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

/// Builds a view anew, beside the version that is read, and switches to it.
pub(super) async fn replay(app: &App, settings: Settings, asked: &Replaying) -> Outcome {
    app.check()?;
    let view = asked.view.as_str();
    let definition = views::find(app, view)?;
    let (log, store) = views::open(settings, "-X POST ", &format!("/{view}/replay")).await?;
    let mut told = Told::new()?;
    let cancel = CancellationToken::new();
    let replay = Replay::new(store, log).with_options(options(app, asked));
    let watched = Mutex::new(Watched::new(asked.progress));
    let watch = || watched.lock().unwrap_or_else(PoisonError::into_inner);
    let progress = |told: tidelog_query::ReplayProgress<'_>| watch().note(told);
    let running = replay.run(definition, &progress, &cancel);
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
            _ = ticks.tick(), if asked.progress == Shown::Json => say(&watch().line(view).to_string()),
        }
    };
    watch().finish();
    match asked.progress {
        Shown::Json => say(&done(&replayed)?.to_string()),
        Shown::Bar => tell(&replayed),
    }
    Ok(())
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
fn done(replayed: &Replayed) -> Result<Value, serde_json::Error> {
    let mut line = json!({"state": "done"});
    if let (Some(line), Value::Object(replayed)) =
        (line.as_object_mut(), serde_json::to_value(replayed)?)
    {
        line.extend(replayed);
    }
    Ok(line)
}

/// Says to people what was done.
fn tell(replayed: &Replayed) {
    let documents = replayed.documents.map_or_else(
        || "documents not counted".to_owned(),
        |documents| format!("{documents} documents"),
    );
    let resumed = match replayed.resumed {
        0 => String::new(),
        before => format!(" after {before} of a replay that went away"),
    };
    say(&format!(
        "{} is read from {} now (version {}): {} events{resumed}, {documents}",
        replayed.view, replayed.collection, replayed.number, replayed.events
    ));
    if let Some(compared) = &replayed.compared {
        say(&format!(
            "{} documents compared with the log: all equal, hash {}",
            compared.documents, compared.hash
        ));
    }
    if replayed.parked > 0 {
        say(&format!(
            "{} documents are set aside, because an event of theirs cannot be folded: see `parked`",
            replayed.parked
        ));
    }
}
