//! The message bus on NATS JetStream.
//!
//! A channel is a stream with one subject, in files, and a group a durable consumer of it, which begins with the first message (`DeliverPolicy::All`).
//! Dead letters are messages of one stream of the app. An inbox is a subscription of NATS itself ([`inbox`] says why). [`names`] has what each
//! is called.
//!
//! | step | what is asked of NATS | if it is the last one |
//! |---|---|---|
//! | emit | publish, in the order in which it was begun; where there is no stream, make it first | |
//! | request | publish, where `CONSUMER.NAMES` named a group in the last 5 s | the worker removes it when it has expired |
//! | take | a pull of each channel, for a quarter of a second at a time. What was delivered before is looked up first (below); what came longer ago than the idle bound is passed over | it is pending, and delivered again after the idle bound, which is the consumer's `ack_wait` |
//! | show life | `+WPI` for what is held. Who was away for longer than the bound does not: it went to others | the same |
//! | done | the replies, then `+ACK` and, for a request, `STREAM.MSG.DELETE`. What JetStream hears, the inbox has: it is one connection. Where that was another one in the end (the client connects again by itself), all of it once more | a reply is passed over the second time |
//! | try again | nothing now: it stays pending, and its life is shown. When it is due: `-NAK`, and it is delivered again, which makes it the next try; a try that does not count is begun here | delivered again after the bound, as the next try |
//! | dead | publish the dead letter, on condition that its subject has none (`Nats-Expected-Last-Subject-Sequence: 0`), then `+ACK` | it is delivered again, its dead letter is found, and it is acknowledged |
//! | give back | publish how many of its deliveries do not count, then `-NAK` | delivered again after the bound, uncounted |
//! | retry a dead letter | publish it once more in its place, on condition that it is the last there (`Nats-Rollup: sub`): of two who try, one succeeds. Publish it on its channel, for its group; delete it | the dead letter is listed still, and can be retried; within two minutes NATS tells that the message is there (`Nats-Msg-Id`) |
//! | trim | up to the message that the slowest group has settled all before: `STREAM.PURGE` while no group holds anything, `STREAM.MSG.DELETE` otherwise | |
//!
//! **Attempts** are JetStream's delivery counts, less the deliveries that do not count. Those are known to who holds the message; who stops
//! leaves them in a message of the subject `tries`, which expires. So only what was delivered before is looked up.
//!
//! **Retention** is by limits, of which there are none, and trimming is ours. By interest, JetStream would throw away what no group has
//! joined for yet. A purge makes JetStream forget what waits to be delivered again until its `ack_wait` has passed: hence it is for idle groups.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};

use super::bus::{Consumer, DeadEntry, EntryId, Inbox, MessageBus};
use super::error::MessageBusError;
use super::names::{Channel, Group};
use crate::app_name::is_app_name;
use crate::nats::connection::Connection;
use crate::nats::{InvalidNatsBus, NatsPlace};

mod consumer;
mod dead;
mod inbox;
mod link;
mod names;
mod pulling;
mod tending;

use consumer::NatsConsumer;
use inbox::NatsInbox;
use link::{Failed, Link, entry_id, sequence};
use names::Names;

/// How long it is waited to be told where a request is: its caller may be long gone, and it can only be taken back when that is known.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How many requests are taken back at once.
const DELETES_AT_ONCE: usize = 64;

/// A message bus on NATS JetStream (NATS 2.11 or later), on one server or a cluster.
///
/// Nothing is connected until the first call, and every call connects again after a failure. A TLS connection (`nats+tls://`) needs rustls'
/// default provider to be installed. `docs/messaging.md` has the names of streams and subjects, and the rights that its user needs.
#[derive(Clone)]
pub struct NatsMessageBus(Arc<Link>);

impl NatsMessageBus {
    /// A bus for the app `app` on the NATS at `url`, which is as that of a [`NatsEventBus`](crate::NatsEventBus).
    ///
    /// # Errors
    ///
    /// [`InvalidNatsBus`] when the URL or the name are malformed, or a file cannot be read.
    pub fn new(url: &str, app: &str) -> Result<Self, InvalidNatsBus> {
        if !is_app_name(app) {
            return Err(InvalidNatsBus::App);
        }
        let connection = Connection::new(NatsPlace::parse(url)?);
        Ok(Self(Arc::new(Link::new(Names::new(app), connection))))
    }

    /// The name of the stream of `channel`.
    #[must_use]
    pub fn stream(&self, channel: &Channel) -> String {
        self.0.names.stream(channel)
    }

    /// The name of the stream that has the dead letters of the app.
    #[must_use]
    pub fn dead_stream(&self) -> String {
        self.0.names.records()
    }

    /// Publishes those of `messages` that are not there yet, in order. Whether there was a stream for all.
    async fn publish_missing(
        &self,
        channel: &Channel,
        messages: &[Vec<u8>],
        entries: &mut [Option<EntryId>],
    ) -> Result<bool, MessageBusError> {
        let turn = self.0.turn(channel).await?;
        let session = self.0.session().await?;
        for message in messages {
            self.0.check_size(message)?;
        }
        self.0.make_stream(channel).await?;
        let subject = self.0.names.subject(channel);
        let (mut places, mut awaited) = (Vec::new(), Vec::new());
        for (message, entry) in messages.iter().zip(entries) {
            if entry.is_some() {
                continue;
            }
            let message = PublishMessage::build().payload(Bytes::copy_from_slice(message));
            let sent = session.jetstream.send_publish(subject.clone(), message);
            let sent = sent.await.map_err(|error| refused(&subject, error))?;
            awaited.push(sent.into_future());
            places.push(entry);
        }
        drop(turn);
        let mut has_stream = true;
        for (entry, answer) in places.into_iter().zip(join_all(awaited).await) {
            match answer {
                Ok(stored) => *entry = Some(entry_id(stored.sequence)),
                Err(error) if error.kind() == PublishErrorKind::StreamNotFound => {
                    has_stream = false;
                }
                Err(error) => return Err(refused(&subject, error)),
            }
        }
        Ok(has_stream)
    }
}

fn refused(subject: &str, error: PublishError) -> MessageBusError {
    let own = std::error::Error::source(&error);
    let own = own.and_then(|own| own.downcast_ref::<async_nats::jetstream::Error>());
    match own {
        Some(own) if crate::nats::is_full(own.error_code()) => {
            MessageBusError::Full(Box::new(error))
        }
        None if error.kind() == PublishErrorKind::TimedOut => Failed::Unanswered {
            subject: subject.to_owned(),
            error: Box::new(error),
        }
        .into(),
        _ => MessageBusError::unavailable(error),
    }
}

#[async_trait]
impl MessageBus for NatsMessageBus {
    fn max_message_bytes(&self) -> usize {
        self.0.max_message_bytes()
    }

    async fn publish(
        &self,
        channel: &Channel,
        messages: &[Vec<u8>],
    ) -> Result<Vec<EntryId>, MessageBusError> {
        let mut entries = vec![None; messages.len()];
        if !self
            .publish_missing(channel, messages, &mut entries)
            .await?
        {
            self.0.is_lost(channel);
            if !self
                .publish_missing(channel, messages, &mut entries)
                .await?
            {
                return Err(Failed::NoStream.into());
            }
        }
        Ok(entries.into_iter().flatten().collect())
    }

    async fn request(&self, channel: &Channel, message: &[u8]) -> Result<EntryId, MessageBusError> {
        if !self.0.has_group(channel).await? {
            return Err(MessageBusError::NoGroup);
        }
        self.0.check_size(message)?;
        let subject = self.0.names.subject(channel);
        let message = Bytes::copy_from_slice(message);
        let stored = self.0.store(subject, None, message, REQUEST_TIMEOUT);
        match stored.await {
            Ok(stored) => Ok(entry_id(stored.sequence)),
            Err(Failed::NoStream) => {
                self.0.is_lost(channel);
                Err(MessageBusError::NoGroup)
            }
            Err(failed) => Err(failed.into()),
        }
    }

    async fn withdraw(
        &self,
        channel: &Channel,
        entries: &[EntryId],
    ) -> Result<(), MessageBusError> {
        let stream = &self.0.names.stream(channel);
        let numbers = entries.iter().filter_map(|entry| sequence(entry));
        let deletes = numbers.map(|number| self.0.delete(stream, number));
        let deletes = stream::iter(deletes.collect::<Vec<_>>());
        let mut deletes = deletes.buffer_unordered(DELETES_AT_ONCE);
        while let Some(deleted) = deletes.next().await {
            deleted?;
        }
        Ok(())
    }

    async fn inbox(&self) -> Result<Arc<dyn Inbox>, MessageBusError> {
        let inbox = NatsInbox::open(Arc::clone(&self.0)).await?;
        Ok(Arc::new(inbox))
    }

    async fn answer(&self, address: &str, replies: &[Vec<u8>]) -> Result<bool, MessageBusError> {
        if !self.0.names.is_inbox(address) {
            return Ok(false);
        }
        Ok(inbox::answer(&self.0, address, replies).await?)
    }

    async fn join(
        &self,
        group: &Group,
        channels: &[Channel],
        idle: Duration,
    ) -> Result<Arc<dyn Consumer>, MessageBusError> {
        let consumer = NatsConsumer::join(Arc::clone(&self.0), group, channels, idle).await?;
        Ok(Arc::new(consumer))
    }

    async fn dead_letters(
        &self,
        group: &Group,
        channel: &Channel,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<DeadEntry>, MessageBusError> {
        Ok(self.0.list_dead(group, channel, after, limit).await?)
    }

    async fn retry_dead(
        &self,
        group: &Group,
        channel: &Channel,
        entry: &EntryId,
    ) -> Result<bool, MessageBusError> {
        Ok(self.0.retry_dead(group, channel, entry).await?)
    }

    async fn discard_dead(
        &self,
        group: &Group,
        channel: &Channel,
        entry: &EntryId,
    ) -> Result<bool, MessageBusError> {
        Ok(self.0.discard_dead(group, channel, entry).await?)
    }
}
