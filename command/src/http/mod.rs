//! The command service over HTTP: writes only.

mod answer;
mod feed;
mod idempotency;
mod multi_stream;
mod openapi;
mod preconditions;
mod problems;
mod route;

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde_json::Value;
use tidelog_domain::{CommandInput, Endpoint, Lifecycle, Metadata, Refusal, StreamId};
use tidelog_http::{
    BodyLimits, Caller, JsonBody, Operation, Problem, ProblemKind, RequestContext, no_query,
    read_json, require_json_answer,
};
use uuid::Uuid;

use crate::gateway::{Passing, Workers};
use crate::handling::{
    CommandKey, CommandOutcome, CommandRequest, CommandService, Definitions, Sent,
};

pub use feed::feed_router;
pub use idempotency::idempotency_key;
pub use openapi::{command_document, gateway_document};
use preconditions::Preconditions;
use problems::Subject;
use route::Call;

/// How the command service is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandSettings {
    /// The bounds of a body.
    pub body: BodyLimits,
    /// Where clients find the query service, `https://api.example.org`: `Location` leads there. `None` makes it a path.
    pub query_url: Option<String>,
}

/// The command service as HTTP.md has it: `POST /{aggregate}`, `PATCH` and `DELETE /{aggregate}/{id}`, and
/// the named commands `POST /{aggregate}/{command}` and `POST /{aggregate}/{id}/{command}`; and `POST /{name}` for a command over
/// several aggregates.
///
/// It is part of a service: [`tidelog_http::app`] gives it the problem documents for unknown paths, the correlation id
/// and the answer to a panic. It is behind a sign-in ([`tidelog_http::signed_in`]) or open to all ([`tidelog_http::open_to_all`]).
pub fn command_router(service: Arc<CommandService>, settings: CommandSettings) -> Router {
    let definitions = service.definitions().clone();
    router(definitions, Executor::Here(service), settings)
}

/// The same for what `definitions` has, whose commands are checked here as far as that goes without the log, and then run by `workers`,
/// which give the answers ([`gateway`](crate::gateway)). The log is not read through it.
pub fn gateway_router(
    definitions: Definitions,
    workers: Workers,
    settings: CommandSettings,
) -> Router {
    let no_feed = any(async || {
        let what = "The log is not read through a gateway. Ask a command service.";
        Problem::new(ProblemKind::NotFound, what)
    });
    router(definitions, Executor::Workers(workers), settings)
        .route("/events", no_feed.clone())
        .route("/events/heads", no_feed)
}

fn router(definitions: Definitions, executor: Executor, settings: CommandSettings) -> Router {
    Router::new()
        .route("/{aggregate}", any(command))
        .route("/{aggregate}/{id}", any(command))
        .route("/{aggregate}/{id}/{command}", any(command))
        .with_state(Arc::new(Commands {
            definitions,
            executor,
            settings,
        }))
}

struct Commands {
    definitions: Definitions,
    executor: Executor,
    settings: CommandSettings,
}

/// What runs commands that were checked.
enum Executor {
    Here(Arc<CommandService>),
    Workers(Workers),
}

async fn command(
    State(commands): State<Arc<Commands>>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    context: RequestContext,
    caller: Caller,
    request: Request,
) -> Response {
    let handled = async {
        let path = path.map_err(|_| not_utf8())?;
        // Where the router is mounted may have parameters of its own.
        let ours = |name: &str| ["aggregate", "id", "command"].contains(&name);
        let segments: Vec<&str> = path
            .iter()
            .filter(|(name, _)| ours(name))
            .map(|(_, segment)| segment)
            .collect();
        let from = From { context, caller };
        commands.handle(&segments, &from, request).await
    };
    handled.await.unwrap_or_else(IntoResponse::into_response)
}

fn not_utf8() -> Problem {
    Problem::new(
        ProblemKind::MalformedRequest,
        "The path is not UTF-8. Check how it was percent-encoded.",
    )
}

impl Commands {
    async fn handle(
        &self,
        path: &[&str],
        from: &From,
        request: Request,
    ) -> Result<Response, Problem> {
        if let [name] = path
            && self.definitions.multi_stream(name).is_some()
        {
            return self.handle_multi_stream(name, from, request).await;
        }
        let (parts, body) = request.into_parts();
        let reads_at = self.settings.query_url.as_deref();
        let call = route::resolve(&self.definitions, &parts.method, path, reads_at)?;
        from.caller.may(&Operation::Command {
            aggregate: call.category,
            command: &call.spec.name,
        })?;
        no_query(&parts.uri)?;
        require_json_answer(&parts.headers)?;
        let creates = call.spec.lifecycle == Lifecycle::Missing;
        let preconditions = Preconditions::read(&parts.headers, creates)?;
        let key = idempotency::idempotency_key(&parts.headers)?;
        if let Some(id) = call.id {
            check_id(call.category, id)?;
        }
        let accepted = accepted_types(call.spec.endpoint);
        let body = read_json(&parts.headers, body, accepted, self.settings.body).await?;
        let bytes = body.bytes.clone();
        let mut body = command_body(body, call.spec.endpoint)?;
        let own_id = if creates {
            take_id(call.category, &mut body)?
        } else {
            None
        };
        let id = call.id.map(str::to_owned).or(own_id);
        let subject = Subject {
            category: call.category,
            id: id.as_deref(),
            command: &call.spec.name,
            preconditions: &preconditions,
            several: false,
            has_key: key.is_some(),
        };
        let input = CommandInput {
            name: call.spec.name.clone(),
            body,
        };
        let service = match &self.executor {
            Executor::Here(service) => service,
            Executor::Workers(workers) => {
                self.check(&call, &input)
                    .map_err(|refusal| subject.refused(&refusal))?;
                let passing = Passing::of(call.category, &parts, &bytes, from);
                let answer = workers.run(passing).await;
                return answer.map_err(|why| subject.unanswered(&why));
            }
        };
        let key = key.map(|key| {
            let preconditions = preconditions.fingerprint();
            of_request(key, &parts, &bytes, &[preconditions.as_bytes()])
        });
        let identity = Identity::of(&parts, key);
        let done = service.execute(CommandRequest {
            category: call.category.to_owned(),
            id: id.clone().or_else(|| identity.created_id(creates)),
            input,
            precondition: preconditions.version.clone(),
            metadata: from.metadata(),
            command_id: identity.command_id,
            key: identity.key,
        });
        let done = done.await.map_err(|error| subject.problem(&error))?;
        let done = CommandOutcome {
            replayed: done.replayed && subject.has_key,
            ..done
        };
        Ok(answer::done(&call, done, reads_at))
    }

    /// Checks what can be checked of a command without its aggregate.
    fn check(&self, call: &Call<'_>, input: &CommandInput) -> Result<(), Refusal> {
        let decider = self.definitions.decider(call.category);
        decider.map_or(Err(Refusal::UnknownCommand), |decider| decider.check(input))
    }
}

/// What tells a command from every other, also when it comes again.
struct Identity {
    command_id: Uuid,
    key: Option<CommandKey>,
    /// What stands for the key where a gateway sends a command without one.
    sent: Option<Sent>,
}

impl Identity {
    /// Of a request whose client brought `key`.
    fn of(parts: &Parts, key: Option<CommandKey>) -> Self {
        let sent = parts.extensions.get::<Sent>().copied();
        Self {
            command_id: sent.map_or_else(Uuid::now_v7, Sent::command_id),
            sent: sent.filter(|_| key.is_none()),
            key: key.or_else(|| sent.map(Sent::key)),
        }
    }

    /// The id of an aggregate that is created and that the client did not name; `None` leaves it to the service.
    fn created_id(&self, creates: bool) -> Option<String> {
        let sent = self.sent.filter(|_| creates)?;
        Some(sent.created_id().to_string())
    }
}

/// The key of a request, which is told by its method, its path, its body and `more`.
fn of_request(key: CommandKey, parts: &Parts, body: &[u8], more: &[&[u8]]) -> CommandKey {
    let (method, path) = (parts.method.as_str(), parts.uri.path());
    let request = [method.as_bytes(), path.as_bytes(), body];
    key.of_request(&[&request, more].concat())
}

/// The media types that a command's body may have.
const fn accepted_types(endpoint: Endpoint) -> &'static [&'static str] {
    match endpoint {
        Endpoint::Patch => &["application/merge-patch+json", "application/json"],
        Endpoint::Post | Endpoint::Delete | Endpoint::Named => &["application/json"],
    }
}

/// What the body says. Where it must say something, it may not be empty.
fn command_body(body: JsonBody, endpoint: Endpoint) -> Result<Value, Problem> {
    match (body.value, endpoint) {
        (Some(value), _) => Ok(value),
        (None, Endpoint::Delete | Endpoint::Named) => Ok(Value::Null),
        (None, Endpoint::Post | Endpoint::Patch) => Err(Problem::new(
            ProblemKind::MalformedRequest,
            "The body is empty. Send a JSON object.",
        )),
    }
}

/// Takes the id that a client chose out of the body of a creating command.
fn take_id(category: &str, body: &mut Value) -> Result<Option<String>, Problem> {
    let Some(id) = body
        .as_object_mut()
        .and_then(|body| body.shift_remove("id"))
    else {
        return Ok(None);
    };
    let Value::String(id) = id else {
        return Err(bad_id("The id in the body is not a text."));
    };
    check_id(category, &id)?;
    Ok(Some(id))
}

fn check_id(category: &str, id: &str) -> Result<(), Problem> {
    StreamId::new(category, id)
        .map(|_| ())
        .map_err(|error| bad_id(&format!("The id cannot be one: {error}.")))
}

fn bad_id(what: &str) -> Problem {
    Problem::new(
        ProblemKind::MalformedRequest,
        format!("{what} Correct it, or leave it out of a creation to get a new one."),
    )
}

/// Who sends a request, and in which conversation.
pub(crate) struct From {
    pub(crate) context: RequestContext,
    pub(crate) caller: Caller,
}

impl From {
    /// What is recorded with the events of the request.
    pub(crate) fn metadata(&self) -> Metadata {
        self.context.metadata(&self.caller)
    }
}

#[cfg(test)]
mod tests;

/// The same, through a gateway.
#[cfg(test)]
#[allow(
    clippy::duplicate_mod,
    reason = "both ways must pass the very same suite"
)]
#[path = "tests.rs"]
mod tests_through_a_gateway;
