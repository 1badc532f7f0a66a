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
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::recorded;
use crate::backends::Backends;

/// How often each backend is asked.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// What readiness calls them.
const NAMES: [&str; 3] = ["log", "bus", "read store"];

/// The view that the read store is asked for: it need not be there.
const ANY_VIEW: &str = "tidelog";

/// What became of asking the log, the bus and the read store, in this order; nothing before they were asked.
pub(crate) type Answers = Option<[Asked; 3]>;

/// What became of asking a backend.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// It answered.
    Answered {
        /// How long that took.
        took: Duration,
    },
    /// It did not, for this reason.
    Failed {
        /// Why.
        why: String,
    },
    /// There is none, or what is needed to ask it is away.
    Not,
}

/// The backends of a process.
pub(super) struct Reach {
    log: Option<Arc<dyn EventStore>>,
    bus: Option<Arc<dyn EventBus>>,
    store: Option<Arc<dyn ReadStore>>,
    readiness: Readiness,
    answers: watch::Sender<Answers>,
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
            answers: watch::Sender::default(),
        }
    }

    /// What becomes of asking them.
    pub(super) fn answers(&self) -> watch::Receiver<Answers> {
        self.answers.subscribe()
    }

    /// Asks them until `stop`.
    pub(super) async fn watch(self, stop: CancellationToken) {
        let (mut log, mut bus, mut store) = (Since::None, Since::None, Since::None);
        let watching = async {
            loop {
                let answers: [Asked; 3] = tokio::join!(
                    asked(self.ask_log()),
                    asked(self.ask_bus()),
                    asked(self.ask_store()),
                )
                .into();
                let since = [&mut log, &mut bus, &mut store];
                for ((name, since), answer) in NAMES.into_iter().zip(since).zip(&answers) {
                    self.tell(name, since, answer);
                }
                self.answers.send_replace(Some(answers));
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
    fn tell(&self, backend: &'static str, since: &mut Since, answer: &Asked) {
        match answer {
            Asked::Not => {}
            Asked::Answered { .. } => {
                *since = None;
                self.readiness.backend(backend, Ok(()));
            }
            Asked::Failed { why } => {
                let since = since.get_or_insert_with(Utc::now);
                self.readiness.backend(backend, Err(away(*since, why)));
            }
        }
    }
}

/// What becomes of `asking` a backend.
async fn asked(asking: impl Future<Output = Option<Result<(), String>>>) -> Asked {
    let began = Instant::now();
    match timeout(PATIENCE, asking).await {
        Ok(None) => Asked::Not,
        Ok(Some(Ok(()))) => Asked::Answered {
            took: began.elapsed(),
        },
        Ok(Some(Err(why))) => Asked::Failed { why },
        Err(_) => Asked::Failed {
            why: "it does not answer within 1 s".to_owned(),
        },
    }
}

fn away(since: DateTime<Utc>, reason: &dyn Display) -> String {
    let since = since.to_rfc3339_opts(SecondsFormat::Secs, true);
    format!("down since {since}: {reason}")
}
