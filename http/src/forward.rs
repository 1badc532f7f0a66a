//! Requests that are passed on to a service elsewhere.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::try_unfold;
use reqwest::Client;
use reqwest::redirect::Policy;
use url::Url;

use crate::problem::{Problem, ProblemKind};
use crate::websocket::Shown;

/// How long it may take to reach the service.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long it may say nothing. A live query says something every few seconds.
const SILENCE: Duration = Duration::from_secs(60);

/// When to come back while the service is away.
const SOON: Duration = Duration::from_secs(1);

/// What is of one connection, and not of the message. The client's host is another.
const NOT_PASSED_ON: [HeaderName; 6] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::HOST,
    header::CONTENT_LENGTH,
];

/// There can be no client for a service elsewhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidForward {
    /// It is not at a URL that can be asked.
    #[error("it must be an http:// or https:// URL without a query, such as https://read.example")]
    Url,
    /// The certificates cannot be used.
    #[error("the certificates in {file} cannot be used: {why}")]
    Certificates {
        /// The file.
        file: String,
        /// Why.
        why: String,
    },
    /// TLS cannot be set up.
    #[error("there can be no client: {0}")]
    Client(String),
}

struct Forward {
    base: Url,
    http: Client,
}

/// The service at `base`, as if it were here: each `GET` is passed on, with what its client has shown, and what comes is passed back as it comes. A
/// service of TLS is believed by public authorities, and those in the PEM file `ca`.
///
/// # Errors
///
/// [`InvalidForward`]. That it cannot be reached now is none: requests are answered with 503.
pub fn forwarded(base: &str, ca: Option<&Path>) -> Result<Router, InvalidForward> {
    let base: Url = base.parse().map_err(|_| InvalidForward::Url)?;
    let is_fit = matches!(base.scheme(), "http" | "https") && base.query().is_none();
    if !is_fit || base.host().is_none() {
        return Err(InvalidForward::Url);
    }
    let mut http = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE)
        .redirect(Policy::none())
        .user_agent(concat!("tidelog/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = ca {
        http = http.tls_certs_merge(certificates(file)?);
    }
    let http = http
        .build()
        .map_err(|error| InvalidForward::Client(error.to_string()))?;
    let forward = Arc::new(Forward { base, http });
    Ok(Router::new().fallback(pass).with_state(forward))
}

fn certificates(file: &Path) -> Result<Vec<reqwest::Certificate>, InvalidForward> {
    let unusable = |why: String| InvalidForward::Certificates {
        file: file.display().to_string(),
        why,
    };
    let text = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let all = reqwest::Certificate::from_pem_bundle(&text);
    all.map_err(|error| unusable(error.to_string()))
}

/// Whether a URL with `path` added to it would be another's: its steps up are taken, the encoded ones too, and `\` is `/` there.
fn leads_away(path: &str) -> bool {
    let is_step = |segment: &str| {
        matches!(
            &*segment.to_ascii_lowercase().replace("%2e", "."),
            "." | ".."
        )
    };
    path.split(['/', '\\']).any(is_step) || path.contains('\\')
}

async fn pass(State(forward): State<Arc<Forward>>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    for name in NOT_PASSED_ON {
        parts.headers.remove(name);
    }
    if let Some(Shown(shown)) = parts.extensions.remove::<Shown>() {
        parts.headers.insert(header::AUTHORIZATION, shown);
    }
    if leads_away(parts.uri.path()) {
        let what = "There is nothing at a path with . or .. in it.";
        return Problem::new(ProblemKind::NotFound, what).into_response();
    }
    let mut url = forward.base.clone();
    url.set_path(&format!(
        "{}{}",
        forward.base.path().trim_end_matches('/'),
        parts.uri.path()
    ));
    url.set_query(parts.uri.query());
    let asked = forward
        .http
        .request(parts.method, url)
        .headers(parts.headers);
    let answer = match asked.send().await {
        Ok(answer) => answer,
        Err(error) => {
            let error = error.without_url();
            tracing::warn!(
                error = tidelog_domain::causes(&error),
                "the query service cannot be asked"
            );
            let what = "The query service cannot be reached. Ask again later.";
            return Problem::new(ProblemKind::Unavailable, what)
                .retry_after(SOON)
                .into_response();
        }
    };
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    for name in NOT_PASSED_ON {
        headers.remove(name);
    }
    let pieces = try_unfold(answer, async |mut answer| {
        let piece = answer.chunk().await?;
        Ok::<_, reqwest::Error>(piece.map(|piece| (piece, answer)))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_service_that_is_asked() {
        for path in [
            "/..",
            "/../admin",
            "/posts/../../admin",
            "/posts/%2E%2e/x",
            "/.%2e/x",
            "/posts/./x",
            "/%2e",
            "/posts\\..\\x",
            "/posts\\x",
        ] {
            assert!(leads_away(path), "{path}");
        }
        for path in [
            "/",
            "/posts",
            "/posts/a.b",
            "/posts/..a",
            "/posts/.../x",
            "/posts/%2e%2ea",
            "/posts/%5c",
        ] {
            assert!(!leads_away(path), "{path}");
            let mut url: Url = "https://query.example/read".parse().unwrap();
            url.set_path(&format!("/read{path}"));
            assert_eq!(url.path(), format!("/read{path}"));
        }
    }
}
