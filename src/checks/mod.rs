//! Start-up checks: each server that a role needs is asked who it is, and an answer that does not fit becomes an error
//! that names the setting, what was expected and what was found.

mod identify;

use std::error::Error;
use std::fmt::Write;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

pub(crate) use identify::Found;
use identify::identify;

use crate::settings::{Setting, shown_url};

/// How long one server may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long to wait between two tries.
const PAUSE: Duration = Duration::from_millis(250);

/// A server that is not what a setting says.
#[derive(Debug, thiserror::Error)]
#[error(
    "{env} is {url}: expected {expected}, found {found}; correct {env} (or --{flag}, or {key} in tidelog.toml){advice}"
)]
pub struct UnfitServer {
    env: &'static str,
    key: &'static str,
    flag: String,
    url: String,
    expected: Found,
    found: String,
    advice: &'static str,
    unreachable: bool,
}

impl UnfitServer {
    /// Whether the server simply cannot be reached (yet), rather than being the wrong one.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.unreachable
    }
}

/// Asks a server, with `ask`, until it answers as it should, or for `patience` beyond the first try.
///
/// # Errors
///
/// [`UnfitServer`]: at once when another server or a refusal was found, after `patience` when nothing was.
pub(crate) async fn check<T, E, F>(
    key: &'static str,
    url: &str,
    expected: Found,
    patience: Duration,
    ask: impl Fn() -> F,
) -> Result<T, UnfitServer>
where
    E: Error,
    F: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + patience;
    let mut said = false;
    loop {
        let cause = match timeout(PATIENCE, ask()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => chain(&error),
            Err(_) => "no answer in time".to_owned(),
        };
        let unfit = diagnose(key, url, expected.clone(), &cause).await;
        if !unfit.unreachable || Instant::now() >= deadline {
            return Err(unfit);
        }
        if !said {
            tracing::info!(setting = unfit.env, "waiting for {}: {}", unfit.expected, unfit.found);
            said = true;
        }
        sleep(PAUSE).await;
    }
}

/// Finds out what is at `url`, after a check failed because of `cause`.
async fn diagnose(key: &'static str, url: &str, expected: Found, cause: &str) -> UnfitServer {
    let setting = Setting::find(key);
    let found = match host_and_port(url) {
        Some((host, port)) => identify(&host, port).await,
        None => Found::Unknown,
    };
    let unreachable = matches!(found, Found::Nothing(_));
    let fits = found == expected;
    UnfitServer {
        env: setting.and_then(|setting| setting.env.first().copied()).unwrap_or(key),
        key,
        flag: setting.map(Setting::flag).unwrap_or_default(),
        url: shown_url(url),
        advice: if unreachable { ", or start the server; --wait-for-backends 30s keeps trying" } else { "" },
        // A server of the right kind says itself what is wrong: the password, the database, a setting.
        found: if fits { format!("{found} that says: {}", without_password(cause, url)) } else { found.to_string() },
        expected,
        unreachable,
    }
}

/// The first host of a URL, and its port. Also of those with several hosts, which are no URLs to the letter.
fn host_and_port(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    let first = hosts.split(',').next()?;
    let default = match scheme {
        "mysql" => 3306,
        "redis" | "rediss" => 6379,
        _ => 27017,
    };
    let (host, port) = match first.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (first, default),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((if host.is_empty() { "127.0.0.1".to_owned() } else { host.to_owned() }, port))
}

/// An error and its causes on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// `text` without the URL's password, should a server or driver have repeated it.
fn without_password(text: &str, url: &str) -> String {
    let password = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split('/').next()?.rsplit_once('@'))
        .and_then(|(user, _)| user.split_once(':'))
        .map_or("", |(_, password)| password);
    if password.is_empty() { text.to_owned() } else { text.replace(password, "***") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_any_backend_url_is_found() {
        for (url, host, port) in [
            ("mysql://root:p@ss@db:3307/x", "db", 3307),
            ("redis://[::1]:1", "::1", 1),
            ("rediss://h", "h", 6379),
            ("mongodb://u:p@a:1,b:2/db?replicaSet=rs", "a", 1),
            ("mongodb://[::1]/db", "::1", 27017),
        ] {
            assert_eq!(host_and_port(url), Some((host.to_owned(), port)), "{url}");
        }
    }

    #[tokio::test]
    async fn nothing_that_listens_is_said_to_be_nothing() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("redis://:hunter2@127.0.0.1:{port}");
        let ask = || async { Err::<(), _>(std::io::Error::other("no")) };
        let error = check("bus_url", &url, Found::Redis, Duration::ZERO, ask).await.unwrap_err();
        assert!(error.is_unreachable());
        let text = error.to_string();
        for part in ["TIDELOG_BUS_URL", "expected a Redis server", "refused", "--bus-url"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[tokio::test]
    async fn a_server_that_never_answers_does_not_hold_the_start() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("mongodb://127.0.0.1:{}/db", silent.local_addr().unwrap().port());
        let ask = || async { Err::<(), _>(std::io::Error::other("hunter2")) };
        let error = check("mongodb_url", &url, Found::MongoDb, Duration::ZERO, ask).await.unwrap_err();
        assert!(error.to_string().contains("does not answer as expected"), "{error}");
    }
}
