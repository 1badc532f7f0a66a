//! What the services do for their clients that the admin listener does not.

use axum::Router;
use axum::http::Method;
use tidelog_http::{app, compressed, cross_origin, open_to_all, with_context_of};

use crate::settings::Settings;

/// Makes `router` a whole service ([`app`]) for clients anywhere: compressed, and open to the pages of the origins in `settings`, which
/// may use these methods. It is measured as `name`.
pub(super) fn public(
    name: &'static str,
    router: Router,
    settings: &Settings,
    methods: &[Method],
) -> Router {
    let service = compressed(open_to_all(app(router)));
    // Also what a browser asks beforehand has a correlation id.
    with_context_of(name, cross_origin(service, &settings.cors_origins, methods))
}
