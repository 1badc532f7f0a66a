//! The administration of views: what the CLI and the admin pages call.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;
use tidelog_http::{Problem, ProblemKind};
use tokio_util::sync::CancellationToken;

#[cfg(test)]
mod tests;

use super::read::{RETRY_AFTER, bad_path, no_view};
use crate::replay::ReplayError;
use crate::views::Views;
use tidelog_domain::causes;

/// What the handlers work with.
#[derive(Clone)]
struct Administration {
    views: Views,
    shutdown: CancellationToken,
}

/// The administration of `views`, to be mounted at `/admin`: `POST /api/views/{view}/replay` builds a view anew and answers
/// when it is read.
///
/// A replay goes on when its client does not wait for it; it is cancelled at `shutdown`.
pub fn views_admin_router(views: Views, shutdown: CancellationToken) -> Router {
    Router::new()
        .route("/api/views/{view}/replay", post(replay))
        .with_state(Administration { views, shutdown })
}

async fn replay(
    State(admin): State<Administration>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(name) = path.map_err(bad_path)?;
    let view = admin.views.catalog().get(&name).cloned();
    let view = view.ok_or_else(|| no_view(&name))?;
    let replay = admin.views.replay(&name);
    let running = tokio::spawn(async move { replay.run(&view, &|_| {}, &admin.shutdown).await });
    match running.await {
        Ok(Ok(replayed)) => {
            let body = Json(json!({"data": replayed}));
            Ok(([(header::CACHE_CONTROL, "no-store")], body).into_response())
        }
        Ok(Err(error)) => Err(problem(&error)),
        Err(panic) => {
            tracing::error!(view = name, error = %panic, "a replay panicked");
            Err(Problem::internal())
        }
    }
}

fn problem(error: &ReplayError) -> Problem {
    match error {
        ReplayError::AlreadyRunning { .. } => {
            Problem::new(ProblemKind::RequestInProgress, sentence(error)).retry_after(RETRY_AFTER)
        }
        // What stands in the way is an event; its causes name it, and tell nothing of the backends.
        ReplayError::Fold(_) => Problem::new(
            ProblemKind::Internal,
            format!("{}. The version before is read on.", causes(error)),
        ),
        ReplayError::NotBuilt { .. }
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
    let text = error.to_string();
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase());
    let first: String = first.into_iter().flatten().collect();
    format!("{first}{}. The version before is read on.", chars.as_str())
}
