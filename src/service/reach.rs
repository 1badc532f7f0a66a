//! Which of its backends a process reaches: asked every two seconds, for those who watch the process.
//!
//! Nothing is decided by it. A process whose bus or read store is away stays ready: it does what it can, and goes on by itself.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use tidelog_command::store::EventStore;
use tidelog_domain::{Partition, causes};
use tidelog_eventbus::EventBus;
use tidelog_http::Readiness;
use tidelog_query::store::ReadStore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::recorded;
use crate::backends::Backends;

/// How often each backend is asked.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// The view that the read store is asked for: it need not be there.
const ANY_VIEW: &str = "tidelog";

/// The backends of a process.
pub(super) struct Reach {
    log: Option<Arc<dyn EventStore>>,
    bus: Option<Arc<dyn EventBus>>,
    store: Option<Arc<dyn ReadStore>>,
    readiness: Readiness,
}

/// Since when a backend is away.
type Since = Option<DateTime<Utc>>;

impl Reach {
    /// Of these backends, to be told in `readiness`.
    pub(super) fn new(backends: &Backends, readiness: Readiness) -> Self {
        Self {
            log: backends.log.as_ref().map(|log| log.backend.clone()),
            bus: backends.bus.as_ref().map(|bus| bus.backend.clone()),
            store: backends.reads.as_ref().map(|store| store.backend.clone()),
            readiness,
        }
    }

    /// Asks them until `stop`.
    pub(super) async fn watch(self, stop: CancellationToken) {
        let (mut log, mut bus, mut store) = (Since::None, Since::None, Since::None);
        let watching = async {
            loop {
                tokio::join!(
                    self.tell("log", &mut log, self.ask_log()),
                    self.tell("bus", &mut bus, self.ask_bus()),
                    self.tell("read store", &mut store, self.ask_store()),
                );
                recorded::upkeep();
                sleep(INTERVAL).await;
            }
        };
        stop.run_until_cancelled(watching).await;
    }

    async fn ask_log(&self) -> Option<Result<(), String>> {
        let asked = self.log.as_ref()?.identity().await;
        Some(asked.map(|_| ()).map_err(|error| causes(&error)))
    }

    async fn ask_bus(&self) -> Option<Result<(), String>> {
        let (log, bus) = (self.log.as_ref()?, self.bus.as_ref()?);
        // Under which history, only the log knows.
        let identity = log.identity().await.ok()?;
        let asked = bus.last(identity.history, Partition::new(0)).await;
        Some(asked.map(|_| ()).map_err(|error| causes(&error)))
    }

    async fn ask_store(&self) -> Option<Result<(), String>> {
        let asked = self.store.as_ref()?.load_alias(ANY_VIEW).await;
        Some(asked.map(|_| ()).map_err(|error| causes(&error)))
    }

    /// Tells what became of asking `backend`; nothing where it was not asked.
    async fn tell(
        &self,
        backend: &'static str,
        since: &mut Since,
        asking: impl Future<Output = Option<Result<(), String>>>,
    ) {
        let answer = timeout(PATIENCE, asking).await;
        let answer = answer.unwrap_or_else(|_| Some(Err("it does not answer within 1 s".into())));
        match answer {
            None => {}
            Some(Ok(())) => {
                *since = None;
                self.readiness.backend(backend, Ok(()));
            }
            Some(Err(reason)) => {
                let since = since.get_or_insert_with(Utc::now);
                self.readiness.backend(backend, Err(away(*since, &reason)));
            }
        }
    }
}

fn away(since: DateTime<Utc>, reason: &dyn Display) -> String {
    let since = since.to_rfc3339_opts(SecondsFormat::Secs, true);
    format!("down since {since}: {reason}")
}
