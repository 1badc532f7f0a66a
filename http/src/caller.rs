//! Who sends a request, for whom, and what they may do.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn};
use tidelog_domain::Tenant;

use crate::problem::{Problem, ProblemKind};
use crate::roles::{Operation, Rules};

/// Whoever sends a request. Cloning is cheap.
///
/// As an extractor it is what the sign-in found out, and fails where nothing has looked: a router is either behind a sign-in
/// ([`signed_in`](crate::signed_in)) or open to everybody by [`open_to_all`], never by mistake.
///
/// Whoever calls a router in its own process may put one into the request's extensions: then no token is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(Arc<Known>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    principal: Option<Arc<str>>,
    tenant: Option<Tenant>,
    roles: Box<[Box<str>]>,
    /// Which roles may do what; `None` where nobody signs in, and everybody may do everything.
    rules: Option<Arc<Rules>>,
    expires_at: Option<SystemTime>,
}

/// What a token said of whoever sends it along, once it was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// Who it is: the claim `sub`.
    pub principal: Arc<str>,
    /// For whom; `None` without tenancy.
    pub tenant: Option<Tenant>,
    /// Its roles.
    pub roles: Box<[Box<str>]>,
    /// From when on the token counts no more.
    pub expires_at: SystemTime,
}

impl Caller {
    /// Anybody: nobody is signed in, and there are no tenants. It may do everything.
    #[must_use]
    pub fn anybody() -> Self {
        Self(Arc::default())
    }

    /// A caller inside the process, which is trusted: it may do everything that can be done for `tenant`, in the name of `actor`.
    #[must_use]
    pub fn in_process(tenant: Option<Tenant>, actor: Option<&str>) -> Self {
        Self(Arc::new(Known {
            principal: actor.map(Arc::from),
            tenant,
            ..Known::default()
        }))
    }

    /// Whoever a token says, which may do what `rules` say.
    #[must_use]
    pub fn signed_in(who: SignedIn, rules: Arc<Rules>) -> Self {
        Self(Arc::new(Known {
            principal: Some(who.principal),
            tenant: who.tenant,
            roles: who.roles,
            rules: Some(rules),
            expires_at: Some(who.expires_at),
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

    /// Its roles, as its token has them.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.0.roles.iter().map(AsRef::as_ref)
    }

    /// From when on its token counts no more; `None` where it has none. What is open longer than one request ends then.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.0.expires_at
    }

    /// Lets it do `operation`, or not.
    ///
    /// # Errors
    ///
    /// [`ProblemKind::Forbidden`], which says what it would need.
    pub fn may(&self, operation: &Operation<'_>) -> Result<(), Problem> {
        let of_all = matches!(
            operation,
            Operation::Feed | Operation::AdminRead | Operation::AdminOperate
        );
        if of_all && self.tenant().is_some() {
            let detail = format!(
                "{operation} shows what belongs to all tenants, and this caller has one. Ask without a tenant."
            );
            return Err(Problem::new(ProblemKind::Forbidden, detail));
        }
        let Some(rules) = &self.0.rules else {
            return Ok(());
        };
        if rules.allow(operation, &self.0.roles) {
            return Ok(());
        }
        let detail = match rules.needed(operation) {
            Some(roles) => format!(
                "{operation} needs one of the roles {}, and this caller has none of them.",
                roles.join(", ")
            ),
            None => format!(
                "{operation} is for nobody until a rule says for whom: an operator sets one with the setting roles."
            ),
        };
        Err(Problem::new(ProblemKind::Forbidden, detail))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(tenant: Option<&str>, roles: &[&str]) -> Caller {
        let rules = Rules::declared([(Operation::View("post"), vec!["reader"])]);
        let rules = rules.overridden_by("feed=follower,admin/read=ops");
        let who = SignedIn {
            principal: "ann".into(),
            tenant: tenant.map(|name| Tenant::new(name).unwrap()),
            roles: roles.iter().map(|role| Box::from(*role)).collect(),
            expires_at: SystemTime::UNIX_EPOCH,
        };
        Caller::signed_in(who, Arc::new(rules.unwrap()))
    }

    #[test]
    fn a_caller_hears_which_role_is_missing() {
        let view = Operation::View("post");
        assert!(caller(None, &["reader"]).may(&view).is_ok());
        assert!(caller(Some("acme"), &["reader"]).may(&view).is_ok());
        let problem = caller(None, &["writer"]).may(&view).unwrap_err();
        assert_eq!(problem.status().as_u16(), 403);
        assert!(
            problem.detail().contains("view/post") && problem.detail().contains("reader"),
            "{}",
            problem.detail()
        );
        assert!(!problem.detail().contains("writer"));
    }

    #[test]
    fn what_is_of_all_tenants_is_for_no_caller_with_one() {
        for operation in [Operation::Feed, Operation::AdminRead] {
            let roles = ["follower", "ops"];
            assert!(caller(None, &roles).may(&operation).is_ok());
            assert!(caller(Some("acme"), &roles).may(&operation).is_err());
            let inside = Caller::in_process(Some(Tenant::new("acme").unwrap()), None);
            assert!(inside.may(&operation).is_err());
            assert!(Caller::anybody().may(&operation).is_ok());
        }
    }
}
