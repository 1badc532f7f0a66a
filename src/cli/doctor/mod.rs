//! `doctor`: whether the servers, the log, the views and the settings are right, and what to do where they are not.

mod log;
mod report;
mod servers;
mod work;

use std::error::Error;
use std::path::Path;

use chrono::Utc;
use serde_json::Value;
use tidelog_command::store::OpenError;
use tidelog_domain::{HistoryId, causes};
use tidelog_eventbus::EventBus;

use super::admin::Admin;
use super::commands::{Outcome, or_embedded, say};
use super::exit::{Exit, ended};
use crate::App;
use crate::admin::actions::NEW_HISTORY;
use crate::admin::audit::Outcome as Ending;
use crate::admin::{Audit, Principal};
use crate::backends::{self, BackendError, LogPlace, Opened, log_place};
use crate::inspection::inspect;
use crate::settings::{Role, Settings};
use report::Report;
use servers::File;

/// Checks what the settings' role needs, all of it, whatever is found on the way; or declares that the log has a new history.
pub(super) async fn doctor(
    app: &App,
    settings: Settings,
    new_history: bool,
    json: bool,
) -> Outcome {
    app.check()?;
    let settings = or_embedded(settings);
    if new_history {
        return renew(settings).await;
    }
    let mut report = Report::default();
    report.settings(&settings);
    let log = the_log(&settings, &mut report).await;
    let bus = the_bus(app, &settings, log.history, &mut report).await;
    read_models(&settings, &mut report).await;
    the_rest(app, &settings, log.is_there, bus, &mut report).await;
    if json {
        say(&report.json()?);
    } else {
        say(report.text().trim_end());
    }
    match report.has_failures() {
        false => Ok(()),
        true => Err(ended(Exit::Attention, "")),
    }
}

/// What the other checks have to know of the log.
#[derive(Default)]
struct Log {
    /// Whether it is there, and of this program's version.
    is_there: bool,
    history: Option<HistoryId>,
}

/// Looks at the log.
async fn the_log(settings: &Settings, report: &mut Report) -> Log {
    if settings.role == Role::Gateway {
        report.skip("log", "the role gateway does without a log");
        return Log::default();
    }
    if settings.role == Role::Query && settings.database_url.is_none() {
        let found = "the role query does without a log; where none is named, it answers no questions about the past";
        report.skip("log", found);
        return Log::default();
    }
    // It looks at the log alone, whatever the process would run.
    let settings = Settings {
        role: Role::All,
        ..settings.clone()
    };
    match inspect(&settings).await {
        Ok(inspection) => {
            report.of_log(&inspection, &settings, Utc::now());
            if let Some(file) = file(&settings) {
                report.file(file);
            }
            Log {
                is_there: inspection.log.is_some() && inspection.pending.is_empty(),
                history: inspection.log.and_then(|log| log.history),
            }
        }
        Err(error) => {
            report.fail("log", causes(&error), advice(&error, "database_url"));
            Log::default()
        }
    }
}

/// The sizes of the SQLite file, where there is one.
fn file(settings: &Settings) -> Option<File> {
    let Ok(LogPlace::Sqlite(path)) = log_place(settings) else {
        return None;
    };
    let size = |path: &Path| std::fs::metadata(path).map(|file| file.len());
    let mut wal = path.clone().into_os_string();
    wal.push("-wal");
    Some(File {
        size: size(&path).ok()?,
        wal: size(Path::new(&wal)).unwrap_or_default(),
        free: path.parent().and_then(free_bytes),
    })
}

/// What is free on the disk that has `directory`, as `df` says.
fn free_bytes(directory: &Path) -> Option<u64> {
    let directory = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    let df = std::process::Command::new("df")
        .arg("-Pk")
        .arg(directory)
        .output();
    let said = String::from_utf8(df.ok()?.stdout).ok()?;
    let available = said.lines().nth(1)?.split_whitespace().nth(3)?;
    available.parse::<u64>().ok()?.checked_mul(1024)
}

/// Opens the bus; gives it where it is a server.
async fn the_bus(
    app: &App,
    settings: &Settings,
    history: Option<HistoryId>,
    report: &mut Report,
) -> Option<std::sync::Arc<dyn EventBus>> {
    if settings.role == Role::Query {
        report.skip("bus", "the role query does without one");
        return None;
    }
    let opened = backends::open_bus(settings, app.name()).await;
    let bus = opened_or_failed("bus", "bus_url", opened, report)?;
    #[cfg(feature = "redis")]
    if let Some(history) = history {
        match crate::inspection::inspect_bus(settings, app.name(), history).await {
            None => {}
            Some(Ok(found)) => {
                report.clock_of("the bus'", found.clock, Utc::now());
                report.bus_memory(found.server.used_memory, found.server.max_memory);
                report.other_histories(found.streams_of_others);
            }
            Some(Err(error)) => report.skip("bus memory", format!("not to be told: {error}")),
        }
    }
    #[cfg(not(feature = "redis"))]
    let _ = history;
    settings.bus_url.is_some().then_some(bus)
}

async fn read_models(settings: &Settings, report: &mut Report) {
    if let role @ (Role::Command | Role::Gateway) = settings.role {
        let found = format!("the role {} does without them", role.name());
        report.skip("read models", found);
        return;
    }
    if settings.mongodb_url.is_none()
        && let Ok(LogPlace::Sqlite(_)) = log_place(settings)
    {
        report.ok("read models", "they are in the log's file");
        return;
    }
    let opened = backends::open_read_store(settings).await;
    if opened_or_failed("read models", "mongodb_url", opened, report).is_some() {
        of_mongodb(settings, report).await;
    }
}

/// Looks at the MongoDB of the settings, if they name one.
#[cfg(feature = "mongodb")]
async fn of_mongodb(settings: &Settings, report: &mut Report) {
    match crate::inspection::inspect_read_store(settings).await {
        None => {}
        Some(Ok(found)) => {
            report.clock_of("the read store's", found.clock, Utc::now());
            let replica_set = found.replica_set.as_deref();
            report.read_model_durability(found.is_router, replica_set, found.is_persistent);
        }
        Some(Err(error)) => {
            let found = format!("not to be told: {error}");
            report.skip("read models' durability", found);
        }
    }
}

#[cfg(not(feature = "mongodb"))]
async fn of_mongodb(_: &Settings, _: &mut Report) {}

/// Says what a server is, or why it cannot be used.
fn opened_or_failed<T: ?Sized>(
    check: &'static str,
    key: &'static str,
    opened: Result<Opened<T>, BackendError>,
    report: &mut Report,
) -> Option<std::sync::Arc<T>> {
    match opened {
        Ok(opened) => {
            report.ok(check, opened.description);
            for warning in opened.warnings {
                let advice = "change the server's setting; docs/operations.md, docs/redis.md and docs/engines.md say why";
                report.warn(check, warning, advice);
            }
            Some(opened.backend)
        }
        Err(error) => {
            report.fail(check, causes(&error), advice(&error, key));
            None
        }
    }
}

/// What works on the log: asked of the administration, wherever that is.
async fn the_rest(
    app: &App,
    settings: &Settings,
    is_there: bool,
    bus: Option<std::sync::Arc<dyn EventBus>>,
    report: &mut Report,
) {
    const WORK: [&str; 3] = ["bus history", "views", "subscriptions"];
    if !is_there || settings.role != Role::All {
        let found = match is_there {
            _ if settings.role == Role::Gateway => "the role gateway does without a log",
            true => "checked where all servers are named: without --role, or with --role all",
            false => "the log is not there, or has to be migrated first",
        };
        WORK.iter().for_each(|check| report.skip(check, found));
        return;
    }
    match Admin::reach(app, settings.clone()).await {
        Ok(admin) => {
            work::history(&admin, bus, report).await;
            work::views(app, &admin, report).await;
            work::subscriptions(&admin, report).await;
        }
        Err(error) => {
            let found = format!("not to be told: {}", causes(&*error));
            WORK.iter()
                .for_each(|check| report.skip(check, found.clone()));
        }
    }
}

/// What to do about a backend that cannot be had.
fn advice(error: &BackendError, key: &'static str) -> String {
    let variable = crate::settings::variable(key);
    match error {
        BackendError::Log { source, .. } => match source {
            OpenError::Unreachable(_) => format!("start the server, or correct {variable}"),
            OpenError::Denied(_) => {
                format!("correct the user, the password or the database in {variable}")
            }
            OpenError::MayNotMigrate { .. } => format!("run `migrate` with another {variable}"),
            OpenError::Newer { .. } => "run the newer program that migrated it".to_owned(),
            OpenError::Changed { .. } => {
                "the program and the database are of different makes: find out which one is right"
                    .to_owned()
            }
            _ => "see what it says of the cause".to_owned(),
        },
        _ => format!("start the server, or correct {variable}"),
    }
}

/// Gives the log a new history.
async fn renew(settings: Settings) -> Outcome {
    let settings = Settings {
        role: Role::All,
        ..settings
    };
    let log = backends::open_log(&settings).await?.backend;
    let before = log.identity().await?.history;
    let (audit, who) = (Audit::new(log.clone()), Principal::of_command_line());
    let on = before.to_string();
    let renewing = log.renew_history();
    let failed = |_: &_| Ending::Failed;
    let renewed = audit.have_done(&who, (&NEW_HISTORY, &on), Value::Null, renewing, failed);
    let after = renewed.await??;
    say(&format!(
        "the log has a new history: {after} (before: {before}). Start the services: the bus begins anew, and every view is \
         replayed."
    ));
    Ok(())
}

/// The causes of what stands in the way.
fn why(error: &(dyn Error + 'static)) -> String {
    causes(error).to_string()
}
