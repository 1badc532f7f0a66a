//! The administration: who may do what, the record of what was done, what can be asked of the log, and the pages.

pub(crate) mod access;
mod actions;
pub(crate) mod audit;
mod diff;
pub(crate) mod log;
#[cfg(feature = "pages")]
pub(crate) mod pages;
#[cfg(feature = "pages")]
pub(crate) mod sampler;
mod session;

use axum::middleware::from_fn_with_state;
use axum::{Extension, Router};

pub(crate) use access::{Access, Principal};
pub(crate) use audit::Audit;

/// The API of the administration, to be mounted at `/admin`: `api`, whose actions are recorded in `audit`, for those whom `access`
/// lets in.
pub(crate) fn guarded(api: Router, audit: &Audit, access: &Access) -> Router {
    recorded(api, audit).layer(from_fn_with_state(access.clone(), access::guard))
}

/// The same for a caller inside the process, who is `principal`.
#[cfg(feature = "cli")]
pub(crate) fn in_process(api: Router, audit: &Audit, principal: Principal) -> Router {
    recorded(api, audit).layer(Extension(principal))
}

/// `api` and the record of its actions: whoever calls it brings a [`Principal`] along.
pub(crate) fn recorded(api: Router, audit: &Audit) -> Router {
    api.merge(audit::router(audit.clone()))
        .route_layer(from_fn_with_state(audit.clone(), audit::record))
}
