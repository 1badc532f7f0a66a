//! `replay`: a view is built anew from the log.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidelog_command::store::OpenError;
use tidelog_query::{Replay, ReplayOptions, ReplayProgress};
use tokio_util::sync::CancellationToken;

use super::commands::{Outcome, Told, or_embedded, say};
use crate::App;
use crate::backends::{self, BackendError};
use crate::settings::{Role, Settings};

/// Builds `view` anew, beside the version that is read, and switches to it.
pub(super) async fn replay(app: &App, settings: Settings, view: &str) -> Outcome {
    app.check()?;
    let known = || {
        let names: Vec<_> = app.views().iter().map(|view| view.name()).collect();
        names.join(", ")
    };
    let found = app.views().iter().find(|known| known.name() == view);
    let definition =
        found.ok_or_else(|| format!("there is no view {view:?}; the views are: {}", known()))?;
    // It works on the log and the views alone, as the role `all` would.
    let settings = Settings {
        role: Role::All,
        ..or_embedded(settings)
    };
    let log = match backends::open_log(&settings).await {
        Err(BackendError::Log {
            source: OpenError::InUse { .. },
            ..
        }) => {
            return Err(in_use(&settings, view).into());
        }
        opened => opened?.backend,
    };
    let store = backends::open_read_store(&settings).await?.backend;
    let mut told = Told::new()?;
    let bar = bar();
    let cancel = CancellationToken::new();
    let mut options = ReplayOptions::default();
    if let Some(policy) = app.policies().get(view) {
        options.policy.clone_from(policy);
    }
    let replay = Replay::new(store, log).with_options(options);
    let progress = |progress: ReplayProgress<'_>| show(&bar, progress);
    let running = replay.run(definition, &progress, &cancel);
    tokio::pin!(running);
    let replayed = tokio::select! {
        replayed = &mut running => replayed?,
        _ = told.wait() => {
            cancel.cancel();
            running.await?
        }
    };
    bar.finish_and_clear();
    let documents = replayed.documents.map_or_else(
        || "documents not counted".to_owned(),
        |documents| format!("{documents} documents"),
    );
    say(&format!(
        "{view} is read from {} now (version {}): {} events, {documents}",
        replayed.collection, replayed.number, replayed.events
    ));
    Ok(())
}

/// What to do when a running process has the file.
fn in_use(settings: &Settings, view: &str) -> String {
    format!(
        "a running process has the log's file: ask that one to do it (with its own admin address, if that is another one):\n\n  \
         curl -X POST http://{}/admin/api/views/{view}/replay",
        settings.admin_addr
    )
}

/// A bar for a person who watches; nothing where nobody does.
fn bar() -> ProgressBar {
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} events {msg}") {
        bar.set_style(style);
    }
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

/// Shows how far a replay is.
fn show(bar: &ProgressBar, progress: ReplayProgress<'_>) {
    match progress {
        ReplayProgress::Folded { events, of } => {
            bar.set_length(of);
            bar.set_position(events);
            bar.set_message("");
        }
        ReplayProgress::Waiting { reason } => bar.set_message(format!("waiting: {reason}")),
        ReplayProgress::Switching => bar.set_message("switching"),
        _ => {}
    }
}
