//! What the services do for their clients that the admin listener does not.

use axum::Router;
use axum::http::Method;
use tidelog_http::{
    SignIn, app, compressed, cross_origin, open_to_all, signed_in, with_context_of,
};

use crate::settings::Settings;

/// The routes of a service.
pub(super) struct Routes {
    /// For those who are signed in, where somebody signs in at all.
    pub(super) guarded: Router,
    /// Its description, for everybody.
    pub(super) open: Router,
}

/// Makes `routes` a whole service ([`app`]) for clients anywhere: compressed, and open to the pages of the origins in `settings`, which
/// may use these methods. It is measured as `name`.
pub(super) fn public(
    name: &'static str,
    routes: Routes,
    settings: &Settings,
    sign_in: Option<&SignIn>,
    methods: &[Method],
) -> Router {
    let guarded = match sign_in {
        Some(sign_in) => signed_in(routes.guarded, sign_in, name),
        None => open_to_all(routes.guarded),
    };
    let service = compressed(app(guarded.merge(routes.open)));
    // Also what a browser asks beforehand has a correlation id.
    with_context_of(name, cross_origin(service, &settings.cors_origins, methods))
}
