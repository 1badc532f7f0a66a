//! `views`: which version of each view is read, and going back to the one before.

use std::error::Error;
use std::sync::Arc;

use tidelog_command::store::{EventStore, OpenError};
use tidelog_domain::ViewDefinition;
use tidelog_eventbus::LogReader;
use tidelog_query::store::{IndexState, ReadStore};
use tidelog_query::{Catalog, IndexReport, Replay, ReplayReport, ReplayState, ViewReport};
use tokio_util::sync::CancellationToken;

use super::arguments::OfViews;
use super::commands::{Outcome, or_embedded, say};
use crate::App;
use crate::backends::{self, BackendError};
use crate::settings::{Role, Settings};

type Failure = Box<dyn Error>;

/// Does what was asked of the views.
pub(super) async fn views(app: &App, settings: Settings, asked: &OfViews) -> Outcome {
    app.check()?;
    match asked {
        OfViews::List { json } => {
            let (_, store) = open(app, settings, "", "").await?;
            let catalog = Catalog::new(app.views().to_vec())?;
            let all = ViewReport::all(&catalog, &*store).await?;
            if *json {
                say(&serde_json::to_string_pretty(&all)?);
            } else {
                all.iter().for_each(|view| say(&line(view)));
            }
        }
        OfViews::Rollback { view } => {
            let definition = find(app, view)?;
            let (log, store) =
                open(app, settings, "-X POST ", &format!("/{view}/rollback")).await?;
            let replay = Replay::new(store, log);
            let never = CancellationToken::new();
            let back = replay.roll_back(definition, true, &|_| {}, &never).await?;
            say(&format!(
                "{view} is read from {} again (version {}); {} is kept in its turn",
                back.collection, back.number, back.previous
            ));
        }
        OfViews::Clean { view } => {
            find(app, view)?;
            let (log, store) = open(app, settings, "-X POST ", &format!("/{view}/clean")).await?;
            match Replay::new(store, log).clean(view).await? {
                Some(collection) => {
                    say(&format!("{collection} is dropped in a minute or so"));
                }
                None => say(&format!("no version of {view} is kept to go back to")),
            }
        }
    }
    Ok(())
}

/// The view called `name`.
pub(super) fn find<'a>(app: &'a App, name: &str) -> Result<&'a Arc<dyn ViewDefinition>, Failure> {
    let found = app.views().iter().find(|view| view.name() == name);
    found.ok_or_else(|| {
        let names: Vec<_> = app.views().iter().map(|view| view.name()).collect();
        let known = names.join(", ");
        format!("there is no view {name:?}; the views are: {known}").into()
    })
}

/// The log of `settings`, and where the views of `app` are. Where a running process has the file, it says what to ask that one for: `path` below the
/// administration of views, with these `options` of curl.
pub(super) async fn open(
    app: &App,
    settings: Settings,
    options: &str,
    path: &str,
) -> Result<(Arc<dyn LogReader>, Arc<dyn ReadStore>), Failure> {
    // It works on the log and the views alone, as the role `all` would.
    let settings = Settings {
        role: Role::All,
        ..or_embedded(settings)
    };
    let log: Arc<dyn EventStore> = match backends::open_log(&settings).await {
        Err(BackendError::Log {
            source: OpenError::InUse { .. },
            ..
        }) => {
            let hint = format!(
                "a running process has the log's file: ask that one to do it (with its own admin address, if that is another one):\n\n  \
                 curl {options}http://{}/admin/api/views{path}",
                settings.admin_addr
            );
            return Err(hint.into());
        }
        opened => opened?.backend,
    };
    let store = backends::open_read_stores(&settings, app).await?.backend;
    Ok((log, store))
}

/// A view, for people.
fn line(report: &ViewReport) -> String {
    let name = &report.view;
    let read = match (&report.collection, report.version) {
        (Some(collection), Some(version)) => {
            format!("version {version} is read, from {collection}")
        }
        _ => "its first version is not built yet".to_owned(),
    };
    let other = match (
        report.version.is_some(),
        report.is_refused,
        report.is_current,
    ) {
        (true, true, _) => "; it was rolled back from this program's definition",
        (true, false, false) => "; this program has another definition",
        _ => "",
    };
    let previous = report
        .previous
        .as_ref()
        .map_or_else(String::new, |previous| {
            let keep = if previous.keep {
                " until it is cleaned"
            } else {
                ""
            };
            format!("; {} is kept{keep}", previous.collection)
        });
    let indexes = report.indexes.iter().map(index);
    let indexes: String = indexes.collect();
    let replay = report.replay.as_ref().map_or_else(String::new, replaying);
    format!("{name}: {read}{other}{previous}{indexes}{replay}")
}

/// An index, for people.
fn index(index: &IndexReport) -> String {
    let state = match index.state {
        IndexState::Ready => "ready",
        IndexState::Building => "being made",
        _ => "missing: a process with the role eventbus makes it",
    };
    format!("\n  index {}: {state}", index.by)
}

/// A replay, for people.
fn replaying(replay: &ReplayReport) -> String {
    let what = match replay.state {
        ReplayState::Comparing => "is compared with the log",
        ReplayState::Switching => "takes over",
        ReplayState::RollingBack => "is gone back to",
        ReplayState::Left => "was left in the middle, for the next replay",
        _ => "is being built",
    };
    let eta = replay.eta_seconds.map_or_else(String::new, |eta| {
        format!(", {}/s, {eta} s left", replay.per_second)
    });
    format!(
        "\n  {} {what}: {} of {} events{eta}",
        replay.collection, replay.events, replay.of
    )
}

#[cfg(test)]
mod tests {
    use tidelog_query::Previous;

    use super::*;

    #[test]
    fn a_line_says_what_is_read_and_what_is_being_built() {
        let report = ViewReport {
            view: "post".to_owned(),
            version: Some(2),
            collection: Some("post_v2".to_owned()),
            is_current: true,
            previous: Some(Previous {
                version: Some(1),
                collection: "post_v1".to_owned(),
                is_current: true,
                keep: true,
            }),
            is_refused: false,
            indexes: vec![IndexReport {
                by: "author_name,-created_at".to_owned(),
                state: IndexState::Building,
            }],
            replay: Some(ReplayReport {
                state: ReplayState::Building,
                version: 3,
                collection: "post_v3".to_owned(),
                events: 1_000,
                of: 5_000,
                per_second: 500,
                eta_seconds: Some(8),
            }),
            last: None,
        };
        assert_eq!(
            line(&report),
            "post: version 2 is read, from post_v2; post_v1 is kept until it is cleaned\n  \
             index author_name,-created_at: being made\n  \
             post_v3 is being built: 1000 of 5000 events, 500/s, 8 s left"
        );
        let unbuilt = ViewReport {
            version: None,
            collection: None,
            is_current: false,
            previous: None,
            indexes: Vec::new(),
            replay: None,
            ..report
        };
        assert_eq!(line(&unbuilt), "post: its first version is not built yet");
    }
}
