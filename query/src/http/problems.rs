//! What a client hears when a read cannot be answered.

use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::http::HeaderValue;
use serde_json::json;
use tidelog_domain::causes;
use tidelog_http::{Problem, ProblemKind};

use super::read::PREFERENCE_APPLIED;
use crate::consistency::ConsistencyError;
use crate::store::ReadError;

/// When to ask again after something that passes.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The problem of a read that cannot be as fresh as it has to be.
pub(super) fn unsettled(
    view: &str,
    error: ConsistencyError,
    said: Option<&HeaderValue>,
) -> Problem {
    let problem = match error {
        ConsistencyError::Store(error) => return store_problem(&error),
        ConsistencyError::NotYetProjected => Problem::new(
            ProblemKind::NotYetProjected,
            format!(
                "The write is committed, and the view {view} has not applied it yet. Ask again, with \
                 `Prefer: wait=<seconds>` to wait longer, or without the token to read what there is."
            ),
        ),
        ConsistencyError::SetAside => Problem::new(
            ProblemKind::NotYetProjected,
            format!(
                "The write is committed, but the view {view} cannot apply it, or one before it, and has set it aside (it is \
                 parked). It is applied when that is tried again with success, which may need an operator. Ask without the \
                 token to read what there is."
            ),
        )
        .with("parked", json!(true)),
        ConsistencyError::OtherHistory => Problem::new(
            ProblemKind::NotYetProjected,
            format!(
                "The token belongs to another history of the log than the view {view}: either the log was restored, and \
                 the write may be gone, or the view is being built anew. Ask again, or without the token to read \
                 what there is."
            ),
        ),
    };
    let problem = problem.retry_after(RETRY_AFTER);
    match said {
        Some(said) => problem.with_header(PREFERENCE_APPLIED, said.clone()),
        None => problem,
    }
}

/// What a tenant hears whose requests have taken all places that it may take at a time.
pub(super) fn share_taken() -> Problem {
    let detail = "Your tenant has taken all the places that one may have here for live connections, or for reads that wait for a write. Ask again.";
    Problem::new(ProblemKind::Overloaded, detail).retry_after(RETRY_AFTER)
}

/// What a client hears of an error of the store; the log hears the rest.
pub(super) fn store_problem(error: &ReadError) -> Problem {
    let causes = causes(error);
    match error {
        ReadError::Unavailable(_) => {
            tracing::warn!(error = causes, "a read failed");
            unavailable()
        }
        ReadError::TooSlow(_) => {
            tracing::warn!(error = causes, "a read took too much");
            too_slow()
        }
        _ => {
            tracing::error!(error = causes, "a read failed");
            Problem::internal()
        }
    }
}

/// The problem that nothing of `view` can be read yet.
pub(super) fn not_built(view: &str) -> Problem {
    Problem::new(
        ProblemKind::Unavailable,
        format!("The view {view} has not been built yet. The role eventbus builds it."),
    )
    .retry_after(RETRY_AFTER)
}

pub(super) fn too_slow() -> Problem {
    Problem::new(
        ProblemKind::Unavailable,
        "The read store did not answer in the time that it has. Ask again; for a list, ask for less with filters.",
    )
    .retry_after(RETRY_AFTER)
}

pub(super) fn unavailable() -> Problem {
    Problem::new(
        ProblemKind::Unavailable,
        "The read store cannot be reached at the moment. Ask again.",
    )
    .retry_after(RETRY_AFTER)
}

pub(super) fn bad_path(_: PathRejection) -> Problem {
    let detail = "The path is not UTF-8 in percent-encoding.";
    Problem::new(ProblemKind::MalformedRequest, detail)
}

pub(super) fn no_view(name: &str) -> Problem {
    let name: String = name.chars().take(64).collect();
    Problem::new(
        ProblemKind::NotFound,
        format!("There is no view called {name:?}."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_too_much_is_told_to_ask_for_less() {
        let slow = store_problem(&ReadError::TooSlow("interrupted: SELECT secret".into()));
        let down = store_problem(&ReadError::Unavailable("no route to 10.0.0.1".into()));
        for problem in [&slow, &down] {
            assert_eq!(problem.kind(), ProblemKind::Unavailable);
        }
        let text = format!("{slow:?}");
        assert!(
            text.contains("filters") && !text.contains("secret"),
            "{text}"
        );
        assert!(!format!("{down:?}").contains("filters"));
    }
}
