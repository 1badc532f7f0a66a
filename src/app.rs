//! The user's program: its aggregates, its views, its reactions.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use schemars::JsonSchema;
use tidelog_command::Clock;
use tidelog_domain::{
    Aggregate, Decider, Entity, EntityDecider, EntitySchema, EntityView, InvalidUpcasters,
    MultiStreamCommand, MultiStreamDecider, Projection, TypedDecider, TypedMultiStreamDecider,
    TypedProjector, ViewDefinition,
};
use tidelog_eventbus::messaging::{Channel, Subject};
use tidelog_eventbus::{FailurePolicy, FeedUrl, Reaction, ReactionDefinition, ReactionHandler};
use tidelog_http::RESERVED_NAMES;
use tidelog_query::store::ReadStore;
use tidelog_query::{InvalidIndex, declared_indexes};

use crate::entities::InvalidEntities;
use crate::routes::MessageRoute;
use crate::service::{self, Listen, Reads, Running, StartError};
use crate::settings::Settings;
use crate::subjects::DeclaredSubject;

/// A program: a name, its aggregates, its read models, its reactions.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let app = tidelog::App::new("blog").entities_from(None)?;
/// app.check()?;
/// # Ok(())
/// # }
/// ```
///
/// A program without any aggregate or reaction of its own takes its entities from the directory that the setting `entities` names, and
/// without that serves the two demo entities, `post` and `customer`.
pub struct App {
    name: String,
    deciders: Vec<Arc<dyn Decider>>,
    multi_stream: Vec<Arc<dyn MultiStreamDecider>>,
    views: Vec<Arc<dyn ViewDefinition>>,
    /// Where views are kept, by name, that are not in the settings' store.
    stores: BTreeMap<String, Arc<dyn ReadStore>>,
    reactions: Vec<Reacting>,
    /// What the query service answers beside queries.
    query_routes: Router,
    /// The routes whose requests become messages.
    message_routes: Vec<MessageRoute>,
    /// The subjects that the program's documents have.
    subjects: Vec<DeclaredSubject>,
    /// What is done about events that a view cannot fold, where it is not the default.
    policies: BTreeMap<String, FailurePolicy>,
    clock: Clock,
    /// The first aggregate, entity or reaction that cannot be served, and why.
    unusable: Option<(&'static str, Arc<dyn Error + Send + Sync>)>,
}

/// A reaction of a program.
pub(crate) struct Reacting {
    pub(crate) reaction: Arc<dyn ReactionDefinition>,
    /// Whose events it reacts to, where it is not the program itself.
    pub(crate) follows: Option<Followed>,
}

/// Another program.
#[cfg_attr(
    not(feature = "feed-client"),
    allow(dead_code, reason = "without a client for feeds nobody is followed")
)]
pub(crate) struct Followed {
    pub(crate) app: String,
    /// Where its feed is.
    pub(crate) feed: FeedUrl,
}

impl Reacting {
    /// What its subscription is called.
    pub(crate) fn subscription(&self) -> String {
        let name = self.reaction.name();
        match &self.follows {
            None => name.to_owned(),
            Some(followed) => format!("{name}@{}", followed.app),
        }
    }
}

/// A program that contradicts itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidApp {
    /// The program's name cannot be part of a key.
    #[error("an app's name is 1 to 64 of a-z, 0-9, _ and -, but this one is called {0:?}")]
    Name(String),
    /// A view declares an index that it cannot have.
    #[error(transparent)]
    Index(#[from] InvalidIndex),
    /// An aggregate, an entity or a reaction that is written in Rust cannot be served.
    #[error("{name} cannot be served as it is defined")]
    Definition {
        /// Its name.
        name: &'static str,
        /// Why.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// Two aggregates, or commands over several, have the same name.
    #[error(
        "two aggregates, or commands over several, are called {0}: rename one, or take its file out of the entities' directory"
    )]
    Aggregate(String),
    /// A command is about an aggregate that the program does not have.
    #[error(
        "{command} is about the aggregate {category}, which the app does not have: add it with App::aggregate"
    )]
    UnknownAggregate {
        /// The command over several aggregates.
        command: String,
        /// The aggregate.
        category: String,
    },
    /// A name that the services need for themselves, or that cannot be part of a path.
    #[error("{what} cannot be called {name:?}: {}; rename it", why_unusable(.name))]
    Unusable {
        /// An aggregate, a view, the plural of one, a reaction, or an app that is followed.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A route whose requests become messages cannot be served.
    #[error("the route {method} {path} cannot be served: {reason}")]
    Route {
        /// Its method.
        method: String,
        /// Its path.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// A subject cannot be in the program's documents.
    #[error("the subject {subject} cannot be declared: {reason}")]
    Subject {
        /// The subject, and its shard.
        subject: String,
        /// Why.
        reason: &'static str,
    },
    /// Two views have the same name or plural.
    #[error("two views are called {0}: rename one, or give it another plural")]
    View(String),
    /// A failure policy is for a view that the program does not have.
    #[error("there is a failure policy for the view {0}, which the app does not have")]
    UnknownView(String),
    /// Two reactions, or a reaction and a view, have the same name.
    #[error("two reactions, or a reaction and a view, are called {0}: rename one")]
    Reaction(String),
    /// Events that may be stored are not brought to today's shape.
    #[error("the upcasters of {0} cannot be used")]
    Upcasters(String, #[source] InvalidUpcasters),
}

impl App {
    /// A program called `name`: 1 to 64 of `a-z 0-9 _ -`. The name is part of the event bus's keys: two programs that
    /// share a bus need two names.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            deciders: Vec::new(),
            multi_stream: Vec::new(),
            views: Vec::new(),
            stores: BTreeMap::new(),
            reactions: Vec::new(),
            query_routes: Router::new(),
            message_routes: Vec::new(),
            subjects: Vec::new(),
            policies: BTreeMap::new(),
            clock: Clock::default(),
            unusable: None,
        }
    }

    /// The program's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same with an aggregate that is written in Rust. Whether it can be served is for [`App::check`] to say.
    #[must_use]
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        match TypedDecider::<A>::new() {
            Ok(decider) => self.deciders.push(Arc::new(decider)),
            Err(error) => self.is_unusable(A::NAME, error),
        }
        self
    }

    /// The same with an entity that is a struct, and its default view. Whether it can be served is for [`App::check`] to say.
    #[must_use]
    pub fn entity<E: Entity>(mut self) -> Self {
        match EntityDecider::typed::<E>() {
            Ok(decider) => {
                let view = EntityView::new(decider.schema().clone());
                self.views.push(Arc::new(view));
                self.deciders.push(Arc::new(decider));
            }
            Err(error) => self.is_unusable(E::NAME, error),
        }
        self
    }

    /// The same with a command over several aggregates, `POST /{name}`. Whether it can be served is for [`App::check`] to say.
    #[must_use]
    pub fn multi_stream_command<C: MultiStreamCommand>(mut self) -> Self {
        match TypedMultiStreamDecider::<C>::new() {
            Ok(decider) => self.multi_stream.push(Arc::new(decider)),
            Err(error) => self.is_unusable(C::NAME, error),
        }
        self
    }

    fn is_unusable(&mut self, name: &'static str, error: impl Error + Send + Sync + 'static) {
        self.unusable.get_or_insert((name, Arc::new(error)));
    }

    /// The same with an entity that is a JSON Schema, and its default view.
    #[must_use]
    pub fn entity_schema(mut self, schema: EntitySchema) -> Self {
        self.views.push(Arc::new(EntityView::new(schema.clone())));
        self.deciders.push(Arc::new(EntityDecider::new(schema)));
        self
    }

    /// The same with a read model that is written in Rust.
    #[must_use]
    pub fn projection<P: Projection>(mut self) -> Self {
        self.views.push(Arc::new(TypedProjector::<P>::new()));
        self
    }

    /// The same with a read model that is kept in `store`, and not where the settings say: a search index, say. In all else it is a
    /// view like any other: it is followed, replayed, listed, waited for and listened to.
    ///
    /// All that belongs to the view is in `store`, and the other views are not; one store may have several. Each process that
    /// runs the role `eventbus` or `query` needs it, as do the commands that operate on views: one that only one process can have asks for
    /// `serve --role all`. It is used from [`App::start`] on, not before, and not closed at the end.
    ///
    /// [`read_store`](crate::read_store) says what a store has to do.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tidelog::prelude::*;
    /// use tidelog::read_store::InMemoryReadStore;
    ///
    /// #[entity]
    /// struct Note {
    ///     text: String,
    /// }
    ///
    /// #[view]
    /// struct Length {
    ///     bytes: usize,
    /// }
    ///
    /// impl Projection for Length {
    ///     type Event = EntityEvent<Note>;
    ///
    ///     fn keys(e: &Recorded<Self::Event>) -> Keys {
    ///         vec![e.stream_id.clone()]
    ///     }
    ///
    ///     fn project(_: Option<Self>, _: &str, e: &Recorded<Self::Event>) -> Option<Self> {
    ///         e.event.after().map(|note| Length { bytes: note.text.len() })
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), tidelog::InvalidApp> {
    /// let store = Arc::new(InMemoryReadStore::new());
    /// App::new("notes").entity::<Note>().projection_into::<Length>(store).check()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn projection_into<P: Projection>(mut self, store: Arc<dyn ReadStore>) -> Self {
        let view = TypedProjector::<P>::new();
        self.stores.insert(view.name().to_owned(), store);
        self.views.push(Arc::new(view));
        self
    }

    /// The same with a reaction: what is to happen elsewhere when something has happened here. It runs in the role `eventbus`, and its
    /// state is kept in the log's database.
    ///
    /// ```
    /// use tidelog::prelude::*;
    ///
    /// #[events("order")]
    /// enum OrderEvent {
    ///     Placed { sum: String },
    /// }
    ///
    /// #[events("payment")]
    /// enum PaymentEvent {
    ///     Received,
    /// }
    ///
    /// #[event_set]
    /// enum Sale {
    ///     Order(OrderEvent),
    ///     Payment(PaymentEvent),
    /// }
    ///
    /// struct Mailer;
    ///
    /// impl Reaction for Mailer {
    ///     const NAME: &'static str = "mailer";
    ///     type Event = Sale;
    ///
    ///     async fn react(&self, e: &Recorded<Sale>) -> Result<(), Failure> {
    ///         if let Sale::Order(OrderEvent::Placed { sum }) = &e.event {
    ///             let _cents: u64 = sum.parse()?; // Any error will do.
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), tidelog::InvalidApp> {
    /// App::new("shop").reaction(Mailer).check()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn reaction<R: Reaction>(self, reaction: R) -> Self {
        self.reacting(reaction, None)
    }

    /// The same with a reaction to the events of another program, `app`, whose command service serves its feed at `feed`:
    /// `http://blog.example:3000/events`. Its state is kept in the log's database of this program, under `<reaction>@<app>`.
    ///
    /// While the other program is down, the reaction waits for it. The feed is asked for news as often as the setting
    /// `follow_interval` says. Whether the URL can be used is for [`App::check`] to say.
    #[cfg(feature = "feed-client")]
    #[must_use]
    pub fn follow<R: Reaction>(mut self, app: &str, feed: &str, reaction: R) -> Self {
        match feed.parse() {
            Ok(feed) => {
                let app = app.to_owned();
                self.reacting(reaction, Some(Followed { app, feed }))
            }
            Err(error) => {
                self.is_unusable(R::NAME, error);
                self
            }
        }
    }

    fn reacting<R: Reaction>(mut self, reaction: R, follows: Option<Followed>) -> Self {
        self.reactions.push(Reacting {
            reaction: Arc::new(ReactionHandler::new(reaction)),
            follows,
        });
        self
    }

    /// The same with routes of one's own in the query service: what a store of one's own can be asked beside queries, say. They are
    /// served as its own are, with problem documents for what is not known, correlation ids, compression and the settings' CORS,
    /// but are not in its OpenAPI document. Where one has the path of a view, it is the one that answers.
    ///
    /// ```
    /// use tidelog::axum::{Router, routing::get};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let routes = Router::new().route("/today", get(async || "A fine day."));
    /// let app = tidelog::App::new("blog").entities_from(None)?.query_routes(routes);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// As axum does when routers are merged: here when two of the routes are the same, and when the query service starts when one is the
    /// service's own (`/{name}`, `/openapi.json`).
    #[must_use]
    pub fn query_routes(mut self, routes: Router) -> Self {
        self.query_routes = self.query_routes.merge(routes);
        self
    }

    /// The same with a route of HTTP each request to which becomes a message, for workers on the same bus: see [`routes`](crate::routes). Gateways
    /// serve it, and command services that have a `bus_url`. Whether it can be served is for [`App::check`] to say.
    #[must_use]
    pub fn message_route(mut self, route: MessageRoute) -> Self {
        self.message_routes.push(route);
        self
    }

    /// The same, where the documents of the program say that it handles `subject`: what it takes, and what it replies unless that is `()`. It is for
    /// those who read `schema export` and `/openapi.json`: no worker is started by it ([`messaging`](crate::messaging) has these), and what is
    /// declared of no subject is no error.
    ///
    /// The schemas are those of what a handler reads and of what it writes. Types of [`data`](crate::data) have them, as do others that are
    /// `schemars::JsonSchema`. Where a route goes to `subject` ([`App::message_route`]), its body and its answer have them too. A shard is a
    /// subject of its own. [`App::check`] says whether two declarations agree.
    ///
    /// ```
    /// use tidelog::messaging::Subject;
    /// use tidelog::prelude::*;
    ///
    /// #[data]
    /// struct Basket {
    ///     articles: u32,
    /// }
    ///
    /// const PRICE: Subject<Basket, u64> = Subject::new("shop.price");
    /// const PLACED: Subject<Basket> = Subject::new("order.placed");
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = tidelog::App::new("shop")
    ///     .entities_from(None)?
    ///     .handles_subject(&PRICE)
    ///     .sends_subject(&PLACED);
    /// app.check()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn handles_subject<Message: JsonSchema, Reply: JsonSchema>(
        mut self,
        subject: &Subject<Message, Reply>,
    ) -> Self {
        self.subjects.push(DeclaredSubject::handled(subject));
        self
    }

    /// The same, where the documents of the program say that it sends or emits on `subject`, as [`App::handles_subject`] says what it handles. A program
    /// that does both declares both.
    #[must_use]
    pub fn sends_subject<Message: JsonSchema, Reply: JsonSchema>(
        mut self,
        subject: &Subject<Message, Reply>,
    ) -> Self {
        self.subjects.push(DeclaredSubject::sent(subject));
        self
    }

    /// The same with another policy than the default for events that the view `view` cannot fold. (A reaction says itself what its
    /// policy is, by [`Reaction::policy`].) Whether there is such a view is for [`App::check`] to say.
    ///
    /// ```
    /// use tidelog::{App, FailurePolicy};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let patient = FailurePolicy {
    ///     attempts: 20,
    ///     ..FailurePolicy::default()
    /// };
    /// let app = App::new("blog").entities_from(None)?.failure_policy("post", patient);
    /// app.check()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn failure_policy(mut self, view: &str, policy: FailurePolicy) -> Self {
        self.policies.insert(view.to_owned(), policy);
        self
    }

    /// The same with another clock than the machine's: for tests.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// What time it is for decisions.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The same with the entities of `directory`, each `<name>.schema.json` of it one; without a directory, and where the
    /// program has no aggregate of its own, with the demo's.
    ///
    /// # Errors
    ///
    /// [`InvalidEntities`] for the first file that cannot be used.
    pub fn entities_from(self, directory: Option<&Path>) -> Result<Self, InvalidEntities> {
        crate::entities::with_entities(self, directory)
    }

    /// Starts the services of the settings' role, listening at the settings' addresses. They are ready when this returns.
    ///
    /// ```
    /// use tidelog::{App, CommandRequest, settings::Settings};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let settings = Settings {
    ///     command_addr: "127.0.0.1:0".to_owned(), // Any port that is free.
    ///     query_addr: "127.0.0.1:0".to_owned(),
    ///     admin_addr: "127.0.0.1:0".to_owned(),
    ///     ..Settings::in_memory()
    /// };
    /// let running = App::new("blog").start(settings).await?;
    /// println!("commands are taken at {:?}", running.command_addr());
    ///
    /// let client = running.client();
    /// let post = serde_json::json!({"title": "Hello", "content": "…", "author_name": "Ann"});
    /// let created = client.execute(CommandRequest::new("post", "create", post)).await?;
    /// // A client reads what it wrote.
    /// let read = client.get("post", &created.id).await?;
    /// assert_eq!(read.ok_or("no post")?["title"], "Hello");
    /// assert!(running.stop().await);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError`]: nothing is left running.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn start(self, settings: Settings) -> Result<Running, StartError> {
        self.begin(settings, Listen::AtAddresses, Reads::AsTheyAre)
            .await
    }

    /// Starts all that [`App::start`] does, but listens nowhere: the routers are mounted into a service of one's own.
    ///
    /// The setting `query_url` says where clients find the query router then, for the header `Location` of what was created.
    ///
    /// ```
    /// use tidelog::axum::{Router, routing::get};
    /// use tidelog::{App, settings::Settings};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let running = App::new("blog").mount(Settings::in_memory()).await?;
    /// let site: Router = Router::new()
    ///     .route("/", get(async || "A route of my own."))
    ///     .nest("/write", running.command_router().ok_or("takes no commands")?)
    ///     .nest("/read", running.query_router().ok_or("answers no queries")?);
    /// // Serve `site` as any other, and when that has ended:
    /// assert!(running.stop().await);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError`]: nothing is left running.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn mount(self, settings: Settings) -> Result<Running, StartError> {
        self.begin(settings, Listen::Nowhere, Reads::AsTheyAre)
            .await
    }

    pub(crate) async fn begin(
        self,
        settings: Settings,
        listen: Listen,
        reads: Reads,
    ) -> Result<Running, StartError> {
        // One provider of cryptography for every backend's TLS: two in a process make rustls panic at the first use. Where
        // the program has chosen one already, it stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let app = self.entities_from(settings.entities.as_deref())?;
        service::start(&app, &settings, reads, listen).await
    }

    /// Runs the program's command line, which is `dev`, `serve`, `migrate`, `replay`, `subscriptions`, `parked`, `doctor` and `config`, and gives the
    /// exit status: 0 when it did what was asked, 1 when that failed, 2 when it was asked wrongly.
    ///
    /// It makes a runtime of its own, so it MUST NOT be called from within one.
    #[cfg(feature = "cli")]
    #[must_use]
    pub fn run(self) -> std::process::ExitCode {
        std::process::ExitCode::from(self.run_from(std::env::args_os()))
    }

    /// The same with these arguments instead of the process', of which the first is what the program was called by: for a program that has a
    /// command line of its own, and for a test that runs its program. Gives the exit status as a number.
    ///
    /// It makes a runtime of its own, so it MUST NOT be called from within one.
    #[cfg(feature = "cli")]
    #[must_use]
    pub fn run_from(self, arguments: impl IntoIterator<Item = std::ffi::OsString>) -> u8 {
        crate::cli::run(self, arguments)
    }

    /// The aggregates.
    #[must_use]
    pub fn deciders(&self) -> &[Arc<dyn Decider>] {
        &self.deciders
    }

    /// The commands over several aggregates.
    #[must_use]
    pub fn multi_stream_commands(&self) -> &[Arc<dyn MultiStreamDecider>] {
        &self.multi_stream
    }

    /// The views.
    #[must_use]
    pub fn views(&self) -> &[Arc<dyn ViewDefinition>] {
        &self.views
    }

    /// The stores of the views that are not in the settings' store, by view.
    pub(crate) const fn stores(&self) -> &BTreeMap<String, Arc<dyn ReadStore>> {
        &self.stores
    }

    /// What is done about events that a view cannot fold, by view, where it is not the default.
    pub(crate) const fn policies(&self) -> &BTreeMap<String, FailurePolicy> {
        &self.policies
    }

    /// What the query service answers beside queries.
    pub(crate) const fn own_query_routes(&self) -> &Router {
        &self.query_routes
    }

    /// The routes whose requests become messages.
    pub(crate) fn message_routes(&self) -> &[MessageRoute] {
        &self.message_routes
    }

    /// The subjects that the program's documents have.
    pub(crate) fn subjects(&self) -> &[DeclaredSubject] {
        &self.subjects
    }

    /// What the program says of the subject, or the shard of one, that is `channel`.
    pub(crate) fn declared_subject(&self, channel: &str) -> Option<&DeclaredSubject> {
        let mut subjects = self.subjects.iter();
        subjects.find(|subject| subject.channel.as_str() == channel)
    }

    /// The reactions.
    pub(crate) fn reactions(&self) -> &[Reacting] {
        &self.reactions
    }

    /// Whether what is defined can be served, names are usable and unique ([`RESERVED_NAMES`] has those that the services need for
    /// themselves), and upcasters lead from every older shape of an event to today's.
    ///
    /// # Errors
    ///
    /// The first that is not.
    pub fn check(&self) -> Result<(), InvalidApp> {
        let fits = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(fits) {
            return Err(InvalidApp::Name(self.name.clone()));
        }
        if let Some((name, source)) = &self.unusable {
            let source = Arc::clone(source);
            return Err(InvalidApp::Definition { name, source });
        }
        let aggregates = self.deciders.iter().map(|decider| decider.category());
        let commands = self.multi_stream.iter().map(|command| command.name());
        let views = self.views.iter().map(|view| view.name());
        let plurals = self.views.iter().map(|view| view.plural());
        aggregates
            .map(|name| ("an aggregate", name))
            .chain(commands.map(|name| ("a command over several aggregates", name)))
            .chain(views.map(|name| ("a view", name)))
            .chain(plurals.map(|name| ("the plural of a view", name)))
            .try_for_each(|(what, name)| usable(what, name))?;
        let aggregates = self.deciders.iter().map(|decider| decider.category());
        let commands = self.multi_stream.iter().map(|command| command.name());
        if let Some(name) = repeated(aggregates.clone().chain(commands)) {
            return Err(InvalidApp::Aggregate(name));
        }
        for command in &self.multi_stream {
            let unknown = |category: &&&str| !aggregates.clone().any(|known| known == **category);
            if let Some(category) = command.categories().iter().find(unknown) {
                return Err(InvalidApp::UnknownAggregate {
                    command: command.name().to_owned(),
                    category: (*category).to_owned(),
                });
            }
        }
        let names = self
            .views
            .iter()
            .flat_map(|view| [view.name(), view.plural()]);
        if let Some(name) = repeated(names) {
            return Err(InvalidApp::View(name));
        }
        self.check_reactions()?;
        self.check_routes()?;
        self.check_subjects()?;
        let is_view = |name: &&String| self.views.iter().any(|view| view.name() == *name);
        if let Some(name) = self.policies.keys().find(|name| !is_view(name)) {
            return Err(InvalidApp::UnknownView(name.clone()));
        }
        for view in &self.views {
            declared_indexes(&**view)?;
        }
        self.check_upcasters()
    }

    /// Views and reactions are subscriptions, and told apart by their names.
    fn check_reactions(&self) -> Result<(), InvalidApp> {
        for Reacting { reaction, follows } in &self.reactions {
            usable("a reaction", reaction.name())?;
            // The program that takes its entities from files is called `tidelog`, which no aggregate can be.
            let followed = follows.iter().find(|own| own.app != "tidelog");
            if let Some(followed) = followed {
                usable("an app that is followed", &followed.app)?;
            }
        }
        let reactions: Vec<_> = self.reactions.iter().map(Reacting::subscription).collect();
        let views = self.views.iter().map(|view| view.name());
        let names = views.chain(reactions.iter().map(String::as_str));
        repeated(names).map_or(Ok(()), |name| Err(InvalidApp::Reaction(name)))
    }

    /// Each route has a form that can be served, and a place that nothing else has.
    fn check_routes(&self) -> Result<(), InvalidApp> {
        let aggregates = self.deciders.iter().map(|decider| decider.category());
        let several = self.multi_stream.iter().map(|command| command.name());
        let taken: Vec<&str> = aggregates.chain(several).chain(RESERVED_NAMES).collect();
        let mut before: Vec<(&Method, &str, String)> = Vec::new();
        for route in &self.message_routes {
            let (method, path, plain) = route.place();
            let same_place = before.iter().find(|(_, _, own)| *own == plain);
            let reason = if !route.is_fit() {
                "a path is segments such as /articles/{id}/price, and a method one of the usual"
            } else if route.first_segment().starts_with('{') {
                "its path must begin with a name"
            } else if taken.contains(&route.first_segment()) {
                "an aggregate, a command or the service itself answers to the first part of its path"
            } else if same_place.is_some_and(|(_, own, _)| *own != path) {
                "another route has other names in the same path"
            } else if before
                .iter()
                .any(|(of, _, own)| *of == method && *own == plain)
            {
                "it is there twice"
            } else if self
                .message_routes
                .iter()
                .any(|other| other.is_ruled_otherwise(route))
            {
                "another route of its subject is for other roles: who may ask is a rule of the subject, for all of its routes and shards"
            } else {
                before.push((method, path, plain));
                continue;
            };
            return Err(InvalidApp::Route {
                method: method.to_string(),
                path: path.to_owned(),
                reason,
            });
        }
        Ok(())
    }

    /// Each subject is declared in one way, and is none of the library's.
    fn check_subjects(&self) -> Result<(), InvalidApp> {
        for subject in &self.subjects {
            let first = self.declared_subject(subject.channel.as_str());
            let reason = if subject.channel.subject().starts_with("tidelog.") {
                "those that begin with tidelog. are the library's own"
            } else if first.is_some_and(|first| !first.agrees_with(subject)) {
                "it is declared twice, with other messages or replies"
            } else if !subject.is_request() && self.is_routed(&subject.channel) {
                "a route goes there, so that its messages are of the type RouteRequest: declare it with what the route has"
            } else {
                continue;
            };
            return Err(InvalidApp::Subject {
                subject: subject.channel.to_string(),
                reason,
            });
        }
        Ok(())
    }

    /// Whether requests to a route become messages there.
    fn is_routed(&self, channel: &Channel) -> bool {
        let mut channels = self.message_routes.iter().map(MessageRoute::channel);
        channels.any(|own| own.as_ref() == Some(channel))
    }

    fn check_upcasters(&self) -> Result<(), InvalidApp> {
        let deciders = self.deciders.iter();
        let deciders = deciders.map(|decider| (decider.category(), decider.upcasters()));
        let views = self.views.iter();
        let views = views.filter_map(|view| Some((view.name(), view.upcasters()?)));
        let reactions = self.reactions.iter().map(|reacting| &reacting.reaction);
        let reactions = reactions.map(|reaction| (reaction.name(), reaction.upcasters()));
        deciders
            .chain(views)
            .chain(reactions)
            .try_for_each(|(name, upcasters)| {
                let checked = upcasters.check();
                checked.map_err(|source| InvalidApp::Upcasters(name.to_owned(), source))
            })
    }
}

/// Whether `name` can be part of a path of ours.
fn usable(what: &'static str, name: &str) -> Result<(), InvalidApp> {
    let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    let fits = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.len() <= 64
        && name.bytes().all(plain);
    if fits && !RESERVED_NAMES.contains(&name) {
        return Ok(());
    }
    Err(InvalidApp::Unusable {
        what,
        name: name.to_owned(),
    })
}

/// What is wrong with a name that is not usable.
fn why_unusable(name: &str) -> &'static str {
    if RESERVED_NAMES.contains(&name) {
        "the services answer to that name themselves"
    } else {
        "a name is a lower-case letter followed by up to 63 of a-z, 0-9, _ and -"
    }
}

/// The first name that comes twice.
fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut seen = std::collections::BTreeSet::new();
    names
        .into_iter()
        .find(|name| !seen.insert(*name))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, schema: &str) -> Result<(), InvalidApp> {
        let schema = EntitySchema::parse(name, schema).unwrap();
        App::new("demo").entity_schema(schema).check()
    }

    #[test]
    fn a_name_that_the_services_need_is_refused_with_what_to_do() {
        for name in ["docs", "events", "health", "metrics", "admin", "openapi"] {
            let error = with(name, r#"{"type": "object"}"#).unwrap_err().to_string();
            let expected =
                format!("an aggregate cannot be called {name:?}: the services answer to that name");
            assert!(error.starts_with(&expected), "{error}");
        }
        let plural = r#"{"type": "object", "x-tidelog-plural": "events"}"#;
        let error = with("event", plural).unwrap_err().to_string();
        assert!(
            error.starts_with("the plural of a view cannot be called"),
            "{error}"
        );
        assert!(
            with(
                "event",
                r#"{"type": "object", "x-tidelog-plural": "happenings"}"#
            )
            .is_ok()
        );
    }

    /// A reaction to posts, whose name a test chooses.
    struct Reacts<const NAME: char>;

    /// That a post was created.
    struct Posted;

    impl tidelog_domain::EventSet for Posted {
        const NAMES: &'static [&'static str] = &["post.created"];

        fn read(_: &tidelog_domain::RecordedEvent) -> Result<Self, tidelog_domain::DecodeError> {
            Ok(Self)
        }
    }

    impl<const NAME: char> Reaction for Reacts<NAME> {
        const NAME: &'static str = match NAME {
            'p' => "post",
            'E' => "events",
            _ => "mailer",
        };
        type Event = Posted;

        async fn react(
            &self,
            _: &tidelog_domain::Recorded<Posted>,
        ) -> Result<(), tidelog_eventbus::Failure> {
            Ok(())
        }
    }

    #[test]
    fn a_reaction_has_a_name_of_its_own_and_not_a_views() {
        let post = EntitySchema::parse("post", r#"{"type": "object"}"#).unwrap();
        let blog = || App::new("blog").entity_schema(post.clone());
        let mailer = || Reacts::<'m'>;
        assert!(blog().reaction(mailer()).check().is_ok());
        let error = |app: App| app.check().unwrap_err().to_string();
        let twice = error(blog().reaction(mailer()).reaction(mailer()));
        assert!(twice.contains("are called mailer"), "{twice}");
        let view = error(blog().reaction(Reacts::<'p'>));
        assert!(view.contains("are called post"), "{view}");
        let reserved = error(blog().reaction(Reacts::<'E'>));
        assert!(
            reserved.starts_with("a reaction cannot be called"),
            "{reserved}"
        );
    }

    #[cfg(feature = "feed-client")]
    #[test]
    fn a_program_is_followed_by_name_and_by_a_url_that_can_be_one() {
        let app = || App::new("blog").reaction(Reacts::<'m'>);
        let feed = "http://shop/events";
        let follow = |name: &str, feed: &str| app().follow(name, feed, Reacts::<'m'>).check();
        // The same reaction to one's own events, and to those of others.
        assert!(follow("shop", feed).is_ok());
        assert!(follow("tidelog", feed).is_ok());
        for (name, feed) in [("Shop", feed), ("shop", "shop/events")] {
            assert!(follow(name, feed).is_err(), "{name} at {feed}");
        }
        let shop = || app().follow("shop", feed, Reacts::<'m'>);
        assert!(shop().follow("stock", feed, Reacts::<'m'>).check().is_ok());
        let twice = shop().follow("shop", feed, Reacts::<'m'>).check();
        let twice = twice.unwrap_err().to_string();
        assert!(twice.contains("are called mailer@shop"), "{twice}");
    }

    #[test]
    fn an_entity_called_event_needs_another_plural_than_its_own() {
        assert!(with("event", r#"{"type": "object"}"#).is_err());
    }
}
