//! Who sends a request, for whom, and what they may do.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn};
use tidelog_domain::Tenant;

use crate::problem::Problem;

/// Whoever sends a request. Cloning is cheap.
///
/// As an extractor it is what the sign-in found out, and fails where nothing has looked: a router is either behind a sign-in or open to
/// everybody by [`open_to_all`], never by mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(Arc<Known>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    principal: Option<Arc<str>>,
    tenant: Option<Tenant>,
}

impl Caller {
    /// Anybody: nobody is signed in, and there are no tenants.
    #[must_use]
    pub fn anybody() -> Self {
        Self(Arc::default())
    }

    /// A caller inside the process, who asks for `tenant` and is recorded as `principal`, and may everything there.
    #[must_use]
    pub fn in_process(tenant: Option<Tenant>, principal: Option<&str>) -> Self {
        Self(Arc::new(Known {
            principal: principal.map(Arc::from),
            tenant,
        }))
    }

    /// Who it is; `None` where nobody signs in.
    #[must_use]
    pub fn principal(&self) -> Option<&str> {
        self.0.principal.as_deref()
    }

    /// For whom it asks; `None` without tenancy. It comes from what was signed, never from the request.
    #[must_use]
    pub fn tenant(&self) -> Option<&Tenant> {
        self.0.tenant.as_ref()
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let known = parts.extensions.get::<Self>().cloned();
        known.ok_or_else(|| {
            tracing::error!("a route is neither behind a sign-in nor open to all");
            Problem::internal()
        })
    }
}

/// Lets everybody use `router`. A caller whom something before it has found out stays who it is.
pub fn open_to_all(router: Router) -> Router {
    router.layer(from_fn(async |mut request: Request, next: Next| {
        let known = request.extensions().get::<Caller>().is_some();
        if !known {
            request.extensions_mut().insert(Caller::anybody());
        }
        next.run(request).await
    }))
}
