//! Signing in: bearer tokens that an issuer signs, and the keys that they are verified with.
//!
//! A request brings its token in the header `Authorization: Bearer` (RFC 6750), never elsewhere. The token is a JSON Web Token in the
//! compact form. What of it is believed is for [`Verifier`] to say; [`SignIn`] keeps the keys fresh, remembers for a short while what was
//! verified, and says who may do what.

mod claims;
#[cfg(feature = "jwks-client")]
mod fetch;
mod keys;
mod refused;
mod signatures;
mod source;
#[cfg(test)]
mod tests;
mod token;
mod verifier;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use moka::sync::Cache;
use ring::digest::{SHA256, digest};
use tokio_util::sync::CancellationToken;

pub use claims::{Expected, ROLES_CLAIM};
pub use keys::{InvalidKeys, KeySet, MIN_SECRET_BYTES};
pub use refused::Refused;
pub use source::{InvalidSource, KeysFrom, Secret, Unread};
pub use token::MAX_TOKEN_BYTES;
pub use verifier::Verifier;

use crate::caller::Caller;
use crate::problem::Problem;
use crate::roles::Rules;
use source::Keys;
use token::Unverified;

/// How many tokens are remembered that were verified.
const MAX_REMEMBERED: u64 = 10_000;

/// How long a token is remembered: what an issuer takes back by taking its key away counts no longer than that.
const REMEMBERED_FOR: Duration = Duration::from_mins(1);

/// Finds out who sends a request. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct SignIn(Arc<Inner>);

struct Inner {
    keys: Arc<Keys>,
    rules: Arc<Rules>,
    remembered: Cache<[u8; 32], Remembered>,
}

/// A token that was verified.
#[derive(Clone)]
struct Remembered {
    caller: Caller,
    /// The keys that it was verified with.
    generation: u64,
}

impl SignIn {
    /// Accepts tokens that are signed with keys `from` there and say what is `expected`; `rules` say what callers may do.
    ///
    /// # Errors
    ///
    /// [`InvalidSource`] where there can be no keys. That keys of a URL cannot be fetched now is none.
    pub fn new(from: &KeysFrom, expected: Expected, rules: Rules) -> Result<Self, InvalidSource> {
        Ok(Self(Arc::new(Inner {
            keys: Arc::new(Keys::new(from, expected)?),
            rules: Arc::new(rules),
            remembered: Cache::builder()
                .max_capacity(MAX_REMEMBERED)
                .time_to_live(REMEMBERED_FOR)
                .build(),
        })))
    }

    /// What callers may do.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.0.rules
    }

    /// Keeps the keys fresh until it is told to stop. Without it they are only asked for when one is missing.
    pub async fn keep_fresh(&self, stop: CancellationToken) {
        self.0.keys.keep_fresh(stop).await;
    }

    /// Who sends a request with these headers.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refused> {
        let token = bearer(headers)?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Refused::Malformed);
        }
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let keys = &self.0.keys;
        let mut current = keys.current();
        if let (Ok(current), Some(known)) = (&current, self.0.remembered.get(&id))
            && known.generation == current.generation
        {
            return match known.caller.expires_at() {
                Some(end) if end > SystemTime::now() => Ok(known.caller),
                _ => Err(Refused::Expired),
            };
        }
        let unverified = Unverified::read(token)?;
        let is_unknown = |current: &source::Current| current.verifier.lacks(&unverified);
        if current.as_ref().map_or(true, is_unknown) {
            keys.ask_by_need().await?;
            current = keys.current();
        }
        let current = current?;
        let who = current.verifier.verify(token)?;
        let caller = Caller::signed_in(who, Arc::clone(&self.0.rules));
        let known = Remembered {
            caller: caller.clone(),
            generation: current.generation,
        };
        self.0.remembered.insert(id, known);
        Ok(caller)
    }
}

/// The token in the one header `Authorization`, whose scheme is `Bearer` in any case.
fn bearer(headers: &HeaderMap) -> Result<&str, Refused> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Err(Refused::Missing),
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(Refused::Malformed),
    };
    let text = value.to_str().map_err(|_| Refused::Malformed)?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refused::Missing);
    }
    Ok(token.trim_matches(' '))
}

/// Lets those use `router` who are signed in, and whoever has found out before who asks. Who is turned away is counted as one who came to
/// `service`.
///
/// The layer stands before every route of `router`: what is open to all is merged with it afterwards.
pub fn signed_in(router: Router, sign_in: &SignIn, service: &'static str) -> Router {
    router.layer(from_fn_with_state((sign_in.clone(), service), admit))
}

async fn admit(
    State((sign_in, service)): State<(SignIn, &'static str)>,
    mut request: Request,
    next: Next,
) -> Response {
    if request.extensions().get::<Caller>().is_none() {
        match sign_in.caller(request.headers()).await {
            Ok(caller) => request.extensions_mut().insert(caller),
            Err(refused) => return turn_away(refused, service),
        };
    }
    let mut response = next.run(request).await;
    // What one caller sees is not for a cache that others ask too.
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("authorization"));
    response
}

/// Among the extensions of an answer: who asked is not signed in.
#[derive(Clone, Copy)]
pub(crate) struct NotSignedIn;

/// What a client hears that is not signed in, and the count of it.
fn turn_away(refused: Refused, service: &'static str) -> Response {
    count_refused(refused, service);
    let mut response = Problem::from(refused).into_response();
    // That there are no keys is nothing that it did.
    if refused != Refused::Unavailable {
        response.extensions_mut().insert(NotSignedIn);
    }
    response
}

/// Counts one who was not signed in to `service`.
pub fn count_refused(refused: Refused, service: &'static str) {
    let reason = refused.name();
    metrics::counter!("tidelog_sign_ins_refused_total", "service" => service, "reason" => reason)
        .increment(1);
}
