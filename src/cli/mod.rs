//! The command line: what `App::run` does.

mod admin;
mod arguments;
mod commands;
mod doctor;
mod exit;
mod https;
mod looking;
mod migrating;
mod operating;
mod replay;
mod restart;
mod schema;
mod table;
mod views;
mod welcome;

use std::ffi::OsString;
use std::fmt::Write;
use std::time::Duration;

use crate::App;
use crate::entities::with_entities;
use crate::settings::{InvalidSettings, Layers, Settings};
use crate::telemetry::Telemetry;
use arguments::{Action, Arguments, Migrating};
use exit::Exit;

/// Runs the command line of `app` with `arguments`, of which the first is what the program was called by, and gives its exit status, as
/// [`exit::HELP`] has it.
pub(crate) fn run(app: App, arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments = match Arguments::parse(app.name(), arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Also how clap hands over the text of --help, which is no failure.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage.code()
            } else {
                0
            };
        }
    };
    // It needs no settings, and a shell starts it wherever it is.
    if let Action::Completions(shell) = arguments.action {
        commands::completions(app.name(), shell);
        return 0;
    }
    match gather(&arguments) {
        Ok((layers, settings)) => perform(app, &arguments.action, layers, settings),
        Err(error) => fail(&error),
    }
}

/// All settings, as texts with their origins and as values.
fn gather(arguments: &Arguments) -> Result<(Layers, Settings), InvalidSettings> {
    let env = |name: &str| std::env::var(name).ok();
    let mut layers = Layers::gather(&arguments.flags, env, arguments.config.as_deref())?;
    if arguments.action == Action::Dev {
        layers = commands::embedded(layers);
    }
    let settings = Settings::from_layers(&layers)?;
    Ok((layers, settings))
}

/// Does what was asked.
fn perform(app: App, action: &Action, layers: Layers, settings: Settings) -> u8 {
    // One provider of cryptography for every backend's TLS: two in a process make rustls panic at the first use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let telemetry = match action {
        Action::Dev | Action::Serve => Telemetry::of_services(app.name(), &settings),
        _ => Ok(Telemetry::logging(&settings)),
    };
    let telemetry = match telemetry {
        Ok(telemetry) => telemetry,
        Err(error) => return fail(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let outcome = runtime.block_on(async {
        let app = with_entities(app, settings.entities.as_deref())?;
        match action {
            Action::Dev => commands::dev(app, settings).await,
            Action::Serve => commands::serve(app, settings).await,
            Action::Migrate(Migrating::Now) => commands::migrate(settings).await,
            Action::Migrate(Migrating::DryRun { sql, json }) => {
                migrating::dry_run(settings, *sql, *json).await
            }
            Action::Replay(asked) => replay::replay(&app, settings, asked).await,
            Action::Views(of_views) => views::views(&app, settings, of_views).await,
            Action::Look(looking) => looking::look(&app, settings, looking).await,
            Action::Operate(operation) => operating::operate(&app, settings, operation).await,
            Action::Restart {
                reaction,
                from,
                reason,
            } => restart::restart(&app, settings, reaction, from, reason).await,
            Action::Doctor { new_history, json } => {
                doctor::doctor(&app, settings, *new_history, *json).await
            }
            Action::Config { json } => commands::config(&layers, *json),
            Action::Export(asked) => schema::export(&app, asked),
            // It was done before.
            Action::Completions(_) => Ok(()),
        }
    });
    // A task that does not end (a connection that hangs) must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    telemetry.end();
    match outcome {
        Ok(()) => 0,
        Err(error) => fail(error.as_ref()),
    }
}

/// Says what went wrong, with its causes, and gives the exit status.
fn fail(error: &(dyn std::error::Error + 'static)) -> u8 {
    let text = error.to_string();
    let mut causes = String::new();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(causes, "\n  because: {cause}");
        source = cause.source();
    }
    // Without words, all was said before.
    if !text.is_empty() {
        commands::say_error(&format!("error: {text}{causes}"));
    }
    Exit::of(error).code()
}
