//! The admin listener: health and metrics from the first moment on, administration once the services are up.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tidelog_http::{Problem, ProblemKind, Readiness, app, health_router};
use tower::ServiceExt;

use super::metrics::Metrics;

/// What the admin listener serves. Cloning gives another handle to the same.
#[derive(Clone)]
pub(super) struct Admin {
    readiness: Readiness,
    pub(super) metrics: Metrics,
    administration: Arc<OnceLock<Router>>,
}

impl Admin {
    /// Health and metrics of a process that runs `role`, and no administration yet.
    pub(super) fn new(readiness: Readiness, role: &'static str) -> Self {
        Self {
            metrics: Metrics::new(role, readiness.clone()),
            readiness,
            administration: Arc::default(),
        }
    }

    /// From now on also serves `router`.
    pub(super) fn administer(&self, router: Router) {
        // Only the first counts: a process starts its services once.
        let _ = self.administration.set(router);
    }

    /// All of it, as a service.
    pub(super) fn router(&self) -> Router {
        let administration = Router::new()
            .fallback(administer)
            .with_state(self.administration.clone());
        let metrics = self.metrics.clone();
        let metrics = get(async move || metrics.response());
        app(Router::new()
            .nest("/admin", administration)
            .route("/metrics", metrics)
            .merge(health_router(self.readiness.clone())))
    }
}

/// Hands a request to the administration, where there is one.
async fn administer(
    State(administration): State<Arc<OnceLock<Router>>>,
    request: Request,
) -> Response {
    let Some(router) = administration.get() else {
        let detail = "this process has no administration, or is still starting: see /health/ready";
        return Problem::new(ProblemKind::NotFound, detail).into_response();
    };
    match router.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
