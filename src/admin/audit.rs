//! The record of what was done in the administration: who, what, when, why, and what came of it.
//!
//! It is a stream of the log, so nobody can change it who cannot change the log, and it is backed up and restored with what it is
//! about. An action that cannot be recorded is not done.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidelog_command::store::{AppendError, EventStore, ReadFrom, StreamRead};
use tidelog_domain::{
    Append, EventId, ExpectedVersion, InvalidStreamId, Metadata, NewEvent, Payload, RecordedEvent,
    StreamId, Version, causes,
};
use tidelog_http::{Problem, ProblemKind, RequestContext};
use uuid::Uuid;

use super::access::{Principal, not_permitted};
use super::actions::Action;

/// The stream's category, which no aggregate can be called.
pub(crate) const CATEGORY: &str = "tidelog";

/// The stream's id.
const ID: &str = "operations";

const ASKED: &str = "tidelog.operation-asked";
const ENDED: &str = "tidelog.operation-ended";

/// The lane of the log that the record is appended by.
const LANE: usize = 0;

/// How long an append may take until the action is not done.
const PATIENCE: Duration = Duration::from_secs(10);

/// How large the body of an action may be.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// How large the answer to an action that failed may be.
const MAX_PROBLEM_BYTES: usize = 1024 * 1024;

/// How many entries a page has unless it is asked for another number, and at most.
const PAGE: u64 = 50;
const MAX_PAGE: u64 = 200;

/// After how many later events it is no longer looked for how an action ended: so many actions would have to run meanwhile.
const LOOK_AHEAD: u64 = 200;

/// The record. Cloning gives another handle to the same.
#[derive(Clone)]
pub(crate) struct Audit {
    log: Arc<dyn EventStore>,
}

/// An action that somebody asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AuditEntry {
    /// Its number in the record.
    pub(crate) number: u64,
    /// When it was asked for, by the log's clock.
    pub(crate) at: DateTime<Utc>,
    /// What was asked.
    #[serde(flatten)]
    pub(crate) asked: Asked,
    /// The conversation that it belongs to.
    pub(crate) correlation_id: String,
    /// When it ended; missing while it runs, and where the process went away meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_at: Option<DateTime<Utc>>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<Ended>,
}

/// What is recorded before an action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// Which.
    pub(crate) action: String,
    /// What it is done to: a subscription, a view.
    pub(crate) target: String,
    /// What was said about it: the sequence, the reason, and so on.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(crate) said: Value,
    /// Who asked.
    pub(crate) by: String,
    /// How they asked.
    pub(crate) via: String,
}

/// What is recorded after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// What came of it.
    pub(crate) outcome: Outcome,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
}

/// What came of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// It was done, or asked of whoever does it.
    Done,
    /// It was begun, and goes on.
    Begun,
    /// It was not done: it made no sense as it was asked.
    Refused,
    /// It was not done, or not all of it.
    Failed,
}

impl Outcome {
    /// Its name.
    #[cfg(feature = "pages")]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Begun => "begun",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::ACCEPTED => Self::Begun,
            status if status.is_success() => Self::Done,
            status if status.is_server_error() => Self::Failed,
            _ => Self::Refused,
        }
    }
}

/// What the events about one action share.
struct About {
    by: String,
    context: RequestContext,
}

impl Audit {
    /// The record in `log`.
    pub(crate) fn new(log: Arc<dyn EventStore>) -> Self {
        Self { log }
    }

    /// A page of the record, newest first: what was asked before entry `before`, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`Problem`]: the log cannot be read now.
    pub(crate) async fn page(
        &self,
        before: Option<u64>,
        limit: u64,
    ) -> Result<(Vec<AuditEntry>, Option<u64>), Problem> {
        let last = self.last().await?;
        let end = before.map_or(last, |before| before.saturating_sub(1).min(last));
        // An action has two events.
        let start = end.saturating_sub(limit.saturating_mul(2));
        let events = self
            .events(start, end.saturating_add(LOOK_AHEAD).min(last))
            .await?;
        let mut entries = entries(&events);
        entries.retain(|entry| entry.number <= end);
        entries.reverse();
        entries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let earliest = entries.last().map_or(start + 1, |entry| entry.number);
        Ok((entries, (earliest > 1).then_some(earliest)))
    }

    /// The number of the last event.
    async fn last(&self) -> Result<u64, Problem> {
        let read = StreamRead {
            stream: stream().map_err(|error| unreadable(&error))?,
            from: ReadFrom::Last,
        };
        let pages = self.log.read_streams(&[read], 1).await;
        let pages = pages.map_err(|error| unreadable(&error))?;
        let last = pages.first().and_then(|page| page.events.last());
        Ok(last.map_or(0, |event| event.version.number()))
    }

    /// The events after number `start`, up to `end`.
    async fn events(&self, start: u64, end: u64) -> Result<Vec<RecordedEvent>, Problem> {
        let stream = stream().map_err(|error| unreadable(&error))?;
        let mut events: Vec<RecordedEvent> = Vec::new();
        let mut at = start;
        while at < end {
            let limit = usize::try_from(end - at).unwrap_or(usize::MAX);
            let read = self.log.read_stream(&stream, Version::new(at), limit);
            let page = read.await.map_err(|error| unreadable(&error))?;
            let Some(last) = page.last() else { break };
            at = last.version.number();
            events.extend(page);
        }
        Ok(events)
    }

    /// Records `event`.
    async fn append(
        &self,
        event_type: &str,
        payload: &impl Serialize,
        about: &About,
        cause: Option<EventId>,
    ) -> Result<EventId, CannotRecord> {
        let id = EventId::new(Uuid::now_v7());
        let metadata = Metadata {
            correlation_id: about.context.correlation_id().to_owned(),
            causation_id: cause.map(EventId::uuid),
            actor: Some(about.by.clone()),
            traceparent: about.context.traceparent().map(str::to_owned),
            ..Metadata::default()
        };
        let event = NewEvent {
            id,
            event_type: event_type.into(),
            schema_version: 1,
            payload: Payload::of(payload)?,
            metadata: Payload::of(&metadata)?,
        };
        let append = Append::one(stream()?, ExpectedVersion::Any, vec![event]);
        let appending = self.log.append(LANE, Arc::from([append]));
        let mut appended = tokio::time::timeout(PATIENCE, appending)
            .await
            .map_err(|_| CannotRecord::TooLate)?;
        match appended.pop() {
            Some(Ok(_)) => Ok(id),
            Some(Err(error)) => Err(error.into()),
            None => Err(CannotRecord::TooLate),
        }
    }
}

/// The stream that the record is.
fn stream() -> Result<StreamId, InvalidStreamId> {
    StreamId::new(CATEGORY, ID)
}

/// Why an action could not be recorded.
#[derive(Debug, thiserror::Error)]
enum CannotRecord {
    #[error("the record cannot be appended to")]
    Append(#[from] AppendError),
    #[error("the record has no stream")]
    Stream(#[from] InvalidStreamId),
    #[error("the record cannot be written")]
    Write(#[from] serde_json::Error),
    #[error("the log did not answer in time")]
    TooLate,
}

/// The actions of which these events tell, in order.
fn entries(events: &[RecordedEvent]) -> Vec<AuditEntry> {
    let mut ends = HashMap::new();
    for event in events.iter().filter(|event| *event.event_type == *ENDED) {
        let cause = event.metadata().ok().and_then(|own| own.causation_id);
        if let (Some(cause), Ok(ended)) = (cause, event.payload.decode::<Ended>()) {
            ends.insert(cause, (event.recorded_at, ended));
        }
    }
    let asked = events.iter().filter(|event| *event.event_type == *ASKED);
    asked
        .filter_map(|event| {
            let (ended_at, ended) = ends.remove(&event.id.uuid()).unzip();
            Some(AuditEntry {
                number: event.version.number(),
                at: event.recorded_at,
                asked: event.payload.decode().ok()?,
                correlation_id: event.metadata().unwrap_or_default().correlation_id,
                ended_at,
                ended,
            })
        })
        .collect()
}

/// The record on the admin listener: `GET /api/audit?before=&limit=`.
pub(super) fn router(audit: Audit) -> Router {
    Router::new()
        .route("/api/audit", get(list))
        .with_state(audit)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    before: Option<u64>,
    limit: Option<u64>,
}

async fn list(
    State(audit): State<Audit>,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let malformed = |_| {
        let detail = format!(
            "The parameters are `before`, an entry's number, and `limit`, from 1 to {MAX_PAGE}."
        );
        Problem::new(ProblemKind::MalformedRequest, detail)
    };
    let Query(wanted) = wanted.map_err(malformed)?;
    let limit = wanted.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let (entries, next) = audit.page(wanted.before, limit).await?;
    let body = Json(json!({"data": entries, "next": next}));
    Ok(([(header::CACHE_CONTROL, "no-store")], body).into_response())
}

/// Has an action done by those who may, between its two events. What only reads goes on at once.
pub(super) async fn record(
    State(audit): State<Audit>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if request.method().is_safe() {
        return Ok(next.run(request).await);
    }
    let Some((action, target)) = Action::of(&request) else {
        let detail = "This is no action of the administration. Nothing was done.";
        return Err(Problem::new(ProblemKind::Forbidden, detail));
    };
    let Some(principal) = request.extensions().get::<Principal>().cloned() else {
        tracing::error!(action = action.name, "an action of nobody was refused");
        return Err(Problem::internal());
    };
    if !principal.may(action) {
        tracing::warn!(
            action = action.name,
            by = principal.name(),
            "an action was refused"
        );
        return Err(not_permitted(&principal, action));
    }
    let context = request.extensions().get::<RequestContext>().cloned();
    let about = About {
        by: principal.name().to_owned(),
        context: context.unwrap_or_default(),
    };
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| {
        let detail = format!("The body has more than {MAX_BODY_BYTES} bytes. Nothing was done.");
        Problem::new(ProblemKind::TooLarge, detail)
    })?;
    let asked = Asked {
        action: action.name.to_owned(),
        target,
        said: serde_json::from_slice(&body).unwrap_or_default(),
        by: about.by.clone(),
        via: principal.via().name().to_owned(),
    };
    let request = Request::from_parts(parts, Body::from(body));
    // Whoever goes away before the answer leaves an action that is done and recorded all the same.
    let span = tracing::Span::current();
    let doing = tracing::Instrument::instrument(done(audit, asked, about, request, next), span);
    tokio::spawn(doing).await.map_err(|_| Problem::internal())?
}

/// Does what was asked, between its two events.
async fn done(
    audit: Audit,
    asked: Asked,
    about: About,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let recorded = audit.append(ASKED, &asked, &about, None).await;
    let id = recorded.map_err(|error| {
        tracing::error!(
            error = causes(&error),
            action = asked.action,
            "an action cannot be recorded, so it is not done"
        );
        let detail = "The action cannot be recorded in the log, so it was not done. Ask again.";
        Problem::new(ProblemKind::Unavailable, detail).retry_after(Duration::from_secs(1))
    })?;
    let (response, ended) = ended(next.run(request).await).await;
    tracing::info!(
        action = asked.action,
        target = asked.target,
        by = asked.by,
        via = asked.via,
        outcome = ?ended.outcome,
        "an operator's action"
    );
    if let Err(error) = audit.append(ENDED, &ended, &about, Some(id)).await {
        // It is done, and that somebody asked for it is recorded.
        tracing::error!(
            error = causes(&error),
            action = asked.action,
            "how an action ended cannot be recorded"
        );
    }
    Ok(response)
}

/// What came of an action, by its answer.
async fn ended(response: Response) -> (Response, Ended) {
    let outcome = Outcome::of(response.status());
    if response.status().is_success() {
        let ended = Ended {
            outcome,
            detail: None,
        };
        return (response, ended);
    }
    let (parts, body) = response.into_parts();
    // An answer that is longer than any problem's is not passed on.
    let body: Bytes = to_bytes(body, MAX_PROBLEM_BYTES).await.unwrap_or_default();
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    let detail = problem.get("detail").and_then(Value::as_str);
    let ended = Ended {
        outcome,
        detail: detail.map(str::to_owned),
    };
    (Response::from_parts(parts, Body::from(body)), ended)
}

fn unreadable(error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::warn!(error = causes(error), "the record cannot be read");
    let detail = "The log cannot be read at the moment. Ask again.";
    Problem::new(ProblemKind::Unavailable, detail).retry_after(Duration::from_secs(1))
}
