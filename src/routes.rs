//! Routes of HTTP that a program declares, each request to which becomes a message.
//!
//! What is answered by workers of one's own needs no HTTP of its own: the gateway (and a command service that shares a bus with others) takes
//! the request, lets those in who may, bounds it, and sends or emits it on a subject. `docs/gateway.md` has what is answered when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
pub use tidelog_command::gateway::PassedCaller;
use tidelog_command::idempotency_key;
use tidelog_domain::{Tenant, causes};
use tidelog_eventbus::messaging::{
    Channel, EmitError, MessageBusError, MessageId, MessageOptions, Messaging, ReplyError,
    SendError, Subject,
};
use tidelog_http::{
    BodyLimits, Caller, Operation, Problem, ProblemKind, RequestContext, read_json,
    require_json_answer,
};

use uuid::Uuid;

mod describe;

pub(crate) use describe::{TAG, describe};

/// What the ids of messages that follow from idempotency keys are named under.
const KEYS: Uuid = Uuid::from_u128(0x1c6d_6f52_7b0e_4f0b_9a53_5d1f_0e8c_2a97);

/// When to come back where nothing happened.
const SOON: Duration = Duration::from_secs(1);

/// What a handler is given of a request to a route that a program declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteRequest<Content = serde_json::Value> {
    /// The method: `POST`.
    pub method: String,
    /// The path, percent-encoded as it came.
    pub path: String,
    /// What stands in the path for each `{name}` of the route, decoded.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// The parameters of the query string, in their order, decoded.
    #[serde(default)]
    pub query: Vec<(String, String)>,
    /// Who asks.
    #[serde(default)]
    pub caller: PassedCaller,
    /// The body, which is JSON; `null` where there is none.
    pub body: Content,
}

/// A subject with nothing known of its bodies and replies.
type AnySubject = Subject<RouteRequest<Box<RawValue>>, Box<RawValue>>;

/// A route of HTTP, each request to which becomes a message: what [`App::message_route`](crate::App::message_route) takes.
///
/// ```
/// use tidelog::axum::http::Method;
/// use tidelog::messaging::Subject;
/// use tidelog::routes::{MessageRoute, RouteRequest};
///
/// const PRICE: Subject<RouteRequest, u64> = Subject::new("shop.price");
/// const VISITED: Subject<RouteRequest> = Subject::new("shop.visited");
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let app = tidelog::App::new("shop")
///     .entities_from(None)?
///     .message_route(MessageRoute::send(Method::GET, "/articles/{id}/price", &PRICE))
///     .message_route(MessageRoute::emit(Method::POST, "/visits", &VISITED).roles(["visitor"]));
/// app.check()?;
/// # Ok(())
/// # }
/// ```
///
/// A request with an `Idempotency-Key` becomes a message whose id is the same each time that the key comes from its caller to this route, by
/// whichever process. While the first is waited for here, the second is 409. After that it is sent again: replies are not kept, so a handler that is to do
/// it once goes by [`MessageContext::id`](crate::messaging::MessageContext::id) (with SQL by `tidelog::handled`).
///
/// It is in the OpenAPI document of who serves it, with any JSON as its body and its reply; with their schemas, where the program says what is on the
/// subject ([`App::sends_subject`](crate::App::sends_subject), [`App::handles_subject`](crate::App::handles_subject)).
#[derive(Clone, Debug)]
pub struct MessageRoute {
    method: Method,
    path: String,
    name: String,
    shard: Option<String>,
    is_sent: bool,
    roles: Vec<String>,
    timeout: Option<Duration>,
    max_bytes: usize,
}

impl MessageRoute {
    /// Requests by `method` at `path` are sent on `subject`, and answered with the reply: 200 and its JSON.
    ///
    /// A path is segments such as `/articles/{id}/price`, of which the first is a name that no aggregate has.
    #[must_use]
    pub fn send<Content, Reply>(
        method: Method,
        path: &str,
        subject: &Subject<RouteRequest<Content>, Reply>,
    ) -> Self {
        Self::of(method, path, subject, true)
    }

    /// Requests by `method` at `path` are emitted on `subject`: 202 when the bus has the message.
    #[must_use]
    pub fn emit<Content, Reply>(
        method: Method,
        path: &str,
        subject: &Subject<RouteRequest<Content>, Reply>,
    ) -> Self {
        Self::of(method, path, subject, false)
    }

    fn of<Content, Reply>(
        method: Method,
        path: &str,
        subject: &Subject<RouteRequest<Content>, Reply>,
        is_sent: bool,
    ) -> Self {
        Self {
            method,
            path: path.to_owned(),
            name: subject.name().to_owned(),
            shard: subject.channel().shard().map(str::to_owned),
            is_sent,
            roles: Vec::new(),
            timeout: None,
            max_bytes: BodyLimits::default().max_bytes,
        }
    }

    /// The same for callers with one of these roles, where callers sign in; without one it is for every caller that is signed in. The setting
    /// `roles` goes before it, where it is called `route/` and the subject: `route/shop.price=clerk`. So the routes of one subject, and of its
    /// shards, have the same roles.
    #[must_use]
    pub fn roles<R: Into<String>>(mut self, roles: impl IntoIterator<Item = R>) -> Self {
        self.roles = roles.into_iter().map(Into::into).collect();
        self
    }

    /// The same, where a reply is waited for no longer than this. Else the setting `gateway_timeout` says.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The same with bodies of at most `bytes`; 1 MiB unless said otherwise. What an engine takes bounds it too.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Who may ask, and for what: a rule of the program.
    pub(crate) fn rule(&self) -> (Operation<'_>, Vec<&str>) {
        let roles = self.roles.iter().map(String::as_str);
        (Operation::Route(&self.name), roles.collect())
    }

    /// Whether the rule of both is one, and they do not agree on it.
    pub(crate) fn is_ruled_otherwise(&self, other: &Self) -> bool {
        let roles = |route: &Self| route.roles.iter().cloned().collect::<BTreeSet<_>>();
        self.name == other.name && roles(self) != roles(other)
    }

    /// The first segment of its path.
    pub(crate) fn first_segment(&self) -> &str {
        self.path.split('/').nth(1).unwrap_or_default()
    }

    /// Whether its requests are replied to.
    #[cfg(feature = "cli")]
    pub(crate) const fn is_sent(&self) -> bool {
        self.is_sent
    }

    /// What it answers to: its method, and its path as it is and without the names in it.
    pub(crate) fn place(&self) -> (&Method, &str, String) {
        let plain = self.path.split('/').map(|segment| match segment {
            segment if segment.starts_with('{') => "{}",
            segment => segment,
        });
        let plain: Vec<_> = plain.collect();
        (&self.method, &self.path, plain.join("/"))
    }

    /// Whether method and path can be those of a route.
    pub(crate) fn is_fit(&self) -> bool {
        let literal = |c: u8| c.is_ascii_alphanumeric() || b"-._~".contains(&c);
        let name = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        let fits = |segment: &str| match segment.strip_prefix('{') {
            Some(rest) => rest
                .strip_suffix('}')
                .is_some_and(|own| !own.is_empty() && own.bytes().all(name)),
            None => !segment.is_empty() && segment.bytes().all(literal),
        };
        let mut segments = self.path.split('/');
        segments.next() == Some("")
            && segments.all(fits)
            && MethodFilter::try_from(self.method.clone()).is_ok()
    }

    /// Where its messages go; `None` where that cannot be, of which no route is made.
    pub(crate) fn channel(&self) -> Option<Channel> {
        Some(self.subject()?.channel())
    }

    fn subject(&self) -> Option<AnySubject> {
        let subject = AnySubject::parse(&*self.name).ok()?;
        match &self.shard {
            Some(shard) => subject.shard(shard).ok(),
            None => Some(subject),
        }
    }
}

/// A route, and where its requests go.
struct Passing {
    route: MessageRoute,
    subject: AnySubject,
    messaging: Messaging,
    timeout: Duration,
}

/// `routes`, whose requests go over `messaging`; a reply is waited for as long as the route says, or `timeout`. They were checked.
pub(crate) fn router(routes: &[MessageRoute], messaging: &Messaging, timeout: Duration) -> Router {
    let mut router = Router::new();
    for route in routes {
        let filter = MethodFilter::try_from(route.method.clone());
        let (Ok(filter), Some(subject)) = (filter, route.subject()) else {
            continue;
        };
        let passing = Arc::new(Passing {
            route: route.clone(),
            subject,
            messaging: messaging.clone(),
            timeout: route.timeout.unwrap_or(timeout),
        });
        router = router.route(&route.path, on(filter, pass).with_state(passing));
    }
    router
}

async fn pass(
    State(passing): State<Arc<Passing>>,
    parameters: RawPathParams,
    context: RequestContext,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let Passing { route, subject, .. } = &*passing;
    caller.may(&Operation::Route(&route.name))?;
    let (parts, body) = request.into_parts();
    require_json_answer(&parts.headers)?;
    let limits = BodyLimits {
        max_bytes: route.max_bytes,
        ..BodyLimits::default()
    };
    let key = idempotency_key(&parts.headers)?;
    let body = read_json(&parts.headers, body, &["application/json"], limits).await?;
    let query = parts.uri.query().unwrap_or_default();
    let message = RouteRequest {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        parameters: owned(&parameters),
        query: url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect(),
        caller: PassedCaller::of(&caller),
        body: serde_json::from_slice::<&RawValue>(&body.bytes)
            .map_or_else(|_| RawValue::NULL.to_owned(), ToOwned::to_owned),
    };
    let options = MessageOptions {
        id: key.and_then(|key| message_id(&caller, &parts.method, &parts.uri, key.text())),
        metadata: context.metadata_of_message(&caller),
        timeout: Some(passing.timeout),
    };
    if route.is_sent {
        let reply = passing.messaging.send_with(subject, &message, options);
        let reply = reply.await.map_err(|error| unsent(subject, &error))?;
        let mut response = Response::new(Body::from(String::from(Box::<str>::from(reply))));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        return Ok(response);
    }
    let emitted = passing.messaging.emit_with(subject, &message, options);
    let id = emitted.await.map_err(|error| unemitted(&error))?;
    let body = axum::Json(json!({"data": {"id": id.as_str()}}));
    Ok((StatusCode::ACCEPTED, body).into_response())
}

/// The id of what `caller` asks of a route with the idempotency key `key`: the same each time. (A body may be written otherwise each time.)
fn message_id(caller: &Caller, method: &Method, uri: &Uri, key: &str) -> Option<MessageId> {
    let tenant = caller.tenant().map(Tenant::as_str);
    let (method, path) = (method.as_str(), uri.path());
    let scope = json!([tenant, caller.principal(), method, path, uri.query(), key]).to_string();
    let id = Uuid::new_v5(&KEYS, scope.as_bytes());
    MessageId::new(&id.to_string()).ok()
}

fn owned(parameters: &RawPathParams) -> BTreeMap<String, String> {
    let parameters = parameters.iter();
    parameters
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Why a request has no reply, for its client.
fn unsent(subject: &AnySubject, error: &SendError) -> Problem {
    match error {
        SendError::Refused(refused) => return answered(refused),
        SendError::TooLarge { bytes, max } => return too_large(*bytes, *max),
        SendError::UnknownSubject { .. } => {
            let what = format!(
                "No worker handles {subject}: start one. Nothing was done. Ask again later."
            );
            return Problem::new(ProblemKind::Unavailable, what).retry_after(SOON);
        }
        SendError::DuplicateId => {
            let what = "A request with this Idempotency-Key is in progress. Send it again later.";
            return Problem::new(ProblemKind::RequestInProgress, what).retry_after(SOON);
        }
        _ => tracing::warn!(%subject, error = causes(error), "a request has no reply"),
    }
    match error {
        SendError::Bus(bus) => of_bus(bus),
        SendError::Encode(_) => Problem::internal(),
        _ => in_doubt(),
    }
}

/// An error that the handler answered.
fn answered(refused: &ReplyError) -> Problem {
    match refused.code.as_str() {
        ReplyError::MALFORMED => {
            let what = format!("The request is not what is taken here: {}.", refused.detail);
            Problem::new(ProblemKind::MalformedRequest, what)
        }
        ReplyError::UNAVAILABLE => {
            let what = "It cannot be done now. Ask again later.";
            Problem::new(ProblemKind::Unavailable, what).retry_after(SOON)
        }
        ReplyError::FAILED | ReplyError::TOO_LARGE => {
            tracing::error!(error = %refused, "a handler failed");
            Problem::internal()
        }
        code => Problem::new(ProblemKind::Rejected, &*refused.detail).with("code", json!(code)),
    }
}

fn unemitted(error: &EmitError) -> Problem {
    match error {
        EmitError::TooLarge { bytes, max } => too_large(*bytes, *max),
        EmitError::Bus(bus) => {
            tracing::warn!(error = causes(error), "a message was not emitted");
            of_bus(bus)
        }
        _ => Problem::internal(),
    }
}

fn of_bus(error: &MessageBusError) -> Problem {
    let (kind, what) = match error {
        MessageBusError::Full(_) => (ProblemKind::Overloaded, "The message bus has no room."),
        error if error.nothing_was_put() => (
            ProblemKind::Unavailable,
            "The message bus cannot be reached.",
        ),
        _ => return in_doubt(),
    };
    Problem::new(kind, format!("{what} Nothing was done. Ask again later.")).retry_after(SOON)
}

fn too_large(bytes: usize, max: usize) -> Problem {
    let what = format!("The message would have {bytes} bytes, and the limit is {max}. Send less.");
    Problem::new(ProblemKind::TooLarge, what)
}

fn in_doubt() -> Problem {
    let what = "No answer came in time. It may be done, or may not.";
    Problem::new(ProblemKind::InDoubt, what)
}

#[cfg(test)]
mod tests;
