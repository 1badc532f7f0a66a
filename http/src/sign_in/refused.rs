//! Why nobody is signed in by a request.

use std::time::Duration;

use axum::http::{HeaderValue, header};

use crate::problem::{Problem, ProblemKind};

/// When to ask again while there are no keys.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why nobody is signed in by a request. None says anything of the token itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It brings no token.
    #[error("the request brings no token")]
    Missing,
    /// It brings several tokens, or what is no token: too long, not three parts, no JSON, a member twice.
    #[error("what the request brings is no token")]
    Malformed,
    /// The header says what it may not: where the key is to be had, say, or what would have to be understood.
    #[error("the token's header is not accepted")]
    Header,
    /// It is signed in another way than its key is for.
    #[error("the token is signed in a way that its key is not for")]
    Algorithm,
    /// No key is known by its name.
    #[error("the token is signed with a key that is not known")]
    Key,
    /// The signature is not the key's.
    #[error("the token's signature is wrong")]
    Signature,
    /// Somebody else issued it.
    #[error("the token is of another issuer")]
    Issuer,
    /// It is meant for somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// It counts no more.
    #[error("the token is expired")]
    Expired,
    /// It does not count yet.
    #[error("the token is not valid yet")]
    NotYet,
    /// A claim is missing, or is not what it has to be.
    #[error("a claim of the token is missing or malformed")]
    Claims,
    /// It names no tenant, or what can be none.
    #[error("the token names no tenant")]
    Tenant,
    /// No keys are to be had at the moment.
    #[error("no keys are to be had to verify tokens with")]
    Unavailable,
}

impl Refused {
    /// Its name, in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Header => "header",
            Self::Algorithm => "algorithm",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Expired => "expired",
            Self::NotYet => "not-yet-valid",
            Self::Claims => "claims",
            Self::Tenant => "tenant",
            Self::Unavailable => "unavailable",
        }
    }
}

impl From<Refused> for Problem {
    /// What the client hears. Only what it can do something about is told apart.
    fn from(refused: Refused) -> Self {
        let unauthenticated = |detail: &str, challenge| {
            let challenge = HeaderValue::from_static(challenge);
            Self::new(ProblemKind::Unauthenticated, detail)
                .with_header(header::WWW_AUTHENTICATE, challenge)
        };
        match refused {
            Refused::Missing => unauthenticated(
                "Sign in: send a token in the header Authorization: Bearer, and nowhere else.",
                "Bearer",
            ),
            Refused::Expired => unauthenticated(
                "The token is expired. Get a new one.",
                r#"Bearer error="invalid_token", error_description="The token is expired""#,
            ),
            Refused::Tenant => Self::new(
                ProblemKind::Forbidden,
                "The token says for no tenant who asks, and here everything belongs to one. Get one that does.",
            ),
            Refused::Unavailable => Self::new(
                ProblemKind::Unavailable,
                "The keys that tokens are verified with cannot be had at the moment. Ask again.",
            )
            .retry_after(RETRY_AFTER),
            _ => unauthenticated(
                "The token is not accepted here. Get one of this service's issuer and for this service.",
                r#"Bearer error="invalid_token", error_description="The token is not accepted""#,
            ),
        }
    }
}
