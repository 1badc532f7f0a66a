//! The whole read side in one process: log, relay, tail, views, queries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::{ConsistencyToken, ViewDefinition};
use tidelog_eventbus::{
    EventBus, InProcessEventBus, LogReader, Relay, RelayOptions, StateRecord, StateStore,
    SubscriptionOptions, Tail, TailOptions,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{Change, FaultyStore, Log, folded, stored};
use crate::catalog::Catalog;
use crate::changes::Changes;
use crate::consistency::{Consistency, ReadOf};
use crate::live::LiveViews;
use crate::replay::{Compare, Replay, ReplayOptions};
use crate::store::{Alias, Query, ReadStore};
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
        Self::on(FaultyStore::default())
    }

    /// With views in `store`.
    pub(crate) fn on(store: FaultyStore) -> Self {
        Self {
            log: Log::new(4),
            store,
            bus: Arc::new(InProcessEventBus::new()),
        }
    }

    fn reads(&self) -> Arc<dyn ReadStore> {
        Arc::new(self.store.clone())
    }

    /// Short times, so that tests of leases do not take long.
    pub(crate) fn options() -> ViewsOptions {
        ViewsOptions {
            subscription: SubscriptionOptions {
                watch_interval: Duration::from_millis(20),
                take_over_at_start: true,
                ..SubscriptionOptions::default()
            },
            policies: BTreeMap::new(),
            replay: ReplayOptions {
                lease: Duration::from_millis(1_500),
                beat: Duration::from_millis(100),
                compare: Compare::Full,
                ..ReplayOptions::default()
            },
            alias_poll: Duration::from_millis(50),
            resume_grace: Duration::from_secs(300),
            rollback_grace: Duration::from_secs(6_000),
            drop_grace: Duration::from_secs(600),
        }
    }

    /// Starts a process that keeps `views`.
    pub(crate) fn start(&self, views: Vec<Arc<dyn ViewDefinition>>) -> Process {
        self.start_with(views, Self::options(), self.store.clone())
    }

    /// Starts a process that keeps `views`, and reaches the store by a handle of its own.
    pub(crate) fn start_with(
        &self,
        views: Vec<Arc<dyn ViewDefinition>>,
        options: ViewsOptions,
        store: FaultyStore,
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
            Arc::new(store),
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
        self.replay_on(self.store.clone())
    }

    /// What replays from another process that reaches the store by a handle of its own.
    pub(crate) fn replay_on(&self, store: FaultyStore) -> Replay {
        Replay::new(Arc::new(store), self.log.reader()).with_options(Self::options().replay)
    }

    pub(crate) async fn write(&self, id: &str, title: &str) -> ConsistencyToken {
        let change = Change::Write(title.to_owned(), "ann".to_owned());
        self.log.change(id, &change).await.unwrap()
    }

    pub(crate) async fn alias(&self, view: &str) -> Alias {
        self.store.load_alias(view).await.unwrap().unwrap()
    }

    /// The state records of `collection`.
    pub(crate) async fn states(&self, collection: &str) -> Vec<StateRecord> {
        let states = self.store.load_states(collection).await.unwrap();
        states.into_iter().map(|(.., record)| record).collect()
    }

    /// A reader of its own process: nothing shared but the store.
    pub(crate) fn reader(&self) -> (Versions, Consistency) {
        let versions = Versions::new(self.reads());
        let live = LiveViews::default();
        let consistency = Consistency::new(self.reads(), versions.clone(), live);
        (versions, consistency)
    }

    /// What tells changes in a process of its own: nothing shared but the store and the log; or in that of `live`.
    pub(crate) fn changes(&self, live: LiveViews) -> Changes {
        let versions = Versions::new(self.reads());
        Changes::new(self.reads(), versions, live, self.log.reader())
    }

    /// Waits until `view` has been built and has all of the log, and compares it with the fold.
    pub(crate) async fn settled(&self, view: &dyn ViewDefinition) {
        let heads = self.log.store.heads().await.unwrap();
        let history = self.log.store.identity().await.unwrap().history;
        let token = ConsistencyToken {
            history,
            positions: self.log.partitions().iter().zip(heads).collect(),
            tenant: None,
        };
        let (_, consistency) = self.reader();
        let deadline = Instant::now() + PATIENCE;
        let reached = consistency.wait_for(view.name(), ReadOf::Any, &token, deadline);
        let reached = reached.await;
        let alias = self.store.load_alias(view.name()).await;
        assert!(reached.is_ok(), "{reached:?}: {alias:?}");
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
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Reads a view again and again, as clients do, and never sees less of it than before.
pub(crate) struct Reading {
    reads: JoinHandle<usize>,
    stop: CancellationToken,
}

impl Reading {
    /// Reads `view`, of which nothing is deleted meanwhile and which has been built.
    pub(crate) fn of(system: &System, view: &'static str) -> Self {
        let (versions, _) = system.reader();
        let store = system.store.elsewhere();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let reads = tokio::spawn(async move {
            let everything = Query {
                limit: usize::MAX,
                ..Query::default()
            };
            let (mut reads, mut seen) = (0, 0);
            while !stopped.is_cancelled() {
                let current = versions.current(view).await.unwrap().unwrap();
                let collection = &current.alias.collection;
                let found = store.find(collection, &everything).await.unwrap().len();
                assert!(
                    found >= seen,
                    "{collection} has {found} documents after {seen} were seen"
                );
                (reads, seen) = (reads + 1, found);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            reads
        });
        Self { reads, stop }
    }

    /// Stops, and gives how often it has read.
    pub(crate) async fn stop(self) -> usize {
        self.stop.cancel();
        self.reads.await.unwrap()
    }
}
