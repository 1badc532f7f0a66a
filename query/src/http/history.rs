//! The past over HTTP: the events of a document's stream, and a document as it once was.

use std::borrow::Cow;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use tidelog_domain::{EventId, Metadata, RecordedEvent, StreamId, Version, ViewDefinition, causes};
use tidelog_eventbus::Retry;
use tidelog_http::{Caller, Operation, Problem, ProblemKind, require_json_answer};
use tokio::time::timeout;

use super::problems::{RETRY_AFTER, bad_path};
use super::read::{Answered, OfDocument, Reads, check_id};
use super::representation::time_text;
use super::scope::Scope;
use super::{filters, parameters};
use crate::history::{History, HistoryError, MAX_FOLDED_EVENTS, Then};
use crate::store::Document;

/// A page of a history.
#[derive(Serialize)]
struct Page<'a> {
    data: Vec<Shown<'a>>,
    /// What to ask for as `after`, if there is more.
    next: Option<String>,
}

/// An event as clients see it.
#[derive(Serialize)]
struct Shown<'a> {
    id: EventId,
    r#type: &'a str,
    version: Version,
    schema_version: u32,
    recorded_at: String,
    data: Option<&'a RawValue>,
    metadata: Why,
    /// It is shown as it was stored, since this program cannot bring it to today's shape.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unreadable: bool,
}

/// What is shown of why an event happened.
#[derive(Serialize)]
struct Why {
    correlation_id: String,
    causation_id: Option<String>,
    actor: Option<String>,
}

/// `GET /{view}/{id}/history`: a page of the events of the document's stream, oldest first.
pub(super) async fn events(
    State(reads): State<Reads>,
    caller: Caller,
    path: Result<Path<OfDocument>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(OfDocument { name, id }) = path.map_err(bad_path)?;
    let view = &**reads.one_of(&name)?;
    caller.may(&Operation::View(view.name()))?;
    require_json_answer(&headers)?;
    check_id(view, &id)?;
    let stream = stream_of(view, &id, &Scope::of(&caller))?;
    let parameters = parameters::parse(query.as_deref())?;
    let (after, limit) = filters::history(&parameters, &reads.settings)?;
    let history = log_of(&reads)?;
    let reading = async {
        // One more than is shown tells whether there is a next page; a page of large events may be shorter than asked for.
        let mut events = history.events(&stream, after, limit + 1).await?;
        let more = match events.last() {
            Some(_) if events.len() > limit => true,
            Some(last) => !history.events(&stream, last.version, 1).await?.is_empty(),
            None => false,
        };
        events.truncate(limit);
        let is_there = !events.is_empty()
            || after > Version::NONE
                && !history.events(&stream, Version::NONE, 1).await?.is_empty();
        Ok(is_there.then_some((events, more)))
    };
    let Some((events, more)) = in_time(&reads, reading).await? else {
        let detail = format!("There never was a {name} with this id.");
        return Err(Problem::new(ProblemKind::NotFound, detail));
    };
    let today: Vec<_> = events.iter().map(|event| today(view, event)).collect();
    let page = Page {
        data: today
            .iter()
            .map(|(event, read)| shown(event, *read))
            .collect(),
        next: events
            .last()
            .filter(|_| more)
            .map(|last| last.version.to_string()),
    };
    let body = serde_json::to_string(&page).map_err(|error| {
        tracing::error!(error = causes(&error), "a history cannot be shown");
        Problem::internal()
    })?;
    Ok(reads.answer(&Answered::default(), StatusCode::OK, body))
}

/// The document of `view` that is called `id` in `scope`, as it was `then`; tombstones included.
pub(super) async fn document(
    reads: &Reads,
    view: &dyn ViewDefinition,
    (id, scope): (&str, &Scope),
    then: Then,
) -> Result<Option<Document>, Problem> {
    let stream = stream_of(view, id, scope)?;
    let history = log_of(reads)?;
    in_time(reads, history.document(view, &stream, then)).await
}

/// The stream that the document `id` of `view` is made from.
fn stream_of(view: &dyn ViewDefinition, id: &str, scope: &Scope) -> Result<StreamId, Problem> {
    let Some(category) = view.category() else {
        return Err(Problem::new(
            ProblemKind::NotFound,
            format!(
                "A document of {} is made from several streams, so that it has no single stream to tell of.",
                view.name()
            ),
        ));
    };
    scope.stream(category, id).map_err(|error| {
        let detail = format!("The id is not valid: {error}.");
        Problem::new(ProblemKind::MalformedRequest, detail)
    })
}

/// What reads the past, if this service can.
fn log_of(reads: &Reads) -> Result<&History, Problem> {
    reads.service.history.as_ref().ok_or_else(log_missing)
}

/// The problem that this service was not told where the log is.
pub(super) fn log_missing() -> Problem {
    Problem::new(
        ProblemKind::Unavailable,
        "This service has no access to the log, from which the past and live changes are read: its setting \
         `database_url` must name it.",
    )
    .retry_after(RETRY_AFTER)
}

/// Gives a read of the log its time, and no more.
async fn in_time<T>(
    reads: &Reads,
    reading: impl Future<Output = Result<T, HistoryError>>,
) -> Result<T, Problem> {
    match timeout(reads.settings.read_timeout, reading).await {
        Ok(read) => read.map_err(|error| problem(&error)),
        Err(_) => Err(problem(&HistoryError::TooLong)),
    }
}

/// What a client hears of an error; the log of the service hears the rest.
fn problem(error: &HistoryError) -> Problem {
    let causes = causes(error);
    match error {
        HistoryError::Log(error) if error.retry() == Retry::AfterBackoff => {
            tracing::warn!(error = causes, "the log cannot be read for a query");
            let detail =
                "The log, from which this is read, cannot be reached at the moment. Ask again.";
            Problem::new(ProblemKind::Unavailable, detail).retry_after(RETRY_AFTER)
        }
        HistoryError::Log(_) => {
            tracing::error!(error = causes, "the log cannot be read for a query");
            Problem::internal()
        }
        HistoryError::Busy => {
            let detail = "Too many reads of the past at once. Ask again.";
            Problem::new(ProblemKind::Overloaded, detail).retry_after(RETRY_AFTER)
        }
        HistoryError::TooLong => {
            tracing::warn!(error = causes, "a read of the past took too much");
            let detail = format!(
                "The log did not answer in the time that it has, or the document was made from more than \
                 {MAX_FOLDED_EVENTS} events."
            );
            Problem::new(ProblemKind::Unavailable, detail).retry_after(RETRY_AFTER)
        }
        HistoryError::Unreadable { version, .. } => {
            tracing::error!(error = causes, "a document cannot be shown as it was");
            let detail = format!(
                "The event that made version {version} cannot be read by this program, so that it cannot say what the \
                 document was after it. /history shows the event as it was stored."
            );
            Problem::new(ProblemKind::Internal, detail)
        }
    }
}

/// `event` in today's shape, and whether this program can read it.
fn today<'a>(
    view: &dyn ViewDefinition,
    event: &'a RecordedEvent,
) -> (Cow<'a, RecordedEvent>, bool) {
    match view.upcasters().map(|steps| steps.upcast_event(event)) {
        Some(Ok(today)) => (today, true),
        Some(Err(_)) => (Cow::Borrowed(event), false),
        None => (Cow::Borrowed(event), true),
    }
}

fn shown(event: &RecordedEvent, is_read: bool) -> Shown<'_> {
    let data = event.payload.as_raw().ok();
    // What is no metadata tells nothing of why.
    let why = event.metadata().unwrap_or_else(|_| Metadata::default());
    Shown {
        id: event.id,
        r#type: &event.event_type,
        version: event.version,
        schema_version: event.schema_version,
        recorded_at: time_text(event.recorded_at),
        unreadable: !is_read || data.is_none(),
        data,
        metadata: Why {
            correlation_id: why.correlation_id,
            causation_id: why.causation_id.map(|id| id.to_string()),
            actor: why.actor,
        },
    }
}
