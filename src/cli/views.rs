//! `views`: which version of each view is read, and going back to the one before.

use std::error::Error;
use std::fmt::Write;
use std::sync::Arc;

use serde_json::{Value, json};
use tidelog_domain::ViewDefinition;
use tidelog_query::store::IndexState;
use tidelog_query::{Catalog, Replay, ReplayReport, ReplayState, ViewReport};
use tokio_util::sync::CancellationToken;

use super::admin::{Admin, read};
use super::arguments::OfViews;
use super::commands::{Outcome, say};
use super::exit::{Exit, ended};
use super::table::{NOTHING, STATE, counted, table};
use crate::App;
use crate::admin::actions::{CLEAN, ROLL_BACK};
use crate::settings::Settings;

type Failure = Box<dyn Error>;

/// Does what was asked of the views.
pub(super) async fn views(app: &App, settings: Settings, asked: &OfViews) -> Outcome {
    app.check()?;
    match asked {
        OfViews::List { json } => {
            let admin = Admin::reach(app, settings).await?;
            let all = reports(app, &admin).await?;
            if *json {
                say(&serde_json::to_string_pretty(&all)?);
            } else {
                say(listed(&all).trim_end());
            }
        }
        OfViews::Rollback { view, json } => {
            let definition = find(app, view)?;
            let admin = Admin::reach(app, settings).await?;
            let back = roll_back(&admin, definition).await?;
            let of = |name: &str| back.get(name).unwrap_or(&Value::Null);
            let text = |name| of(name).as_str().unwrap_or_default();
            let (collection, before) = (text("collection"), text("previous"));
            let told = format!(
                "{view} is read from {collection} again (version {}); {before} is kept in its turn",
                of("version")
            );
            say_either(*json, &back, &told)?;
        }
        OfViews::Clean { view, json } => {
            find(app, view)?;
            let admin = Admin::reach(app, settings).await?;
            let cleaned = clean(&admin, view).await?;
            let told = match cleaned.get("retired").and_then(Value::as_str) {
                Some(collection) => format!("{collection} is dropped in a minute or so"),
                None => format!("no version of {view} is kept to go back to"),
            };
            say_either(*json, &cleaned, &told)?;
        }
    }
    Ok(())
}

/// Says what was done: for programs, or for people.
fn say_either(json: bool, done: &Value, told: &str) -> Result<(), serde_json::Error> {
    if json {
        say(&serde_json::to_string_pretty(done)?);
    } else {
        say(told);
    }
    Ok(())
}

/// The view called `name`.
pub(super) fn find<'a>(app: &'a App, name: &str) -> Result<&'a Arc<dyn ViewDefinition>, Failure> {
    let found = app.views().iter().find(|view| view.name() == name);
    found.ok_or_else(|| {
        let names: Vec<_> = app.views().iter().map(|view| view.name()).collect();
        let known = names.join(", ");
        let text = format!("there is no view {name:?}; the views are: {known}");
        ended(Exit::NotFound, text)
    })
}

/// What there is of each view.
pub(super) async fn reports(app: &App, admin: &Admin) -> Result<Vec<ViewReport>, Failure> {
    match admin {
        Admin::Here(here) => {
            let catalog = Catalog::new(app.views().to_vec())?;
            Ok(ViewReport::all(&catalog, &*here.store).await?)
        }
        Admin::At(_) => read(admin.get("views", &[], &[]).await?),
    }
}

async fn roll_back(admin: &Admin, view: &Arc<dyn ViewDefinition>) -> Result<Value, Failure> {
    let nothing = json!({});
    match admin {
        Admin::Here(here) => {
            let replay = Replay::new(here.store.clone(), here.log.clone());
            let never = CancellationToken::new();
            let back = replay.roll_back(view, true, &|_| {}, &never);
            let back = here.recorded(&ROLL_BACK, view.name(), nothing, back);
            Ok(serde_json::to_value(&back.await?)?)
        }
        Admin::At(_) => {
            let asking = admin.post_patiently("views", view.name(), "rollback", &nothing);
            asking.await
        }
    }
}

async fn clean(admin: &Admin, view: &str) -> Result<Value, Failure> {
    match admin {
        Admin::Here(here) => {
            let replay = Replay::new(here.store.clone(), here.log.clone());
            let cleaned = here.recorded(&CLEAN, view, json!({}), replay.clean(view));
            let retired = cleaned.await?;
            Ok(json!({"view": view, "retired": retired}))
        }
        Admin::At(_) => admin.post("views", view, "clean", &json!({})).await,
    }
}

/// The views, for people: a line each, and below them what is being made.
fn listed(all: &[ViewReport]) -> String {
    if all.is_empty() {
        return "there are no views".to_owned();
    }
    let row = |own: &ViewReport| {
        let nothing = || NOTHING.to_owned();
        let before = own.previous.as_ref().map(|before| {
            let keep = if before.keep { ", kept" } else { "" };
            format!("{}{keep}", before.collection)
        });
        [
            own.view.clone(),
            state(own).to_owned(),
            own.version
                .map_or_else(nothing, |version| version.to_string()),
            own.collection.clone().unwrap_or_else(nothing),
            before.unwrap_or_else(nothing),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let mut text = table(["VIEW", STATE, "VERSION", "COLLECTION", "BEFORE"], &rows);
    for own in all {
        for index in &own.indexes {
            let state = match index.state {
                IndexState::Ready => "ready",
                IndexState::Building => "being made",
                _ => "missing: a process with the role eventbus makes it",
            };
            let _ = writeln!(text, "\n{}: index {}: {state}", own.view, index.by);
        }
        if let Some(replay) = &own.replay {
            let _ = writeln!(text, "\n{}: {}", own.view, replaying(replay));
        }
    }
    text
}

/// Whether, and how, a view is read.
fn state(own: &ViewReport) -> &'static str {
    match (own.version.is_some(), own.is_refused, own.is_current) {
        (false, ..) => "not built yet",
        (true, true, _) => "rolled back",
        (true, false, false) => "of another definition",
        (true, false, true) => "read",
    }
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
        "{} {what}: {} of {}{eta}",
        replay.collection,
        replay.events,
        counted(replay.of, "event")
    )
}

#[cfg(test)]
mod tests {
    use tidelog_query::{IndexReport, Previous};

    use super::*;

    fn plain(all: &[ViewReport]) -> String {
        anstream::adapter::strip_str(&listed(all)).to_string()
    }

    #[test]
    fn a_line_says_what_is_read_and_below_it_what_is_being_built() {
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
            plain(std::slice::from_ref(&report)),
            "VIEW  STATE  VERSION  COLLECTION  BEFORE\n\
             post  read         2  post_v2     post_v1, kept\n\n\
             post: index author_name,-created_at: being made\n\n\
             post: post_v3 is being built: 1000 of 5000 events, 500/s, 8 s left\n"
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
        let text = plain(&[unbuilt]);
        assert!(text.contains("post  not built yet"), "{text}");
    }
}
