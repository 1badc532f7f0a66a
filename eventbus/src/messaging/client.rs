//! The handle by which a program emits and sends.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::poll_immediate;
use futures_util::stream::{FuturesOrdered, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidelog_domain::Metadata;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::bus::MessageBus;
use super::dead::DeadLetters;
use super::envelope::{self, Head, ReplyTo};
use super::error::{EmitError, MessageBusError, SendError};
use super::in_process::InProcessMessageBus;
use super::message::{MessageOptions, SEND_TIMEOUT};
use super::names::{Channel, InvalidName, MessageId, Subject};
use super::requester::{Requester, Sending};
use super::values::Values;
use super::worker::Worker;

/// How many messages are put on the bus in one go, at most.
const BATCH_MAX_MESSAGES: usize = 500;

/// How many bytes of messages are put on the bus in one go (a single message may have more).
const BATCH_MAX_BYTES: usize = 512 * 1024;

/// How many batches are under way at once.
const BATCHES_AT_ONCE: usize = 8;

/// The largest message, unless told otherwise or the engine takes less: 1 MiB.
pub const DEFAULT_MAX_BYTES: usize = 1024 * 1024;

/// Sends messages, and makes workers that handle them. A clone is another handle to the same.
///
/// ```
/// use tidelog_eventbus::messaging::{HandlerError, MessageContext, Messaging, SendError, Subject};
///
/// const PRICE: Subject<String, u64> = Subject::new("shop.price");
/// const VISITED: Subject<String> = Subject::new("shop.visited");
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let messaging = Messaging::in_process("shop");
/// let worker = messaging
///     .worker("prices")
///     .handle(&PRICE, |article: String, _: MessageContext| async move {
///         Ok::<_, HandlerError>(article.len() as u64)
///     })
///     .handle(&VISITED, |page, message| async move {
///         println!("{page} was visited, says {}", message.id());
///         Ok(())
///     })
///     .start()
///     .await?;
///
/// messaging.emit(&VISITED, &"/".to_owned()).await?;
/// assert_eq!(messaging.send(&PRICE, &"lamp".to_owned()).await?, 4);
/// worker.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Messaging(Arc<Inner>);

struct Inner {
    app: Arc<str>,
    max_bytes: usize,
    bus: Arc<dyn MessageBus>,
    /// Made by the first request.
    requester: OnceCell<Arc<Requester>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Ends the requester's tasks with the last handle.
    _last: DropGuard,
}

impl Messaging {
    /// Messaging over `bus`, for the app `app`: the source that its messages name.
    #[must_use]
    pub fn new(bus: Arc<dyn MessageBus>, app: &str) -> Self {
        Self::bounded(bus, app.into(), DEFAULT_MAX_BYTES)
    }

    /// Another messaging over the same bus, with an inbox of its own, whose messages have up to `max_bytes`, or what the engine takes.
    #[must_use]
    pub fn with_max_bytes(&self, max_bytes: usize) -> Self {
        Self::bounded(Arc::clone(&self.0.bus), Arc::clone(&self.0.app), max_bytes)
    }

    fn bounded(bus: Arc<dyn MessageBus>, app: Arc<str>, max_bytes: usize) -> Self {
        let stop = CancellationToken::new();
        Self(Arc::new(Inner {
            app,
            max_bytes,
            bus,
            requester: OnceCell::new(),
            tasks: TaskTracker::new(),
            _last: stop.clone().drop_guard(),
            stop,
        }))
    }

    /// Messaging within this process: nothing of it outlives the last handle.
    #[must_use]
    pub fn in_process(app: &str) -> Self {
        Self::new(Arc::new(InProcessMessageBus::new()), app)
    }

    /// Messaging over the server at `url`, as `TIDELOG_BUS_URL` names it (`redis://`, `rediss://`, `redis+cluster://`,
    /// `rediss+cluster://`; `nats://`, `nats+tls://`, `tls://`), or within this process (`memory:`). Nothing is connected yet: a program starts and runs while the
    /// server is down, and has [`MessageBusError::Unavailable`] until it is up.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] when the URL or the name are malformed, a file that it names cannot be read, or the program is built without the
    /// engine.
    pub fn connect(url: &str, app: &str) -> Result<Self, ConnectError> {
        if url == "memory:" {
            return Ok(Self::in_process(app));
        }
        #[cfg(feature = "redis")]
        if url.starts_with("redis") {
            let bus = super::redis::RedisMessageBus::new(url, app)?;
            return Ok(Self::new(Arc::new(bus), app));
        }
        #[cfg(feature = "nats")]
        if url.starts_with("nats") || url.starts_with("tls") {
            let bus = super::nats::NatsMessageBus::new(url, app)?;
            return Ok(Self::new(Arc::new(bus), app));
        }
        Err(ConnectError::Scheme)
    }

    /// The bus below.
    #[must_use]
    pub fn bus(&self) -> &Arc<dyn MessageBus> {
        &self.0.bus
    }

    /// The largest message, metadata included, in bytes. What a server's own bound is, is known once it has been connected to.
    #[must_use]
    pub fn max_message_bytes(&self) -> usize {
        self.0.bus.max_message_bytes().min(self.0.max_bytes)
    }

    /// The app's name.
    #[must_use]
    pub fn app(&self) -> &Arc<str> {
        &self.0.app
    }

    /// A worker of the group `group`. All workers of one name share the messages out among themselves, and each group has all of them.
    pub fn worker(&self, group: &str) -> Worker {
        Worker::new(self.clone(), group)
    }

    /// The dead letters of `group` about `subject`.
    ///
    /// # Errors
    ///
    /// [`InvalidName::Group`].
    pub fn dead_letters<Message, Reply>(
        &self,
        group: &str,
        subject: &Subject<Message, Reply>,
    ) -> Result<DeadLetters, InvalidName> {
        DeadLetters::new(Arc::clone(&self.0.bus), group, subject.channel())
    }

    /// Emits a message: when it returns, the bus has it, and each group handles it at least once.
    ///
    /// # Errors
    ///
    /// [`EmitError`]. After [`EmitError::Bus`] emit it again [with the same id](MessageOptions::id): who handles it idempotently does so once.
    pub async fn emit<Message: Serialize, Reply>(
        &self,
        subject: &Subject<Message, Reply>,
        payload: &Message,
    ) -> Result<MessageId, EmitError> {
        self.emit_with(subject, payload, MessageOptions::default())
            .await
    }

    /// The same, with an id or metadata.
    ///
    /// # Errors
    ///
    /// As [`Messaging::emit`].
    pub async fn emit_with<Message: Serialize, Reply>(
        &self,
        subject: &Subject<Message, Reply>,
        payload: &Message,
        options: MessageOptions,
    ) -> Result<MessageId, EmitError> {
        let id = options.id.unwrap_or_else(MessageId::unique);
        let metadata = traced(options.metadata);
        let message = self.message(subject.name(), &id, &metadata, payload)?;
        let messages = std::slice::from_ref(&message);
        self.0.bus.publish(&subject.channel(), messages).await?;
        Ok(id)
    }

    /// Emits many messages, in their order, some hundreds at a time: the fast way.
    ///
    /// # Errors
    ///
    /// As [`Messaging::emit`]; then any of them may have been emitted.
    pub async fn emit_all<'m, Message, Reply, Messages>(
        &self,
        subject: &Subject<Message, Reply>,
        payloads: Messages,
    ) -> Result<Vec<MessageId>, EmitError>
    where
        Message: Serialize + 'm,
        Messages: IntoIterator<Item = &'m Message>,
    {
        let channel = subject.channel();
        let metadata = traced(Metadata::default());
        let mut payloads = payloads.into_iter();
        let mut ids = Vec::with_capacity(payloads.size_hint().0);
        let mut under_way = FuturesOrdered::new();
        loop {
            let batch = self.batch(subject.name(), &metadata, &mut payloads, &mut ids)?;
            let is_end = batch.is_empty();
            if !is_end {
                under_way.push_back(put(Arc::clone(&self.0.bus), channel.clone(), batch));
                // It is begun at once, and the next is written meanwhile.
                if let Some(Some(put)) = poll_immediate(under_way.next()).await {
                    put?;
                }
            }
            while is_end || under_way.len() >= BATCHES_AT_ONCE {
                match under_way.next().await {
                    Some(put) => put?,
                    None => return Ok(ids),
                }
            }
        }
    }

    /// As many messages as go at once.
    fn batch<'m, Message: Serialize + 'm>(
        &self,
        subject: &str,
        metadata: &Metadata,
        payloads: &mut impl Iterator<Item = &'m Message>,
        ids: &mut Vec<MessageId>,
    ) -> Result<Vec<Vec<u8>>, EmitError> {
        let mut batch = Vec::with_capacity(BATCH_MAX_MESSAGES);
        let mut bytes = 0;
        while batch.len() < BATCH_MAX_MESSAGES && bytes < BATCH_MAX_BYTES {
            let Some(payload) = payloads.next() else {
                break;
            };
            let id = MessageId::unique();
            let message = self.message(subject, &id, metadata, payload)?;
            bytes += message.len();
            batch.push(message);
            ids.push(id);
        }
        Ok(batch)
    }

    fn message<Message: Serialize>(
        &self,
        subject: &str,
        id: &MessageId,
        metadata: &Metadata,
        payload: &Message,
    ) -> Result<Vec<u8>, EmitError> {
        let head = Head {
            app: &self.0.app,
            id: id.as_str(),
            subject,
            metadata,
            reply_to: None,
        };
        let message = envelope::encode(&head, payload).map_err(EmitError::Encode)?;
        let (bytes, max) = (message.len(), self.max_message_bytes());
        if bytes > max {
            return Err(EmitError::TooLarge { bytes, max });
        }
        Ok(message)
    }

    /// Sends a request, and waits for its reply, at most [`SEND_TIMEOUT`].
    ///
    /// It is handled at least once if at all: it may be after a time-out too, unless no worker had begun with it. To drop the future takes it
    /// back in the same way; nothing stays behind.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn send<Message: Serialize, Reply: DeserializeOwned>(
        &self,
        subject: &Subject<Message, Reply>,
        payload: &Message,
    ) -> Result<Reply, SendError> {
        self.send_with(subject, payload, MessageOptions::default())
            .await
    }

    /// The same, with an id, metadata or another time-out.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn send_with<Message: Serialize, Reply: DeserializeOwned>(
        &self,
        subject: &Subject<Message, Reply>,
        payload: &Message,
        options: MessageOptions,
    ) -> Result<Reply, SendError> {
        let (timeout, deadline) = times(&options);
        let waited = timeout_at(deadline, async {
            let requester = self.requester().await?;
            let (id, message) = self.request(&requester, subject, payload, options, timeout)?;
            let (waiting, reply) = requester.expect_one(&id)?;
            let mut sending = Sending::new(waiting, &self.0.bus, subject.channel(), message);
            sending.put().await?;
            let reply = reply.await.map_err(|_| SendError::Closed)?;
            sending.is_answered();
            reply
        });
        let reply = waited
            .await
            .map_err(|_| SendError::TimedOut { after: timeout })??;
        serde_json::from_str(reply.get()).map_err(SendError::Decode)
    }

    /// Sends a request whose reply is several values, which come in their order. The time-out is that of each next value.
    ///
    /// # Errors
    ///
    /// [`SendError`]; those of the replies come as an item, the last one.
    pub async fn send_stream<Message: Serialize, Reply: DeserializeOwned>(
        &self,
        subject: &Subject<Message, Reply>,
        payload: &Message,
        options: MessageOptions,
    ) -> Result<Values<Reply>, SendError> {
        let (timeout, deadline) = times(&options);
        let sent = timeout_at(deadline, async {
            let requester = self.requester().await?;
            let (id, message) = self.request(&requester, subject, payload, options, timeout)?;
            let (waiting, values) = requester.expect_several(&id)?;
            let mut sending = Sending::new(waiting, &self.0.bus, subject.channel(), message);
            sending.put().await?;
            Ok::<_, SendError>(Values::new(sending, values, timeout))
        });
        sent.await
            .map_err(|_| SendError::TimedOut { after: timeout })?
    }

    async fn requester(&self) -> Result<Arc<Requester>, SendError> {
        let inner = &self.0;
        if inner.stop.is_cancelled() {
            return Err(SendError::Closed);
        }
        let make = || async {
            let requester = Requester::start(&inner.bus, &inner.tasks, &inner.stop).await;
            requester.map(Arc::new)
        };
        let requester = inner.requester.get_or_try_init(make).await;
        requester.cloned().map_err(SendError::Bus)
    }

    fn request<Message: Serialize, Reply>(
        &self,
        requester: &Requester,
        subject: &Subject<Message, Reply>,
        payload: &Message,
        options: MessageOptions,
        timeout: Duration,
    ) -> Result<(MessageId, Vec<u8>), SendError> {
        let id = options.id.unwrap_or_else(MessageId::unique);
        let head = Head {
            app: &self.0.app,
            id: id.as_str(),
            subject: subject.name(),
            metadata: &traced(options.metadata),
            reply_to: Some(ReplyTo {
                address: requester.address(),
                timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
            }),
        };
        let message = envelope::encode(&head, payload).map_err(SendError::Encode)?;
        let (bytes, max) = (message.len(), self.max_message_bytes());
        if bytes > max {
            return Err(SendError::TooLarge { bytes, max });
        }
        Ok((id, message))
    }

    /// Closes it for all its handles: requests that wait have [`SendError::Closed`], and the inbox for replies is removed. Workers go on
    /// until they are stopped. (Without it that is done in the background when the last handle is dropped.)
    pub async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

/// Why there is no messaging over a URL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No engine is known by its scheme, or the program is built without it.
    #[error(
        "no engine of messaging has this URL's scheme; redis:// is one (of the feature redis), nats:// (of the feature nats) and memory: are others"
    )]
    Scheme,
    /// It is none of Redis.
    #[cfg(feature = "redis")]
    #[error(transparent)]
    Redis(#[from] crate::redis_streams::InvalidRedisBus),
    /// It is none of NATS.
    #[cfg(feature = "nats")]
    #[error(transparent)]
    Nats(#[from] crate::nats::InvalidNatsBus),
}

/// How long a request waits, and until when.
fn times(options: &MessageOptions) -> (Duration, Instant) {
    let longest = Duration::from_millis(i32::MAX.unsigned_abs().into());
    let timeout = options.timeout.unwrap_or(SEND_TIMEOUT).min(longest);
    (timeout, Instant::now() + timeout)
}

/// With the trace of the current span, where there is none.
fn traced(mut metadata: Metadata) -> Metadata {
    if metadata.traceparent.is_none() && tidelog_telemetry::is_on() {
        metadata.traceparent = tidelog_telemetry::traceparent(&tracing::Span::current());
    }
    metadata
}

async fn put(
    bus: Arc<dyn MessageBus>,
    channel: Channel,
    messages: Vec<Vec<u8>>,
) -> Result<(), MessageBusError> {
    bus.publish(&channel, &messages).await.map(drop)
}
