//! Workers: they run the commands that gateways send.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tidelog_domain::Tenant;
use tidelog_eventbus::Failure;
use tidelog_eventbus::messaging::{
    HandlerError, InvalidName, MessageContext, Messaging, ReplyError, Worker,
};
use tidelog_http::{CORRELATION_ID, Caller, Problem, ProblemKind, Rules, TRACEPARENT};
use tower::ServiceExt;

use super::{
    CommandCall, CommandReply, GROUP, IDLE, MAX_MESSAGE_BYTES, PassedCaller, passing, subject,
};
use crate::handling::Sent;

/// When a command is looked at again that an earlier try of it is still at, in this process.
const AGAIN: Duration = Duration::from_millis(200);

/// What a reply has around its status, headers and body, at the most: the envelope, with its ids and the name of the app.
const ENVELOPE_BYTES: usize = 1024;

/// What a worker believes of those who ask.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Which roles may do what, where callers sign in: then nobody else is let in.
    pub rules: Option<Arc<Rules>>,
    /// Whether each caller is of a tenant.
    pub has_tenants: bool,
}

impl Trust {
    /// The caller that a gateway speaks of; `None` where no gateway with these settings can speak of one.
    fn caller(&self, passed: PassedCaller) -> Option<Caller> {
        if self.has_tenants && passed.tenant.is_none() {
            return None;
        }
        match &self.rules {
            Some(rules) => Some(Caller::signed_in(passed.signed_in()?, Arc::clone(rules))),
            None => {
                let tenant = passed.tenant.as_deref().map(Tenant::new).transpose().ok()?;
                Some(Caller::in_process(tenant, passed.principal.as_deref()))
            }
        }
    }
}

/// A worker for the commands of `names`, aggregates and commands over several, that runs them by `router`, the command service without its
/// sign-in. It is in the group [`GROUP`].
///
/// # Errors
///
/// [`InvalidName`], of a name that no aggregate can have.
pub fn command_worker<'a>(
    messaging: &Messaging,
    router: &Router,
    names: impl IntoIterator<Item = &'a str>,
    trust: &Trust,
) -> Result<Worker, InvalidName> {
    let messaging = messaging.with_max_bytes(MAX_MESSAGE_BYTES);
    let mut worker = messaging.worker(GROUP).idle(IDLE);
    for name in names {
        let commands = Arc::new(Commands {
            name: name.into(),
            router: router.clone(),
            trust: trust.clone(),
            messaging: messaging.clone(),
        });
        worker = worker.handle(&subject(name)?, move |call, context| {
            let commands = Arc::clone(&commands);
            async move { commands.handle(call, context).await }
        });
    }
    Ok(worker)
}

/// What runs the commands of one name.
struct Commands {
    name: Box<str>,
    router: Router,
    trust: Trust,
    messaging: Messaging,
}

impl Commands {
    /// Runs a command, and gives what is answered.
    async fn handle(
        &self,
        call: CommandCall,
        context: MessageContext,
    ) -> Result<CommandReply, HandlerError> {
        let sent = Sent::by_message(context.id().as_str()).map_err(|error| malformed(&error))?;
        let caller = call.caller.clone();
        let mut request =
            request(call, &self.name, &context).ok_or_else(|| malformed(&"it is no command"))?;
        let max_bytes = self.messaging.max_message_bytes();
        let Some(caller) = self.trust.caller(caller) else {
            tracing::error!(
                "a gateway sent a command of somebody who has not signed in as this worker's settings want it: give both the same auth settings"
            );
            return reply(Problem::internal().into_response(), max_bytes).await;
        };
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(sent);
        let Ok(response) = self.router.clone().oneshot(request).await;
        let is_at_it = response.extensions().get() == Some(&ProblemKind::RequestInProgress);
        if context.attempt() > 1 && is_at_it {
            let why = "an earlier try of this command is not over";
            return Err(Failure::retry_after(AGAIN, why).into());
        }
        reply(response, max_bytes).await
    }
}

fn malformed(what: &impl std::fmt::Display) -> HandlerError {
    ReplyError::new(ReplyError::MALFORMED, what.to_string()).into()
}

/// The request of a command of `name`; `None` when it is none.
fn request(call: CommandCall, name: &str, context: &MessageContext) -> Option<Request> {
    let uri: Uri = call.path.parse().ok()?;
    if !is_of(uri.path(), name) {
        return None;
    }
    let body = passing::body(call.body).or(call.text);
    let mut request = Request::new(body.map_or_else(Body::empty, Body::from));
    *request.method_mut() = Method::from_bytes(call.method.as_bytes()).ok()?;
    *request.uri_mut() = uri;
    *request.headers_mut() = passing::unlisted(&call.headers)?;
    let headers = request.headers_mut();
    let metadata = context.metadata();
    if !metadata.correlation_id.is_empty() {
        let id = HeaderValue::from_str(&metadata.correlation_id).ok()?;
        headers.insert(CORRELATION_ID, id);
    }
    // With export it belongs under the span of the message, which belongs there.
    let traceparent = metadata.traceparent.as_ref();
    if let Some(traceparent) = traceparent.filter(|_| !tidelog_telemetry::is_on()) {
        headers.insert(TRACEPARENT, HeaderValue::from_str(traceparent).ok()?);
    }
    Some(request)
}

/// Whether the first segment of `path`, which may be percent-encoded, is `name`.
fn is_of(path: &str, name: &str) -> bool {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let mut rest = path.split('/').nth(1).unwrap_or_default().as_bytes();
    let is_next = |byte: u8| {
        let (next, behind) = match rest {
            [b'%', high, low, behind @ ..] => {
                let (high, low) = (digit(*high), digit(*low));
                (high.zip(low).map(|(high, low)| 16 * high + low), behind)
            }
            [next, behind @ ..] => (Some(u32::from(*next)), behind),
            [] => (None, rest),
        };
        rest = behind;
        next == Some(u32::from(byte))
    };
    name.bytes().all(is_next) && rest.is_empty()
}

/// The answer as it goes to the gateway, in a message of at most `max_bytes`: without the state, where that does not fit.
async fn reply(response: Response, max_bytes: usize) -> Result<CommandReply, HandlerError> {
    let (parts, body) = response.into_parts();
    // It is in memory already.
    let body = to_bytes(body, usize::MAX).await?;
    let headers = passing::listed(&parts.headers, |name| {
        // Both are the gateway's own to say.
        *name != CORRELATION_ID && *name != header::CONTENT_LENGTH
    });
    let mut reply = CommandReply {
        status: parts.status.as_u16(),
        headers,
        body: None,
    };
    if body.is_empty() {
        return Ok(reply);
    }
    let around = serde_json::to_vec(&reply)?.len() + ENVELOPE_BYTES;
    let short = match body.len() + around > max_bytes {
        true => without_state(&body),
        false => None,
    };
    reply.body = Some(match short {
        Some(short) => {
            tracing::warn!(
                bytes = body.len(),
                max_bytes,
                "the answer to a command goes without the state, which does not fit into a message"
            );
            short
        }
        None => serde_json::from_slice::<&RawValue>(&body)?.to_owned(),
    });
    Ok(reply)
}

/// What the answer to a command that was done says of each aggregate besides its state.
#[derive(Serialize, Deserialize)]
struct Done {
    id: String,
    version: u64,
}

/// The answer of a command that was done, without the state; `None` when `body` is none.
fn without_state(body: &[u8]) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let data = serde_json::from_slice::<Answer<'_>>(body).ok()?.data.get();
    let short = match serde_json::from_str::<Done>(data) {
        Ok(one) => json!({ "data": one }),
        Err(_) => json!({ "data": serde_json::from_str::<Vec<Done>>(data).ok()? }),
    };
    serde_json::value::to_raw_value(&short).ok()
}
