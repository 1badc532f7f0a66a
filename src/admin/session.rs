//! What is signed for those who use the pages: the cookie of a session, and the token in a form.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::settings::{AdminToken, AdminTokens};

/// How long a session lasts.
pub(super) const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// What a signature is for. One for a form is none for a session.
#[derive(Clone, Copy)]
enum Purpose {
    Session,
    Form,
}

/// The cookie's value of a session that begins `now`: `name.expiry.signature`. It holds in every process that has the token.
pub(super) fn begin(token: &AdminToken, now: SystemTime) -> String {
    let ends = seconds(now + LIFETIME);
    let said = format!("{}.{ends}", token.name);
    let signature = signed(token.key(), Purpose::Session, &said);
    format!("{said}.{signature}")
}

/// Whose session the cookie's value is, while it lasts.
pub(super) fn whose<'a>(
    value: &str,
    tokens: &'a AdminTokens,
    now: SystemTime,
) -> Option<&'a AdminToken> {
    let (said, signature) = value.rsplit_once('.')?;
    let (name, ends) = said.rsplit_once('.')?;
    if ends.parse::<u64>().ok()? <= seconds(now) {
        return None;
    }
    tokens
        .named(name)
        .find(|token| is_signed(token.key(), Purpose::Session, said, signature))
}

#[cfg(feature = "pages")]
/// What a form of `name` has to bring, by this key.
pub(super) fn form_token(key: &[u8], name: &str) -> String {
    signed(key, Purpose::Form, name)
}

/// Whether a form of `name` brought it.
pub(super) fn is_form_token(key: &[u8], name: &str, brought: &str) -> bool {
    is_signed(key, Purpose::Form, name, brought)
}

fn signed(key: &[u8], purpose: Purpose, said: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, &message(purpose, said)))
}

fn is_signed(key: &[u8], purpose: Purpose, said: &str, signature: &str) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else {
        return false;
    };
    hmac::verify(&key, &message(purpose, said), &signature).is_ok()
}

fn message(purpose: Purpose, said: &str) -> Vec<u8> {
    let purpose = match purpose {
        Purpose::Session => "session",
        Purpose::Form => "form",
    };
    format!("tidelog {purpose}\0{said}").into_bytes()
}

/// Seconds since 1970. A clock before that counts as 1970: every session has ended then.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(u64::MAX, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> AdminTokens {
        AdminTokens::parse(text).unwrap()
    }

    #[test]
    fn a_session_is_of_its_token_and_ends() {
        let all = tokens("a.b:operate:0123456789abcdef,wall:read:fedcba9876543210");
        let token = all.of_secret("0123456789abcdef").unwrap();
        let now = SystemTime::now();
        let cookie = begin(token, now);
        let name = |value: &str, tokens: &AdminTokens, at| {
            whose(value, tokens, at).map(|token| token.name.to_string())
        };
        assert_eq!(name(&cookie, &all, now).as_deref(), Some("a.b"));
        assert_eq!(name(&cookie, &all, now + LIFETIME), None);
        let other = tokens("a.b:operate:another-secret-0");
        assert_eq!(name(&cookie, &other, now), None);
        assert_eq!(name(&cookie.replace("a.b", "wall"), &all, now), None);
        let (said, signature) = cookie.rsplit_once('.').unwrap();
        let longer = format!("{said}0.{signature}");
        assert_eq!(name(&longer, &all, now), None);
        for value in ["", "a.b", "..", "a.b.99999999999.", "a.b.x.y"] {
            assert_eq!(name(value, &all, now), None, "{value}");
        }
    }

    #[test]
    fn a_token_of_a_form_is_none_of_a_session() {
        let form = form_token(b"key", "ann.99999999999");
        assert!(is_form_token(b"key", "ann.99999999999", &form));
        assert!(!is_form_token(b"key", "ann", &form));
        assert!(!is_form_token(b"other", "ann.99999999999", &form));
        assert!(!is_signed(
            b"key",
            Purpose::Session,
            "ann.99999999999",
            &form
        ));
    }
}
