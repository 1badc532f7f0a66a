//! Another program's log, read through its feed.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tidelog_domain::{Cursor, HistoryId, Partition, Partitions, Position, RecordedEvent, causes};
use tokio::sync::watch;
use url::Url;

use super::{FeedCursor, FeedUrl};
use crate::log::{LogError, LogIdentity, LogReader};
use crate::subscription::Cause;
use crate::wire;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an answer may take, the reading of it included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The most events that a feed gives at once.
const MAX_PAGE_EVENTS: usize = 1_000;

/// The most bytes of an answer. A page of large events has about 16 MiB of them, and one event at most a few more.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// The most bytes of a token.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The most characters of a text that is repeated from an answer.
const MAX_QUOTED: usize = 200;

/// How the feeds of other programs are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedAccess {
    /// A PEM file of the certificates that are trusted beside the public ones.
    pub ca: Option<PathBuf>,
    /// A file with the token that feeds are shown (`Authorization: Bearer`), and nothing else. It is read for each request: who writes
    /// another into it has it taken at once. A feed that redirects is not followed then.
    pub token_file: Option<PathBuf>,
}

/// The log of another program, as its feed gives it.
///
/// While the program is down, or says that it cannot answer, the log is unavailable. Its position in time is what the feed says:
/// where the other log has another history than the last one that was seen here, a reader notices.
#[derive(Debug)]
pub struct FeedLogReader {
    app: String,
    url: FeedUrl,
    http: Client,
    token_file: Option<PathBuf>,
    /// The history that the log had last.
    history: Mutex<Option<HistoryId>>,
    /// Why it cannot be read now.
    problem: watch::Sender<Option<String>>,
}

/// What `GET /events/heads` answers.
#[derive(Deserialize)]
struct Heads {
    app: String,
    history: HistoryId,
    /// Of each partition.
    heads: Vec<Decimal>,
}

/// A number as a decimal text: JSON's own are not exact everywhere.
struct Decimal(u64);

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// An answer with `data`.
#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

/// An answer that says no.
#[derive(Deserialize)]
struct Problem {
    title: String,
}

impl FeedLogReader {
    /// The log of the program `app`, whose feed is at `url`.
    ///
    /// # Errors
    ///
    /// When there can be no HTTP client: TLS cannot be set up.
    pub fn new(app: &str, url: FeedUrl) -> Result<Self, Cause> {
        Self::with_access(app, url, &FeedAccess::default())
    }

    /// The same, reached by `access`.
    ///
    /// # Errors
    ///
    /// When there can be no HTTP client: TLS cannot be set up, or the file of the certificates cannot be used.
    pub fn with_access(app: &str, url: FeedUrl, access: &FeedAccess) -> Result<Self, Cause> {
        let mut http = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .user_agent(concat!("tidelog/", env!("CARGO_PKG_VERSION")));
        if let Some(file) = &access.ca {
            http = http.tls_certs_merge(certificates(file)?);
        }
        if access.token_file.is_some() {
            http = http.redirect(Policy::none());
            if url.is_in_the_clear() {
                tracing::warn!(app, %url, "a token is shown to a feed without TLS, and can be read on the way: name the feed by https://");
            }
        }
        Ok(Self {
            app: app.to_owned(),
            url,
            http: http.build()?,
            token_file: access.token_file.clone(),
            history: Mutex::default(),
            problem: watch::Sender::new(None),
        })
    }

    /// Why the feed could not be read when it was asked last; `None` while all is well.
    #[must_use]
    pub fn problem(&self) -> watch::Receiver<Option<String>> {
        self.problem.subscribe()
    }

    /// Notes whether the feed could be read.
    fn noted<T>(&self, read: Result<T, LogError>) -> Result<T, LogError> {
        let problem = read.as_ref().err().map(|error| causes(error));
        self.problem.send_if_modified(|known| {
            let news = *known != problem;
            *known = problem;
            news
        });
        read
    }

    /// What the feed says of its log, which is remembered.
    async fn look(&self) -> Result<Heads, LogError> {
        let (status, body) = self.get(self.url.at(&["heads"], &[])).await?;
        if status != StatusCode::OK {
            return Err(refused(status, &body));
        }
        let Answer { data: heads } = read::<Answer<Heads>>(&body)?;
        if heads.app != self.app {
            let found: String = heads.app.chars().take(MAX_QUOTED).collect();
            return Err(unavailable(format!(
                "the feed is that of the app {found:?}, not of {:?}",
                self.app
            )));
        }
        *self.known() = Some(heads.history);
        Ok(heads)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<HistoryId>> {
        // Nothing panics while it is held.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer's status and body.
    async fn get(&self, url: Url) -> Result<(StatusCode, Vec<u8>), LogError> {
        let mut request = self.http.get(url);
        if let Some(file) = &self.token_file {
            request = request.header(AUTHORIZATION, bearer(file)?);
        }
        let asking = async {
            let mut answer = request.send().await?;
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await? {
                body.extend_from_slice(&chunk);
                if body.len() > MAX_ANSWER_BYTES {
                    break;
                }
            }
            Ok((answer.status(), body))
        };
        // The URL stays out of it: it may hold a password.
        let answered = asking.await.map_err(reqwest::Error::without_url);
        let (status, body) = answered.map_err(|error| LogError::Unavailable(Box::new(error)))?;
        if body.len() > MAX_ANSWER_BYTES {
            return Err(unavailable(format!(
                "the feed's answer has more than {MAX_ANSWER_BYTES} bytes"
            )));
        }
        Ok((status, body))
    }

    /// The events after a cursor.
    async fn page(&self, after: FeedCursor, limit: usize) -> Result<Vec<RecordedEvent>, LogError> {
        let url = self.url.at(
            &[],
            &[
                ("partition", after.partition.to_string()),
                ("after", after.to_string()),
                ("limit", limit.clamp(1, MAX_PAGE_EVENTS).to_string()),
            ],
        );
        match self.get(url).await? {
            (StatusCode::OK, body) => page(&body, after),
            (StatusCode::GONE, _) => Err(self.diverged(after).await),
            (status, body) => Err(refused(status, &body)),
        }
    }

    /// What it means that the log does not have the cursor's event: another past, or a cursor of ours that is at fault.
    async fn diverged(&self, at: FeedCursor) -> LogError {
        match self.look().await {
            Err(error) => error,
            // Whoever watches the identity finds out.
            Ok(heads) if heads.history != at.history => {
                unavailable(format!("the log of {} has a new history", self.app))
            }
            Ok(_) => LogError::Diverged {
                partition: at.partition,
                position: at.at.position,
            },
        }
    }
}

#[async_trait]
impl LogReader for FeedLogReader {
    async fn identity(&self) -> Result<LogIdentity, LogError> {
        let heads = self.noted(self.look().await)?;
        let count = u16::try_from(heads.heads.len()).ok();
        let partitions = count.and_then(Partitions::new);
        let partitions = partitions.ok_or_else(|| LogError::Corrupt {
            what: format!("the feed has {} partitions", heads.heads.len()),
        })?;
        Ok(LogIdentity {
            history: heads.history,
            partitions,
        })
    }

    async fn heads(&self) -> Result<Vec<Position>, LogError> {
        let heads = self.noted(self.look().await)?.heads.into_iter();
        Ok(heads.map(|Decimal(head)| Position::new(head)).collect())
    }

    async fn read(
        &self,
        partition: Partition,
        cursor: Cursor,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        let known = *self.known();
        let history = match known {
            Some(history) => history,
            None => self.noted(self.look().await)?.history,
        };
        let after = FeedCursor {
            history,
            partition,
            at: cursor,
        };
        self.noted(self.page(after, limit).await)
    }
}

/// The certificates in a PEM file.
fn certificates(file: &Path) -> Result<Vec<Certificate>, Cause> {
    let unusable = |why: &dyn std::fmt::Display| -> Cause {
        format!(
            "the certificates in {} cannot be used: {why}",
            file.display()
        )
        .into()
    };
    let text = std::fs::read(file).map_err(|error| unusable(&error))?;
    let certificates = Certificate::from_pem_bundle(&text).map_err(|error| unusable(&error))?;
    if certificates.is_empty() {
        return Err(unusable(&"there is none in PEM form (BEGIN CERTIFICATE)"));
    }
    Ok(certificates)
}

/// The header that shows the token in `file`.
fn bearer(file: &Path) -> Result<HeaderValue, LogError> {
    let unusable = |why: &dyn std::fmt::Display| {
        unavailable(format!(
            "the token in {} cannot be used: {why}",
            file.display()
        ))
    };
    // A file of one line, which is in the system's cache: not worth a thread.
    let token = std::fs::read_to_string(file).map_err(|error| unusable(&error))?;
    let token = token.trim();
    if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
        return Err(unusable(&format!(
            "it has to have 1 to {MAX_TOKEN_BYTES} characters"
        )));
    }
    let value = HeaderValue::from_str(&format!("Bearer {token}"));
    // The error would not repeat it either.
    let mut value = value.map_err(|_| unusable(&"it has characters that no header may have"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The events of a page, which are those that follow the cursor.
fn page(body: &[u8], after: FeedCursor) -> Result<Vec<RecordedEvent>, LogError> {
    let Answer { data } = read::<Answer<Vec<Box<RawValue>>>>(body)?;
    let mut last = after.at.position;
    let mut events = Vec::with_capacity(data.len());
    for text in &data {
        let event = wire::decode(text.get().as_bytes()).map_err(|error| LogError::Corrupt {
            what: format!(
                "the event after {last} of partition {}: {}",
                after.partition,
                causes(&error)
            ),
        })?;
        if event.partition != after.partition || event.position != last.next() {
            return Err(LogError::Corrupt {
                what: format!(
                    "after {last} of partition {} comes {} of partition {}",
                    after.partition, event.position, event.partition
                ),
            });
        }
        last = event.position;
        events.push(event);
    }
    Ok(events)
}

/// Reads an answer. One that cannot be understood may be something else's that stands in between: it is asked again.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, LogError> {
    serde_json::from_slice(body).map_err(|error| LogError::Unavailable(Box::new(error)))
}

/// What an answer says that gives nothing.
fn refused(status: StatusCode, body: &[u8]) -> LogError {
    let title = serde_json::from_slice(body).map_or_else(
        |_| String::new(),
        |problem: Problem| {
            format!(
                ": {}",
                problem.title.chars().take(MAX_QUOTED).collect::<String>()
            )
        },
    );
    unavailable(format!("the feed answers {status}{title}"))
}

fn unavailable(reason: String) -> LogError {
    LogError::Unavailable(reason.into())
}

#[cfg(test)]
mod tests;
