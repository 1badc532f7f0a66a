//! `replay`: a view is built anew from the log.

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tidelog_query::{
    Compare, Mended, Only, Replay, ReplayError, ReplayOptions, ReplayedOnly, ViewReport,
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::admin::{Admin, Here, read};
use super::arguments::{Replaying, SAMPLE, Shown};
use super::commands::{Outcome, Told, say};
use super::exit::{Exit, ended};
use super::table::{are, counted};
use super::views;
use crate::App;
use crate::admin::actions::REPLAY;
use crate::settings::Settings;
use progress::Watched;

mod progress;

/// How often it is said how far it is.
const LINE_EVERY: Duration = Duration::from_secs(1);

type Failure = Box<dyn Error>;

/// Builds a view anew, beside the version that is read, and switches to it; or makes some of its documents what the log says. On
/// servers this process does it; where a running process has the file, that one.
pub(super) async fn replay(app: &App, settings: Settings, asked: &Replaying) -> Outcome {
    app.check()?;
    views::find(app, &asked.view)?;
    let admin = Admin::reach(app, settings).await?;
    let replayed = match &admin {
        Admin::Here(here) => replay_here(app, here, asked).await?,
        Admin::At(_) => replay_there(&admin, asked).await?,
    };
    match asked.progress {
        Shown::Json => say(&done(replayed).to_string()),
        Shown::Bar => {
            let told = match &asked.only {
                None => told(&read(replayed)?),
                Some(_) => told_of_some(&read(replayed)?),
            };
            told.iter().for_each(|line| say(line));
        }
    }
    Ok(())
}

async fn replay_here(app: &App, here: &Here, asked: &Replaying) -> Result<Value, Failure> {
    let definition = views::find(app, &asked.view)?;
    let cancel = CancellationToken::new();
    let replay = Replay::new(here.store.clone(), here.log.clone());
    let replay = replay.with_options(options(app, asked));
    let watched = Mutex::new(Watched::new(asked.progress));
    let note = |told: tidelog_query::ReplayProgress<'_>| seen(&watched).note(told);
    let (mut told, said) = (Told::new()?, said(asked));
    match &asked.only {
        None => {
            let running = replay.run(definition, &note, &cancel);
            let running = watch(asked, &watched, &mut told, &cancel, running);
            let replayed = here.recorded(&REPLAY, &asked.view, said, running);
            Ok(serde_json::to_value(&replayed.await?)?)
        }
        Some(only) => {
            let running = replay.run_only(definition, only, &note, &cancel);
            let running = watch(asked, &watched, &mut told, &cancel, running);
            let replayed = here.recorded(&REPLAY, &asked.view, said, running);
            Ok(serde_json::to_value(&replayed.await?)?)
        }
    }
}

/// Has the running process do it, and looks how far it is.
async fn replay_there(admin: &Admin, asked: &Replaying) -> Result<Value, Failure> {
    let mut told = Told::new()?;
    let mut watched = Watched::new(asked.progress);
    let body = body(asked)?;
    let running = admin.post_patiently("views", &asked.view, "replay", &body);
    tokio::pin!(running);
    let mut ticks = interval(LINE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let replayed = loop {
        tokio::select! {
            replayed = &mut running => break replayed?,
            _ = told.wait() => {
                let text = "not waiting any more: the replay goes on in the running process, `views` shows how far it is";
                return Err(ended(Exit::Failed, text));
            }
            _ = ticks.tick() => {
                // What cannot be told now is told a moment later.
                if let Ok(report) = admin.get("views", &[&asked.view], &[]).await
                    && let Ok(ViewReport { replay: Some(replay), .. }) = read(report)
                {
                    watched.take_in(&replay);
                }
                if asked.progress == Shown::Json {
                    say(&watched.line(&asked.view).to_string());
                }
            }
        }
    };
    watched.finish();
    Ok(replayed)
}

/// What the running process is asked for.
fn body(asked: &Replaying) -> Result<Value, Failure> {
    match (&asked.only, asked.compare) {
        (None, Compare::Sample(documents)) if documents != SAMPLE => {
            let text = "a running process compares none, counts, sample or full: --compare takes one of these beside it";
            Err(ended(Exit::Usage, text))
        }
        _ => Ok(said(asked)),
    }
}

/// What is asked for, as a running process and the record take it.
fn said(asked: &Replaying) -> Value {
    let compare = match (&asked.only, asked.compare) {
        (Some(Only::Document(key)), _) => return json!({"document": key}),
        (Some(Only::Aggregate(name)), _) => return json!({"aggregate": name}),
        (None, Compare::Counts) => json!("counts"),
        (None, Compare::Sample(SAMPLE)) => json!("sample"),
        (None, Compare::Sample(documents)) => json!(documents),
        (None, Compare::Full) => json!("full"),
        (None, _) => json!("none"),
    };
    json!({"throttle": asked.throttle, "compare": compare, "keep": asked.keep})
}

/// Waits for a replay, shows how far it is, and cancels it when the process is told to stop.
async fn watch<T>(
    asked: &Replaying,
    watched: &Mutex<Watched>,
    told: &mut Told,
    cancel: &CancellationToken,
    running: impl Future<Output = Result<T, ReplayError>>,
) -> Result<T, ReplayError> {
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
fn done(replayed: Value) -> Value {
    let mut line = json!({"state": "done"});
    if let (Some(line), Value::Object(replayed)) = (line.as_object_mut(), replayed) {
        line.extend(replayed);
    }
    line
}

/// A view that was replayed, wherever that was done.
#[derive(Debug, Deserialize)]
struct ReplayedView {
    view: String,
    collection: String,
    version: u64,
    events: u64,
    resumed: u64,
    documents: Option<u64>,
    parked: u64,
    compared: Option<ComparedView>,
}

/// What a comparison came to.
#[derive(Debug, Deserialize)]
struct ComparedView {
    documents: u64,
    hash: Value,
}

/// What is said to people of a view that was replayed.
fn told(replayed: &ReplayedView) -> Vec<String> {
    let documents = replayed.documents.map_or_else(
        || "documents not counted".to_owned(),
        |documents| counted(documents, "document"),
    );
    let resumed = match replayed.resumed {
        0 => String::new(),
        before => format!(" after {before} of a replay that went away"),
    };
    let mut lines = vec![format!(
        "{} is read from {} now (version {}): {}{resumed}, {documents}",
        replayed.view,
        replayed.collection,
        replayed.version,
        counted(replayed.events, "event")
    )];
    if let Some(compared) = &replayed.compared {
        let hash = compared.hash.as_str().unwrap_or_default();
        let all = if compared.documents == 1 { "" } else { "all " };
        lines.push(format!(
            "{} compared with the log: {all}equal, hash {hash}",
            counted(compared.documents, "document")
        ));
    }
    if replayed.parked > 0 {
        lines.push(format!(
            "{} set aside, because an event of theirs cannot be folded: see `parked`",
            are(replayed.parked, "document")
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

    fn asked(compare: Compare, only: Option<Only>) -> Replaying {
        Replaying {
            view: "post".to_owned(),
            only,
            throttle: None,
            compare,
            keep: true,
            progress: Shown::Bar,
        }
    }

    #[test]
    fn a_running_process_is_asked_for_the_same() {
        let whole = body(&asked(Compare::Full, None)).unwrap();
        assert_eq!(
            whole,
            json!({"throttle": null, "compare": "full", "keep": true})
        );
        let one = Only::Document("7f".to_owned());
        let one = body(&asked(Compare::Sample(SAMPLE), Some(one))).unwrap();
        assert_eq!(one, json!({"document": "7f"}));
        // It cannot be told how many.
        assert!(body(&asked(Compare::Sample(7), None)).is_err());
    }

    #[test]
    fn what_a_running_process_has_replayed_is_told_as_what_was_replayed_here() {
        let replayed = json!({
            "view": "post", "collection": "post_v2", "version": 2, "previous": "post_v1", "events": 9, "resumed": 4,
            "documents": null, "documents_before": 1, "parked": 1, "compared": {"documents": 3, "hash": "ab"},
        });
        let lines = told(&read(replayed).unwrap());
        assert_eq!(
            lines[0],
            "post is read from post_v2 now (version 2): 9 events after 4 of a replay that went away, documents not counted"
        );
        assert_eq!(
            lines[1],
            "3 documents compared with the log: all equal, hash ab"
        );
        assert!(lines[2].starts_with("1 document is set aside"), "{lines:?}");
    }
}
