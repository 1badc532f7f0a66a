//! Fetches keys from a URL.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, StatusCode};
use url::{Host, Url};

use super::source::{InvalidSource, MAX_BYTES, Unread};

/// How long an answer may take, the reading of it included.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A client for one URL.
pub(super) struct Fetcher {
    url: Url,
    http: Client,
}

impl Fetcher {
    /// A client for `url`, which is the only one that it ever asks: it follows nobody elsewhere.
    ///
    /// It trusts public authorities, and those in the PEM file `ca`.
    pub(super) fn new(url: &Url, ca: Option<&Path>) -> Result<Self, InvalidSource> {
        if !is_ours_to_trust(url) {
            return Err(InvalidSource::Url);
        }
        let mut http = Client::builder()
            .timeout(TIMEOUT)
            .redirect(Policy::none())
            .user_agent(concat!("tidelog/", env!("CARGO_PKG_VERSION")));
        if let Some(file) = ca {
            http = http.tls_certs_merge(certificates(file)?);
        }
        Ok(Self {
            url: url.clone(),
            http: http
                .build()
                .map_err(|error| InvalidSource::Client(error.to_string()))?,
        })
    }

    /// What is there now.
    pub(super) async fn fetch(&self) -> Result<Vec<u8>, Unread> {
        let gone = |error: reqwest::Error| {
            let error = error.without_url();
            let cause = error.source().map(ToString::to_string);
            Unread::Gone(cause.unwrap_or_else(|| error.to_string()))
        };
        let answer = self.http.get(self.url.clone()).send().await.map_err(gone)?;
        if answer.status() != StatusCode::OK {
            let status = answer.status().as_u16();
            return Err(Unread::Gone(format!("the answer has the status {status}")));
        }
        let mut answer = answer;
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(gone)? {
            if text.len() + chunk.len() > MAX_BYTES {
                return Err(Unread::TooLarge);
            }
            text.extend_from_slice(&chunk);
        }
        Ok(text)
    }
}

/// The certificates in a PEM file.
fn certificates(file: &Path) -> Result<Vec<Certificate>, InvalidSource> {
    let unusable = |why: &dyn std::fmt::Display| {
        let file = file.display();
        InvalidSource::Client(format!("the certificates in {file} cannot be used: {why}"))
    };
    let text = std::fs::read(file).map_err(|error| unusable(&error))?;
    let certificates = Certificate::from_pem_bundle(&text).map_err(|error| unusable(&error))?;
    if certificates.is_empty() {
        return Err(unusable(&"there is none in PEM form (BEGIN CERTIFICATE)"));
    }
    Ok(certificates)
}

/// Whether what is fetched from `url` cannot be changed on its way here.
fn is_ours_to_trust(url: &Url) -> bool {
    let is_local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    let is_safe = match url.scheme() {
        "https" => url.host().is_some(),
        "http" => is_local,
        _ => false,
    };
    is_safe && url.username().is_empty() && url.password().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fetched_where_nobody_can_change_them_on_the_way() {
        for (url, fits) in [
            ("https://issuer.example/jwks.json", true),
            ("http://127.0.0.1:8080/jwks", true),
            ("http://[::1]/jwks", true),
            ("http://localhost/jwks", true),
            ("http://issuer.example/jwks.json", false),
            ("http://127.0.0.1.evil.example/", false),
            ("http://10.0.0.7/jwks", false),
            ("https://ann:secret@issuer.example/", false),
            ("ftp://issuer.example/", false),
            ("file:///etc/jwks.json", false),
        ] {
            assert_eq!(is_ours_to_trust(&Url::parse(url).unwrap()), fits, "{url}");
        }
    }
}
