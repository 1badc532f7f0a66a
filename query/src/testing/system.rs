//! The whole read side in one process: log, relay, tail, views, queries.

use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::{ConsistencyToken, ViewDefinition};
use tidelog_eventbus::{
    EventBus, InProcessEventBus, LogReader, Relay, RelayOptions, SubscriptionOptions, Tail,
    TailOptions,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{Change, FaultyStore, Log, folded, stored};
use crate::catalog::Catalog;
use crate::consistency::Consistency;
use crate::live::LiveViews;
use crate::replay::{Replay, ReplayOptions};
use crate::store::{Alias, ReadStore};
use crate::versions::Versions;
use crate::views::{Views, ViewsOptions};

/// How long anything may take before a test gives up: far more than it needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A log, a read store, and what stands between them.
pub(crate) struct System {
    pub(crate) log: Log,
    pub(crate) store: FaultyStore,
    bus: Arc<dyn EventBus>,
}

/// A process that keeps the views.
pub(crate) struct Process {
    pub(crate) views: Views,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl System {
    pub(crate) fn new() -> Self {
        Self {
            log: Log::new(4),
            store: FaultyStore::default(),
            bus: Arc::new(InProcessEventBus::new()),
        }
    }

    pub(crate) fn reads(&self) -> Arc<dyn ReadStore> {
        Arc::new(self.store.clone())
    }

    /// Short times, so that tests of leases do not take long.
    pub(crate) fn options() -> ViewsOptions {
        ViewsOptions {
            subscription: SubscriptionOptions {
                watch_interval: Duration::from_millis(20),
                ..SubscriptionOptions::default()
            },
            replay: ReplayOptions {
                lease: Duration::from_millis(1_500),
                beat: Duration::from_millis(100),
                ..ReplayOptions::default()
            },
            alias_poll: Duration::from_millis(50),
            drop_grace: Duration::from_secs(600),
        }
    }

    /// Starts a process that keeps `views`.
    pub(crate) fn start(&self, views: Vec<Arc<dyn ViewDefinition>>) -> Process {
        self.start_with(views, Self::options())
    }

    pub(crate) fn start_with(
        &self,
        views: Vec<Arc<dyn ViewDefinition>>,
        options: ViewsOptions,
    ) -> Process {
        let stop = CancellationToken::new();
        let signal = Some(self.log.signal.clone());
        let partitions = self.log.partitions();
        let tail = Tail::new(
            partitions,
            self.bus.clone(),
            self.log.reader(),
            signal.clone(),
            TailOptions::default(),
        );
        let relay = Relay::new(
            partitions,
            self.log.reader(),
            self.bus.clone(),
            signal,
            RelayOptions::default(),
        );
        let owner = uuid::Uuid::now_v7().to_string();
        let catalog = Catalog::new(views).unwrap();
        let views = Views::new(
            catalog,
            self.reads(),
            self.log.reader(),
            tail.clone(),
            owner,
            options,
        );
        let (running, tailing, token) = (views.clone(), stop.clone(), stop.clone());
        let tasks = vec![
            tokio::spawn(relay.run(stop.clone())),
            tokio::spawn(async move { tail.run(tailing).await }),
            tokio::spawn(async move { running.run(token).await }),
        ];
        Process { views, stop, tasks }
    }

    /// What replays from another process.
    pub(crate) fn replay(&self) -> Replay {
        Replay::new(self.reads(), self.log.reader()).with_options(Self::options().replay)
    }

    pub(crate) async fn write(&self, id: &str, title: &str) -> ConsistencyToken {
        let change = Change::Write(title.to_owned(), "ann".to_owned());
        self.log.change(id, &change).await.unwrap()
    }

    pub(crate) async fn alias(&self, view: &str) -> Alias {
        self.store.load_alias(view).await.unwrap().unwrap()
    }

    /// A reader of its own process: nothing shared but the store.
    pub(crate) fn reader(&self) -> (Versions, Consistency) {
        let versions = Versions::new(self.reads());
        let live = LiveViews::default();
        let consistency = Consistency::new(self.reads(), versions.clone(), live);
        (versions, consistency)
    }

    /// Waits until `view` has been built and has all of the log, and compares it with the fold.
    #[track_caller]
    pub(crate) async fn settled(&self, view: &dyn ViewDefinition) {
        let heads = self.log.store.heads().await.unwrap();
        let history = self.log.store.identity().await.unwrap().history;
        let token = ConsistencyToken {
            history,
            positions: self.log.partitions().iter().zip(heads).collect(),
        };
        let (_, consistency) = self.reader();
        let deadline = Instant::now() + PATIENCE;
        let reached = consistency.wait_for(view.name(), &token, deadline).await;
        assert!(reached.is_ok(), "{reached:?}");
        let alias = self.alias(view.name()).await;
        let found = stored(view, &self.store, &alias.collection).await;
        assert_eq!(found, folded(view, &self.log.all().await));
    }
}

impl Process {
    /// Ends it as it ends on SIGTERM.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            timeout(PATIENCE, task).await.unwrap().unwrap();
        }
    }

    /// Ends it as SIGKILL does.
    pub(crate) fn kill(self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
