//! What decides whether a token is accepted.

use std::time::SystemTime;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, Validation, decode};
use serde_json::Value;

use super::claims::{self, Expected, LEEWAY};
use super::keys::KeySet;
use super::token::{Strict, Unverified};
use super::{Refused, signatures};
use crate::caller::SignedIn;

/// Decides whether a token is accepted: a JSON Web Token (RFC 7519) in the compact form, signed with one of its keys, by the one algorithm
/// that the key is for, and saying what is expected.
///
/// It knows nothing of requests and asks nobody: the same token, keys and time give the same answer.
#[derive(Clone, Debug)]
pub struct Verifier {
    keys: KeySet,
    expected: Expected,
}

impl Verifier {
    /// Accepts tokens that are signed with one of `keys` and say what is `expected`.
    #[must_use]
    pub fn new(keys: KeySet, expected: Expected) -> Self {
        signatures::install();
        Self { keys, expected }
    }

    /// Who sends `token` along.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn verify(&self, token: &str) -> Result<SignedIn, Refused> {
        let unverified = Unverified::read(token)?;
        let key = self.keys.find(&unverified)?;
        let validation = self.validation(key.algorithm);
        let claims = claims_of(token, &key.key, &validation)?;
        claims::read(&claims, &self.expected, SystemTime::now())
    }

    /// Whether a token is signed with a key that is not known.
    pub(super) fn lacks(&self, token: &Unverified) -> bool {
        self.keys.find(token).err() == Some(Refused::Key)
    }

    /// What the library checks. It is checked here as well, and more strictly.
    fn validation(&self, algorithm: jsonwebtoken::Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.expected.issuer]);
        validation.set_audience(&[&self.expected.audience]);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        validation
    }
}

/// The claims of `token`, whose signature is that of `key`.
fn claims_of(
    token: &str,
    key: &DecodingKey,
    validation: &Validation,
) -> Result<serde_json::Map<String, Value>, Refused> {
    let decoded = decode::<Strict>(token, key, validation);
    let decoded = decoded.map_err(|error| match error.kind() {
        ErrorKind::InvalidSignature => Refused::Signature,
        ErrorKind::InvalidAlgorithm => Refused::Algorithm,
        ErrorKind::InvalidIssuer => Refused::Issuer,
        ErrorKind::InvalidAudience => Refused::Audience,
        ErrorKind::ExpiredSignature => Refused::Expired,
        ErrorKind::ImmatureSignature => Refused::NotYet,
        ErrorKind::MissingRequiredClaim(name) => match &**name {
            "iss" => Refused::Issuer,
            "aud" => Refused::Audience,
            _ => Refused::Claims,
        },
        ErrorKind::InvalidClaimFormat(_) => Refused::Claims,
        _ => Refused::Malformed,
    })?;
    match decoded.claims.0 {
        Value::Object(claims) => Ok(claims),
        _ => Err(Refused::Malformed),
    }
}
