//! Commands over messages: a process that sends them to workers, and one that takes them from gateways.

use std::sync::Arc;

use axum::Router;
use serde_json::Value;
use tidelog_command::gateway::{MAX_MESSAGE_BYTES, Trust, Workers, command_worker};
use tidelog_command::{CommandSettings, Definitions, gateway_document, gateway_router};
use tidelog_domain::causes;
use tidelog_eventbus::messaging::{InvalidName, Messaging};
use tidelog_http::{ApiDocument, Problem, ProblemKind, app, docs_router};

use super::public::{Routes, public};
use super::socket::with_socket;
use super::{Assembly, COMMAND_METHODS, Running, StartError, sign_in};
use crate::app::InvalidApp;
use crate::backends::open_messaging;
use crate::routes;
use crate::settings::{Role, flag, variable};

/// What stands for all in the setting `aggregates`.
const ALL: &str = "*";

/// Settings by which commands cannot go over messages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidGateway {
    /// There is no bus between gateways and workers.
    #[error(
        "{what}, but bus_url is not set: set {env} to the bus that gateways and workers share",
        env = variable("bus_url")
    )]
    NoBus {
        /// What needs one.
        what: &'static str,
    },
    /// Queries cannot be passed on.
    #[cfg(feature = "query-client")]
    #[error("queries cannot be passed on to the query service at query_url")]
    QueryUrl(#[from] tidelog_http::InvalidForward),
    /// The role takes no commands.
    #[error(
        "aggregates is set, but the role {role} runs no commands: take --{} away, or run the role command or all",
        flag("aggregates")
    )]
    Role {
        /// The role.
        role: &'static str,
    },
    /// The app does not have what is named.
    #[error("aggregates names {name:?}, which the app does not have; there are: {there_is}")]
    Unknown {
        /// What is named.
        name: String,
        /// What could be.
        there_is: String,
    },
    /// It cannot be a name on a bus.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// What goes over messages, as the settings and the program say.
#[derive(Default)]
pub(super) struct OverMessages<'a> {
    /// Whose commands are taken from gateways.
    taken: Vec<&'a str>,
    /// What they go over, and the program's own routes; `None` where there is nothing to go over it. It connects when it is used.
    messaging: Option<Messaging>,
}

impl<'a> Assembly<'a> {
    /// What is to go over messages.
    ///
    /// # Errors
    ///
    /// [`InvalidGateway`], before anything is opened.
    pub(super) fn over_messages(&self) -> Result<OverMessages<'a>, StartError> {
        let (settings, program) = (self.settings, self.program);
        let is_gateway = settings.role == Role::Gateway;
        let has_commands = is_gateway || !settings.aggregates.is_empty();
        let has_routes = (is_gateway || settings.role.runs(Role::Command))
            && !program.message_routes().is_empty();
        if !has_commands && !has_routes {
            return Ok(OverMessages::default());
        }
        let messaging = open_messaging(settings, program.name())?;
        if messaging.is_none() && has_commands {
            let what = match is_gateway {
                true => "the role gateway sends commands over messages",
                false => "aggregates says to take commands from gateways",
            };
            return Err(InvalidGateway::NoBus { what }.into());
        }
        let taken = self.taken_from_gateways()?;
        Ok(OverMessages { taken, messaging })
    }

    /// Whose commands the settings say to take from gateways.
    fn taken_from_gateways(&self) -> Result<Vec<&'a str>, StartError> {
        let (settings, program) = (self.settings, self.program);
        let named = &settings.aggregates;
        if named.is_empty() {
            return Ok(Vec::new());
        }
        if !settings.role.runs(Role::Command) {
            let role = settings.role.name();
            return Err(InvalidGateway::Role { role }.into());
        }
        let aggregates = program.deciders().iter().map(|own| own.category());
        let several = program.multi_stream_commands().iter();
        let all: Vec<&str> = aggregates.chain(several.map(|own| own.name())).collect();
        if let Some(name) = named
            .iter()
            .find(|name| *name != ALL && !all.contains(&name.as_str()))
        {
            return Err(InvalidGateway::Unknown {
                name: name.clone(),
                there_is: all.join(", "),
            }
            .into());
        }
        let is_named = |own: &&str| named.iter().any(|name| name == ALL || name == own);
        Ok(all.into_iter().filter(is_named).collect())
    }

    /// The routes that the program declares, where there is a bus that their requests can go over.
    pub(super) fn message_routes(&self, over: &OverMessages<'_>) -> Router {
        let Some(messaging) = &over.messaging else {
            return Router::new();
        };
        let messaging = messaging.with_max_bytes(MAX_MESSAGE_BYTES);
        let timeout = self.settings.gateway_timeout;
        routes::router(self.program.message_routes(), &messaging, timeout)
    }

    /// What `/openapi.json` says of commands: `document`, the routes that the program declares where they are served, and who may do what.
    pub(super) fn commands_document(
        &self,
        mut document: ApiDocument,
        over: &OverMessages<'_>,
    ) -> Value {
        if over.messaging.is_some() {
            routes::describe(&mut document, self.program);
        }
        sign_in::commands_secured(document.finish(), self.sign_in.as_ref())
    }

    /// What answers the queries of WebSockets at a gateway: the query service elsewhere, where the settings name it.
    fn queries(&self) -> Result<Router, InvalidGateway> {
        #[cfg(feature = "query-client")]
        if let Some(url) = &self.settings.query_url {
            let ca = self.settings.tls_ca.as_deref();
            return Ok(tidelog_http::forwarded(url, ca)?);
        }
        let unknown = async || {
            let what = "This gateway knows no query service. Its operator names it with query_url; else ask the query service itself.";
            Problem::new(ProblemKind::NotFound, what)
        };
        Ok(Router::new().fallback(unknown))
    }

    /// Runs the commands that gateways send, where some are taken, by `commands`, the routes of the command service. It stops with the
    /// listeners, so that what it has begun is finished before the command service is closed.
    pub(super) fn take_from_gateways(
        &self,
        over: &OverMessages<'_>,
        commands: &Router,
        running: &Running,
    ) -> Result<(), StartError> {
        let (Some(messaging), names) = (&over.messaging, &over.taken) else {
            return Ok(());
        };
        if names.is_empty() {
            return Ok(());
        }
        let settings = self.settings;
        let rules = self.sign_in.as_ref().map(|sign_in| sign_in.rules().clone());
        let trust = Trust {
            rules: rules.map(Arc::new),
            has_tenants: settings.auth.tenant_claim.is_some(),
        };
        let commands = app(commands.clone());
        let names_taken = names.iter().copied();
        let worker = command_worker(messaging, &commands, names_taken, &trust)
            .map_err(InvalidGateway::from)?
            .concurrency(usize::try_from(settings.max_requests).unwrap_or(usize::MAX))
            .stop_timeout(settings.shutdown_grace);
        tracing::info!(
            aggregates = names.join(", "),
            "this process runs commands that gateways send"
        );
        running.servers.spawn(async move |stop| {
            if let Err(error) = worker.run(stop).await {
                tracing::error!(
                    error = causes(&error),
                    "commands of gateways cannot be taken"
                );
            }
        });
        Ok(())
    }

    /// Takes commands over HTTP, and has workers run them.
    pub(super) fn pass_commands_on(
        &self,
        over: &OverMessages<'_>,
        running: &mut Running,
    ) -> Result<(), StartError> {
        let Some(messaging) = &over.messaging else {
            return Ok(());
        };
        let (program, settings) = (self.program, self.settings);
        let (name, deciders) = (program.name(), program.deciders());
        let multi_stream = program.multi_stream_commands();
        let taken = |error: tidelog_command::DuplicateAggregate| InvalidApp::Aggregate(error.name);
        let definitions = Definitions::new(deciders.iter().cloned())
            .and_then(|own| own.with_multi_stream(multi_stream.iter().cloned()))
            .map_err(taken)?;
        let workers = Workers::new(messaging, settings.gateway_timeout);
        let commands = CommandSettings {
            query_url: settings.query_url.clone(),
            ..CommandSettings::default()
        };
        let sign_in = self.sign_in.as_ref();
        let document = gateway_document(name, deciders, multi_stream);
        let document = self.commands_document(document, over);
        let routes = Routes {
            guarded: gateway_router(definitions, workers.clone(), commands)
                .merge(self.message_routes(over)),
            open: docs_router(&document),
        };
        let router = public("gateway", routes, settings, sign_in, &COMMAND_METHODS);
        let (queries, stop) = (self.queries()?, running.servers.stop.clone());
        let router = with_socket(router, queries, settings, sign_in, stop);
        running.command_router = Some(router);
        // After the listeners, whose requests wait for replies.
        running.workers.spawn(async move |stop| {
            stop.cancelled().await;
            workers.close().await;
        });
        Ok(())
    }
}
