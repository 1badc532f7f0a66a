//! The administration of views: what the CLI and the admin pages call.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::Utc;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tidelog_http::{BodyLimits, Problem, ProblemKind, no_query, read_json, require_json_answer};
use tokio_util::sync::CancellationToken;

#[cfg(test)]
mod tests;

use super::read::{RETRY_AFTER, bad_path, no_view};
use crate::replay::{Compare, Only, ReplayError};
use crate::store::ReadError;
use crate::views::{LastReplay, ViewReport, Views};
use tidelog_domain::causes;

/// How many documents are compared where nothing else is said.
const SAMPLE: u32 = 1_000;

/// The largest body that is read.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// The headers of RFC 7240.
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The preference for an answer before all is done.
const RESPOND_ASYNC: &str = "respond-async";

/// What the handlers work with.
#[derive(Clone)]
struct Administration {
    views: Views,
    shutdown: CancellationToken,
    ended: Ended,
}

/// How the last replay or rollback of each view ended that was asked for here.
#[derive(Clone, Default)]
struct Ended(Arc<RwLock<BTreeMap<String, LastReplay>>>);

impl Ended {
    fn add(&self, view: &str, done: Option<Value>, error: Option<String>) {
        let ended_at = Utc::now();
        let last = LastReplay {
            ended_at,
            done,
            error,
        };
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(view.to_owned(), last);
    }

    fn of(&self, view: &str) -> Option<LastReplay> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(view).cloned()
    }
}

/// The administration of `views`, to be mounted at `/admin`:
///
/// - `GET /api/views` and `GET /api/views/{view}` say which version is read and how far a replay is, whichever process runs it;
/// - `POST /api/views/{view}/replay` builds a view anew and answers when it is read; at once with `Prefer: respond-async`; with
///   `{"document":"…"}` or `{"aggregate":"…"}` it makes those documents alone what the log says;
/// - `POST /api/views/{view}/rollback` goes back to the version before, and answers when that is read;
/// - `POST /api/views/{view}/clean` lets go of the version before.
///
/// A replay or rollback goes on when its client does not wait for it; it is cancelled at `shutdown`.
pub fn views_admin_router(views: Views, shutdown: CancellationToken) -> Router {
    Router::new()
        .route("/api/views", get(list))
        .route("/api/views/{view}", get(one))
        .route("/api/views/{view}/replay", post(replay))
        .route("/api/views/{view}/rollback", post(rollback))
        .route("/api/views/{view}/clean", post(clean))
        .with_state(Administration {
            views,
            shutdown,
            ended: Ended::default(),
        })
}

/// How a view is to be replayed; all of it may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// How many events a second, at most.
    throttle: Option<NonZeroU32>,
    /// How it is compared with the log.
    #[serde(default)]
    compare: Comparing,
    /// Whether the version that is read until then is kept until somebody says otherwise.
    #[serde(default)]
    keep: bool,
}

/// What of a view is to be replayed: the one, or the other.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum WantedOnly {
    Document(String),
    Aggregate(String),
}

impl From<WantedOnly> for Only {
    fn from(wanted: WantedOnly) -> Self {
        match wanted {
            WantedOnly::Document(key) => Self::Document(key),
            WantedOnly::Aggregate(name) => Self::Aggregate(name),
        }
    }
}

/// An object without members.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// How what was built is compared with the log.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Comparing {
    None,
    Counts,
    #[default]
    Sample,
    Full,
}

impl From<Comparing> for Compare {
    fn from(comparing: Comparing) -> Self {
        match comparing {
            Comparing::None => Self::Nothing,
            Comparing::Counts => Self::Counts,
            Comparing::Sample => Self::Sample(SAMPLE),
            Comparing::Full => Self::Full,
        }
    }
}

async fn list(State(admin): State<Administration>, request: Request) -> Result<Response, Problem> {
    require_json_answer(request.headers())?;
    no_query(request.uri())?;
    let all = ViewReport::all(admin.views.catalog(), admin.views.store()).await;
    let mut all = all.map_err(|error| unavailable(&error))?;
    for report in &mut all {
        report.last = admin.ended.of(&report.view);
    }
    Ok(answer(&all))
}

async fn one(
    State(admin): State<Administration>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Path(name) = path.map_err(bad_path)?;
    require_json_answer(request.headers())?;
    no_query(request.uri())?;
    let view = admin.views.catalog().get(&name);
    let view = view.ok_or_else(|| no_view(&name))?;
    let report = ViewReport::read(&**view, admin.views.store()).await;
    let mut report = report.map_err(|error| unavailable(&error))?;
    report.last = admin.ended.of(&report.view);
    Ok(answer(&report))
}

async fn replay(
    State(admin): State<Administration>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Path(name) = path.map_err(bad_path)?;
    let view = admin.views.catalog().get(&name).cloned();
    let view = view.ok_or_else(|| no_view(&name))?;
    let at_once = prefers_answer_at_once(request.headers());
    let body = body(request).await?;
    let replay = admin.views.replay(&name);
    let (shutdown, ended) = (admin.shutdown, admin.ended);
    let is_of_some = |name: &str| body.get(name).is_some();
    if is_of_some("document") || is_of_some("aggregate") {
        let only: Only = read::<WantedOnly>(Value::Object(body))?.into();
        let replay = run(ended, name.clone(), async move {
            replay.run_only(&view, &only, &|_| {}, &shutdown).await
        });
        return answered(&name, at_once, replay).await;
    }
    let wanted: Wanted = read(Value::Object(body))?;
    let mut options = replay.options().clone();
    options.max_events_per_second = wanted.throttle;
    options.compare = wanted.compare.into();
    options.keep = wanted.keep;
    let replay = replay.with_options(options);
    let replay = run(ended, name.clone(), async move {
        replay.run(&view, &|_| {}, &shutdown).await
    });
    answered(&name, at_once, replay).await
}

/// The answer to a replay of `view`: at once, or when it is over.
async fn answered(
    view: &str,
    at_once: bool,
    replay: impl Future<Output = Result<Response, Problem>> + Send + 'static,
) -> Result<Response, Problem> {
    // It goes on when the client goes away.
    let replay = tokio::spawn(replay);
    if at_once {
        return Ok(begun(view));
    }
    replay.await.map_err(|_| Problem::internal())?
}

async fn rollback(
    State(admin): State<Administration>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Path(name) = path.map_err(bad_path)?;
    let view = admin.views.catalog().get(&name).cloned();
    let view = view.ok_or_else(|| no_view(&name))?;
    let _: Nothing = read(Value::Object(body(request).await?))?;
    let (replay, shutdown) = (admin.views.replay(&name), admin.shutdown);
    let back = run(admin.ended, name, async move {
        replay.roll_back(&view, true, &|_| {}, &shutdown).await
    });
    let done = tokio::spawn(back).await;
    done.map_err(|_| Problem::internal())?
}

async fn clean(
    State(admin): State<Administration>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Path(name) = path.map_err(bad_path)?;
    let known = admin.views.catalog().get(&name);
    known.ok_or_else(|| no_view(&name))?;
    let _: Nothing = read(Value::Object(body(request).await?))?;
    let cleaned = admin.views.replay(&name).clean(&name).await;
    let retired = cleaned.map_err(|error| problem(&error))?;
    Ok(answer(&json!({"view": name, "retired": retired})))
}

/// Says what becomes of a replay of `view`, also to whoever asks later.
async fn run<T: Serialize + Send + 'static>(
    ended: Ended,
    view: String,
    replaying: impl Future<Output = Result<T, ReplayError>> + Send + 'static,
) -> Result<Response, Problem> {
    match tokio::spawn(replaying).await {
        Ok(Ok(replayed)) => {
            ended.add(&view, serde_json::to_value(&replayed).ok(), None);
            Ok(answer(&replayed))
        }
        Ok(Err(error)) => {
            tracing::warn!(error = causes(&error), "a replay that was asked for failed");
            let problem = problem(&error);
            ended.add(&view, None, Some(problem.detail().to_owned()));
            Err(problem)
        }
        Err(panic) => {
            tracing::error!(error = %panic, "a replay panicked");
            let problem = Problem::internal();
            ended.add(&view, None, Some(problem.detail().to_owned()));
            Err(problem)
        }
    }
}

/// The object in the body of `request`; without a body, an empty one.
async fn body(request: Request) -> Result<Map<String, Value>, Problem> {
    require_json_answer(request.headers())?;
    no_query(request.uri())?;
    let (parts, body) = request.into_parts();
    let limits = BodyLimits {
        max_bytes: MAX_BODY_BYTES,
        ..BodyLimits::default()
    };
    let read = read_json(&parts.headers, body, &["application/json"], limits).await?;
    match read.value {
        None => Ok(Map::new()),
        Some(Value::Object(body)) => Ok(body),
        Some(_) => Err(invalid("it is no object")),
    }
}

/// What a body says.
fn read<T: DeserializeOwned>(body: Value) -> Result<T, Problem> {
    serde_json::from_value(body).map_err(|error| invalid(&error.to_string()))
}

fn invalid(reason: &str) -> Problem {
    let detail =
        format!("The body is not what is wanted here: {reason}. Correct it and send it again.");
    Problem::new(ProblemKind::Invalid, detail)
}

/// Whether a client does not want to wait until all is done.
fn prefers_answer_at_once(headers: &HeaderMap) -> bool {
    let values = headers.get_all(PREFER).iter();
    let mut preferences = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    preferences.any(|preference| preference.trim().eq_ignore_ascii_case(RESPOND_ASYNC))
}

fn answer(data: &impl Serialize) -> Response {
    let body = Json(json!({"data": data}));
    ([(header::CACHE_CONTROL, "no-store")], body).into_response()
}

/// The replay of `view` was begun; the address tells how far it is.
fn begun(view: &str) -> Response {
    let mut headers = HeaderMap::new();
    // The name is that of a view, which a header can have.
    if let Ok(location) = format!("/admin/api/views/{view}").parse() {
        headers.insert(header::LOCATION, location);
    }
    headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static(RESPOND_ASYNC));
    let body = json!({"data": {"view": view}});
    (StatusCode::ACCEPTED, headers, Json(body)).into_response()
}

fn unavailable(error: &ReadError) -> Problem {
    tracing::warn!(
        error = causes(error),
        "the administration of views got no answer"
    );
    Problem::new(
        ProblemKind::Unavailable,
        "The read store does not answer now.",
    )
    .retry_after(RETRY_AFTER)
}

fn problem(error: &ReplayError) -> Problem {
    match error {
        ReplayError::AlreadyRunning { .. } => {
            Problem::new(ProblemKind::RequestInProgress, sentence(error)).retry_after(RETRY_AFTER)
        }
        // What stands in the way is an event or a document; it is named, and that tells nothing of the backends.
        ReplayError::Fold(_) | ReplayError::Differs { .. } => Problem::new(
            ProblemKind::Internal,
            format!("{}. The version that was read is read on.", causes(error)),
        ),
        ReplayError::NothingBefore { .. } => Problem::new(ProblemKind::NotFound, sentence(error)),
        ReplayError::NothingOf { .. } => Problem::new(ProblemKind::NotFound, plain_sentence(error)),
        ReplayError::SetAside { .. }
        | ReplayError::OtherDefinition { .. }
        | ReplayError::TooMany { .. } => Problem::new(ProblemKind::Rejected, plain_sentence(error)),
        ReplayError::KeptChanging { .. } => {
            Problem::new(ProblemKind::Conflict, plain_sentence(error)).retry_after(RETRY_AFTER)
        }
        ReplayError::NotBuilt { .. }
        | ReplayError::OtherHistory { .. }
        | ReplayError::Superseded
        | ReplayError::Cancelled
        | ReplayError::Log(_)
        | ReplayError::Store(_) => {
            Problem::new(ProblemKind::Unavailable, sentence(error)).retry_after(RETRY_AFTER)
        }
    }
}

/// What went wrong, without its causes: they are in the log.
fn sentence(error: &ReplayError) -> String {
    format!(
        "{} The version that was read is read on.",
        plain_sentence(error)
    )
}

/// The same of a replay that leads readers nowhere.
fn plain_sentence(error: &ReplayError) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase());
    let first: String = first.into_iter().flatten().collect();
    format!("{first}{}.", chars.as_str())
}
