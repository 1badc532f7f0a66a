//! The parameters of a URL's query, before anybody knows what they mean.

use serde_json::json;
use tidelog_http::{Problem, ProblemKind};

/// The most parameters that a request may have.
pub(super) const MAX_PARAMETERS: usize = 64;

/// The most characters of a client's text that are repeated in an answer.
const MAX_QUOTED_CHARS: usize = 64;

/// One parameter: `name=value` or `name[operator]=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    /// What it is about.
    pub(super) name: String,
    /// What stands in brackets behind the name.
    pub(super) operator: Option<String>,
    /// The value.
    pub(super) value: String,
}

impl Parameter {
    /// As the client wrote it, without the value.
    pub(super) fn written(&self) -> String {
        match &self.operator {
            None => self.name.clone(),
            Some(operator) => format!("{}[{operator}]", self.name),
        }
    }

    /// The problem that it is not known, and `advice`.
    pub(super) fn unknown(&self, advice: &str) -> Problem {
        about(ProblemKind::UnknownParameter, &self.written(), |name| {
            format!("The parameter `{name}` is not known here: {advice}")
        })
    }

    /// The problem that its value cannot be used: it must be `wanted`.
    pub(super) fn malformed(&self, wanted: &str) -> Problem {
        about(ProblemKind::MalformedRequest, &self.written(), |name| {
            format!("The value of the parameter `{name}` must be {wanted}.")
        })
    }

    /// The problem that there is more of it than may be: `most`.
    pub(super) fn too_many(&self, most: &str) -> Problem {
        about(ProblemKind::MalformedRequest, &self.written(), |name| {
            format!("The parameter `{name}` is one too many: {most}.")
        })
    }

    /// The problem that its value names something that is not known, and `advice`.
    pub(super) fn names_unknown(&self, value: &str, advice: &str) -> Problem {
        let value: String = value.chars().take(MAX_QUOTED_CHARS).collect();
        about(ProblemKind::UnknownParameter, &self.written(), |name| {
            format!("The parameter `{name}` names `{value}`: {advice}")
        })
    }

    /// The problem that it is there twice.
    pub(super) fn repeated(&self) -> Problem {
        about(ProblemKind::MalformedRequest, &self.written(), |name| {
            format!("The parameter `{name}` is there twice; it may be there once.")
        })
    }
}

/// The parameters of `query`, percent-decoded, in order.
///
/// # Errors
///
/// [`ProblemKind::MalformedRequest`] for a percent sequence that is none, text that is not UTF-8, a parameter that comes
/// twice, or more than [`MAX_PARAMETERS`].
pub(super) fn parse(query: Option<&str>) -> Result<Vec<Parameter>, Problem> {
    let mut parameters: Vec<Parameter> = Vec::new();
    let parts = query.unwrap_or_default().split('&');
    for part in parts.filter(|part| !part.is_empty()) {
        if parameters.len() == MAX_PARAMETERS {
            return Err(Problem::new(
                ProblemKind::MalformedRequest,
                format!("A request has at most {MAX_PARAMETERS} parameters."),
            ));
        }
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let (Some(name), Some(value)) = (decode(name), decode(value)) else {
            return Err(about(ProblemKind::MalformedRequest, name, |name| {
                format!("The parameter `{name}` is not UTF-8 in percent-encoding.")
            }));
        };
        let parameter = parameter(&name, value);
        let same = |other: &Parameter| {
            (&other.name, &other.operator) == (&parameter.name, &parameter.operator)
        };
        if parameters.iter().any(same) {
            return Err(parameter.repeated());
        }
        parameters.push(parameter);
    }
    Ok(parameters)
}

/// Takes `name[operator]` apart. What does not look like it is all name, and will not be known.
fn parameter(written: &str, value: String) -> Parameter {
    let bracketed = written
        .strip_suffix(']')
        .and_then(|text| text.split_once('['));
    let (name, operator) = match bracketed {
        Some((name, operator)) => (name, Some(operator.to_owned())),
        None => (written, None),
    };
    Parameter {
        name: name.to_owned(),
        operator,
        value,
    }
}

/// Undoes `application/x-www-form-urlencoded`; `None` for what is not that.
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// A problem that names a parameter.
fn about(kind: ProblemKind, parameter: &str, detail: impl FnOnce(&str) -> String) -> Problem {
    let name: String = parameter.chars().take(MAX_QUOTED_CHARS).collect();
    Problem::new(kind, detail(&name)).with("parameter", json!(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(query: &str) -> Vec<(String, Option<String>, String)> {
        let parameters = parse(Some(query)).unwrap();
        parameters
            .into_iter()
            .map(|p| (p.name, p.operator, p.value))
            .collect()
    }

    #[test]
    fn names_operators_and_values_are_taken_apart() {
        assert_eq!(
            written("title=a+b%26c&address.city[ne]=K%C3%B6ln&flag&x[=1&y]=2&z[a][b]=3&=4"),
            [
                ("title", None, "a b&c"),
                ("address.city", Some("ne"), "Köln"),
                ("flag", None, ""),
                ("x[", None, "1"),
                ("y]", None, "2"),
                ("z", Some("a][b"), "3"),
                ("", None, "4"),
            ]
            .map(|(n, o, v): (&str, Option<&str>, &str)| (
                n.into(),
                o.map(Into::into),
                v.into()
            ))
        );
        assert_eq!(parse(None).unwrap(), []);
        assert_eq!(parse(Some("&&")).unwrap(), []);
    }

    #[test]
    fn what_cannot_be_read_or_comes_twice_is_malformed() {
        let many = "a=1&".repeat(MAX_PARAMETERS + 1);
        for query in [
            "a=%",
            "a=%4",
            "a=%zz",
            "%ff=1",
            "a=1&a=2",
            "a[x]=1&a[x]=1",
            &many,
        ] {
            let kind = parse(Some(query)).unwrap_err().kind();
            assert_eq!(kind, ProblemKind::MalformedRequest, "{query}");
        }
        assert!(parse(Some("a[gt]=1&a[lt]=2")).is_ok());
    }
}
