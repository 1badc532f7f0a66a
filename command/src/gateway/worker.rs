//! Workers: they run the commands that gateways send.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse, Response};
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
        let (router, trust, own) = (router.clone(), trust.clone(), Arc::<str>::from(name));
        worker = worker.handle(&subject(name)?, move |call, context| {
            handle(
                router.clone(),
                trust.clone(),
                Arc::clone(&own),
                call,
                context,
            )
        });
    }
    Ok(worker)
}

/// Runs a command, and gives what is answered.
async fn handle(
    router: Router,
    trust: Trust,
    name: Arc<str>,
    call: CommandCall,
    context: MessageContext,
) -> Result<CommandReply, HandlerError> {
    let sent = Sent::by_message(context.id().as_str()).map_err(|error| malformed(&error))?;
    let caller = call.caller.clone();
    let mut request =
        request(call, &name, &context).ok_or_else(|| malformed(&"it is no command"))?;
    let Some(caller) = trust.caller(caller) else {
        tracing::error!(
            "a gateway sent a command of somebody who has not signed in as this worker's settings want it: give both the same auth settings"
        );
        return reply(Problem::internal().into_response()).await;
    };
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(sent);
    let Ok(response) = router.oneshot(request).await;
    let is_at_it = response.extensions().get() == Some(&ProblemKind::RequestInProgress);
    if context.attempt() > 1 && is_at_it {
        let why = "an earlier try of this command is not over";
        return Err(Failure::retry_after(AGAIN, why).into());
    }
    reply(response).await
}

fn malformed(what: &impl std::fmt::Display) -> HandlerError {
    ReplyError::new(ReplyError::MALFORMED, what.to_string()).into()
}

/// The request of a command of `name`; `None` when it is none.
fn request(call: CommandCall, name: &str, context: &MessageContext) -> Option<Request> {
    let uri: Uri = call.path.parse().ok()?;
    let is_of_name = uri.path().split('/').nth(1) == Some(name);
    if !is_of_name {
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

async fn reply(response: Response) -> Result<CommandReply, HandlerError> {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, MAX_MESSAGE_BYTES).await?;
    let headers = passing::listed(&parts.headers, |name| {
        // Both are the gateway's own to say.
        *name != CORRELATION_ID && *name != header::CONTENT_LENGTH
    });
    let body = match body.is_empty() {
        true => None,
        false => Some(serde_json::from_slice::<&RawValue>(&body)?.to_owned()),
    };
    Ok(CommandReply {
        status: parts.status.as_u16(),
        headers,
        body,
    })
}
