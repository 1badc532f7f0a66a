//! The services of a process: started in order, stopped in the opposite one.

mod admin;
#[cfg(feature = "feed-client")]
mod follow;
mod freshness;
mod gateway;
mod group;
mod listeners;
mod metrics;
mod owner;
#[cfg(feature = "pages")]
mod pages;
mod public;
mod queries;
pub(crate) mod reach;
mod reactions;
mod recorded;
mod sign_in;
mod socket;
mod source;
mod stalls;
mod tls;
mod versions;
mod waits;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Method;
use tidelog_command::{
    AppenderSettings, CommandService, CommandSettings, command_document, command_router,
    feed_router,
};
use tidelog_domain::EventSet;
#[cfg(feature = "feed-client")]
use tidelog_eventbus::FeedLogReader;
use tidelog_eventbus::{
    Cause, CommitSignal, EventStream, LogError, RelayStatus, Start, StreamError, StreamReader,
    SubscriptionOptions,
};
use tidelog_http::{
    Part, Readiness, ServerSettings, SignIn, Tls, TlsError, app, docs_router, own_pages_alone,
    serve, with_context_of,
};
use tidelog_query::store::ReadStore;
use tidelog_query::{
    AwaitedLog, Catalog, LiveViews, QueryService, QuerySettings, Views, ViewsOptions,
    query_document, query_router, views_admin_router,
};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::App;
#[cfg(feature = "pages")]
use crate::admin::recorded;
use crate::admin::{Access, Audit, guarded};
use crate::app::{InvalidApp, Reacting};
use crate::backends::{BackendError, Backends, Opened, is_embedded, is_on_server};
use crate::client::Client;
use crate::entities::InvalidEntities;
use crate::settings::{InvalidSettings, Role, Settings};
use crate::subscriptions::{self, Subscriptions};
use admin::Admin;
use freshness::Freshness;
pub use gateway::InvalidGateway;
use gateway::OverMessages;
use group::Group;
pub use listeners::CannotListen;
use listeners::{address, listen};
#[cfg(feature = "cli")]
pub(crate) use owner::machine;
pub(crate) use owner::owner;
use public::{Routes, public};
use reach::{Answers, Reach};
use reactions::{Keeper, Reactions};
pub use reactions::{ReactionState, ReactionStatus};
pub use sign_in::InvalidSignIn;
use source::Source;

/// How long each step of a stop has at least, when those before it took all the time there is.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// What pages of other origins may ask the services that take commands by.
const COMMAND_METHODS: [Method; 5] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PATCH,
    Method::DELETE,
];

/// The pause between two looks at reactions.
const PAUSE: Duration = Duration::from_millis(5);

/// Why a process could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The program contradicts itself.
    #[error(transparent)]
    App(#[from] InvalidApp),
    /// The program's entities cannot be used.
    #[error(transparent)]
    Entities(#[from] InvalidEntities),
    /// Nobody can sign in as the settings say, or somebody would have to.
    #[error(transparent)]
    SignIn(#[from] InvalidSignIn),
    /// A setting is missing.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    /// The certificate of the listeners, or its key, cannot be used.
    #[error("tls_cert and tls_key cannot be used")]
    Tls(#[from] TlsError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] CannotListen),
    /// A backend cannot be had.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Commands cannot be sent to workers, or taken from gateways, as the settings say.
    #[error(transparent)]
    Gateway(#[from] InvalidGateway),
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Log(#[from] LogError),
    /// Another program cannot be followed.
    #[error("the program {app} cannot be followed")]
    Follow {
        /// Its name.
        app: String,
        /// Why.
        source: Cause,
    },
}

/// What reads see of the writes of their own process, when they bring no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// What the views have got to, as in production.
    AsTheyAre,
    /// All that was committed in this process before the read: for a person who types a write and then a read.
    AfterCommits,
}

/// Whether the process listens for requests itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// At the addresses of the settings.
    AtAddresses,
    /// Nowhere: the routers are mounted by somebody else.
    Nowhere,
}

/// The services of a process, running: what [`App::start`] and [`App::mount`] give.
///
/// They go on when it is dropped: end them with [`Running::stop`], which finishes what is in flight.
pub struct Running {
    /// Where commands are taken; with port 0 in the settings, the real one.
    command_addr: Option<String>,
    /// Where queries are answered.
    query_addr: Option<String>,
    /// Where health is told.
    admin_addr: Option<String>,
    /// What the listeners speak TLS with.
    tls: Option<Tls>,
    max_connections: u32,
    grace: Duration,
    ready: Part,
    admin: Admin,
    commands: Option<Arc<CommandService>>,
    subscriptions: Option<Subscriptions>,
    command_router: Option<Router>,
    query_router: Option<Router>,
    source: Option<Arc<Source>>,
    reached: tokio::sync::watch::Receiver<Answers>,
    reactions: Reactions,
    servers: Group,
    workers: Group,
    health: Group,
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
    listen: Listen,
) -> Result<Running, StartError> {
    program.check()?;
    let sign_in = sign_in::of(program, settings)?;
    let role = settings.role;
    let tls = match listen {
        Listen::AtAddresses => tls::open(settings)?,
        Listen::Nowhere => None,
    };
    let at =
        |wanted, key, address| listen_if(wanted && listen == Listen::AtAddresses, key, address);
    let command = at(
        role.runs(Role::Command) || role == Role::Gateway,
        "command_addr",
        &settings.command_addr,
    )
    .await?;
    let query = at(role.runs(Role::Query), "query_addr", &settings.query_addr).await?;
    let health = at(true, "admin_addr", &settings.admin_addr).await?;
    sign_in::require([&command, &query, &health], settings, sign_in.as_ref())?;
    let is_open = sign_in.is_none() && !settings.auth.insecure_no_auth;
    let readiness = Readiness::new();
    let mut running = Running {
        command_addr: command.as_ref().map(address),
        query_addr: query.as_ref().map(address),
        admin_addr: health.as_ref().map(address),
        tls,
        max_connections: settings.max_connections,
        grace: settings.shutdown_grace,
        ready: readiness.part(role.name()),
        admin: Admin::new(readiness.clone(), role.name()),
        commands: None,
        subscriptions: None,
        command_router: None,
        query_router: None,
        source: None,
        reached: tokio::sync::watch::channel(None).1,
        reactions: Reactions::default(),
        servers: Group::default(),
        workers: Group::default(),
        health: Group::default(),
    };
    if let Some(listener) = health {
        running.serve("admin", listener, running.admin_router(), &running.health);
    }
    if let Some(tls) = running.tls.clone() {
        running.workers.spawn(async move |stop| {
            stop.run_until_cancelled(tls.watch(tls::LOOK_EVERY)).await;
        });
    }
    if let Some(sign_in) = sign_in.clone() {
        running
            .workers
            .spawn(async move |stop| sign_in.keep_fresh(stop).await);
    }
    let assembly = Assembly {
        program,
        settings,
        sign_in,
        readiness,
    };
    match assembly.run(&mut running, reads).await {
        Ok(()) => {
            running.listen(command, query, settings, is_open);
            running.ready.ready();
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
    sign_in: Option<SignIn>,
    readiness: Readiness,
}

impl Assembly<'_> {
    /// Opens the backends and starts what the role runs.
    async fn run(self, running: &mut Running, reads: Reads) -> Result<(), StartError> {
        let role = self.settings.role;
        let over = self.over_messages()?;
        let backends = Backends::open(self.settings, self.program, &running.ready).await?;
        running.ready.not_ready("starting the services");
        let reach = Reach::new(&backends, self.readiness.clone());
        running.reached = reach.answers();
        running.workers.spawn(|stop| reach.watch(stop));
        let mut live = LiveViews::default();
        let mut signal = None;
        if let (Some(log), Some(bus)) = (backends.log, backends.bus) {
            let commits = role.runs(Role::Command);
            let source = Arc::new(Source::new(log, bus, commits).await?);
            running.source = Some(Arc::clone(&source));
            signal.clone_from(&source.signal);
            let relay = source.publish(&running.workers);
            running.admin.metrics.of_relay(relay.clone());
            if let (true, Some(store)) = (role.runs(Role::EventBus), &backends.reads) {
                let owner = owner(role);
                tracing::info!(
                    owner,
                    "this process works on views and reactions, and is called so where it does"
                );
                live = self.keep_views(&source, store, &owner, running)?;
                for reacting in self.program.reactions() {
                    self.react(reacting, &source, &owner, running)?;
                }
            }
            let (part, views) = (self.readiness.part("history"), live.clone());
            let (published, reactions) = (relay.clone(), running.reactions.clone());
            running
                .workers
                .spawn(|stop| watch::diverged(published, views, reactions, part, stop));
            if let Some(signal) = signal.clone() {
                self.take_commands(&source, signal, relay, &over, running)?;
            }
        }
        if role == Role::Gateway {
            self.pass_commands_on(&over, running)?;
        }
        if let Some(store) = &backends.reads {
            self.await_versions(&store.backend, running).await?;
        }
        if let (true, Some(store)) = (role.runs(Role::Query), backends.reads) {
            let freshness = signal.filter(|_| reads == Reads::AfterCommits);
            self.answer_queries(store.backend, live, freshness, running)?;
        }
        if let (Some(commands), Some(queries)) = (&running.command_router, &running.query_router) {
            let (commands, queries) = (commands.clone(), queries.clone());
            let (settings, sign_in) = (self.settings, self.sign_in.as_ref());
            let stop = running.servers.stop.clone();
            let both = socket::with_socket(commands, queries, settings, sign_in, stop);
            running.command_router = Some(both);
        }
        Ok(())
    }

    /// Is not ready until the versions of the views that are read are of this program's definitions.
    async fn await_versions(
        &self,
        store: &Arc<dyn ReadStore>,
        running: &mut Running,
    ) -> Result<(), InvalidApp> {
        let (catalog, part) = (catalog(self.program)?, self.readiness.part("views"));
        if !versions::look(&catalog, &**store, &part).await {
            let store = store.clone();
            running
                .workers
                .spawn(|stop| versions::watch(catalog, store, part, stop));
        }
        Ok(())
    }

    /// Answers queries from `store`; where there is `freshness`, after what it says was committed.
    fn answer_queries(
        &self,
        store: Arc<dyn ReadStore>,
        live: LiveViews,
        freshness: Option<CommitSignal>,
        running: &mut Running,
    ) -> Result<(), InvalidApp> {
        let catalog = catalog(self.program)?;
        let settings = QuerySettings::default();
        let sign_in = self.sign_in.as_ref();
        let document = query_document(self.program.name(), &catalog, &settings);
        let document = sign_in::queries_secured(document, sign_in);
        let mut service = QueryService::new(catalog.clone(), store.clone(), live.clone());
        if let Some(log) = self.log_for_queries(running) {
            service = service.with_log(log);
        }
        // Live connections end with the listeners, and do not use up their grace.
        service = service.with_stop(running.servers.stop.clone());
        let mut router = query_router(service, settings);
        if let Some(signal) = freshness {
            router = Freshness::new(signal, live, catalog, store).applied_to(router);
        }
        let routes = Routes {
            guarded: router.merge(self.program.own_query_routes().clone()),
            open: docs_router(&document),
        };
        let methods = [Method::GET, Method::HEAD];
        running.query_router = Some(public("query", routes, self.settings, sign_in, &methods));
        Ok(())
    }

    /// The log, for questions about the past: that of the process, or one of its own where the settings name it.
    fn log_for_queries(&self, running: &Running) -> Option<Arc<dyn StreamReader>> {
        if let Some(source) = &running.source {
            return Some(source.log.clone());
        }
        if !is_on_server(self.settings) {
            return None;
        }
        let log = AwaitedLog::default();
        let (opening, settings) = (log.clone(), self.settings.clone());
        running
            .workers
            .spawn(|stop| queries::open(opening, settings, stop));
        Some(Arc::new(log))
    }

    /// Keeps the views up to date, and serves their administration.
    fn keep_views(
        &self,
        source: &Source,
        store: &Opened<dyn ReadStore>,
        owner: &str,
        running: &mut Running,
    ) -> Result<LiveViews, StartError> {
        let views = Views::new(
            catalog(self.program)?,
            store.backend.clone(),
            source.log.clone(),
            source.tail(&running.workers).clone(),
            owner.to_owned(),
            ViewsOptions {
                subscription: SubscriptionOptions {
                    take_over_at_start: is_embedded(self.settings),
                    ..SubscriptionOptions::default()
                },
                policies: self.program.policies().clone(),
                ..ViewsOptions::default()
            },
        );
        let live = views.live();
        let (here, reactions) = (live.clone(), running.reactions.clone());
        let statuses = move || [here.by_view(), reactions.statuses()].concat();
        let subscriptions = Subscriptions::of(
            self.program,
            self.settings,
            &source.log,
            &store.backend,
            Arc::new(statuses),
        )?;
        let api = views_admin_router(views.clone(), running.workers.stop.clone())
            .merge(subscriptions::router(subscriptions.clone()))
            .merge(crate::admin::log::router(self.program, source.log.clone()));
        let (audit, access) = (Audit::new(source.log.clone()), self.access(running));
        let administration = guarded(api.clone(), &audit, &access);
        #[cfg(feature = "pages")]
        let administration = administration.merge(
            pages::Parts {
                program: self.program,
                source,
                store,
                live: live.clone(),
                subscriptions: subscriptions.clone(),
                access,
                api: recorded(api, &audit),
            }
            .start(running)?,
        );
        running
            .admin
            .administer(with_context_of("admin", app(administration)));
        let metrics = &running.admin.metrics;
        metrics.of_subscriptions(subscriptions.clone(), owner);
        metrics.of_views(live.clone());
        running.subscriptions = Some(subscriptions.clone());
        let watched = live.clone();
        running
            .workers
            .spawn(|stop| stalls::watch(subscriptions, watched, stop));
        running
            .workers
            .spawn(async move |stop| views.run(stop).await);
        Ok(live)
    }

    /// Who may use the administration of this process.
    fn access(&self, running: &Running) -> Access {
        let listener = running.admin_addr.as_ref();
        let listener = listener.and_then(|address| address.parse().ok());
        let settings = self.settings;
        let access = Access::new(
            settings.admin_tokens.clone(),
            &settings.admin_addr,
            listener,
        )
        .signing_in(self.sign_in.clone())
        .over_tls(running.tls.is_some());
        if let Some(warning) = access.warning() {
            tracing::warn!("{warning}");
        }
        access
    }

    /// Runs a reaction, to the program's own events or to those of another.
    fn react(
        &self,
        reacting: &Reacting,
        source: &Source,
        owner: &str,
        running: &Running,
    ) -> Result<(), StartError> {
        let name = reacting.subscription();
        running.reactions.set(&name, |_| {});
        let keeper = Keeper {
            name,
            owner: owner.to_owned(),
            reaction: Arc::clone(&reacting.reaction),
            states: source.log.clone(),
            live: running.reactions.clone(),
            is_alone: is_embedded(self.settings),
        };
        let workers = &running.workers;
        match &reacting.follows {
            None => {
                let (tail, log) = (source.tail(workers).clone(), source.log.clone());
                workers.spawn(|stop| keeper.run(log, tail, usize::MAX, stop));
            }
            #[cfg(feature = "feed-client")]
            Some(followed) => {
                let app = followed.app.clone();
                let access = self.settings.feed_access();
                let feed = FeedLogReader::with_access(&app, followed.feed.clone(), &access);
                let feed = feed.map_err(|source| StartError::Follow { app, source })?;
                let interval = self.settings.follow_interval;
                workers.spawn(|stop| follow::follow(keeper, Arc::new(feed), interval, stop));
            }
            // Without the feature there is no way to make one.
            #[cfg(not(feature = "feed-client"))]
            Some(_) => {}
        }
        Ok(())
    }

    /// Takes commands.
    fn take_commands(
        &self,
        source: &Source,
        signal: CommitSignal,
        relay: RelayStatus,
        over: &OverMessages<'_>,
        running: &mut Running,
    ) -> Result<(), StartError> {
        let (name, deciders) = (self.program.name(), self.program.deciders());
        let feed = feed_router(name, source.log.clone());
        let service = CommandService::new(
            deciders.iter().cloned(),
            source.log.clone(),
            source.identity,
            signal,
            AppenderSettings {
                clock: self.program.clock().clone(),
                ..AppenderSettings::default()
            },
        );
        let multi_stream = self.program.multi_stream_commands();
        let service = service.and_then(|one| one.with_multi_stream(multi_stream.iter().cloned()));
        let service = service.map_err(|taken| InvalidApp::Aggregate(taken.name))?;
        let service = Arc::new(service);
        let told = service.clone();
        running
            .workers
            .spawn(|stop| watch::tell_history(relay, told, stop));
        running.commands = Some(service.clone());
        running.admin.metrics.of_commands(service.clone());
        let settings = CommandSettings {
            query_url: self.settings.query_url.clone(),
            ..CommandSettings::default()
        };
        let sign_in = self.sign_in.as_ref();
        let document = command_document(name, deciders, multi_stream);
        let document = self.commands_document(document, over);
        let commands = command_router(service, settings);
        let routes_of_its_own = self.message_routes(over);
        self.take_from_gateways(over, &commands, running)?;
        let routes = Routes {
            guarded: commands.merge(feed).merge(routes_of_its_own),
            open: docs_router(&document),
        };
        let command = public("command", routes, self.settings, sign_in, &COMMAND_METHODS);
        running.command_router = Some(command);
        Ok(())
    }
}

impl Running {
    /// Where commands are taken, `host:port`, with the real port where the settings say 0; `None` where the role takes
    /// none, and when mounted.
    #[must_use]
    pub fn command_addr(&self) -> Option<&str> {
        self.command_addr.as_deref()
    }

    /// Where queries are answered; `None` where the role answers none, and when mounted.
    #[must_use]
    pub fn query_addr(&self) -> Option<&str> {
        self.query_addr.as_deref()
    }

    /// Where health is told; `None` when mounted.
    #[must_use]
    pub fn admin_addr(&self) -> Option<&str> {
        self.admin_addr.as_deref()
    }

    /// The command service, to be mounted: commands, `/events`, `/openapi.json` and `/docs`, and the WebSocket `/ws` where the role answers
    /// queries too. `None` where the role takes no commands.
    ///
    /// It may be nested. It answers what it does not know with problem documents itself, so it cannot be merged with a
    /// router that has a fallback.
    #[must_use]
    pub fn command_router(&self) -> Option<Router> {
        self.command_router.clone()
    }

    /// The query service, to be mounted, with its `/openapi.json` and `/docs`. `None` where the role answers no queries.
    #[must_use]
    pub fn query_router(&self) -> Option<Router> {
        self.query_router.clone()
    }

    /// Health and administration, to be mounted where only operators get.
    pub fn admin_router(&self) -> Router {
        self.admin.router()
    }

    /// The program's subscriptions: how far they are, and what an operator does with them. `None` where the role runs none.
    #[must_use]
    pub fn subscriptions(&self) -> Option<Subscriptions> {
        self.subscriptions.clone()
    }

    /// A client of the services of this process, which does not go by way of the network.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.commands.clone(), self.query_router.clone())
    }

    /// What the reactions of this process are doing, by name; none where the role runs no subscriptions.
    #[must_use]
    pub fn reactions(&self) -> Vec<ReactionStatus> {
        self.reactions.all()
    }

    /// The events of the set `E`, from `from` on: for a loop of one's own. It ends with this process' services, and remembers nothing:
    /// who wants to go on later keeps its [`token`](EventStream::token). (What is to be remembered, shared among processes and
    /// tried again is a [reaction](crate::Reaction).)
    ///
    /// ```
    /// use futures_util::StreamExt;
    /// use tidelog::prelude::*;
    /// use tidelog::{CommandRequest, Start, settings::Settings};
    ///
    /// #[entity]
    /// struct Note {
    ///     text: String,
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let running = App::new("notes").entity::<Note>().mount(Settings::in_memory()).await?;
    /// let mut events = running.events::<EntityEvent<Note>>(&Start::Now).await?;
    /// running.client().execute(CommandRequest::new("note", "create", json!({"text": "Hello"}))).await?;
    /// let first = events.next().await.ok_or("it ended")??;
    /// println!("{}: {:?}; next time after {}", first.id, first.event, events.token());
    /// # running.stop().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StreamError`]: the log cannot be read now, the start is of another history, or the role is `query`.
    pub async fn events<E: EventSet>(&self, from: &Start) -> Result<EventStream<E>, StreamError> {
        let source = self.source.as_ref().ok_or(StreamError::NotHere)?;
        EventStream::begin(source.tail(&self.workers), source.log.clone(), from).await
    }

    /// Waits until the reactions to the program's own events were given what was committed in this process before.
    pub(crate) async fn reacted(&self) {
        let signal = self.source.as_ref().and_then(|own| own.signal.as_ref());
        while signal.is_some_and(|signal| !self.reactions.have_seen(signal)) {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Serves each router on its listener; where it `is_open` to whoever is on this machine, to pages of its own and of the settings' origins
    /// alone.
    fn listen(
        &self,
        command: Option<TcpListener>,
        query: Option<TcpListener>,
        settings: &Settings,
        is_open: bool,
    ) {
        let (at_command, at_query) = (&settings.command_addr, &settings.query_addr);
        let routers = [
            ("command", command, &self.command_router, at_command),
            ("query", query, &self.query_router, at_query),
        ];
        for (name, listener, router, at) in routers {
            if let (Some(listener), Some(router)) = (listener, router.clone()) {
                let router = if is_open {
                    let host = at.rsplit_once(':').map_or(&**at, |(host, _)| host);
                    own_pages_alone(router, host, &settings.cors_origins)
                } else {
                    router
                };
                self.serve(name, listener, router, &self.servers);
            }
        }
    }

    /// Serves `router` on `listener`, as one of `group`.
    fn serve(&self, service: &'static str, listener: TcpListener, router: Router, group: &Group) {
        let bounds = ServerSettings {
            service,
            max_connections: usize::try_from(self.max_connections).unwrap_or(usize::MAX),
            grace_ms: u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX),
            ..ServerSettings::default()
        };
        let tls = self.tls.clone();
        group.spawn(move |stop| serve(listener, router, bounds, tls, stop));
    }

    /// Whether the listeners speak HTTPS, and nothing else.
    #[must_use]
    pub const fn is_https(&self) -> bool {
        self.tls.is_some()
    }

    /// Waits until a task of the process has panicked: it is better started again than left without it.
    pub async fn broken(&self) {
        tokio::select! {
            () = self.servers.broken.cancelled() => {}
            () = self.workers.broken.cancelled() => {}
        }
    }

    /// Stops everything: takes no more requests, finishes those in flight, then the batches in flight. Says whether all
    /// of it was finished in time, which is `shutdown_grace` for all of it, and one second at least for each step.
    /// Health is told to the last, and it is not ready. Requests to routers that are mounted elsewhere are for their server to
    /// finish first.
    pub async fn stop(self) -> bool {
        let deadline = Instant::now() + self.grace;
        let left = || {
            deadline
                .saturating_duration_since(Instant::now())
                .max(LAST_CHANCE)
        };
        self.ready.not_ready("stopping");
        let served = self.servers.end(left()).await;
        let appended = match &self.commands {
            Some(commands) => commands.close(left()).await,
            None => true,
        };
        let projected = self.workers.end(left()).await;
        self.health.end(LAST_CHANCE).await;
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
