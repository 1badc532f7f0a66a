//! `GET /search?q=…`: pages by their words, the best first.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tidelog::axum::extract::rejection::QueryRejection;
use tidelog::axum::extract::{Query, State};
use tidelog::axum::routing::get;
use tidelog::axum::{Json, Router};
use tidelog::read_store::Document;
use tidelog::{Problem, ProblemKind};

use crate::collection::SearchError;
use crate::index::TantivyReadStore;

/// How many pages are found at most.
const MAX_HITS: usize = 20;

/// The longest text that may be searched for, in bytes.
const MAX_TEXT_BYTES: usize = 200;

/// How many brackets it may open. The parser goes down the stack by each, and a stack that is used up ends the whole program.
const MAX_BRACKETS: usize = 10;

/// When a client may ask again that could not be answered.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The route, to the pages in `index`.
pub(crate) fn search(index: Arc<TantivyReadStore>) -> Router {
    Router::new().route("/search", get(hits)).with_state(index)
}

#[derive(Deserialize)]
struct Asked {
    /// Words, all of which a page must have; `"several words"` in a row, `this OR that`, `-not`.
    q: String,
}

async fn hits(
    State(index): State<Arc<TantivyReadStore>>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(Asked { q }) =
        asked.map_err(|_| bad("`q` says what to search for: `/search?q=honey`."))?;
    if q.len() > MAX_TEXT_BYTES {
        return Err(bad(&format!("`q` has at most {MAX_TEXT_BYTES} bytes.")));
    }
    if q.matches('(').count() > MAX_BRACKETS {
        return Err(bad(&format!("`q` opens at most {MAX_BRACKETS} brackets.")));
    }
    let found = index.search("page", &q, MAX_HITS).await;
    let found = found.map_err(|error| problem(&error))?;
    let shown = |page: Document| json!({"id": page.id, "title": page.data.get("title"), "text": page.data.get("text")});
    let data: Vec<_> = found.into_iter().map(shown).collect();
    Ok(Json(json!({"data": data})))
}

fn bad(detail: &str) -> Problem {
    Problem::new(ProblemKind::UnknownParameter, detail)
}

fn problem(error: &SearchError) -> Problem {
    if let SearchError::Text(error) = error {
        return bad(&format!("`q` cannot be understood: {error}."));
    }
    tracing::warn!(?error, "a search failed");
    let detail = "The pages cannot be searched now. Ask again.";
    Problem::new(ProblemKind::Unavailable, detail).retry_after(RETRY_AFTER)
}
