//! The WebSocket of a process that answers both commands and queries.

use axum::Router;
use axum::http::Method;
use axum::middleware::from_fn;
use tidelog_http::{SignIn, SocketServices, SocketSettings, offered_token, socket_router};
use tokio_util::sync::CancellationToken;

use super::public::{Routes, public};
use crate::settings::Settings;

/// The service `commands` with `GET /ws` beside it, over which clients speak to it and to `queries`, both of which are whole services; until
/// `stop`.
///
/// The handshake is a request like any other: it is signed in, rated and has a place. What is said afterwards goes to the services as they
/// are, layer by layer, so that each message is counted there.
pub(super) fn with_socket(
    commands: Router,
    queries: Router,
    settings: &Settings,
    sign_in: Option<&SignIn>,
    stop: CancellationToken,
) -> Router {
    let services = SocketServices {
        commands: commands.clone(),
        queries,
    };
    let origins = settings.cors_origins.clone();
    let routes = Routes {
        guarded: socket_router(services, SocketSettings::default(), origins, stop),
        open: Router::new(),
    };
    let socket = public("socket", routes, settings, sign_in, &[Method::GET]);
    socket
        .layer(from_fn(offered_token))
        .fallback_service(commands)
}
