//! The services of a process: started in order, stopped in the opposite one.

mod admin;
mod freshness;
mod listeners;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tidelog_command::{AppenderSettings, CommandService, CommandSettings, command_router};
use tidelog_domain::Partitions;
use tidelog_eventbus::{CommitSignal, LogError, LogReader, Relay, RelayOptions, Tail, TailOptions};
use tidelog_http::{Part, Readiness, ServerSettings, app, serve};
use tidelog_query::{
    Catalog, LiveViews, QueryService, QuerySettings, Views, ViewsOptions, query_router,
    views_admin_router,
};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::App;
use crate::app::InvalidApp;
use crate::backends::{BackendError, Backends};
use crate::settings::{Role, Settings};
use admin::Admin;
use freshness::Freshness;
pub use listeners::CannotListen;
use listeners::{address, listen};

/// How long each step of a stop has at least, when those before it took all the time there is.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// Why a process could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The program contradicts itself.
    #[error(transparent)]
    App(#[from] InvalidApp),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] CannotListen),
    /// A backend cannot be had.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Log(#[from] LogError),
}

/// What reads see of the writes of their own process, when they bring no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// What the views have got to, as in production.
    AsTheyAre,
    /// All that was committed in this process before the read: for a person who types a write and then a read.
    AfterCommits,
}

/// The services of a process, running.
pub(crate) struct Running {
    /// Where commands are taken; with port 0 in the settings, the real one.
    pub(crate) command_addr: Option<String>,
    /// Where queries are answered.
    pub(crate) query_addr: Option<String>,
    /// Where health is told.
    pub(crate) admin_addr: String,
    grace: Duration,
    commands: Option<Arc<CommandService>>,
    servers: Group,
    workers: Group,
}

/// Tasks that are stopped together.
#[derive(Clone, Default)]
struct Group {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Group {
    /// Runs a task that ends when it is told to.
    fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        task: impl FnOnce(CancellationToken) -> F,
    ) {
        self.tasks.spawn(task(self.stop.clone()));
    }

    /// Stops its tasks and waits for them, for `grace` at most. Says whether all ended.
    async fn end(&self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        timeout(grace, self.tasks.wait()).await.is_ok()
    }
}

/// Starts the services of the settings' role. They are ready when this returns.
///
/// The addresses are taken first, and health is told from then on; then the servers are asked who they are, then
/// everything is started.
///
/// # Errors
///
/// [`StartError`]: nothing is left running.
pub(crate) async fn start(
    program: &App,
    settings: &Settings,
    reads: Reads,
) -> Result<Running, StartError> {
    program.check()?;
    let role = settings.role;
    let command = listen_if(
        role.runs(Role::Command),
        "command_addr",
        &settings.command_addr,
    );
    let command = command.await?;
    let query = listen_if(role.runs(Role::Query), "query_addr", &settings.query_addr).await?;
    let admin_listener = listen("admin_addr", &settings.admin_addr).await?;
    let mut running = Running {
        command_addr: command.as_ref().map(address),
        query_addr: query.as_ref().map(address),
        admin_addr: address(&admin_listener),
        grace: settings.shutdown_grace,
        commands: None,
        servers: Group::default(),
        workers: Group::default(),
    };
    let readiness = Readiness::new();
    let ready = readiness.part(role.name());
    let admin = Admin::new(readiness.clone());
    running.serve(admin_listener, admin.router());
    let started = Assembly {
        program,
        settings,
        reads,
        readiness,
        command,
        query,
    };
    match started.run(&mut running, &admin, &ready).await {
        Ok(()) => {
            ready.ready();
            Ok(running)
        }
        Err(error) => {
            running.stop().await;
            Err(error)
        }
    }
}

/// What the services of a process are made of.
struct Assembly<'a> {
    program: &'a App,
    settings: &'a Settings,
    reads: Reads,
    readiness: Readiness,
    command: Option<TcpListener>,
    query: Option<TcpListener>,
}

impl Assembly<'_> {
    /// Opens the backends and starts what the role runs.
    async fn run(
        self,
        running: &mut Running,
        admin: &Admin,
        ready: &Part,
    ) -> Result<(), StartError> {
        let backends = Backends::open(self.settings, self.program.name(), ready).await?;
        ready.not_ready("starting the services");
        let mut live = LiveViews::default();
        let mut signal = None;
        if let (Some(log), Some(bus)) = (&backends.log, &backends.bus) {
            let (log, bus) = (&log.backend, &bus.backend);
            let identity = log.identity().await?;
            signal = self
                .command
                .is_some()
                .then(|| CommitSignal::new(identity.partitions));
            let reader: Arc<dyn LogReader> = log.clone();
            let relay = Relay::new(
                identity.partitions,
                reader,
                bus.clone(),
                signal.clone(),
                RelayOptions::default(),
            );
            let published = relay.status();
            running.workers.spawn(async |stop| relay.run(stop).await);
            if self.settings.role.runs(Role::EventBus) {
                live = self.keep_views(
                    &backends,
                    identity.partitions,
                    signal.clone(),
                    running,
                    admin,
                )?;
            }
            let (part, live) = (self.readiness.part("history"), live.clone());
            running
                .workers
                .spawn(|stop| watch::watch(published, live, part, stop));
        }
        if let (Some(listener), Some(log), Some(signal)) = (self.command, backends.log, &signal) {
            let log = log.backend;
            let identity = log.identity().await?;
            let deciders = self.program.deciders().iter().cloned();
            let settings = AppenderSettings::default();
            let service = CommandService::new(deciders, log, identity, signal.clone(), settings)
                .map_err(|taken| InvalidApp::Aggregate(taken.name))?;
            let service = Arc::new(service);
            running.commands = Some(service.clone());
            let settings = CommandSettings {
                query_url: self.settings.query_url.clone(),
                ..CommandSettings::default()
            };
            running.serve(listener, app(command_router(service, settings)));
        }
        if let (Some(listener), Some(store)) = (self.query, backends.reads) {
            let catalog = catalog(self.program)?;
            let views = catalog.iter().count();
            let service = QueryService::new(catalog, store.backend, live.clone());
            let mut router = app(query_router(service, QuerySettings::default()));
            if let (Reads::AfterCommits, Some(signal)) = (self.reads, signal) {
                router = Freshness::new(signal, live, views).applied_to(router);
            }
            running.serve(listener, router);
        }
        Ok(())
    }

    /// Keeps the views up to date, and serves their administration.
    fn keep_views(
        &self,
        backends: &Backends,
        partitions: Partitions,
        signal: Option<CommitSignal>,
        running: &Running,
        admin: &Admin,
    ) -> Result<LiveViews, InvalidApp> {
        let (Some(log), Some(bus), Some(store)) = (&backends.log, &backends.bus, &backends.reads)
        else {
            return Ok(LiveViews::default());
        };
        let reader: Arc<dyn LogReader> = log.backend.clone();
        let tail = Tail::new(
            partitions,
            bus.backend.clone(),
            reader.clone(),
            signal,
            TailOptions::default(),
        );
        let views = Views::new(
            catalog(self.program)?,
            store.backend.clone(),
            reader,
            tail.clone(),
            format!("{}-{}", self.settings.role.name(), Uuid::now_v7()),
            ViewsOptions::default(),
        );
        let live = views.live();
        admin.administer(views_admin_router(
            views.clone(),
            running.workers.stop.clone(),
        ));
        running
            .workers
            .spawn(async move |stop| tail.run(stop).await);
        running
            .workers
            .spawn(async move |stop| views.run(stop).await);
        Ok(live)
    }
}

impl Running {
    /// Serves `router` on `listener`.
    fn serve(&self, listener: TcpListener, router: Router) {
        let settings = ServerSettings {
            grace_ms: u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX),
            ..ServerSettings::default()
        };
        self.servers
            .spawn(|stop| serve(listener, router, settings, stop));
    }

    /// Stops everything: takes no more requests, finishes those in flight, then the batches in flight. Says whether all
    /// of it was finished in time, which is `shutdown_grace` for all of it, and [`LAST_CHANCE`] at least for each step.
    pub(crate) async fn stop(self) -> bool {
        let deadline = Instant::now() + self.grace;
        let left = || {
            deadline
                .saturating_duration_since(Instant::now())
                .max(LAST_CHANCE)
        };
        let served = self.servers.end(left()).await;
        let appended = match &self.commands {
            Some(commands) => commands.close(left()).await,
            None => true,
        };
        let projected = self.workers.end(left()).await;
        served && appended && projected
    }
}

/// Listens where `wanted`.
async fn listen_if(
    wanted: bool,
    key: &'static str,
    address: &str,
) -> Result<Option<TcpListener>, CannotListen> {
    if wanted {
        listen(key, address).await.map(Some)
    } else {
        Ok(None)
    }
}

/// The views of `program`.
fn catalog(program: &App) -> Result<Catalog, InvalidApp> {
    Catalog::new(program.views().to_vec()).map_err(|taken| InvalidApp::View(taken.name))
}
