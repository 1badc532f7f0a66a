//! Start-up checks: each server that a role needs is asked who it is, and an answer that does not fit becomes an error
//! that names the setting, what was expected and what was found.

mod identify;

use std::error::Error;
use std::time::Duration;
use tidelog_domain::causes;

use tokio::time::{Instant, sleep, timeout};

pub(crate) use identify::Found;
use identify::identify;

use crate::settings::{flag, shown_url, variable};

/// How long to wait between two tries.
const PAUSE: Duration = Duration::from_millis(250);

/// A server that is not what a setting says.
#[derive(Debug, thiserror::Error)]
#[error(
    "{env} is {url}: expected {expected}, found {found}; correct {env} (or --{flag}, or {key} in tidelog.toml){advice}",
    env = variable(.key), flag = flag(.key)
)]
pub struct UnfitServer {
    key: &'static str,
    url: String,
    expected: Found,
    found: String,
    advice: &'static str,
    may_pass: bool,
}

impl UnfitServer {
    /// Whether the server is not there, or cannot answer, for now: the setting may be right.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.may_pass
    }
}

/// Why a server did not answer as it should, as its adapter says.
pub(crate) struct Complaint {
    text: String,
    may_pass: bool,
}

impl Complaint {
    /// `error` with its causes; whether it may go well later.
    pub(crate) fn of(error: &dyn Error, may_pass: bool) -> Self {
        Self {
            text: causes(error),
            may_pass,
        }
    }
}

/// The check of one server.
pub(crate) struct Check<'a> {
    /// The setting.
    pub(crate) key: &'static str,
    /// Its value.
    pub(crate) url: &'a str,
    /// What should answer there.
    pub(crate) expected: Found,
    /// How long one try may take.
    pub(crate) try_for: Duration,
    /// For how long, beyond the first try, a server is tried that does not answer.
    pub(crate) keep_trying: Duration,
}

impl Check<'_> {
    /// Asks the server, with `ask`, until it answers as it should.
    ///
    /// # Errors
    ///
    /// [`UnfitServer`]: at once when another server or a refusal was found, after a while when nothing was.
    pub(crate) async fn until_answered<T, F>(&self, ask: impl Fn() -> F) -> Result<T, UnfitServer>
    where
        F: Future<Output = Result<T, Complaint>>,
    {
        let deadline = Instant::now() + self.keep_trying;
        let mut said = false;
        loop {
            let complaint = match timeout(self.try_for, ask()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(complaint)) => complaint,
                Err(_) => Complaint {
                    text: "no answer in time".to_owned(),
                    may_pass: true,
                },
            };
            let unfit = self.diagnose(&complaint).await;
            if !unfit.may_pass || Instant::now() >= deadline {
                return Err(unfit);
            }
            if !said {
                tracing::info!(
                    setting = variable(unfit.key),
                    "waiting for {}: {}",
                    unfit.expected,
                    unfit.found
                );
                said = true;
            }
            sleep(PAUSE).await;
        }
    }

    /// Finds out what is there, after a try failed.
    async fn diagnose(&self, complaint: &Complaint) -> UnfitServer {
        let found = match host_and_port(self.url) {
            Some((host, port)) => identify(&host, port).await,
            None => Found::Unknown,
        };
        // In the clear, a server that wants TLS is silent or odd.
        let wants_tls = self.url.starts_with("rediss");
        let over_tls = wants_tls && matches!(found, Found::Silent | Found::Unknown);
        let may_pass = match &found {
            _ if over_tls => complaint.may_pass,
            Found::Nothing(_) | Found::Silent => true,
            found => *found == self.expected && complaint.may_pass,
        };
        let advice = ", or start the server; --wait-for-backends 30s keeps trying";
        UnfitServer {
            key: self.key,
            url: shown_url(self.url),
            advice: if may_pass { advice } else { "" },
            // A server of the right kind says itself what is wrong: the password, the database, a setting.
            found: if found == self.expected {
                let complaint = without_password(&complaint.text, self.url);
                format!("{found} that says: {complaint}")
            } else if over_tls {
                let complaint = without_password(&complaint.text, self.url);
                format!("something that is, over TLS: {complaint}")
            } else {
                found.to_string()
            },
            expected: self.expected.clone(),
            may_pass,
        }
    }
}

/// The first host of a URL, and its port. Also of those with several hosts, which are no URLs to the letter.
fn host_and_port(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let hosts = authority
        .rsplit_once('@')
        .map_or(authority, |(_, hosts)| hosts);
    let first = hosts.split(',').next()?;
    let default = match scheme {
        "mysql" => 3306,
        "redis" | "rediss" | "redis+cluster" | "rediss+cluster" => 6379,
        "nats" | "nats+tls" | "tls" => 4222,
        "kafka" => 9092,
        _ => 27017,
    };
    let (host, port) = match first.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (first, default),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((
        if host.is_empty() {
            "127.0.0.1".to_owned()
        } else {
            host.to_owned()
        },
        port,
    ))
}

/// `text` without the URL's password, should a server or driver have repeated it.
fn without_password(text: &str, url: &str) -> String {
    let password = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split('/').next()?.rsplit_once('@'))
        .and_then(|(user, _)| user.split_once(':'))
        .map_or("", |(_, password)| password);
    if password.is_empty() {
        text.to_owned()
    } else {
        text.replace(password, "***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fails(key: &'static str, url: &str, expected: Found) -> UnfitServer {
        let (try_for, keep_trying) = (Duration::from_secs(3), Duration::ZERO);
        let check = Check {
            key,
            url,
            expected,
            try_for,
            keep_trying,
        };
        let complaint = || Complaint::of(&std::io::Error::other("hunter2"), false);
        let ask = || async { Err::<(), _>(complaint()) };
        check.until_answered(ask).await.unwrap_err()
    }

    #[test]
    fn the_host_of_any_backend_url_is_found() {
        for (url, host, port) in [
            ("mysql://root:p@ss@db:3307/x", "db", 3307),
            ("redis://[::1]:1", "::1", 1),
            ("rediss://h", "h", 6379),
            ("redis+cluster://u:p@a,b:2/", "a", 6379),
            ("nats+tls://u:p@a,b:2", "a", 4222),
            ("kafka://a", "a", 9092),
            ("mongodb://u:p@a:1,b:2/db?replicaSet=rs", "a", 1),
            ("mongodb://[::1]/db", "::1", 27017),
        ] {
            assert_eq!(host_and_port(url), Some((host.to_owned(), port)), "{url}");
        }
    }

    #[tokio::test]
    async fn nothing_that_listens_is_said_to_be_nothing() {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let url = format!("redis://:hunter2@127.0.0.1:{port}");
        let error = fails("bus_url", &url, Found::Redis).await;
        assert!(error.may_pass());
        let text = error.to_string();
        for part in [
            "TIDELOG_BUS_URL",
            "expected a Redis server",
            "refused",
            "--bus-url",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[tokio::test]
    async fn a_server_that_never_answers_does_not_hold_the_start() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "mongodb://127.0.0.1:{}/db",
            silent.local_addr().unwrap().port()
        );
        let error = fails("mongodb_url", &url, Found::MongoDb).await;
        assert!(error.to_string().contains("does not answer"), "{error}");
    }
}
