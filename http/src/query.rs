//! Small checks of what a request asks for besides its message.

use axum::http::{HeaderMap, Uri, header};
use serde_json::json;

use crate::app::MAX_QUOTED;
use crate::problem::{Problem, ProblemKind};

/// Turns down a request with query parameters, where there are none to give.
///
/// # Errors
///
/// A [`ProblemKind::UnknownParameter`] that names the first.
pub fn no_query(uri: &Uri) -> Result<(), Problem> {
    let Some(query) = uri.query().filter(|query| !query.is_empty()) else {
        return Ok(());
    };
    let first = query.split(['=', '&']).next().unwrap_or_default();
    let name: String = first.chars().take(MAX_QUOTED).collect();
    Err(Problem::new(
        ProblemKind::UnknownParameter,
        format!("The parameter {name:?} is not known: this request takes no query parameters."),
    )
    .with("parameter", json!(name)))
}

/// Turns down a request whose `Accept` leaves no room for a JSON answer.
///
/// # Errors
///
/// [`ProblemKind::NotAcceptable`].
pub fn require_json_answer(headers: &HeaderMap) -> Result<(), Problem> {
    let mut ranges = headers
        .get_all(header::ACCEPT)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .peekable();
    if ranges.peek().is_none() || ranges.any(takes_json) {
        return Ok(());
    }
    Err(Problem::new(
        ProblemKind::NotAcceptable,
        "The answer is application/json, which the header Accept does not allow. Add it, or leave the header out.",
    ))
}

/// Whether one media range of an `Accept` header covers `application/json`.
fn takes_json(range: &[u8]) -> bool {
    let Ok(range) = std::str::from_utf8(range) else {
        return false;
    };
    let mut parts = range.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let refused = parts.any(|parameter| {
        parameter
            .split_once('=')
            .is_some_and(|(name, q)| name.trim().eq_ignore_ascii_case("q") && is_zero(q.trim()))
    });
    !refused
        && ["application/json", "application/*", "*/*"]
            .iter()
            .any(|json| media.eq_ignore_ascii_case(json))
}

fn is_zero(weight: &str) -> bool {
    weight.parse::<f32>().is_ok_and(|q| q <= 0.0)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_parameter_is_turned_down_by_name() {
        assert!(no_query(&Uri::from_static("/post")).is_ok());
        assert!(no_query(&Uri::from_static("/post?")).is_ok());
        let refused = no_query(&Uri::from_static("/post?force=1&x")).unwrap_err();
        assert_eq!(refused.kind(), ProblemKind::UnknownParameter);
    }

    #[test]
    fn an_answer_in_json_must_be_acceptable() {
        let accepted = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(value));
            require_json_answer(&headers).is_ok()
        };
        assert!(require_json_answer(&HeaderMap::new()).is_ok());
        assert!(accepted("*/*"));
        assert!(accepted("text/html, application/JSON;q=0.5"));
        assert!(accepted("text/html, application/*"));
        assert!(!accepted("text/html"));
        assert!(!accepted("text/html, application/json; q=0"));
    }
}
