//! Health: whether the process lives, and whether everything it needs is there.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use crate::problem::{Problem, ProblemKind};

/// When to ask again whether a service is ready.
const READY_RETRY: Duration = Duration::from_secs(1);

/// What a service needs to do its work, part by part: ready, or why not. Cloning gives another handle to the same.
///
/// Without parts it is ready. Beside them it tells which backends are reached, which decides nothing.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    parts: States,
    backends: States,
}

/// How each of several things is: well, or why not.
type States = Arc<RwLock<BTreeMap<&'static str, Result<(), String>>>>;

/// The handle by which the owner of one part says how it is.
#[derive(Clone, Debug)]
pub struct Part {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Nothing is needed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the part `name`: not ready, because it is starting.
    #[must_use]
    pub fn part(&self, name: &'static str) -> Part {
        let part = Part {
            name,
            readiness: self.clone(),
        };
        part.not_ready("starting");
        part
    }

    /// The parts that are not ready, each with the reason.
    #[must_use]
    pub fn missing(&self) -> Vec<(&'static str, String)> {
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        parts
            .iter()
            .filter_map(|(name, state)| Some((*name, state.as_ref().err()?.clone())))
            .collect()
    }

    /// Whether every part is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    /// Every part: ready, or why not.
    #[must_use]
    pub fn parts(&self) -> Vec<(&'static str, Result<(), String>)> {
        all(&self.parts)
    }

    /// Every backend that was asked: up, or why not.
    #[must_use]
    pub fn backends(&self) -> Vec<(&'static str, Result<(), String>)> {
        all(&self.backends)
    }

    /// The backend `name` is reached, or is not, for this reason. Clients of the admin listener read it: no password may be in it.
    pub fn backend(&self, name: &'static str, state: Result<(), String>) {
        let mut backends = self
            .backends
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        backends.insert(name, state);
    }

    fn set(&self, name: &'static str, state: Result<(), String>) {
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        parts.insert(name, state);
    }
}

impl Part {
    /// It is ready.
    pub fn ready(&self) {
        self.readiness.set(self.name, Ok(()));
    }

    /// It is not ready, for this reason. Clients of the admin listener read it: no password may be in it.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.readiness.set(self.name, Err(reason.into()));
    }
}

/// `GET /health/live`: 200 as long as the process answers. `GET /health/ready`: 200 when every part is ready, else
/// 503 with each part and what is wrong with it.
pub fn health_router(readiness: Readiness) -> Router {
    Router::new()
        .route(
            "/health/live",
            get(async || Json(json!({"status": "live"}))),
        )
        .route("/health/ready", get(ready))
        .with_state(readiness)
}

fn all(states: &States) -> Vec<(&'static str, Result<(), String>)> {
    let states = states.read().unwrap_or_else(PoisonError::into_inner);
    let states = states.iter();
    states.map(|(name, state)| (*name, state.clone())).collect()
}

/// The states as clients see them: the word for what is `well`, or the reason why not.
fn shown(states: Vec<(&'static str, Result<(), String>)>, well: &str) -> Value {
    let shown: Map<String, Value> = states
        .into_iter()
        .map(|(name, state)| {
            let text = state.map_or_else(|reason| reason, |()| well.to_owned());
            (name.to_owned(), json!(text))
        })
        .collect();
    Value::Object(shown)
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    let missing = readiness.missing();
    let (parts, backends) = (
        shown(readiness.parts(), "ready"),
        shown(readiness.backends(), "up"),
    );
    if missing.is_empty() {
        let ready = json!({"status": "ready", "parts": parts, "backends": backends});
        return Json(ready).into_response();
    }
    let reasons: Vec<String> = missing
        .iter()
        .map(|(name, reason)| format!("{name}: {reason}"))
        .collect();
    Problem::new(
        ProblemKind::Unavailable,
        format!("Not ready: {}.", reasons.join("; ")),
    )
    .with("parts", parts)
    .with("backends", backends)
    .retry_after(READY_RETRY)
    .into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use axum::http::header;
    use tower::ServiceExt;

    use super::*;
    use crate::body::tests::problem;

    async fn get(readiness: &Readiness, path: &str) -> Response {
        let request = Request::get(path).body(Body::empty()).unwrap();
        health_router(readiness.clone())
            .oneshot(request)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_service_is_ready_when_each_of_its_parts_is() {
        let readiness = Readiness::new();
        let (log, bus) = (readiness.part("log"), readiness.part("bus"));
        log.ready();
        bus.not_ready("no answer");
        let response = get(&readiness, "/health/ready").await;
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let (status, body) = problem(response).await;
        assert_eq!(
            (status, &body["parts"]),
            (503, &json!({"log": "ready", "bus": "no answer"}))
        );
        assert_eq!(get(&readiness, "/health/live").await.status(), 200);
        bus.ready();
        assert_eq!(get(&readiness, "/health/ready").await.status(), 200);
        log.not_ready("gone");
        assert!(!readiness.is_ready());
    }

    #[tokio::test]
    async fn a_backend_that_is_away_is_told_and_leaves_the_service_ready() {
        let readiness = Readiness::new();
        readiness.part("log").ready();
        readiness.backend("bus", Err("down since 12:03: no answer".to_owned()));
        let told = json!({"bus": "down since 12:03: no answer"});
        let response = get(&readiness, "/health/ready").await;
        assert_eq!(response.status(), 200);
        let body = axum::body::to_bytes(response.into_body(), 1024).await;
        let body: Value = serde_json::from_slice(&body.unwrap()).unwrap();
        assert_eq!(body["backends"], told);
        readiness.backend("bus", Ok(()));
        readiness.part("views").not_ready("being replayed");
        let (status, body) = problem(get(&readiness, "/health/ready").await).await;
        assert_eq!((status, &body["backends"]), (503, &json!({"bus": "up"})));
    }
}
