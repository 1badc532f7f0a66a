//! The way to JetStream, and what is asked of it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::client::{Request, RequestErrorKind};
use async_nats::header::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, LastRawMessageErrorKind, RawMessageErrorKind, RetentionPolicy,
    StorageType,
};
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::names::Names;
use crate::lock::lock;
use crate::messaging::bus::EntryId;
use crate::messaging::error::MessageBusError;
use crate::messaging::names::Channel;
use crate::messaging::turns::Turns;
use crate::nats::connection::{Connection, Session};
use crate::nats::is_full;
use crate::nats::place::RESPONSE_TIMEOUT;

/// For how long it is taken for granted that a channel has a group.
const KNOWN_FOR: Duration = Duration::from_secs(5);

/// Of how many channels it is remembered that their streams are there.
const MAX_MADE: usize = 10_000;

/// What a dead letter has besides its message, at most: the error, and what NATS' headers take.
const HEADER_BYTES: usize = 16 * 1024;

/// The bound of a server as it comes.
const DEFAULT_MAX_PAYLOAD: usize = 1024 * 1024;

/// For how long NATS tells a message that was put back twice.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// An error of JetStream's: a message cannot be deleted.
const MESSAGE_DELETE_FAILED: ErrorCode = ErrorCode(10057);

pub(super) struct Link {
    pub(super) names: Names,
    connection: Connection,
    /// The largest message that the server takes.
    max_payload: AtomicUsize,
    /// Channels whose streams are there, as far as is known.
    made: Mutex<HashSet<Channel>>,
    /// When a channel was seen to have a group.
    known: Mutex<HashMap<Channel, Instant>>,
    turns: Turns,
}

/// What JetStream says of a consumer.
#[derive(Deserialize)]
pub(super) struct ConsumerInfo {
    pub(super) name: String,
    #[serde(default)]
    delivered: Floor,
    #[serde(default)]
    ack_floor: Floor,
    #[serde(default)]
    num_ack_pending: u64,
    /// What time it is there.
    #[serde(default)]
    ts: Option<String>,
}

#[derive(Default, Deserialize)]
struct Floor {
    stream_seq: u64,
}

impl ConsumerInfo {
    /// The last message up to which all were settled.
    pub(super) fn settled(&self) -> u64 {
        self.ack_floor.stream_seq
    }

    /// Whether it has given the message at `sequence` to nobody: not yet, or, where it went back in time, as far as it knows.
    pub(super) fn is_before(&self, sequence: u64) -> bool {
        self.delivered.stream_seq < sequence
    }

    /// Whether nobody holds a message of it.
    pub(super) fn holds_nothing(&self) -> bool {
        self.num_ack_pending == 0
    }

    /// What time it was there, since 1970.
    pub(super) fn clock(&self) -> Option<Duration> {
        milliseconds(self.ts.as_deref()?).map(Duration::from_millis)
    }
}

impl Link {
    pub(super) fn new(names: Names, connection: Connection) -> Self {
        Self {
            names,
            connection,
            max_payload: AtomicUsize::new(DEFAULT_MAX_PAYLOAD),
            made: Mutex::default(),
            known: Mutex::default(),
            turns: Turns::default(),
        }
    }

    /// The turn to send to `channel`.
    pub(super) async fn turn(&self, channel: &Channel) -> Result<OwnedMutexGuard<()>, Failed> {
        let turn = self.turns.take(channel, RESPONSE_TIMEOUT).await;
        turn.ok_or(Failed::HeldUp)
    }

    pub(super) async fn session(&self) -> Result<Arc<Session>, Failed> {
        let session = self.connection.session().await?;
        let max = session.client.max_payload();
        if self.max_payload.swap(max, Ordering::Relaxed) != max && max < DEFAULT_MAX_PAYLOAD {
            tracing::warn!(
                max_payload = max,
                "messages are smaller than they may be elsewhere: set NATS' max_payload to {DEFAULT_MAX_PAYLOAD} or more"
            );
        }
        Ok(session)
    }

    pub(super) fn max_message_bytes(&self) -> usize {
        let max = self.max_payload.load(Ordering::Relaxed);
        max.saturating_sub(HEADER_BYTES.min(max / 2))
    }

    /// Why so many bytes are not sent.
    pub(super) fn too_large(&self, bytes: usize) -> Failed {
        let max = self.max_payload.load(Ordering::Relaxed);
        Failed::TooLarge { bytes, max }
    }

    /// Refuses what could not become a dead letter.
    pub(super) fn check_size(&self, message: &[u8]) -> Result<(), MessageBusError> {
        let (bytes, max) = (message.len(), self.max_message_bytes());
        if bytes > max {
            return Err(MessageBusError::TooLarge { bytes, max });
        }
        Ok(())
    }

    /// Asks JetStream's API.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        what: &str,
        payload: &(impl Serialize + Sync),
    ) -> Result<T, Failed> {
        let session = self.session().await?;
        let payload = serde_json::to_vec(payload)?;
        let request = Request::new().payload(payload.into());
        let subject = format!("$JS.API.{what}");
        let answered = session.client.send_request(subject.clone(), request).await;
        let answered = answered.map_err(|error| unanswered(subject, error))?;
        match serde_json::from_slice(&answered.payload)? {
            Response::Ok(answer) => Ok(answer),
            Response::Err { error } => Err(Failed::Api(error)),
        }
    }

    /// Has a message stored, and says where it is. JetStream's answer is waited for, `timeout` at most.
    pub(super) async fn store(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        body: Bytes,
        timeout: Duration,
    ) -> Result<PublishAck, Failed> {
        let session = self.session().await?;
        let bytes = body.len();
        let mut request = Request::new().payload(body).timeout(Some(timeout));
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let answer = match session.client.send_request(subject.clone(), request).await {
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                return Err(Failed::NoStream);
            }
            Err(error) if error.kind() == RequestErrorKind::MaxPayloadExceeded => {
                return Err(self.too_large(bytes));
            }
            answer => answer.map_err(|error| unanswered(subject, error))?,
        };
        match serde_json::from_slice(&answer.payload)? {
            Response::Ok(stored) => Ok(stored),
            Response::Err { error } => Err(Failed::Api(error)),
        }
    }

    /// Tells a group's consumer something about a message, and waits until it has heard it.
    pub(super) async fn tell(&self, about: &str, what: &'static [u8]) -> Result<(), Failed> {
        Self::tell_by(&*self.session().await?, about, what).await
    }

    /// The same by this connection.
    pub(super) async fn tell_by(
        session: &Session,
        about: &str,
        what: &'static [u8],
    ) -> Result<(), Failed> {
        let request = Request::new().payload(Bytes::from_static(what));
        match session.client.send_request(about.to_owned(), request).await {
            Err(error) if error.kind() == RequestErrorKind::NoResponders => Err(Failed::NoConsumer),
            told => {
                told.map_err(|error| unanswered(about.to_owned(), error))?;
                Ok(())
            }
        }
    }

    /// Makes the stream of `channel` where it is not there.
    pub(super) async fn make_stream(&self, channel: &Channel) -> Result<(), Failed> {
        if lock(&self.made).contains(channel) {
            return Ok(());
        }
        let subjects = vec![self.names.subject(channel)];
        let config = self.config(self.names.stream(channel), subjects);
        self.create(&config).await?;
        let mut made = lock(&self.made);
        if made.len() >= MAX_MADE {
            made.clear();
        }
        made.insert(channel.clone());
        Ok(())
    }

    /// The stream of `channel` turned out not to be there.
    pub(super) fn is_lost(&self, channel: &Channel) {
        lock(&self.made).remove(channel);
        lock(&self.known).remove(channel);
    }

    /// Makes the stream of dead letters.
    pub(super) async fn make_records(&self) -> Result<(), Failed> {
        let config = Config {
            allow_direct: true,
            allow_rollup: true,
            allow_message_ttl: true,
            ..self.config(self.names.records(), self.names.all_records())
        };
        self.create(&config).await
    }

    fn config(&self, name: String, subjects: Vec<String>) -> Config {
        // A stream that is made anew does not begin with the numbers of the one before it: an old number is no other message's.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let micros = now.map_or(1, |now| u64::try_from(now.as_micros()).unwrap_or(1));
        Config {
            name,
            subjects,
            description: Some("messages of tidelog".to_owned()),
            storage: StorageType::File,
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::New,
            num_replicas: self.connection.place().replicas,
            first_sequence: Some(micros),
            duplicate_window: DUPLICATE_WINDOW,
            ..Config::default()
        }
    }

    async fn create(&self, config: &Config) -> Result<(), Failed> {
        let what = format!("STREAM.CREATE.{}", config.name);
        match self.call::<IgnoredAny>(&what, config).await {
            Err(Failed::Api(error)) if error.error_code() == ErrorCode::STREAM_NAME_EXIST => Ok(()),
            created => created.map(|_| ()),
        }
    }

    /// Whether a group has joined `channel`, as far as is known for a while.
    pub(super) async fn has_group(&self, channel: &Channel) -> Result<bool, Failed> {
        #[derive(Deserialize)]
        struct Answer {
            total: u64,
        }
        let known = lock(&self.known).get(channel).copied();
        if known.is_some_and(|since| since.elapsed() < KNOWN_FOR) {
            return Ok(true);
        }
        let names = format!("CONSUMER.NAMES.{}", self.names.stream(channel));
        let has_group = match self.call::<Answer>(&names, &json!({})).await {
            Ok(answer) => answer.total > 0,
            Err(failed) if failed.is_missing() => false,
            Err(failed) => return Err(failed),
        };
        let mut known = lock(&self.known);
        known.retain(|_, since| since.elapsed() < KNOWN_FOR);
        if has_group {
            known.insert(channel.clone(), Instant::now());
        }
        Ok(has_group)
    }

    /// All groups of a stream. Where NATS does not hear of some, that is an error.
    pub(super) async fn groups(&self, stream: &str) -> Result<Vec<ConsumerInfo>, Failed> {
        #[derive(Deserialize)]
        struct Page {
            total: usize,
            consumers: Option<Vec<ConsumerInfo>>,
            #[serde(default)]
            missing: Vec<String>,
            #[serde(default)]
            offline: HashMap<String, IgnoredAny>,
        }
        let (what, mut all) = (format!("CONSUMER.LIST.{stream}"), Vec::new());
        loop {
            let page: Page = self.call(&what, &json!({ "offset": all.len() })).await?;
            if !page.missing.is_empty() || !page.offline.is_empty() {
                return Err(Failed::Leaderless);
            }
            let consumers = page.consumers.unwrap_or_default();
            let is_last = consumers.is_empty();
            all.extend(consumers);
            if is_last || all.len() >= page.total {
                return Ok(all);
            }
        }
    }

    /// The first message of a stream; none where it is empty.
    pub(super) async fn first(&self, stream: &str) -> Result<Option<u64>, Failed> {
        #[derive(Deserialize)]
        struct Info {
            state: State,
        }
        #[derive(Deserialize)]
        struct State {
            messages: u64,
            first_seq: u64,
        }
        let what = format!("STREAM.INFO.{stream}");
        let Info { state } = self.call(&what, &json!({})).await?;
        Ok((state.messages > 0).then_some(state.first_seq))
    }

    /// Throws away all messages up to `last`.
    pub(super) async fn purge(&self, stream: &str, last: u64) -> Result<(), Failed> {
        let what = format!("STREAM.PURGE.{stream}");
        let payload = json!({ "seq": last.saturating_add(1) });
        self.call::<IgnoredAny>(&what, &payload).await.map(|_| ())
    }

    /// Deletes a message that may be gone already.
    pub(super) async fn delete_any(&self, stream: &str, sequence: u64) -> Result<(), Failed> {
        let what = format!("STREAM.MSG.DELETE.{stream}");
        let payload = json!({ "seq": sequence, "no_erase": true });
        match self.call::<IgnoredAny>(&what, &payload).await {
            Err(Failed::Api(_)) => Ok(()),
            deleted => deleted.map(|_| ()),
        }
    }

    /// Deletes a message; whether it was there.
    pub(super) async fn delete(&self, stream: &str, sequence: u64) -> Result<bool, Failed> {
        let what = format!("STREAM.MSG.DELETE.{stream}");
        let payload = json!({ "seq": sequence, "no_erase": true });
        match self.call::<IgnoredAny>(&what, &payload).await {
            Ok(_) => Ok(true),
            Err(failed) if failed.is_missing() => Ok(false),
            Err(Failed::Api(error)) if error.error_code() == MESSAGE_DELETE_FAILED => {
                match self.message(stream, sequence).await? {
                    None => Ok(false),
                    Some(_) => Err(Failed::Api(error)),
                }
            }
            Err(failed) => Err(failed),
        }
    }

    /// The message at `sequence`; asked of the stream's leader.
    pub(super) async fn message(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<StreamMessage>, Failed> {
        let session = self.session().await?;
        let stream = session.jetstream.get_stream_no_info(stream).await;
        let stream = stream.map_err(Failed::other)?;
        match stream.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(message)),
            Err(error) => match error.kind() {
                RawMessageErrorKind::NoMessageFound => Ok(None),
                RawMessageErrorKind::JetStream(own) if is_missing(&own) => Ok(None),
                _ => Err(Failed::other(error)),
            },
        }
    }

    /// Whether the message that was stored at `stored_ms` is at `sequence` still. A stream that lost its end gives its numbers once more.
    pub(super) async fn is_there(
        &self,
        stream: &str,
        sequence: u64,
        stored_ms: u64,
    ) -> Result<bool, Failed> {
        let message = self.message(stream, sequence).await?;
        let stored = message.map(|message| message.time.unix_timestamp_nanos() / 1_000_000);
        Ok(stored == Some(i128::from(stored_ms)))
    }

    /// The last message of `subject`; asked of the stream's leader.
    pub(super) async fn last(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<StreamMessage>, Failed> {
        let session = self.session().await?;
        let stream = session.jetstream.get_stream_no_info(stream).await;
        let stream = stream.map_err(Failed::other)?;
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(own) if is_missing(&own) => Ok(None),
                _ => Err(Failed::other(error)),
            },
        }
    }
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Connect(#[from] crate::nats::NatsConnectError),
    #[error("JetStream refuses it")]
    Api(#[source] jetstream::Error),
    #[error("no stream takes it")]
    NoStream,
    #[error("its group's consumer is not there, or nobody leads it now")]
    NoConsumer,
    #[error("no server of NATS leads a group's consumer, or its stream, now")]
    Leaderless,
    #[error("the connection was lost in the middle")]
    Interrupted,
    #[error("it has {bytes} bytes, and the server takes {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error(
        "NATS does not answer on {subject}: it is busy, or its user may not publish there (docs/messaging.md#rights-on-nats)"
    )]
    Unanswered {
        subject: String,
        #[source]
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(
        "what was put on its channel before it is not through to NATS yet: it is slow, or away"
    )]
    HeldUp,
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl Failed {
    pub(super) fn other(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Other(Box::new(error))
    }

    /// A stream or a consumer is not there.
    pub(super) fn is_missing(&self) -> bool {
        match self {
            Self::Api(error) => is_missing(error),
            Self::NoStream | Self::NoConsumer => true,
            Self::Connect(_)
            | Self::HeldUp
            | Self::Interrupted
            | Self::Leaderless
            | Self::TooLarge { .. }
            | Self::Unanswered { .. }
            | Self::Other(_) => false,
        }
    }

    /// Another message of the subject was the last one.
    pub(super) fn is_overtaken(&self) -> bool {
        matches!(self, Self::Api(error) if error.error_code() == ErrorCode::STREAM_WRONG_LAST_SEQUENCE)
    }
}

/// A subject that we may not publish to looks like one that nobody answers on in time.
fn unanswered(subject: String, error: async_nats::RequestError) -> Failed {
    match error.kind() {
        RequestErrorKind::TimedOut => Failed::Unanswered {
            subject,
            error: Box::new(error),
        },
        _ => Failed::other(error),
    }
}

fn is_missing(error: &jetstream::Error) -> bool {
    [
        ErrorCode::STREAM_NOT_FOUND,
        ErrorCode::CONSUMER_NOT_FOUND,
        ErrorCode::NO_MESSAGE_FOUND,
    ]
    .contains(&error.error_code())
}

impl From<async_nats::RequestError> for Failed {
    fn from(error: async_nats::RequestError) -> Self {
        Self::other(error)
    }
}

impl From<serde_json::Error> for Failed {
    fn from(error: serde_json::Error) -> Self {
        Self::other(error)
    }
}

impl From<Failed> for MessageBusError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Api(error) if is_full(error.error_code()) => Self::Full(Box::new(error)),
            Failed::Connect(error) => Self::unavailable(error),
            Failed::TooLarge { bytes, max } => Self::TooLarge { bytes, max },
            failed => Self::unavailable(failed),
        }
    }
}

/// The number of a message as an entry's id.
pub(super) fn entry_id(sequence: u64) -> EntryId {
    sequence.to_string().into()
}

/// The number of the message that an entry's id is.
pub(super) fn sequence(entry: &str) -> Option<u64> {
    entry.parse().ok()
}

/// A time as JetStream writes it, in milliseconds since 1970.
pub(super) fn milliseconds(time: &str) -> Option<u64> {
    let time = chrono::DateTime::parse_from_rfc3339(time).ok()?;
    u64::try_from(time.timestamp_millis()).ok()
}

/// A wait in the nanoseconds of JetStream's settings.
pub(super) fn nanoseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)
}
