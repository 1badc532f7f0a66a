//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): an Item of Structured Fields (RFC 9651) that is a String.

use axum::http::{HeaderMap, HeaderName};
use tidelog_http::{Problem, ProblemKind};

use crate::handling::{CommandKey, MAX_KEY_LENGTH};

/// The header that brings a key.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The header of an answer that was given before.
pub(super) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Reads the `Idempotency-Key` of a request, if it brings one.
///
/// # Errors
///
/// [`ProblemKind::MalformedRequest`] when it brings several, or something else than a string of 1 to [`MAX_KEY_LENGTH`]
/// characters. Parameters are refused too: the draft defines none.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<CommandKey>, Problem> {
    let mut lines = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    let text = line.to_str().ok().and_then(string);
    let key = text.and_then(|text| CommandKey::new(text).ok());
    match (key, lines.next()) {
        (Some(key), None) => Ok(Some(key)),
        _ => Err(Problem::new(
            ProblemKind::MalformedRequest,
            format!(
                "Idempotency-Key must be one string of 1 to {MAX_KEY_LENGTH} ASCII characters in double quotes, like \
                 \"8e03978e-40d5-43dd-bc93-6894a57f9324\"."
            ),
        )),
    }
}

/// What the String `text` of Structured Fields says; `None` when it is none.
fn string(text: &str) -> Option<String> {
    let quoted = text.trim_matches(' ');
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    let mut said = String::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(char) = rest.next() {
        match char {
            '"' => return None,
            '\\' => said.push(rest.next().filter(|next| matches!(next, '"' | '\\'))?),
            char => said.push(char),
        }
    }
    Some(said)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read_lines(lines: &[&str]) -> Result<Option<CommandKey>, ()> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                IDEMPOTENCY_KEY,
                HeaderValue::from_bytes(line.as_bytes()).unwrap(),
            );
        }
        idempotency_key(&headers).map_err(|_| ())
    }

    #[test]
    fn a_key_is_a_string_of_structured_fields() {
        let key = |text: &str| Ok(Some(CommandKey::new(text).unwrap()));
        assert_eq!(read_lines(&[]), Ok(None));
        assert_eq!(read_lines(&["\"a b-1\""]), key("a b-1"));
        assert_eq!(read_lines(&["  \"k\"  "]), key("k"));
        assert_eq!(read_lines(&[r#""a\"b\\c""#]), key(r#"a"b\c"#));
        let longest = "k".repeat(MAX_KEY_LENGTH);
        assert_eq!(read_lines(&[&format!("\"{longest}\"")]), key(&longest));
    }

    #[test]
    fn what_is_none_is_refused() {
        let too_long = format!("\"{}\"", "k".repeat(MAX_KEY_LENGTH + 1));
        for line in [
            "",
            "\"",
            "\"\"",
            "k",
            "'k'",
            "\"k",
            "k\"",
            "\"k\\\"",
            "\"a\\b\"",
            "\"a\"b\"",
            "\"k\";p=1",
            "\"k\", \"l\"",
            "\"ü\"",
            "8e03978e-40d5-43dd-bc93-6894a57f9324",
            &too_long,
        ] {
            assert_eq!(read_lines(&[line]), Err(()), "{line}");
        }
        assert_eq!(read_lines(&["\"k\"", "\"k\""]), Err(()));
    }
}
