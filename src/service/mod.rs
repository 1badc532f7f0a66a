//! The services of a process: started in order, stopped in the opposite one.

mod admin;
mod listeners;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tidelog_command::{AppenderSettings, CommandService, CommandSettings, command_router};
use tidelog_domain::Partitions;
use tidelog_eventbus::{CommitSignal, EventBus, LogReader, Relay, RelayOptions, Tail, TailOptions};
use tidelog_http::{Part, Readiness, ServerSettings, serve};
use tidelog_query::store::ReadStore;
use tidelog_query::{Catalog, LiveViews, QueryService, QuerySettings, Views, query_router};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::App;
use crate::app::InvalidApp;
use crate::backends::{self, BackendError};
use crate::settings::{Role, Settings};
use admin::Admin;
pub use listeners::CannotListen;
use listeners::listen;

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
    Log(#[from] tidelog_eventbus::LogError),
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
pub(crate) async fn start(app: &App, settings: &Settings) -> Result<Running, StartError> {
    app.check()?;
    let role = settings.role;
    let command =
        listener(role.runs(Role::Command), "command_addr", &settings.command_addr).await?;
    let query = listener(role.runs(Role::Query), "query_addr", &settings.query_addr).await?;
    let admin_listener = listen("admin_addr", &settings.admin_addr).await?;
    let mut running = Running {
        command_addr: command.as_ref().and_then(address),
        query_addr: query.as_ref().and_then(address),
        admin_addr: address(&admin_listener).unwrap_or_default(),
        grace: settings.shutdown_grace,
        commands: None,
        servers: Group::default(),
        workers: Group::default(),
    };
    let readiness = Readiness::new();
    let ready = readiness.part(role.name());
    let admin = Admin::new(readiness);
    running.serve(admin_listener, admin.router());
    let started = async {
        let backends = Backends::open(settings, app.name(), &ready).await?;
        running.run(app, settings, &backends, &admin, (command, query)).await
    };
    match started.await {
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

impl Running {
    /// Starts what the role runs, on its backends.
    async fn run(
        &mut self,
        app: &App,
        settings: &Settings,
        backends: &Backends,
        admin: &Admin,
        (command, query): (Option<TcpListener>, Option<TcpListener>),
    ) -> Result<(), StartError> {
        let signal = command.is_some().then(|| CommitSignal::new(settings.partitions));
        let live = LiveViews::default();
        if let (Some(log), Some(bus)) = (&backends.log, &backends.bus) {
            self.relay(log, bus, signal.clone());
            if let Some(reads) = &backends.reads {
                let views = self.project(app, log, bus, reads, signal.clone(), live.clone()).await?;
                admin.serve_views(views);
            }
        }
        if let (Some(listener), Some(log), Some(signal)) = (command, &backends.log, signal) {
            self.command(app, settings, log, signal, listener).await?;
        }
        if let (Some(listener), Some(reads)) = (query, &backends.reads) {
            let service = QueryService::new(catalog(app)?, reads.clone(), live);
            self.serve(listener, query_router(Arc::new(service), QuerySettings::default()));
        }
        Ok(())
    }
}

impl Running {
    /// Publishes what is committed on the bus: at once where the commits are made in this process, else by polling.
    fn relay(
        &self,
        log: &Arc<dyn EventStore>,
        bus: &Arc<dyn EventBus>,
        partitions: Partitions,
        signal: Option<CommitSignal>,
    ) {
        let log: Arc<dyn LogReader> = log.clone();
        let relay = Relay::new(partitions, log, bus.clone(), signal, RelayOptions::default());
        let stop = self.workers.stop.clone();
        self.workers.tasks.spawn(async move { relay.run(stop).await });
    }

    /// Serves `router` on `listener`.
    fn serve(&self, listener: TcpListener, router: Router) {
        let settings = ServerSettings {
            grace_ms: u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX),
            ..ServerSettings::default()
        };
        let stop = self.servers.stop.clone();
        self.servers.tasks.spawn(serve(listener, router, settings, stop));
    }

    /// Stops everything: takes no more requests, finishes those in flight, then the batches in flight. Says whether all
    /// of it was finished in time.
    pub(crate) async fn stop(self) -> bool {
        let served = self.servers.end(self.grace).await;
        let appended = match &self.commands {
            Some(commands) => commands.close(self.grace).await,
            None => true,
        };
        let projected = self.workers.end(self.grace).await;
        served && appended && projected
    }
}

/// Listens where `wanted`.
async fn listener(
    wanted: bool,
    key: &'static str,
    address: &str,
) -> Result<Option<TcpListener>, CannotListen> {
    if wanted { listen(key, address).await.map(Some) } else { Ok(None) }
}

/// Where a listener listens: with port 0 in the settings, the real one.
fn address(listener: &TcpListener) -> Option<String> {
    listener.local_addr().ok().map(|address| address.to_string())
}

/// The views of `app`.
fn catalog(app: &App) -> Result<Catalog, InvalidApp> {
    Catalog::new(app.views().to_vec()).map_err(|taken| InvalidApp::View(taken.name))
}
