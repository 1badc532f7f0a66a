//! Live queries over HTTP: server-sent events on a document and on a list.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tidelog_domain::{ViewDefinition, causes, document_key};
use tidelog_http::{Caller, Problem, ProblemKind};

use super::filters::{self, Asked};
use super::history::log_missing;
use super::parameters::Parameter;
use super::problems::{RETRY_AFTER, not_built, share_taken, store_problem};
use super::read::{Reads, shown_as};
use super::scope::Scope;
use crate::changes::{self, ChangesError, LiveId, Message, Refused, Session, Shown};
use crate::history::Then;

/// How long a client waits before it comes back, once its connection is lost.
const RETRY: Duration = Duration::from_secs(1);

/// The id of the last event that a client has.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Keeps a proxy from holding events back.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The media type of server-sent events.
pub(super) const MEDIA_TYPE: &str = "text/event-stream";

/// Whether the client asks for server-sent events.
pub(super) fn is_asked(headers: &HeaderMap) -> bool {
    let ranges = headers.get_all(header::ACCEPT).iter();
    ranges
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| {
            let media = range.split(';').next().unwrap_or_default();
            media.trim().eq_ignore_ascii_case(MEDIA_TYPE)
        })
}

/// One document, `id` in the store, as it is, and then as it becomes.
pub(super) async fn document(
    reads: &Reads,
    view: &Arc<dyn ViewDefinition>,
    id: &str,
    (asked, then): (Asked, Option<Then>),
    asking: (&Caller, &HeaderMap),
) -> Result<Response, Problem> {
    if then.is_some() {
        return Err(Problem::new(
            ProblemKind::MalformedRequest,
            "What a document once was does not change: leave out `version` and `at`, or ask for application/json.",
        ));
    }
    let question = format!("{id}\n{asked:?}");
    let live = changes::Asked {
        view: view.clone(),
        query: asked.query.clone(),
        id: Some(id.to_owned()),
        question,
    };
    begin(reads, live, asked, asking).await
}

/// All documents that fit, and then what changes about them.
pub(super) async fn list(
    reads: &Reads,
    view: &Arc<dyn ViewDefinition>,
    parameters: &[Parameter],
    asking: (&Caller, &HeaderMap),
) -> Result<Response, Problem> {
    let is_word =
        |parameter: &&Parameter, word| parameter.name == word && parameter.operator.is_none();
    let paged = parameters
        .iter()
        .find(|one| is_word(one, "after") || is_word(one, "count"));
    if let Some(parameter) = paged {
        return Err(parameter.unknown("a live list has all documents that fit, and no pages."));
    }
    let scope = Scope::of(asking.0);
    let mut asked = filters::page(&**view, parameters, &scope, &reads.settings)?;
    if !parameters.iter().any(|one| is_word(&one, "limit")) {
        asked.query.limit = reads.settings.max_limit;
    }
    let live = changes::Asked {
        view: view.clone(),
        query: asked.query.clone(),
        id: None,
        question: format!("{asked:?}"),
    };
    begin(reads, live, asked, asking).await
}

/// Begins to tell, until the caller's token counts no more, or says why it cannot be told.
async fn begin(
    reads: &Reads,
    live: changes::Asked,
    asked: Asked,
    (caller, headers): (&Caller, &HeaderMap),
) -> Result<Response, Problem> {
    let last = last_event(headers)?;
    let changes = reads.service.changes.clone().ok_or_else(log_missing)?;
    let tenant = caller.tenant();
    let share = reads.live_shares.take(tenant).ok_or_else(share_taken)?;
    let Ok(place) = reads.places.clone().try_acquire_owned() else {
        let most = reads.settings.max_live;
        let detail =
            format!("There are {most} live connections, and there may be no more. Ask again.");
        return Err(Problem::new(ProblemKind::Overloaded, detail).retry_after(RETRY_AFTER));
    };
    let (name, limit) = (live.view.name().to_owned(), live.query.limit);
    let stop = reads.service.stop.clone();
    let begun = Session::begin(changes, live, last, stop, place).await;
    let mut messages = begun.map_err(|refused| problem(&refused, &name, limit))?;
    let greeting = format!("retry: {}\n\n", RETRY.as_millis());
    let mut greeting = Some(Bytes::from(greeting));
    let frames = stream::poll_fn(move |context| {
        if let Some(greeting) = greeting.take() {
            return std::task::Poll::Ready(Some(Ok::<_, Infallible>(greeting)));
        }
        let _lives_as_long = &share;
        let message = messages.poll_recv(context);
        message.map(|message| message.map(|message| Ok(frame(&asked, message))))
    });
    let frames = frames.take_until(expired(caller));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(frames)).into_response())
}

/// Until the caller's token counts no more.
fn expired(caller: &Caller) -> impl Future<Output = ()> + Send + 'static {
    let end = caller.expires_at();
    async move {
        match end {
            Some(end) => {
                let left = end.duration_since(SystemTime::now());
                tokio::time::sleep(left.unwrap_or_default()).await;
            }
            None => std::future::pending().await,
        }
    }
}

/// What the client goes on from.
fn last_event(headers: &HeaderMap) -> Result<Option<LiveId>, Problem> {
    let Some(last) = headers.get(LAST_EVENT_ID).filter(|last| !last.is_empty()) else {
        return Ok(None);
    };
    let last = last.to_str().ok().and_then(|last| last.parse().ok());
    last.map(Some).ok_or_else(|| {
        Problem::new(
            ProblemKind::MalformedRequest,
            "The header Last-Event-ID is not valid: send back, unchanged, the id of the last event.",
        )
    })
}

/// What a client hears that cannot listen.
fn problem(refused: &Refused, view: &str, limit: usize) -> Problem {
    match refused {
        Refused::Missing => Problem::new(
            ProblemKind::NotFound,
            format!("There is no {view} with this id."),
        ),
        Refused::TooMany => Problem::new(
            ProblemKind::MalformedRequest,
            format!(
                "More documents fit than a live list may have, which is {limit} and {} MiB: narrow the filters.",
                changes::MAX_LIST_BYTES / 1024 / 1024
            ),
        ),
        Refused::Now(ChangesError::NotBuilt) => not_built(view),
        Refused::Now(ChangesError::Store(error)) => store_problem(error),
        Refused::Now(error) => {
            tracing::warn!(error = causes(error), "live changes cannot be told");
            let detail = "Live changes cannot be told at the moment: the log or the read store cannot be reached. Ask again.";
            Problem::new(ProblemKind::Unavailable, detail).retry_after(RETRY_AFTER)
        }
    }
}

/// A message as a server-sent event.
fn frame(asked: &Asked, message: Message) -> Bytes {
    let of = |document: &crate::store::Document| shown_as(asked, document.clone());
    let (event, data) = match message.shown {
        Shown::State(document) => ("state", json!({"data": of(&document)})),
        Shown::Page(documents) => {
            let data: Vec<Value> = documents.iter().map(|document| of(document)).collect();
            ("page", json!({"data": data}))
        }
        Shown::Changed(document) => ("changed", json!({"data": of(&document)})),
        Shown::Removed(id) => ("removed", json!({"id": document_key(&id)})),
        Shown::Reset => ("reset", json!({})),
        Shown::Dropped(reason) => ("dropped", json!({"reason": reason})),
        // Without data it is no event: it only moves on what the client sends back.
        Shown::Beat => ("", Value::Null),
    };
    let mut text = String::new();
    if let Some(id) = message.id {
        text.push_str(&format!("id: {id}\n"));
    }
    if !event.is_empty() {
        text.push_str(&format!("event: {event}\ndata: {data}\n"));
    }
    text.push('\n');
    Bytes::from(text)
}
