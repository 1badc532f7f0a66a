//! What a gateway sends to a worker, and what it gets.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use tidelog_domain::{Metadata, Tenant};
use tidelog_http::{Caller, SignedIn};

use crate::http::From;

/// The headers that a command is told by. What they say was checked.
const PASSED_ON: [HeaderName; 4] = [
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    HeaderName::from_static("idempotency-key"),
];

/// A command as it goes to a worker: a request of HTTP that was checked. The conversation and the trace are the message's own.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CommandCall {
    /// `POST`, `PATCH` or `DELETE`.
    pub method: String,
    /// The path, percent-encoded as it came.
    pub path: String,
    /// Names and values, as often as they came.
    pub headers: Vec<(String, String)>,
    /// Who asks.
    pub caller: PassedCaller,
    /// The body, byte by byte.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<serde_json::Value>")]
    pub body: Option<Box<RawValue>>,
    /// The same as a text, where there are blanks around it: they are part of what an idempotency key stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// Who asks, as the gateway found out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PassedCaller {
    /// Who it is; nobody where nobody signs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// For whom; nobody without tenancy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Its roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// From when on its token counts no more, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

/// The answer of a worker: a response of HTTP.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CommandReply {
    /// Its status.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<serde_json::Value>")]
    pub body: Option<Box<RawValue>>,
}

/// A value that is there, `null` included.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}

/// A command on its way.
pub(crate) struct Passing {
    pub(super) name: String,
    pub(super) call: CommandCall,
    pub(super) metadata: Metadata,
}

impl Passing {
    /// The request of `parts` with `body`, which is JSON or empty, a command of `name`.
    pub(crate) fn of(name: &str, parts: &Parts, body: &[u8], from: &From) -> Self {
        let text = String::from_utf8_lossy(body);
        let (body, text) = match RawValue::from_string(text.clone().into_owned()) {
            Ok(body) if body.get().len() == text.len() => (Some(body), None),
            _ => (
                None,
                Some(text.into_owned()).filter(|text| !text.is_empty()),
            ),
        };
        let call = CommandCall {
            method: parts.method.as_str().to_owned(),
            path: parts.uri.path().to_owned(),
            headers: listed(&parts.headers, |name| PASSED_ON.contains(name)),
            caller: PassedCaller::of(&from.caller),
            body,
            text,
        };
        Self {
            name: name.to_owned(),
            call,
            metadata: from.context.metadata_of_message(&from.caller),
        }
    }
}

/// Those of `headers` that are to go over messages, as they go.
pub(super) fn listed(
    headers: &HeaderMap,
    goes: impl Fn(&HeaderName) -> bool,
) -> Vec<(String, String)> {
    let lines = headers.iter().filter(|(name, _)| goes(name));
    lines
        .filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        })
        .collect()
}

/// The headers that came over messages; `None` when one is none.
pub(super) fn unlisted(lines: &[(String, String)]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(lines.len());
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_str(value).ok()?);
    }
    Some(headers)
}

/// The body that came over messages.
pub(super) fn body(json: Option<Box<RawValue>>) -> Option<String> {
    json.map(|json| String::from(Box::<str>::from(json)))
}

impl PassedCaller {
    /// What is to be said of `caller`.
    #[must_use]
    pub fn of(caller: &Caller) -> Self {
        let expires_at = caller.expires_at();
        let expires_at = expires_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Self {
            principal: caller.principal().map(str::to_owned),
            tenant: caller.tenant().map(|tenant| tenant.as_str().to_owned()),
            roles: caller.roles().map(str::to_owned).collect(),
            expires_at: expires_at.map(|since| since.as_secs()),
        }
    }

    /// The same as somebody who signed in; `None` where nobody has.
    pub(super) fn signed_in(self) -> Option<SignedIn> {
        let (principal, expires_at) = (self.principal?, self.expires_at?);
        let tenant = self.tenant.as_deref().map(Tenant::new).transpose().ok()?;
        let expires_at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(expires_at))?;
        Some(SignedIn {
            principal: principal.into(),
            tenant,
            roles: self.roles.into_iter().map(Into::into).collect(),
            expires_at,
        })
    }
}
