//! The feed: the log over HTTP, for other programs that follow its events.
//!
//! `GET /events?partition=&after=&limit=` gives one page of a partition as CloudEvents ([`tidelog_eventbus::wire`]), in
//! the order of commits and without a hole, and `next`, the cursor for the page after it. There always is a `next`: an
//! empty page says that nothing more is there yet, and its `next` is to be asked for again.
//!
//! `GET /events/heads` says whose log it is, which history it has, and the last position of each partition: how a follower
//! learns how many partitions there are, and whether there is anything new.
//!
//! A cursor carries the log's history and the id of the event that it is at. Where the log has another history, or
//! another event there (it was restored or replaced), the answer is 410 `history-changed`: what was read may never have
//! happened, and reading begins anew, without a cursor. It is 410 and not 409, since the same cursor never works
//! again.

mod describe;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tidelog_domain::{Partition, RecordedEvent, causes};
use tidelog_eventbus::{FeedCursor, LogError, LogIdentity, LogReader, wire};
use tidelog_http::{Caller, Operation, Problem, ProblemKind, require_json_answer};
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub(super) use describe::describe;

/// When to ask again while the log cannot be read.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The most characters of a client's text that are repeated to it.
const MAX_QUOTED: usize = 64;

/// How many events a page has when the client does not say.
const DEFAULT_LIMIT: usize = 100;

/// How many events a page may have. One of large events has fewer: the log gives about 16 MiB at a time.
const MAX_LIMIT: usize = 1_000;

/// How many pages are read at a time: they take connections and memory from the commands' reads. More are turned down.
const MAX_READERS: usize = 2;

/// How long the log may take to answer.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The feed of `log`, which is that of the program `app`: `GET /events` and `GET /events/heads`.
///
/// It is part of a service: [`tidelog_http::app`] gives it the problem documents for other methods. It is behind a sign-in or open to all;
/// to a caller with a tenant it says no, since it has the events of all.
pub fn feed_router(app: &str, log: Arc<dyn LogReader>) -> Router {
    let feed = Feed {
        app: app.into(),
        log,
        readers: Arc::new(Semaphore::new(MAX_READERS)),
    };
    Router::new()
        .route("/events", get(events))
        .route("/events/heads", get(heads))
        .with_state(feed)
}

/// Whose events they are, and where they come from.
#[derive(Clone)]
struct Feed {
    app: Arc<str>,
    log: Arc<dyn LogReader>,
    readers: Arc<Semaphore>,
}

async fn events(
    State(feed): State<Feed>,
    caller: Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may(&Operation::Feed)?;
    require_json_answer(&headers)?;
    let asked = Asked::read(query.as_deref().unwrap_or_default())?;
    // A place comes free within a page's time; who waits for longer asks again.
    let place = timeout(RETRY_AFTER, feed.readers.acquire()).await;
    let Ok(Ok(_place)) = place else {
        return Err(Problem::new(
            ProblemKind::Overloaded,
            format!("The feed has {MAX_READERS} readers at a time, and they are busy. Ask again."),
        )
        .retry_after(RETRY_AFTER));
    };
    feed.page(&asked).await
}

/// No place is taken for it: it is two short reads, and a follower that is turned down would take the log for away.
async fn heads(
    State(feed): State<Feed>,
    caller: Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may(&Operation::Feed)?;
    require_json_answer(&headers)?;
    if let Some((name, _)) = parameters(query.as_deref().unwrap_or_default()).next() {
        return Err(unknown(name, "there is none here"));
    }
    let identity = within(feed.log.identity()).await?;
    let heads = within(feed.log.heads()).await?;
    let heads: Vec<_> = heads.iter().map(ToString::to_string).collect();
    let data = json!({"app": &*feed.app, "history": identity.history.to_string(), "heads": heads});
    Ok(answer(json!({"data": data}).to_string().into_bytes()))
}

/// A body that is JSON, and of this moment.
fn answer(body: Vec<u8>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, body).into_response()
}

impl Feed {
    async fn page(&self, asked: &Asked<'_>) -> Result<Response, Problem> {
        let identity = within(self.log.identity()).await?;
        let cursor = asked.cursor(identity)?;
        let read = self.log.read(cursor.partition, cursor.at, asked.limit);
        let events = within(read).await?;
        let next = FeedCursor {
            at: events.last().map_or(cursor.at, RecordedEvent::cursor),
            ..cursor
        };
        Ok(answer(self.body(&events, next)?))
    }

    /// The page as JSON. Each event is written as on the bus, its payload to the byte.
    fn body(&self, events: &[RecordedEvent], next: FeedCursor) -> Result<Vec<u8>, Problem> {
        let mut body = br#"{"data":["#.to_vec();
        for (index, event) in events.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            let event = wire::encode(&self.app, event).map_err(|error| {
                tracing::error!(
                    error = causes(&error),
                    partition = event.partition.number(),
                    position = event.position.number(),
                    "an event cannot be written as a CloudEvent"
                );
                Problem::internal()
            })?;
            body.extend(event);
        }
        // A cursor has no character that JSON would escape.
        body.extend(format!(r#"],"next":"{next}"}}"#).into_bytes());
        Ok(body)
    }
}

/// What a request asks for.
struct Asked<'q> {
    partition: Option<&'q str>,
    after: Option<&'q str>,
    limit: usize,
}

impl<'q> Asked<'q> {
    /// Reads the parameters. None of their values ever needs to be percent-encoded, so none may be.
    fn read(query: &'q str) -> Result<Self, Problem> {
        let (mut partition, mut after, mut limit) = (None, None, None);
        for (name, value) in parameters(query) {
            let place = match name {
                "partition" => &mut partition,
                "after" => &mut after,
                "limit" => &mut limit,
                _ => return Err(unknown(name, "the feed takes partition, after and limit")),
            };
            if place.replace(value).is_some() {
                return Err(malformed(name, "there once"));
            }
        }
        let limit = limit.map_or(Some(DEFAULT_LIMIT), |text| {
            number(text).filter(|limit| (1..=MAX_LIMIT).contains(limit))
        });
        let wanted = || malformed("limit", &format!("a whole number from 1 to {MAX_LIMIT}"));
        Ok(Self {
            partition,
            after,
            limit: limit.ok_or_else(wanted)?,
        })
    }

    /// Where to read in the log that is what `identity` says.
    fn cursor(&self, identity: LogIdentity) -> Result<FeedCursor, Problem> {
        let last = identity.partitions.count() - 1;
        let partition = self.partition.and_then(number).map(Partition::new);
        let partition = partition
            .filter(|partition| partition.number() <= last)
            .ok_or_else(|| malformed("partition", &format!("a whole number from 0 to {last}")))?;
        let Some(after) = self.after else {
            return Ok(FeedCursor::start(identity.history, partition));
        };
        let cursor = FeedCursor::read(after)
            .filter(|cursor| cursor.partition == partition)
            .ok_or_else(|| {
                malformed(
                    "after",
                    "what an earlier page of the same partition gave as `next`, unchanged",
                )
            })?;
        if cursor.history == identity.history {
            Ok(cursor)
        } else {
            Err(history_changed(
                "The cursor belongs to a history of the log that is over: the log was restored or replaced.",
            ))
        }
    }
}

/// The parameters of a query, as they are written.
fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').unwrap_or((part, "")))
}

/// The number that `text` writes in digits alone.
fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Gives the log its time, and no more.
async fn within<T>(reading: impl Future<Output = Result<T, LogError>>) -> Result<T, Problem> {
    let Ok(read) = timeout(READ_TIMEOUT, reading).await else {
        tracing::warn!(?READ_TIMEOUT, "the log did not answer the feed in time");
        return Err(unavailable());
    };
    read.map_err(|error| match &error {
        LogError::Unavailable(_) => {
            tracing::warn!(error = causes(&error), "the feed could not be read");
            unavailable()
        }
        LogError::Diverged { .. } => {
            tracing::warn!(error = causes(&error), "a reader of the feed is ahead");
            history_changed(
                "The log no longer has the event that the cursor is at: it was restored or replaced.",
            )
        }
        _ => {
            tracing::error!(error = causes(&error), "the feed could not be read");
            Problem::internal()
        }
    })
}

fn unavailable() -> Problem {
    Problem::new(
        ProblemKind::Unavailable,
        "The log cannot be read at the moment. Ask again.",
    )
    .retry_after(RETRY_AFTER)
}

fn history_changed(what: &str) -> Problem {
    let advice = "What was read after that point may not have happened. Read the partition from its beginning, without \
                  `after`.";
    Problem::new(ProblemKind::HistoryChanged, format!("{what} {advice}"))
}

fn unknown(name: &str, known: &str) -> Problem {
    let name: String = name.chars().take(MAX_QUOTED).collect();
    let detail = format!("The parameter {name:?} is not known: {known}.");
    Problem::new(ProblemKind::UnknownParameter, detail).with("parameter", json!(name))
}

fn malformed(parameter: &str, wanted: &str) -> Problem {
    let detail = format!("The parameter `{parameter}` must be {wanted}.");
    Problem::new(ProblemKind::MalformedRequest, detail).with("parameter", json!(parameter))
}
