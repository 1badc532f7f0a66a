//! What the admin listener, the pages and the command line can ask of the log itself: events, streams, why something happened.

mod chain;
mod entry;
mod events;
mod find;
mod search;
mod states;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, http::header};
use serde_json::Value;
use tidelog_command::store::{AppendError, EventStore};
use tidelog_domain::{Decider, causes};
use tidelog_eventbus::{LogError, StartError};
use tidelog_http::{Problem, ProblemKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::App;

#[cfg(any(feature = "cli", feature = "pages"))]
pub(crate) use chain::{CausedEvent, Chain, CommandNode};
#[cfg(feature = "pages")]
pub(crate) use states::StateEntry;
#[cfg(feature = "pages")]
pub(crate) use streams::{Difference, History};

/// How many searches run at a time: each reads as fast as the database gives.
const MAX_SEARCHES: usize = 2;

/// How many streams are folded at a time: that runs the aggregates' own code, beside whatever else the process does.
const MAX_FOLDS: usize = 1;

/// How long one waits for its turn: longer than a search takes.
const TURN_PATIENCE: Duration = Duration::from_secs(4);

/// When to ask again after something that passes.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What is asked for and given: an answer, or the problem that stands in the way.
type Answer = Result<Response, Problem>;

/// The log of a program, as people look at it. Cloning gives another handle to the same.
#[derive(Clone)]
pub(crate) struct LogView {
    /// The program's name, which the events carry as their source.
    app: Arc<str>,
    /// Its aggregates.
    deciders: Arc<[Arc<dyn Decider>]>,
    log: Arc<dyn EventStore>,
    searches: Arc<Semaphore>,
    folds: Arc<Semaphore>,
}

/// Whether `text` can be the name of an event: its id, its stream and version, or its partition and position.
#[cfg(feature = "pages")]
pub(crate) fn names_event(text: &str) -> bool {
    find::Name::parse(text).is_some()
}

/// What can be asked of the `log` of `program`, to be mounted at `/admin`:
///
/// - `GET /api/events` looks for events, `GET /api/events/{event}` shows one and what it belongs to;
/// - `GET /api/streams` lists streams, `GET /api/streams/{category}/{id}` shows the events of one, its states, and what is different
///   between two of them.
pub(crate) fn router(program: &App, log: Arc<dyn EventStore>) -> Router {
    Router::new()
        .route("/api/events", get(events::list))
        .route("/api/events/{event}", get(events::show))
        .route("/api/streams", get(streams::list))
        .route("/api/streams/{category}/{id}", get(streams::show))
        .with_state(LogView::new(program.name(), program.deciders(), log))
}

impl LogView {
    fn new(app: &str, deciders: &[Arc<dyn Decider>], log: Arc<dyn EventStore>) -> Self {
        Self {
            app: app.into(),
            deciders: deciders.into(),
            log,
            searches: Arc::new(Semaphore::new(MAX_SEARCHES)),
            folds: Arc::new(Semaphore::new(MAX_FOLDS)),
        }
    }

    /// Waits for a turn to search.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let busy =
            || format!("{MAX_SEARCHES} searches run at a time, and they are busy. Ask again.");
        turn(&self.searches, busy).await
    }

    /// Waits for a turn to fold a stream.
    async fn folding_turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let busy = || "The states of one stream are made at a time. Ask again.".to_owned();
        turn(&self.folds, busy).await
    }
}

/// Waits for a turn, or says what is `busy`.
async fn turn(
    turns: &Arc<Semaphore>,
    busy: impl Fn() -> String,
) -> Result<OwnedSemaphorePermit, Problem> {
    match timeout(TURN_PATIENCE, Arc::clone(turns).acquire_owned()).await {
        Ok(Ok(turn)) => Ok(turn),
        _ => Err(Problem::new(ProblemKind::Overloaded, busy()).retry_after(RETRY_AFTER)),
    }
}

fn answer(body: Value) -> Answer {
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// What a client hears of a log that cannot be read.
fn problem(error: LogError) -> Problem {
    match error {
        LogError::Diverged { .. } => history_changed(),
        LogError::Corrupt { what } => {
            tracing::error!(what, "a row of the log cannot be understood");
            let detail = format!("The log has a row that cannot be understood: {what}.");
            Problem::new(ProblemKind::Internal, detail)
        }
        error => unavailable(&error),
    }
}

/// The same of an end of a stream.
fn store_problem(error: AppendError) -> Problem {
    match error {
        AppendError::Corrupt { what } => problem(LogError::Corrupt { what }),
        AppendError::Diverged => history_changed(),
        error => unavailable(&error),
    }
}

/// The same of a place in the log.
fn start_problem(error: StartError) -> Problem {
    match error {
        StartError::Log(error) => problem(error),
        _ => history_changed(),
    }
}

fn unavailable(error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::warn!(error = causes(error), "the log could not be searched");
    let detail = "The log cannot be read at the moment. Ask again.";
    Problem::new(ProblemKind::Unavailable, detail).retry_after(RETRY_AFTER)
}

fn history_changed() -> Problem {
    Problem::new(
        ProblemKind::HistoryChanged,
        "The cursor belongs to a history of the log that is over: the log was restored or replaced. Begin anew, without it.",
    )
}

fn malformed(parameter: &str, wanted: &str) -> Problem {
    let detail = format!("The parameter `{parameter}` must be {wanted}.");
    Problem::new(ProblemKind::MalformedRequest, detail).with("parameter", parameter.into())
}
