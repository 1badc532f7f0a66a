//! The header `Prefer` (RFC 7240), of which `wait` is ours.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};

/// The header.
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// How long a client prefers to wait, in whole seconds; `None` when it does not say, or says it in a way that
/// RFC 7240 does not know: then the preference is ignored, as it wants it.
///
/// The first one counts where there are several.
pub(super) fn wait(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get_all(PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| split_outside_quotes(value, ','))
        .find_map(preference_of_wait)
        .flatten()
        .map(Duration::from_secs)
}

/// The seconds of `wait=<seconds>`, if `preference` is about that at all.
fn preference_of_wait(preference: &str) -> Option<Option<u64>> {
    // Parameters, behind a semicolon, are nothing that `wait` has.
    let preference = split_outside_quotes(preference, ';').next()?;
    let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
    if !name.trim().eq_ignore_ascii_case("wait") {
        return None;
    }
    let value = value.trim();
    let value = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .unwrap_or(value);
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    // More digits than fit are more seconds than anybody waits.
    Some(digits.then(|| value.parse().unwrap_or(u64::MAX)))
}

/// The parts of `text` between separators that are not within a quoted string.
fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    text.split(move |c| {
        let was_escaped = std::mem::take(&mut escaped);
        match c {
            '\\' if quoted && !was_escaped => escaped = true,
            '"' if !was_escaped => quoted = !quoted,
            _ => {}
        }
        c == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn waits(lines: &[&str]) -> Option<u64> {
        let headers = lines
            .iter()
            .map(|line| (PREFER, HeaderValue::from_str(line).unwrap()))
            .collect();
        wait(&headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn the_first_wait_of_all_preferences_counts() {
        assert_eq!(waits(&["wait=10"]), Some(10));
        assert_eq!(waits(&["WAIT = \"7\" ; x=y, wait=3"]), Some(7));
        assert_eq!(
            waits(&["respond-async, handling=lenient", "wait=0"]),
            Some(0)
        );
        assert_eq!(waits(&["a=\"x, wait=1\", wait=2"]), Some(2));
        assert_eq!(waits(&["a=\"\\\", wait=1\", wait=2"]), Some(2));
        assert_eq!(waits(&["wait=99999999999999999999999"]), Some(u64::MAX));
    }

    #[test]
    fn a_wait_that_is_no_number_is_ignored() {
        for line in [
            "",
            "wait",
            "wait=",
            "wait=-1",
            "wait=1.5",
            "wait=\"",
            "waiting=3",
        ] {
            assert_eq!(waits(&[line]), None, "{line}");
        }
        assert_eq!(waits(&["wait=x, wait=3"]), None);
    }
}
