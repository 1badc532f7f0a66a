//! What a token looks like before anything of it is believed.

use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Refused;

/// The most bytes of a token.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The most bytes of the name of a key.
pub(super) const MAX_KEY_ID_BYTES: usize = 256;

/// What a header may not say: where the key is to be had is for the operator to say, and what would have to be understood is not.
const NEVER: [&str; 8] = ["crit", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc"];

/// What the signature of a token is to be looked at with, as the token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unverified {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
}

impl Unverified {
    /// Reads the header of `token`.
    ///
    /// # Errors
    ///
    /// [`Refused`] where it cannot be that of a token that is accepted here.
    pub(super) fn read(token: &str) -> Result<Self, Refused> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Refused::Malformed);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(_), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refused::Malformed);
        };
        let header = URL_SAFE_NO_PAD.decode(header);
        let header = header.map_err(|_| Refused::Malformed)?;
        let header: Strict = serde_json::from_slice(&header).map_err(|_| Refused::Malformed)?;
        let Value::Object(header) = header.0 else {
            return Err(Refused::Malformed);
        };
        if NEVER.iter().any(|name| header.contains_key(*name)) || !has_our_type(&header) {
            return Err(Refused::Header);
        }
        let algorithm = header.get("alg").and_then(Value::as_str);
        let algorithm = algorithm.and_then(|name| Algorithm::from_str(name).ok());
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) if id.len() <= MAX_KEY_ID_BYTES => Some(id.clone()),
            Some(_) => return Err(Refused::Header),
        };
        Ok(Self {
            algorithm: algorithm.ok_or(Refused::Algorithm)?,
            key_id,
        })
    }
}

/// Whether a header says that it is that of a token, or nothing of what it is.
fn has_our_type(header: &Map<String, Value>) -> bool {
    match header.get("typ") {
        None => true,
        Some(Value::String(typ)) => ["JWT", "at+jwt"]
            .iter()
            .any(|known| typ.eq_ignore_ascii_case(known)),
        Some(_) => false,
    }
}

/// A JSON value no object of which has a member twice: two readers of such a one could see two things.
pub(super) struct Strict(pub(super) Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading).map(Self)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON without a member that is there twice")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("not a number"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, Strict(value))) = members.next_entry::<String, Strict>()? {
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("a member is there twice"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str) -> Result<Unverified, Refused> {
        let header = URL_SAFE_NO_PAD.encode(header);
        Unverified::read(&format!("{header}.e30.AA"))
    }

    #[test]
    fn a_header_that_leads_elsewhere_or_asks_to_be_understood_is_refused() {
        for name in NEVER {
            let header = format!(r#"{{"alg":"RS256","{name}":"https://evil.example"}}"#);
            assert_eq!(read(&header), Err(Refused::Header), "{name}");
        }
        for (typ, fits) in [
            (r#""JWT""#, true),
            (r#""jwt""#, true),
            (r#""at+JWT""#, true),
            (r#""JWE""#, false),
            (r#""dpop+jwt""#, false),
            ("null", false),
            ("7", false),
        ] {
            let header = format!(r#"{{"alg":"RS256","typ":{typ}}}"#);
            assert_eq!(read(&header).is_ok(), fits, "{typ}");
        }
    }

    #[test]
    fn a_token_says_by_which_known_algorithm_it_is_signed() {
        for bad in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"None"}"#,
            r#"{"alg":"rs256"}"#,
            r#"{"alg":["RS256"]}"#,
            r#"{"alg":null}"#,
            "{}",
        ] {
            assert_eq!(read(bad), Err(Refused::Algorithm), "{bad}");
        }
        let good = read(r#"{"alg":"ES256","kid":"one"}"#).unwrap();
        assert_eq!(
            (good.algorithm, good.key_id.as_deref()),
            (Algorithm::ES256, Some("one"))
        );
    }

    #[test]
    fn what_has_not_three_parts_of_bounded_length_is_no_token() {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#);
        let long = format!("{header}.{}.AA", "A".repeat(MAX_TOKEN_BYTES));
        for bad in [
            "",
            ".",
            "..",
            "a.b",
            &header,
            &format!("{header}.e30"),
            &format!("{header}.e30.AA."),
            &format!("{header}.e30.AA.AA.AA"),
            &format!("{header}=.e30.AA"),
            &long,
        ] {
            assert_eq!(Unverified::read(bad), Err(Refused::Malformed));
        }
    }

    #[test]
    fn a_member_that_is_there_twice_is_refused_at_any_depth() {
        for bad in [
            r#"{"alg":"RS256","alg":"HS256"}"#,
            r#"{"alg":"RS256","a":[{"b":1,"b":1}]}"#,
            r#"{"alg":"RS256","\u0061lg":"RS256"}"#,
            r#"{"alg":"RS256"} {}"#,
            "[]",
        ] {
            assert_eq!(read(bad), Err(Refused::Malformed), "{bad}");
        }
        let deep = format!(
            r#"{{"alg":"RS256","a":{}1{}}}"#,
            "[".repeat(500),
            "]".repeat(500)
        );
        assert_eq!(read(&deep), Err(Refused::Malformed));
    }
}
