//! The log as the query role reads it: opened beside the rest, so that queries are answered also while it is away.

use std::time::Duration;

use tidelog_domain::causes;
use tidelog_eventbus::Backoff;
use tidelog_query::AwaitedLog;
use tokio_util::sync::CancellationToken;

use crate::backends::open_log_for_queries;
use crate::settings::Settings;

/// The longest pause after a first attempt to open the log.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Opens the log of `settings` as `log`, again and again until it is open. What is wrong is said when it changes.
pub(super) async fn open(log: AwaitedLog, settings: Settings, stop: CancellationToken) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut said = String::new();
    loop {
        let opened = tokio::select! {
            opened = open_log_for_queries(&settings) => opened,
            () = stop.cancelled() => return,
        };
        match opened {
            Ok(opened) => return log.opened(opened),
            Err(error) => {
                let why = causes(&error);
                if why != said {
                    tracing::warn!(
                        error = why,
                        "the log cannot be opened, so that neither the past nor live changes can be asked for; trying on"
                    );
                    said = why;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next_wait()) => {}
            () = stop.cancelled() => return,
        }
    }
}
