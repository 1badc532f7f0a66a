//! `If-Match` and `If-None-Match` (RFC 9110, section 13.1).

use axum::http::{HeaderMap, HeaderName, header};
use tidelog_domain::Version;
use tidelog_http::{Problem, ProblemKind};

use crate::handling::Precondition;

/// The most entity tags that an `If-Match` may list.
const MAX_TAGS: usize = 32;

/// What a request makes its command depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Preconditions {
    /// The versions that `If-Match` allows.
    pub(super) version: Precondition,
    /// Whether a creation is to find nothing (`If-None-Match: *`).
    pub(super) none_match: bool,
}

impl Preconditions {
    /// Reads them. `creates` says whether the command makes an aggregate.
    ///
    /// `If-Match: *` asks for an aggregate that exists, as each command does that makes none; a creation cannot fulfil it. A
    /// weak tag, and a tag that is none of ours, is at no version.
    ///
    /// # Errors
    ///
    /// [`ProblemKind::MalformedRequest`] when a header cannot be read, or cannot be heeded: an `If-None-Match` that is
    /// not the `*` of a creation.
    pub(super) fn read(headers: &HeaderMap, creates: bool) -> Result<Self, Problem> {
        let version = match tags(headers, &header::IF_MATCH)? {
            None => Precondition::None,
            Some(Tags::Any) if creates => Precondition::OneOf(Vec::new()),
            Some(Tags::Any) => Precondition::None,
            Some(Tags::Listed(versions)) => Precondition::OneOf(versions),
        };
        let none_match = match tags(headers, &header::IF_NONE_MATCH)? {
            None => false,
            Some(Tags::Any) if creates => true,
            Some(_) => {
                return Err(malformed(
                    "If-None-Match is understood on a creation only, and only as *.",
                ));
            }
        };
        Ok(Self {
            version,
            none_match,
        })
    }
}

impl Preconditions {
    /// What tells them from others, for the fingerprint of a request.
    pub(super) fn fingerprint(&self) -> String {
        format!("{} {}", self.version.text(), self.none_match)
    }
}

/// What a header with entity tags says.
enum Tags {
    Any,
    /// The versions of those tags that can match.
    Listed(Vec<Version>),
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let mut versions = Vec::new();
    let mut given = 0;
    let mut any = false;
    for line in headers.get_all(name) {
        let bad = || {
            malformed(&format!(
                "{name} must be * or a list of entity tags like \"7\", in quotes, as an ETag had it."
            ))
        };
        let mut rest = line.to_str().map_err(|_| bad())?.trim();
        if rest == "*" {
            any = true;
            given += 1;
            continue;
        }
        loop {
            let (tag, after) = tag(rest).ok_or_else(bad)?;
            given += 1;
            versions.extend(tag);
            rest = after.trim_start();
            if rest.is_empty() {
                break;
            }
            rest = rest.strip_prefix(',').ok_or_else(bad)?.trim_start();
        }
    }
    if given > MAX_TAGS || (any && given > 1) {
        return Err(malformed(&format!(
            "{name} must be * alone, or at most {MAX_TAGS} entity tags."
        )));
    }
    Ok(match given {
        0 => None,
        _ if any => Some(Tags::Any),
        _ => Some(Tags::Listed(versions)),
    })
}

/// The first entity tag of `text`: its version, when it is a strong one of ours, and what comes after it.
fn tag(text: &str) -> Option<(Option<Version>, &str)> {
    let strong = text.strip_prefix("W/");
    let (opaque, after) = strong.unwrap_or(text).strip_prefix('"')?.split_once('"')?;
    let legal = opaque.bytes().all(|b| b > b' ' && b != 0x7f);
    if !legal {
        return None;
    }
    // A read's tag is `n.representation`: the version is what counts.
    let number = opaque.split('.').next().unwrap_or_default();
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let version = (strong.is_none() && digits)
        .then(|| number.parse().ok().map(Version::new))
        .flatten();
    Some((version, after))
}

fn malformed(detail: &str) -> Problem {
    Problem::new(ProblemKind::MalformedRequest, detail)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(name: HeaderName, values: &[&str], creates: bool) -> Result<Preconditions, ()> {
        let values = values.iter().map(|v| HeaderValue::from_str(v).unwrap());
        let mut headers = HeaderMap::new();
        values.for_each(|value| {
            headers.append(name.clone(), value);
        });
        Preconditions::read(&headers, creates).map_err(|problem| {
            assert_eq!(problem.kind(), ProblemKind::MalformedRequest);
        })
    }

    fn if_match(values: &[&str]) -> Result<Precondition, ()> {
        read(header::IF_MATCH, values, false).map(|read| read.version)
    }

    fn one_of(versions: &[u64]) -> Result<Precondition, ()> {
        let versions = versions.iter().copied().map(Version::new);
        Ok(Precondition::OneOf(versions.collect()))
    }

    #[test]
    fn if_match_names_versions() {
        assert_eq!(if_match(&[]), Ok(Precondition::None));
        assert_eq!(if_match(&["*"]), Ok(Precondition::None));
        assert_eq!(if_match(&["\"3\""]), one_of(&[3]));
        assert_eq!(if_match(&["\"3.f00\""]), one_of(&[3]));
        assert_eq!(if_match(&["\"3.f00-gzip\""]), one_of(&[3]));
        assert_eq!(if_match(&["\"3\" , \"4.x\""]), one_of(&[3, 4]));
        assert_eq!(if_match(&["\"3\"", "\"4\""]), one_of(&[3, 4]));
    }

    #[test]
    fn a_tag_that_cannot_match_matches_nothing() {
        for tag in [
            "W/\"3\"",
            "\"\"",
            "\"abc\"",
            "\"3x\"",
            "\"99999999999999999999\"",
        ] {
            assert_eq!(if_match(&[tag]), one_of(&[]), "{tag}");
        }
        assert_eq!(if_match(&["W/\"3\", \"4\""]), one_of(&[4]));
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        for text in [
            "",
            "3",
            "\"3",
            "3\"",
            "\"3\",",
            "\"3\" \"4\"",
            "w/\"3\"",
            "*, \"3\"",
            "\"a b\"",
            "'3'",
        ] {
            assert_eq!(if_match(&[text]), Err(()), "{text}");
        }
        assert_eq!(if_match(&["*", "\"3\""]), Err(()));
        assert_eq!(if_match(&["\"1\""; MAX_TAGS + 1]), Err(()));
    }

    #[test]
    fn a_creation_may_ask_that_there_be_nothing() {
        let none_match = |value, creates| {
            read(header::IF_NONE_MATCH, &[value], creates).map(|read| read.none_match)
        };
        assert_eq!(none_match("*", true), Ok(true));
        assert_eq!(none_match("*", false), Err(()));
        assert_eq!(none_match("\"1\"", true), Err(()));
        let must_exist = read(header::IF_MATCH, &["*"], true);
        assert_eq!(must_exist.unwrap().version, Precondition::OneOf(Vec::new()));
    }
}
