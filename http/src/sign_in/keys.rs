//! The keys that tokens are signed with, each for one algorithm.

use std::collections::HashSet;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::Refused;
use super::token::{MAX_KEY_ID_BYTES, Unverified};

/// The most keys of a set.
const MAX_KEYS: usize = 64;

/// The fewest bits of an RSA key.
const MIN_RSA_BITS: usize = 2_048;

/// The most bits of an RSA key.
const MAX_RSA_BITS: usize = 8_192;

/// What an RSA key can be for.
const OF_RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// The fewest bytes of a shared secret.
pub const MIN_SECRET_BYTES: usize = 32;

/// The keys that tokens are verified with.
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    left_out: usize,
}

/// A key, and the one algorithm that it is for.
#[derive(Clone, Debug)]
pub(super) struct Key {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// Why there are no keys in what should have some.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKeys {
    /// It is no JSON Web Key Set.
    #[error("it is not a JSON Web Key Set, which is {{\"keys\": [...]}}")]
    NotASet,
    /// There are too many of them.
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
    /// Two keys for the same algorithm have the same name.
    #[error("it has two keys called {0:?} for the same algorithm")]
    Twice(String),
    /// None of them verifies tokens.
    #[error(
        "it has no key that verifies tokens: an RSA key of {MIN_RSA_BITS} bits or more, one on the curves P-256 or P-384, or one for Ed25519"
    )]
    None,
    /// The shared secret is too short.
    #[error("a shared secret has at least {MIN_SECRET_BYTES} bytes")]
    ShortSecret,
}

/// A key as a set has it. Members of other kinds of keys are not looked at.
#[derive(Deserialize)]
struct Written {
    kty: String,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    kid: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// The keys of a JSON Web Key Set (RFC 7517) that verify signatures. Others are left out: those for encryption, of kinds and curves
    /// that are not known, RSA keys that are too short, and shared secrets, which do not belong into what is published.
    ///
    /// # Errors
    ///
    /// [`InvalidKeys`].
    pub fn parse(json: &[u8]) -> Result<Self, InvalidKeys> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(json).map_err(|_| InvalidKeys::NotASet)?;
        if set.keys.len() > MAX_KEYS {
            return Err(InvalidKeys::TooMany);
        }
        let all = set.keys.len();
        let keys: Vec<Key> = set.keys.into_iter().filter_map(Key::read).collect();
        let mut names = HashSet::new();
        for key in &keys {
            let id = key.id.as_deref().unwrap_or_default();
            if !names.insert((id, key.algorithm)) {
                return Err(InvalidKeys::Twice(id.to_owned()));
            }
        }
        if keys.is_empty() {
            return Err(InvalidKeys::None);
        }
        let left_out = all - keys.len();
        Ok(Self { keys, left_out })
    }

    /// The one key that is the secret `secret`, for HS256.
    ///
    /// # Errors
    ///
    /// [`InvalidKeys::ShortSecret`].
    pub fn of_secret(secret: &[u8]) -> Result<Self, InvalidKeys> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err(InvalidKeys::ShortSecret);
        }
        Ok(Self {
            keys: vec![Key {
                id: None,
                algorithm: Algorithm::HS256,
                key: DecodingKey::from_secret(secret),
            }],
            left_out: 0,
        })
    }

    /// How many keys of the set verify no tokens.
    #[must_use]
    pub const fn left_out(&self) -> usize {
        self.left_out
    }

    /// How many keys there are.
    #[expect(clippy::len_without_is_empty, reason = "it never is empty")]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key that a token says it is signed with.
    ///
    /// # Errors
    ///
    /// [`Refused::Key`] where there is none, [`Refused::Algorithm`] where it is for another algorithm.
    pub(super) fn find(&self, token: &Unverified) -> Result<&Key, Refused> {
        let named = |key: &&Key| key.id == token.key_id;
        let candidates: Vec<&Key> = match (&token.key_id, self.keys.as_slice()) {
            // One key, and nothing else that it could be. A secret has no name, whatever a token calls it.
            (None, [only]) => vec![only],
            (Some(_), [only]) if only.algorithm == Algorithm::HS256 => vec![only],
            (None, _) => Vec::new(),
            (Some(_), keys) => keys.iter().filter(named).collect(),
        };
        if candidates.is_empty() {
            return Err(Refused::Key);
        }
        let key = candidates
            .into_iter()
            .find(|key| key.algorithm == token.algorithm);
        key.ok_or(Refused::Algorithm)
    }
}

impl Key {
    /// Reads a key; `None` where it verifies no tokens.
    fn read(value: Value) -> Option<Self> {
        let written: Written = serde_json::from_value(value).ok()?;
        let verifies = written.usage.as_deref().is_none_or(|usage| usage == "sig")
            && written
                .key_ops
                .as_ref()
                .is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let is_short = |id: &String| id.len() <= MAX_KEY_ID_BYTES;
        if !verifies || !written.kid.as_ref().is_none_or(is_short) {
            return None;
        }
        let (key, possible) = written.key()?;
        let algorithm = match &written.alg {
            None => *possible.first()?,
            Some(name) => Algorithm::from_str(name).ok()?,
        };
        possible.contains(&algorithm).then_some(Self {
            id: written.kid,
            algorithm,
            key,
        })
    }
}

impl Written {
    /// The key, and the algorithms that it can be for, of which the first is the usual one.
    fn key(&self) -> Option<(DecodingKey, &'static [Algorithm])> {
        match (&*self.kty, self.crv.as_deref()) {
            ("RSA", _) => {
                let (n, e) = (decoded(self.n.as_deref())?, decoded(self.e.as_deref())?);
                let fits = (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits(&n));
                let key = DecodingKey::from_rsa_raw_components(number(&n), number(&e));
                fits.then_some((key, &OF_RSA))
            }
            ("EC", Some("P-256")) => Some((self.point(32)?, &[Algorithm::ES256])),
            ("EC", Some("P-384")) => Some((self.point(48)?, &[Algorithm::ES384])),
            ("OKP", Some("Ed25519")) => {
                let x = decoded(self.x.as_deref()).filter(|x| x.len() == 32)?;
                Some((DecodingKey::from_ed_der(&x), &[Algorithm::EdDSA]))
            }
            _ => None,
        }
    }

    /// A point of a curve whose coordinates have so many bytes.
    fn point(&self, bytes: usize) -> Option<DecodingKey> {
        let (x, y) = (decoded(self.x.as_deref())?, decoded(self.y.as_deref())?);
        let point = [&[4], &*x, &*y].concat();
        (x.len() == bytes && y.len() == bytes).then(|| DecodingKey::from_ec_der(&point))
    }
}

fn decoded(text: Option<&str>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text?).ok()
}

/// A number without the zeros before it, which some write and none has to read.
fn number(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

/// How many bits a number has.
fn bits(bytes: &[u8]) -> usize {
    let number = number(bytes);
    let unused = number.first().map_or(0, |first| first.leading_zeros());
    number.len() * 8 - usize::try_from(unused).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(keys: Value) -> Result<KeySet, InvalidKeys> {
        KeySet::parse(json!({"keys": keys}).to_string().as_bytes())
    }

    fn b64(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// A key that looks like one of RSA of so many bits.
    fn rsa(bits: usize) -> Value {
        let mut n = vec![0xff; bits / 8];
        n.insert(0, 0);
        json!({"kty": "RSA", "kid": "r", "n": b64(&n), "e": "AQAB"})
    }

    fn ec(crv: &str, bytes: usize) -> Value {
        let xy = b64(&vec![1; bytes]);
        json!({"kty": "EC", "kid": "e", "crv": crv, "x": xy, "y": xy})
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key.as_object_mut().unwrap().insert(name.to_owned(), value);
        key
    }

    fn algorithm(key: Value) -> Option<Algorithm> {
        let set = set(json!([key])).ok()?;
        Some(set.keys[0].algorithm)
    }

    #[test]
    fn each_key_is_for_one_algorithm() {
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": b64(&[1; 32])});
        for (key, expected) in [
            (rsa(2048), Some(Algorithm::RS256)),
            (
                with(rsa(2048), "alg", json!("PS384")),
                Some(Algorithm::PS384),
            ),
            (with(rsa(2048), "alg", json!("ES256")), None),
            (with(rsa(2048), "alg", json!("HS256")), None),
            (with(rsa(2048), "alg", json!("none")), None),
            (rsa(1024), None),
            (rsa(16_384), None),
            (ec("P-256", 32), Some(Algorithm::ES256)),
            (ec("P-384", 48), Some(Algorithm::ES384)),
            (ec("P-256", 31), None),
            (ec("P-521", 66), None),
            (with(ec("P-256", 32), "alg", json!("ES384")), None),
            (ed, Some(Algorithm::EdDSA)),
            (
                json!({"kty": "OKP", "crv": "X25519", "x": b64(&[1; 32])}),
                None,
            ),
            (json!({"kty": "oct", "k": b64(&[1; 64])}), None),
            (
                json!({"kty": "oct", "alg": "HS256", "k": b64(&[1; 64])}),
                None,
            ),
            (with(rsa(2048), "use", json!("enc")), None),
            (with(rsa(2048), "use", json!("sig")), Some(Algorithm::RS256)),
            (with(rsa(2048), "key_ops", json!(["encrypt"])), None),
            (
                with(rsa(2048), "key_ops", json!(["verify"])),
                Some(Algorithm::RS256),
            ),
            (json!("a key"), None),
        ] {
            assert_eq!(algorithm(key.clone()), expected, "{key}");
        }
    }

    #[test]
    fn a_token_finds_the_key_that_it_names() {
        let find = |set: &KeySet, algorithm, key_id: Option<&str>| {
            let key_id = key_id.map(str::to_owned);
            let token = Unverified { algorithm, key_id };
            set.find(&token).map(|key| key.algorithm)
        };
        let two = set(json!([rsa(2048), ec("P-256", 32)])).unwrap();
        assert_eq!(two.left_out(), 0);
        for (algorithm, id, found) in [
            (Algorithm::RS256, Some("r"), Ok(Algorithm::RS256)),
            (Algorithm::ES256, Some("e"), Ok(Algorithm::ES256)),
            (Algorithm::HS256, Some("r"), Err(Refused::Algorithm)),
            (Algorithm::RS512, Some("r"), Err(Refused::Algorithm)),
            (Algorithm::ES256, Some("r"), Err(Refused::Algorithm)),
            (Algorithm::RS256, Some("x"), Err(Refused::Key)),
            (Algorithm::RS256, None, Err(Refused::Key)),
        ] {
            assert_eq!(find(&two, algorithm, id), found, "{algorithm:?} {id:?}");
        }
        let one = set(json!([rsa(2048), {"kty": "oct", "k": "AAAA"}])).unwrap();
        assert_eq!((one.len(), one.left_out()), (1, 1));
        assert_eq!(find(&one, Algorithm::RS256, None), Ok(Algorithm::RS256));
        assert_eq!(find(&one, Algorithm::RS256, Some("x")), Err(Refused::Key));
        assert_eq!(find(&one, Algorithm::HS256, None), Err(Refused::Algorithm));
        let secret = KeySet::of_secret(&[1; MIN_SECRET_BYTES]).unwrap();
        assert_eq!(
            find(&secret, Algorithm::HS256, Some("x")),
            Ok(Algorithm::HS256)
        );
        assert_eq!(
            find(&secret, Algorithm::RS256, None),
            Err(Refused::Algorithm)
        );
    }

    #[test]
    fn what_is_no_set_of_keys_says_why() {
        for (text, error) in [
            ("", InvalidKeys::NotASet),
            ("<html>", InvalidKeys::NotASet),
            (r#"{"keys": {}}"#, InvalidKeys::NotASet),
            (r#"{"keys": []}"#, InvalidKeys::None),
            (
                r#"{"keys": [{"kty": "oct", "k": "AAAA"}]}"#,
                InvalidKeys::None,
            ),
        ] {
            assert_eq!(KeySet::parse(text.as_bytes()).err(), Some(error), "{text}");
        }
        let many = vec![rsa(2048); MAX_KEYS + 1];
        assert_eq!(set(json!(many)).err(), Some(InvalidKeys::TooMany));
        let twice = set(json!([rsa(2048), rsa(2048)])).err();
        assert_eq!(twice, Some(InvalidKeys::Twice("r".to_owned())));
        let short = KeySet::of_secret(&[1; MIN_SECRET_BYTES - 1]).err();
        assert_eq!(short, Some(InvalidKeys::ShortSecret));
    }
}
