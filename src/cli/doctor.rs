//! `doctor`: whether the servers are right, and what to do when the log went back in time.

use tidelog_http::Readiness;

use super::commands::{Outcome, or_embedded, say};
use crate::App;
use crate::backends::{self, Backends};
use crate::settings::{Role, Settings};

/// Checks the backends of the settings' role; or declares that the log has a new history.
pub(super) async fn doctor(app: &App, settings: Settings, new_history: bool) -> Outcome {
    app.check()?;
    let settings = or_embedded(settings);
    if new_history {
        return renew(settings).await;
    }
    let part = Readiness::new().part("doctor");
    let backends = Backends::open(&settings, app, &part).await?;
    for (description, warnings) in backends.described() {
        say(&format!("ok    {description}"));
        for warning in warnings {
            say(&format!("warn  {warning}"));
        }
    }
    if let Some(log) = &backends.log {
        let identity = log.backend.identity().await?;
        let heads = log.backend.heads().await?;
        let events: u64 = heads.iter().map(|head| head.number()).sum();
        say(&format!(
            "ok    the log: history {}, {} partitions, {events} events",
            identity.history,
            identity.partitions.count()
        ));
    }
    Ok(())
}

/// Gives the log a new history.
async fn renew(settings: Settings) -> Outcome {
    let settings = Settings {
        role: Role::All,
        ..settings
    };
    let log = backends::open_log(&settings).await?.backend;
    let before = log.identity().await?.history;
    let after = log.renew_history().await?;
    say(&format!(
        "the log has a new history: {after} (before: {before}). Start the services: the bus begins anew, and every view is \
         replayed."
    ));
    Ok(())
}
