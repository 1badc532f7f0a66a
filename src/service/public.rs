//! What the services do for their clients that the admin listener does not.

use axum::Router;
use axum::http::Method;
use tidelog_http::{
    LoadLimits, Rates, SignIn, app, bounded_answers, compressed, cross_origin, limited,
    open_to_all, rated, rated_refusals, signed_in, with_context_of,
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
/// may use these methods; bounded in what it does at a time, and in what it does for each client. It is measured as `name`.
pub(super) fn public(
    name: &'static str,
    routes: Routes,
    settings: &Settings,
    sign_in: Option<&SignIn>,
    methods: &[Method],
) -> Router {
    let rates = settings.rate_limit.map(|limit| Rates::new(name, limit));
    let counted = |router| match &rates {
        Some(rates) => rated(router, rates),
        None => router,
    };
    // Who it is must be known before it is counted.
    let guarded = counted(routes.guarded);
    let guarded = match sign_in {
        Some(sign_in) => signed_in(guarded, sign_in, name),
        None => open_to_all(guarded),
    };
    let guarded = match &rates {
        Some(rates) => rated_refusals(guarded, rates),
        None => guarded,
    };
    let service = app(guarded.merge(counted(routes.open)));
    let service = compressed(bounded_answers(name, service, MAX_ANSWER_BYTES));
    let service = limited(name, service, load_limits(name, settings));
    // Also what a browser asks beforehand has a correlation id.
    with_context_of(name, cross_origin(service, &settings.cors_origins, methods))
}

/// The most reads of a process that wait for a write, as many as there may be live connections.
const MAX_WAITING: usize = 2_000;

/// The most bytes of large answers that are on the way to the clients of a service: 256 MiB.
const MAX_ANSWER_BYTES: u64 = 256 * 1024 * 1024;

fn load_limits(name: &str, settings: &Settings) -> LoadLimits {
    // What does not fit is more than there is.
    LoadLimits {
        max_requests: usize::try_from(settings.max_requests).unwrap_or(usize::MAX),
        // Commands wait for nobody's write.
        max_waiting: if name == "query" { MAX_WAITING } else { 0 },
        max_body_bytes: usize::try_from(settings.max_body_bytes_in_flight).unwrap_or(usize::MAX),
    }
}
