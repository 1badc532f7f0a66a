//! A consumer: a member of a group, on some streams.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::link::{ConsumerInfo, Failed, Link};
use super::names;
use super::pulling::{Pulls, Tag};
use crate::lock::lock;
use crate::messaging::bus::{Consumer, Delivery, EntryId, Settlement, Taken};
use crate::messaging::clock::Clock;
use crate::messaging::error::MessageBusError;
use crate::messaging::holding::{Held, Holding, Key, MAX_WAITING};
use crate::messaging::names::{Channel, Group};
use crate::nats::connection::Session;

/// How many messages of a channel a group has in hand at most, those included that wait to be tried again: beyond it NATS gives it no more.
const MAX_ACK_PENDING: i64 = 10_000;

/// How long is waited at most for what NATS said there is more, where it may have gone to others.
const GATHER_WAIT: Duration = Duration::from_millis(50);

/// How many groups are made at once.
const GROUPS_AT_ONCE: usize = 16;

pub(super) struct NatsConsumer {
    pub(super) link: Arc<Link>,
    pub(super) group: Group,
    pub(super) lanes: Vec<Lane>,
    numbers: HashMap<Channel, usize>,
    pub(super) idle: Duration,
    pub(super) pulls: tokio::sync::Mutex<Pulls>,
    pub(super) holding: Mutex<Holding<Tag>>,
    /// Something is put off: whoever waits has to look when it is due.
    put_off: Notify,
    pub(super) clock: Clock,
}

/// One of the channels.
pub(super) struct Lane {
    pub(super) channel: Channel,
    pub(super) stream: String,
    /// Something of it was settled since it was trimmed.
    pub(super) is_to_trim: AtomicBool,
}

impl NatsConsumer {
    pub(super) async fn join(
        link: Arc<Link>,
        group: &Group,
        channels: &[Channel],
        idle: Duration,
    ) -> Result<Self, Failed> {
        let lane = |channel: &Channel| Lane {
            channel: channel.clone(),
            stream: link.names.stream(channel),
            is_to_trim: AtomicBool::new(true),
        };
        let consumer = Self {
            group: group.clone(),
            lanes: channels.iter().map(lane).collect(),
            numbers: channels.iter().cloned().zip(0..).collect(),
            idle,
            pulls: tokio::sync::Mutex::new(Pulls::new()),
            holding: Mutex::default(),
            put_off: Notify::new(),
            clock: Clock::default(),
            link,
        };
        consumer.make_groups().await?;
        Ok(consumer)
    }

    /// Makes the groups where they are not there, and the streams.
    pub(super) async fn make_groups(&self) -> Result<(), Failed> {
        let groups: Vec<_> = self
            .lanes
            .iter()
            .map(|lane| self.make_group(lane))
            .collect();
        let mut groups = stream::iter(groups).buffer_unordered(GROUPS_AT_ONCE);
        while let Some(made) = groups.next().await {
            self.clock.set(made?.clock());
        }
        Ok(())
    }

    async fn make_group(&self, lane: &Lane) -> Result<ConsumerInfo, Failed> {
        let name = names::consumer(&self.group);
        let config = pull::Config {
            durable_name: Some(name.clone()),
            name: Some(name.clone()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.idle,
            deliver_policy: DeliverPolicy::All,
            replay_policy: ReplayPolicy::Instant,
            max_deliver: -1,
            max_ack_pending: MAX_ACK_PENDING,
            ..pull::Config::default()
        };
        let config =
            async_nats::jetstream::consumer::IntoConsumerConfig::into_consumer_config(config);
        let what = format!("CONSUMER.CREATE.{}.{name}", lane.stream);
        let payload = json!({ "stream_name": lane.stream, "config": config });
        self.link.make_stream(&lane.channel).await?;
        match self.link.call(&what, &payload).await {
            Err(failed) if failed.is_missing() => {
                self.link.is_lost(&lane.channel);
                self.link.make_stream(&lane.channel).await?;
                self.link.call(&what, &payload).await
            }
            made => made,
        }
    }

    /// Tries again what is due. Where the failed try counts, NATS delivers it once more.
    async fn resume_due(&self, limit: usize) -> Result<(), Failed> {
        let due = lock(&self.holding).due(limit, self.idle);
        for (key, next) in due {
            let counted = {
                let mut holding = lock(&self.holding);
                let held = holding.get(&key);
                let held = held.map(|held| (held.attempt, Arc::clone(&held.tag.about)));
                match held {
                    Some((attempt, about)) if attempt != next => Some(about),
                    Some(_) => {
                        holding.resume(&key, next);
                        None
                    }
                    None => None,
                }
            };
            let Some(about) = counted else {
                continue;
            };
            match (self.link.tell(&about, b"-NAK").await, self.lanes.get(key.0)) {
                (Err(failed), Some(lane)) if failed.is_missing() => {
                    self.unless_lost(lane, failed).await?;
                }
                (told, _) => told?,
            }
            lock(&self.holding).let_go(&key);
        }
        Ok(())
    }

    /// Lets go of what others may have by now.
    fn let_late_go(&self) {
        let mut holding = lock(&self.holding);
        for key in holding.late(self.idle) {
            holding.let_go(&key);
        }
    }

    /// Hands what is ready to the worker.
    fn ready(&self, limit: usize) -> Vec<Delivery> {
        let channel = |at: usize| self.lanes.get(at).map(|lane| &lane.channel);
        let age = |_: &EntryId, held: &Held<Tag>| self.clock.since(held.tag.stored());
        lock(&self.holding).hand_out(limit, channel, age)
    }

    pub(super) fn key_of(&self, taken: &Taken) -> Option<(Key, &Lane)> {
        let at = *self.numbers.get(&taken.channel)?;
        Some(((at, Arc::clone(&taken.entry)), self.lanes.get(at)?))
    }

    /// What NATS knows of this group; `None` where it is not there, or its stream. (That nobody answers for it may be for want of a leader.)
    async fn own_group(&self, lane: &Lane) -> Result<Option<ConsumerInfo>, Failed> {
        let groups = match self.link.groups(&lane.stream).await {
            Err(failed) if failed.is_missing() => return Ok(None),
            groups => groups?,
        };
        let name = names::consumer(&self.group);
        Ok(groups.into_iter().find(|group| group.name == name))
    }

    /// Gives `failed` on, unless the group is not there.
    pub(super) async fn unless_lost(&self, lane: &Lane, failed: Failed) -> Result<(), Failed> {
        match self.own_group(lane).await? {
            None => Ok(()),
            Some(_) => Err(failed),
        }
    }

    /// Acknowledges a message. A server that was killed may have its group where it was earlier; what the group has given to nobody since,
    /// NATS does not let be acknowledged, and does not say so: it will come again, and there is nothing to settle.
    pub(super) async fn acknowledge(
        &self,
        session: &Session,
        lane: &Lane,
        entry: &EntryId,
        about: &str,
    ) -> Result<(), Failed> {
        let failed = match Link::tell_by(session, about, b"+ACK").await {
            Err(failed @ (Failed::Unanswered { .. } | Failed::NoConsumer)) => failed,
            acknowledged => return acknowledged,
        };
        match self.own_group(lane).await?.zip(super::sequence(entry)) {
            None => Ok(()),
            Some((own, sequence)) if own.is_before(sequence) => {
                tracing::warn!(
                    channel = %lane.channel, group = %self.group, message = &**entry,
                    "NATS has this group where it was earlier: a message that was handled comes again"
                );
                Ok(())
            }
            Some(_) => Err(failed),
        }
    }

    /// Whether a message is where it was. A server that was killed may have lost it, and given its number to another one since: what was
    /// told by that number would be about that one. (On a connection that was not lost there was no other server.)
    async fn is_there(
        &self,
        session: &Session,
        lane: &Lane,
        entry: &EntryId,
        tag: &Tag,
    ) -> Result<bool, Failed> {
        match super::sequence(entry) {
            Some(sequence) if tag.epoch != session.epoch() => {
                let (stream, stored_ms) = (&lane.stream, tag.stored_ms);
                self.link.is_there(stream, sequence, stored_ms).await
            }
            _ => Ok(true),
        }
    }

    /// Settles a message as done. The reply is before it on the same connection; where that was lost in between, it is settled again.
    async fn done(
        &self,
        lane: &Lane,
        taken: &Taken,
        tag: &Tag,
        reply: Option<(&str, &[u8])>,
        remove: bool,
    ) -> Result<(), Failed> {
        let session = self.link.session().await?;
        let is_there = self.is_there(&session, lane, &taken.entry, tag).await?;
        let connects = session.connects();
        let reply = reply.filter(|(address, _)| self.link.names.is_inbox(address));
        if let Some((address, reply)) = reply {
            let (bytes, reply) = (reply.len(), Bytes::copy_from_slice(reply));
            let sent = session.client.publish(address.to_owned(), reply).await;
            sent.map_err(|error| match error.kind() {
                PublishErrorKind::MaxPayloadExceeded => self.link.too_large(bytes),
                _ => Failed::other(error),
            })?;
        }
        if is_there {
            let acknowledged = self.acknowledge(&session, lane, &taken.entry, &tag.about);
            let removed = async {
                if let (true, Some(sequence)) = (remove, super::sequence(&taken.entry)) {
                    self.link.delete(&lane.stream, sequence).await?;
                }
                Ok::<_, Failed>(())
            };
            let (acknowledged, removed) = futures_util::join!(acknowledged, removed);
            acknowledged?;
            removed?;
        } else if reply.is_some() {
            // Something that is answered follows the reply.
            self.link.first(&lane.stream).await?;
        }
        if reply.is_some() && session.connects() != connects {
            return Err(Failed::Interrupted);
        }
        Ok(())
    }

    /// Makes a dead letter of a message, and settles it.
    async fn dead(
        &self,
        lane: &Lane,
        taken: &Taken,
        (tag, body): (&Tag, &[u8]),
        error: &str,
        attempts: u32,
    ) -> Result<(), Failed> {
        let session = self.link.session().await?;
        if !self.is_there(&session, lane, &taken.entry, tag).await? {
            return Ok(());
        }
        let message = tag.identity(&taken.entry);
        let subject = self.link.names.dead(&self.group, message, &lane.channel);
        let body = Bytes::copy_from_slice(body);
        self.link.bury(subject, body, error, attempts).await?;
        self.acknowledge(&session, lane, &taken.entry, &tag.about)
            .await
    }
}

#[async_trait]
impl Consumer for NatsConsumer {
    async fn take(&self, limit: usize, wait: Duration) -> Result<Vec<Delivery>, MessageBusError> {
        let deadline = Instant::now() + wait;
        let mut pulls = self.pulls.lock().await;
        let mut gathered = deadline;
        loop {
            self.listen(&mut pulls).await?;
            if pulls.is_lost {
                self.make_groups().await?;
                pulls.is_lost = false;
            }
            self.resume_due(limit).await?;
            self.drain(&mut pulls);
            self.look_up(&mut pulls).await?;
            self.let_late_go();
            let (now, count) = (Instant::now(), lock(&self.holding).ready());
            if count > 0 {
                gathered = gathered.min(now + GATHER_WAIT);
            }
            let is_enough = count >= limit || !pulls.bring_more() || now >= gathered;
            if (count > 0 && is_enough) || now >= deadline {
                let ready = self.ready(limit);
                if !ready.is_empty() || now >= deadline {
                    return Ok(ready);
                }
            }
            if lock(&self.holding).waiting() < MAX_WAITING {
                self.pull(&mut pulls, limit).await?;
            }
            let due = lock(&self.holding).next_due(self.idle);
            let times = [Some(gathered), due, pulls.look_at()];
            let until = times.into_iter().flatten().min().unwrap_or(gathered);
            tokio::select! {
                came = pulls.next() => match came {
                    Some((at, message)) => self.arrived(&mut pulls, at, message),
                    None => pulls.forget(),
                },
                () = sleep_until(until) => {}
                () = self.put_off.notified() => {}
            }
        }
    }

    async fn settle(&self, taken: &Taken, outcome: Settlement<'_>) -> Result<(), MessageBusError> {
        let Some((key, lane)) = self.key_of(taken) else {
            return Ok(());
        };
        let held = lock(&self.holding)
            .get(&key)
            .map(|held| (held.tag.clone(), Arc::clone(&held.body)));
        let Some((tag, body)) = held else {
            return Ok(());
        };
        let is_mine = lock(&self.holding).is_mine(&key, self.idle);
        match outcome {
            Settlement::Done { reply, remove } => {
                self.done(lane, taken, &tag, reply, remove).await?;
            }
            Settlement::Retry { after, counted } if is_mine => {
                lock(&self.holding).put_off(&key, after, counted);
                self.put_off.notify_one();
                return Ok(());
            }
            Settlement::Dead { error, attempts } if is_mine => {
                self.dead(lane, taken, (&tag, &body), error, attempts)
                    .await?;
            }
            // It may have gone to another meanwhile. If it has not, it is delivered again.
            Settlement::Retry { .. } | Settlement::Dead { .. } => {}
        }
        lock(&self.holding).let_go(&key);
        lane.is_to_trim.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn tend(&self) -> Result<(), MessageBusError> {
        Ok(self.look_after().await?)
    }

    async fn stop_taking(&self, unbegun: &[Taken]) -> Result<(), MessageBusError> {
        Ok(self.stop_pulling(unbegun).await?)
    }

    async fn close(&self) -> Result<(), MessageBusError> {
        Ok(self.leave().await?)
    }
}
