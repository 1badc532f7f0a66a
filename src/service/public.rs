//! What the services do for their clients that the admin listener does not.

use axum::Router;
use axum::http::Method;
use tidelog_http::{LoadLimits, app, compressed, cross_origin, limited, rated, with_context_of};

use crate::settings::Settings;

/// Makes `router` a whole service ([`app`]) for clients anywhere: compressed, and open to the pages of the origins in `settings`, which
/// may use these methods; bounded in what it does at a time, and in what it does for each client. It is measured as `name`.
pub(super) fn public(
    name: &'static str,
    router: Router,
    settings: &Settings,
    methods: &[Method],
) -> Router {
    let mut service = compressed(app(router));
    if let Some(limit) = settings.rate_limit {
        service = rated(name, service, limit);
    }
    let service = limited(name, service, load_limits(settings));
    // Also what a browser asks beforehand has a correlation id.
    with_context_of(name, cross_origin(service, &settings.cors_origins, methods))
}

fn load_limits(settings: &Settings) -> LoadLimits {
    // What does not fit is more than there is.
    LoadLimits {
        max_requests: usize::try_from(settings.max_requests).unwrap_or(usize::MAX),
        max_body_bytes: usize::try_from(settings.max_body_bytes_in_flight).unwrap_or(usize::MAX),
    }
}
