//! The subscriptions on the admin listener.

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidelog_domain::{Partition, Position, causes};
use tidelog_eventbus::{
    OperationError, RestartError, Retry, Skip, Start, StartError as BeginError,
};
use tidelog_http::{BodyLimits, Problem, ProblemKind, no_query, read_json, require_json_answer};

use super::{SubscriptionError, Subscriptions};

/// How large the body of a request may be: a reason and a name.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// When to ask again after something that passes.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// The most characters of a client's text that are repeated to it.
const MAX_QUOTED_CHARS: usize = 64;

/// What `subscriptions` can do, to be mounted at `/admin`.
pub(crate) fn router(subscriptions: Subscriptions) -> Router {
    Router::new()
        .route("/api/subscriptions", get(list))
        .route("/api/subscriptions/{name}/pause", post(pause))
        .route("/api/subscriptions/{name}/resume", post(resume))
        .route("/api/parked", get(parked))
        .route("/api/parked/{name}", get(show))
        .route("/api/parked/{name}/retry", post(retry))
        .route("/api/parked/{name}/skip", post(skip))
        .route("/api/skipped/{name}", get(skipped))
        .route("/api/reactions/{name}/restart", post(restart))
        .with_state(subscriptions)
}

type Answer = Result<Response, Problem>;

pub(crate) type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;

pub(crate) type Name = Result<Path<String>, PathRejection>;

async fn list(State(all): State<Subscriptions>, request: Request) -> Answer {
    require_json_answer(request.headers())?;
    no_query(request.uri())?;
    answer(Ok(all.list().await))
}

async fn pause(State(all): State<Subscriptions>, path: Name, request: Request) -> Answer {
    /// Why it is to be paused.
    #[derive(Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pause {
        #[serde(default)]
        reason: String,
    }
    let name = name(path)?;
    let asked: Pause = body(request).await?.unwrap_or_default();
    let rests = all.pause(&name, &asked.reason).await.map_err(problem)?;
    answer(Ok(json!({"name": name, "paused": true, "at_rest": rests})))
}

async fn resume(State(all): State<Subscriptions>, path: Name, request: Request) -> Answer {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Resume {}
    let name = name(path)?;
    let _: Option<Resume> = body(request).await?;
    all.resume(&name).await.map_err(problem)?;
    answer(Ok(json!({"name": name, "paused": false})))
}

async fn parked(State(all): State<Subscriptions>, parameters: Parameters) -> Answer {
    let [name] = known(parameters, ["subscription"])?;
    answer(all.parked(name.as_deref()).await)
}

async fn show(State(all): State<Subscriptions>, path: Name, parameters: Parameters) -> Answer {
    let name = name(path)?;
    let [sequence, payload] = known(parameters, ["sequence", "payload"])?;
    let with_payload = match payload.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(malformed("The parameter `payload` is true or false.")),
    };
    match sequence {
        Some(sequence) => answer(all.show(&name, &sequence, with_payload).await),
        None => answer(all.parked(Some(&name)).await),
    }
}

async fn skipped(State(all): State<Subscriptions>, path: Name, request: Request) -> Answer {
    no_query(request.uri())?;
    answer(all.skipped(&name(path)?).await)
}

async fn retry(State(all): State<Subscriptions>, path: Name, request: Request) -> Answer {
    /// One, or all.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Retry {
        sequence: Option<String>,
        #[serde(default)]
        all: bool,
    }
    let name = name(path)?;
    let asked: Option<Retry> = body(request).await?;
    match asked {
        Some(Retry {
            sequence: Some(sequence),
            all: false,
        }) => answer(all.retry(&name, &sequence).await),
        Some(Retry {
            sequence: None,
            all: true,
        }) => answer(all.retry_all(&name).await),
        _ => Err(invalid(
            "The body is {\"sequence\": \"…\"} for one, or {\"all\": true} for all.",
        )),
    }
}

async fn skip(State(all): State<Subscriptions>, path: Name, request: Request) -> Answer {
    /// Which event, and why.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        sequence: String,
        reason: String,
        partition: Option<u16>,
        position: Option<u64>,
    }
    let name = name(path)?;
    let asked: Option<Asked> = body(request).await?;
    let Some(asked) = asked else {
        return Err(invalid(
            "The body is {\"sequence\": \"…\", \"reason\": \"…\"}.",
        ));
    };
    let skip = Skip {
        sequence: &asked.sequence,
        partition: asked.partition.map(Partition::new),
        position: asked.position.map(Position::new),
        reason: &asked.reason,
    };
    answer(all.skip(&name, &skip).await)
}

async fn restart(State(all): State<Subscriptions>, path: Name, request: Request) -> Answer {
    /// Where it goes on, and why, which is for the record.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Restart {
        from: String,
        #[serde(default, rename = "reason")]
        _reason: Option<String>,
    }
    let name = name(path)?;
    let asked: Option<Restart> = body(request).await?;
    let from = asked.map(|asked| asked.from).unwrap_or_default();
    let start = start(&from).ok_or_else(|| {
        invalid(
            "The body is {\"from\": \"…\"}: beginning, now, a time such as 2026-05-01T12:00:00Z, or a consistency token.",
        )
    })?;
    all.restart(&name, &start).await.map_err(problem)?;
    answer(Ok(json!({"name": name, "from": from})))
}

/// Reads where to begin.
fn start(text: &str) -> Option<Start> {
    match text {
        "beginning" => Some(Start::Beginning),
        "now" => Some(Start::Now),
        _ => {
            let time = text.parse().map(Start::Time);
            time.ok().or_else(|| text.parse().map(Start::After).ok())
        }
    }
}

pub(crate) fn name(path: Name) -> Result<String, Problem> {
    match path {
        Ok(Path(name)) => Ok(name),
        Err(_) => Err(malformed(
            "The path is not UTF-8 in percent-encoding. Correct it and send it again.",
        )),
    }
}

/// The values of the parameters of these names; there may be no others.
pub(crate) fn known<const N: usize>(
    parameters: Parameters,
    names: [&str; N],
) -> Result<[Option<String>; N], Problem> {
    let Ok(Query(parameters)) = parameters else {
        return Err(malformed(
            "The parameters are not UTF-8 in percent-encoding. Correct them and send them again.",
        ));
    };
    let mut values = [const { None }; N];
    for (name, value) in parameters {
        let place = names.iter().position(|known| *known == name);
        let Some(slot) = place.and_then(|at| values.get_mut(at)) else {
            let name: String = name.chars().take(MAX_QUOTED_CHARS).collect();
            let known = names.join(", ");
            let detail = format!("The parameter {name:?} is not known here; there are: {known}.");
            return Err(
                Problem::new(ProblemKind::UnknownParameter, detail).with("parameter", json!(name))
            );
        };
        if slot.replace(value).is_some() {
            let detail = format!("The parameter {name:?} is there twice; it may be there once.");
            return Err(malformed(&detail));
        }
    }
    Ok(values)
}

/// The body of a request that takes no parameters.
async fn body<T: DeserializeOwned>(request: Request) -> Result<Option<T>, Problem> {
    require_json_answer(request.headers())?;
    no_query(request.uri())?;
    let (parts, body): (_, Body) = request.into_parts();
    let limits = BodyLimits {
        max_bytes: MAX_BODY_BYTES,
        ..BodyLimits::default()
    };
    let read = read_json(&parts.headers, body, &["application/json"], limits).await?;
    let Some(value) = read.value else {
        return Ok(None);
    };
    let parsed = serde_json::from_value(value);
    parsed.map(Some).map_err(|error| {
        invalid(&format!(
            "The body is not what is wanted here: {error}. Correct it and send it again."
        ))
    })
}

fn answer<T: Serialize>(done: Result<T, SubscriptionError>) -> Answer {
    let data = done.map_err(problem)?;
    let body = Json(json!({"data": data}));
    Ok(([(header::CACHE_CONTROL, "no-store")], body).into_response())
}

fn malformed(detail: &str) -> Problem {
    Problem::new(ProblemKind::MalformedRequest, detail)
}

fn invalid(detail: &str) -> Problem {
    Problem::new(ProblemKind::Invalid, detail)
}

/// What a client hears of an error; the log hears the rest.
fn problem(error: SubscriptionError) -> Problem {
    let detail = sentence(&error);
    let kind = match &error {
        SubscriptionError::Unknown { .. }
        | SubscriptionError::Operation(OperationError::NotParked { .. }) => ProblemKind::NotFound,
        SubscriptionError::Operation(OperationError::Moved { .. }) => {
            ProblemKind::PreconditionFailed
        }
        SubscriptionError::NotAReaction { .. }
        | SubscriptionError::Restart(RestartError::Start(BeginError::OtherHistory { .. }))
        | SubscriptionError::Operation(
            OperationError::Reason { .. } | OperationError::Ambiguous { .. },
        ) => ProblemKind::Invalid,
        SubscriptionError::Operation(OperationError::TooManyRequests { .. }) => {
            return Problem::new(ProblemKind::Overloaded, detail).retry_after(RETRY_AFTER);
        }
        SubscriptionError::NotBuilt { .. }
        | SubscriptionError::Restart(RestartError::Busy { .. })
        | SubscriptionError::Operation(
            OperationError::NotStarted | OperationError::Contended { .. },
        ) => return Problem::new(ProblemKind::Unavailable, detail).retry_after(RETRY_AFTER),
        _ if may_pass(&error) => {
            tracing::warn!(error = causes(&error), "an operation failed");
            return Problem::new(ProblemKind::Unavailable, detail).retry_after(RETRY_AFTER);
        }
        _ => {
            tracing::error!(error = causes(&error), "an operation failed");
            return Problem::internal();
        }
    };
    match &error {
        SubscriptionError::Operation(OperationError::Ambiguous { partitions, .. }) => {
            Problem::new(kind, detail).with("partitions", json!(partitions))
        }
        SubscriptionError::Operation(OperationError::Moved { first, .. }) => {
            Problem::new(kind, detail).with("position", json!(first))
        }
        _ => Problem::new(kind, detail),
    }
}

/// Whether it is worth trying again: something is unavailable.
fn may_pass(error: &SubscriptionError) -> bool {
    let retry = match error {
        SubscriptionError::Views(error) => error.retry(),
        SubscriptionError::Operation(OperationError::States(error)) => error.retry(),
        SubscriptionError::Operation(OperationError::Log(error))
        | SubscriptionError::Restart(RestartError::Start(BeginError::Log(error))) => error.retry(),
        SubscriptionError::Restart(RestartError::State(error)) => error.retry(),
        _ => Retry::Never,
    };
    retry != Retry::Never
}

/// What went wrong, without its causes: they are in the log.
fn sentence(error: &SubscriptionError) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    let first: String = chars
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .collect();
    format!("{first}{}.", chars.as_str())
}
