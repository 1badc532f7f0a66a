//! What each command of the command line does.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write;

use clap_complete::Shell;
use serde_json::json;

use crate::App;
use crate::backends;
use crate::service::{self, Listen, Reads, Running};
use crate::settings::{InvalidSettings, Layers, Origin, Role, SETTINGS, Setting, Settings};

use super::arguments;
use super::operating::program;
use super::table::counted;
use super::welcome::welcome;

/// The file of the embedded log and its read models, in the data directory.
pub(super) const FILE: &str = "tidelog.db";

/// The settings that name servers, which `dev` does without.
const SERVERS: [&str; 3] = ["database_url", "bus_url", "mongodb_url"];

pub(super) type Outcome = Result<(), Box<dyn Error>>;

/// The settings of `dev`: one process, one file, no server, whatever the environment says.
pub(super) fn embedded(mut layers: Layers) -> Layers {
    let ignored = layers.ignore_environment(&SERVERS);
    if !ignored.is_empty() {
        say_error(&format!(
            "note: dev runs on one file and ignores {}; `serve` uses the servers",
            ignored.join(", ")
        ));
    }
    layers
}

/// Everything in one process on one file.
pub(super) async fn dev(app: App, settings: Settings) -> Outcome {
    let file = settings.data_dir.join(FILE);
    let scheme = scheme(settings.tls_cert.is_some());
    let settings = Settings {
        role: Role::All,
        database_url: Some(format!("sqlite://{}", file.display())),
        bus_url: None,
        mongodb_url: None,
        query_url: settings
            .query_url
            .or_else(|| Some(format!("{scheme}://{}", settings.query_addr))),
        ..settings
    };
    let mut told = Told::new()?;
    let Some(running) = start(&app, &settings, Reads::AfterCommits, &mut told).await? else {
        return Ok(());
    };
    if let (Some(command), Some(query), Some(admin)) = (
        running.command_addr(),
        running.query_addr(),
        running.admin_addr(),
    ) {
        let file = file.display().to_string();
        let [command, query, admin] =
            [command, query, admin].map(|address| format!("{scheme}://{address}"));
        say(&welcome(app.deciders(), &command, &query, &admin, &file));
    }
    until_told(running, told).await
}

/// The services of the settings' role.
pub(super) async fn serve(app: App, settings: Settings) -> Outcome {
    let mut told = Told::new()?;
    let Some(running) = start(&app, &settings, Reads::AsTheyAre, &mut told).await? else {
        return Ok(());
    };
    let parts = [
        ("commands", running.command_addr()),
        ("queries", running.query_addr()),
        ("health", running.admin_addr()),
    ];
    let scheme = scheme(running.is_https());
    let parts = parts
        .iter()
        .filter_map(|(name, address)| Some(format!("{name} {scheme}://{}", (*address)?)));
    say(&format!(
        "role {} is ready: {}",
        settings.role.name(),
        parts.collect::<Vec<_>>().join(", ")
    ));
    until_told(running, told).await
}

/// What a listener's address begins with.
const fn scheme(is_https: bool) -> &'static str {
    if is_https { "https" } else { "http" }
}

/// Starts the services; nothing when it was told to stop before they were ready.
async fn start(
    app: &App,
    settings: &Settings,
    reads: Reads,
    told: &mut Told,
) -> Result<Option<Running>, service::StartError> {
    tokio::select! {
        running = service::start(app, settings, reads, Listen::AtAddresses) => running.map(Some),
        signal = told.wait() => {
            tracing::info!(signal, "stopped before it was ready");
            Ok(None)
        }
    }
}

/// Runs until SIGTERM or Ctrl-C, then stops in order.
async fn until_told(running: Running, mut told: Told) -> Outcome {
    tokio::select! {
        signal = told.wait() => tracing::info!(signal, "stopping: finishing what is in flight"),
        () = running.broken() => {
            running.stop().await;
            return Err("a part of the process panicked (see above); what was acknowledged is in the log".into());
        }
    }
    if running.stop().await {
        tracing::info!("stopped");
        Ok(())
    } else {
        Err("some work in flight did not finish within `shutdown_grace`; what was acknowledged is in the log".into())
    }
}

/// SIGTERM and Ctrl-C, taken from here on: before the process is ready, as whoever sees that may stop it at once.
pub(super) struct Told {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Told {
    /// Takes the signals.
    pub(super) fn new() -> std::io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for one of them and gives its name.
    pub(super) async fn wait(&mut self) -> &'static str {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
        #[cfg(not(unix))]
        {
            let _ = tokio::signal::ctrl_c().await;
            "Ctrl-C"
        }
    }
}

/// For the commands that work on a log and its views: when no server is named, and `dev` has left its file in the data
/// directory, that is meant.
pub(super) fn or_embedded(settings: Settings) -> Settings {
    let file = settings.data_dir.join(FILE);
    if settings.database_url.is_some() || settings.mongodb_url.is_some() || !file.exists() {
        return settings;
    }
    say_error(&format!(
        "note: no server is named, so this works on {}",
        file.display()
    ));
    Settings {
        database_url: Some(format!("sqlite://{}", file.display())),
        ..settings
    }
}

/// Brings the log's database to this program's version.
pub(super) async fn migrate(settings: Settings) -> Outcome {
    let log = backends::open_log(&or_embedded(settings)).await?.backend;
    let identity = log.identity().await?;
    say(&format!(
        "the log is up to date: {}, history {}",
        counted(identity.partitions.count().into(), "partition"),
        identity.history
    ));
    Ok(())
}

/// Shows what is set and by whom.
pub(super) fn config(layers: &Layers, json: bool) -> Outcome {
    let shown = |value: Option<(String, &Origin)>| match value {
        Some((value, origin)) => (Some(value), origin.to_string()),
        None => (None, Origin::Default.to_string()),
    };
    if json {
        let entry = |(setting, value): (&Setting, _)| {
            let (value, origin) = shown(value);
            json!({"key": setting.key, "value": value, "origin": origin})
        };
        let all: Vec<_> = layers.shown().map(entry).collect();
        say(&serde_json::to_string_pretty(&all)?);
    } else {
        let width = SETTINGS.iter().map(|setting| setting.key.len()).max();
        let width = width.unwrap_or(0);
        let mut text = String::new();
        for (setting, value) in layers.shown() {
            let (value, origin) = shown(value);
            let value = value.unwrap_or_else(|| "(not set)".to_owned());
            let _ = writeln!(text, "{:width$}  {value}  [{origin}]", setting.key);
        }
        say(text.trim_end());
    }
    // Also says what is wrong with them.
    Settings::from_layers(layers)
        .map(|_| ())
        .map_err(|error: InvalidSettings| error.into())
}

/// Prints what `shell` needs to complete the command line of the program `name`, as it was called.
pub(super) fn completions(name: &str, shell: Shell) {
    let mut written = Vec::new();
    clap_complete::generate(
        shell,
        &mut arguments::command(name),
        program(),
        &mut written,
    );
    // A reader that went away (a closed pipe) is no reason to fail.
    let _ = std::io::stdout().write_all(&written);
}

/// Prints for the person who asked; without its colours where nobody sees them.
pub(super) fn say(text: &str) {
    // A reader that went away (a closed pipe) is no reason to fail.
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// Prints what went wrong.
pub(super) fn say_error(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
