//! What tidelog's HTTP services share: problem documents, limits, health, the server's life.
//!
//! A service is an [`axum::Router`] that went through [`app`]: then every answer carries its correlation id, and
//! every error is a [`Problem`]. [`serve`] runs it until it is told to stop.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "tests fail loudly"
    )
)]

mod app;
mod body;
mod caller;
mod compression;
mod context;
mod cors;
#[cfg(feature = "forward")]
mod forward;
mod health;
mod kept;
mod limits;
mod observed;
mod openapi;
mod own_pages;
mod problem;
mod query;
mod rejected;
mod roles;
mod server;
mod sign_in;
mod websocket;

pub use app::{app, with_context, with_context_of};
pub use body::{BodyLimits, JsonBody, read_json};
pub use caller::{Caller, SignedIn, open_to_all};
pub use compression::compressed;
pub use context::{CORRELATION_ID, RequestContext, TRACEPARENT};
pub use cors::{CorsOrigins, cross_origin};
#[cfg(feature = "forward")]
pub use forward::{InvalidForward, forwarded};
pub use health::{Part, Readiness, health_router};
pub use limits::{
    LoadLimits, RateLimit, Rates, Share, Shares, bounded_answers, limited, rated, rated_refusals,
};
pub use openapi::{
    ApiDocument, RESERVED_NAMES, docs_router, embedded_schema, header, parameter, secured, with,
};
pub use own_pages::{is_own_host, own_pages_alone};
pub use problem::{Problem, ProblemKind};
pub use query::{no_query, require_json_answer};
pub use roles::{InvalidRules, MAX_ROLE_CHARS, Operation, Rules};
pub use server::{Peer, ServerSettings, Tls, TlsError, serve};
pub use sign_in::{
    Expected, InvalidKeys, InvalidSource, KeySet, KeysFrom, MAX_TOKEN_BYTES, MIN_SECRET_BYTES,
    ROLES_CLAIM, Refused, Secret, SignIn, Unread, Verifier, count_refused, signed_in,
};
pub use websocket::{
    CommandMessage, SocketMessage, SocketServices, SocketSettings, offered_token, socket_router,
};
