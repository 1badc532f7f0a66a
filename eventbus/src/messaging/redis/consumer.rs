//! A consumer: a member of a consumer group on some streams.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use redis::{Cmd, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::answers::{array, milliseconds, number, streams};
use super::pace::Pace;
use super::settling::{Handled, Settling};
use super::{Failed, Link, xadd};
use crate::lock::lock;
use crate::messaging::bus::{Consumer, Delivery, EntryId, Settlement, Taken};
use crate::messaging::clock::Clock;
use crate::messaging::error::MessageBusError;
use crate::messaging::holding::{Holding, Key, MAX_WAITING};
use crate::messaging::names::{Channel, Group};
use crate::redis_streams::readers::BlockingError;

/// How long a read waits at Redis, at most: what it brings may have been here since it began. When a consumer leaves, it waits for the end of
/// the one that is under way.
const BLOCK: Duration = Duration::from_millis(250);

/// How often it is looked for what others left behind, at the most and at the least.
const CLAIM_INTERVAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

pub(super) struct RedisConsumer {
    pub(super) link: Arc<Link>,
    pub(super) group: Group,
    pub(super) name: String,
    pub(super) streams: Arc<[Stream]>,
    settling: Arc<Settling>,
    numbers: HashMap<Channel, usize>,
    pub(super) idle: Duration,
    pub(super) reads: tokio::sync::Mutex<Reads>,
    pub(super) holding: Mutex<Holding>,
    /// Something is put off, or is known to be ours still: whoever waits has to look when it is due.
    pub(super) put_off: Notify,
    pub(super) clock: Clock,
    pub(super) swept: Mutex<Instant>,
    /// Held while life is shown, and while something is given back: what was given back is not to be taken again by showing life about it.
    pub(super) showing: tokio::sync::Mutex<()>,
}

/// One of the streams.
pub(super) struct Stream {
    pub(super) channel: Channel,
    pub(super) key: Arc<str>,
    /// Something of it was settled since it was trimmed.
    pub(super) is_to_trim: AtomicBool,
}

/// The reads that are under way. They go on when nobody waits for them: what they bring was taken from the group.
pub(super) struct Reads {
    under_way: FuturesUnordered<BoxFuture<'static, Read>>,
    /// Which streams are read together: all of one server, each of a cluster by itself. And whether they are being read.
    sets: Vec<(Vec<usize>, bool)>,
    claim_at: Instant,
    pace: Pace,
}

struct Read {
    set: usize,
    began: Instant,
    answer: Result<Value, BlockingError>,
}

impl RedisConsumer {
    pub(super) async fn join(
        link: Arc<Link>,
        group: &Group,
        channels: &[Channel],
        idle: Duration,
    ) -> Result<Self, Failed> {
        let all: Vec<_> = (0..channels.len()).collect();
        let sets = if link.is_cluster {
            all.into_iter().map(|one| (vec![one], false)).collect()
        } else {
            vec![(all, false)]
        };
        let stream = |channel: &Channel| Stream {
            channel: channel.clone(),
            key: link.key(channel).into(),
            is_to_trim: AtomicBool::new(true),
        };
        let streams: Arc<[_]> = channels.iter().map(stream).collect();
        let consumer = Self {
            settling: Settling::new(Arc::clone(&link), group.clone(), Arc::clone(&streams)),
            group: group.clone(),
            name: Uuid::now_v7().simple().to_string(),
            streams,
            numbers: channels.iter().cloned().zip(0..).collect(),
            idle,
            reads: tokio::sync::Mutex::new(Reads {
                under_way: FuturesUnordered::new(),
                sets,
                claim_at: Instant::now(),
                pace: Pace::default(),
            }),
            holding: Mutex::default(),
            put_off: Notify::new(),
            clock: Clock::default(),
            swept: Mutex::new(Instant::now()),
            showing: tokio::sync::Mutex::default(),
            link,
        };
        consumer.make_groups().await?;
        consumer.set_clock().await?;
        Ok(consumer)
    }

    /// Makes the groups where they are not there, and the streams.
    pub(super) async fn make_groups(&self) -> Result<(), Failed> {
        let create = |stream: &Stream| {
            let mut create = redis::cmd("XGROUP");
            create.arg("CREATE").arg(&*stream.key);
            create.arg(self.group.as_str()).arg(0).arg("MKSTREAM");
            create
        };
        let created = self
            .link
            .run_each(self.streams.iter().map(create).collect());
        for answer in created.await? {
            match answer {
                Err(failed) if failed.code() == Some("BUSYGROUP") => {}
                answer => drop(answer?),
            }
        }
        Ok(())
    }

    /// Asks Redis what time it is. A user who may not has to do with our clock.
    pub(super) async fn set_clock(&self) -> Result<(), Failed> {
        let answer = match self.link.run(&redis::cmd("TIME")).await {
            Err(failed) if failed.code() == Some("NOPERM") => Value::Nil,
            answer => answer?,
        };
        let time = match array(answer).as_slice() {
            [seconds, micros] => Some(number(seconds) * 1_000 + number(micros) / 1_000),
            _ => None,
        };
        self.clock.set(time.map(Duration::from_millis));
        Ok(())
    }

    /// A command about an entry that is pending, or some: `XCLAIM … 0 <ids>`.
    pub(super) fn xclaim<'i>(
        &self,
        stream: &Stream,
        consumer: &str,
        min_idle: Duration,
        ids: impl IntoIterator<Item = &'i str>,
    ) -> Cmd {
        let mut xclaim = redis::cmd("XCLAIM");
        xclaim.arg(&*stream.key).arg(self.group.as_str());
        xclaim.arg(consumer).arg(milliseconds_of(min_idle));
        for id in ids {
            xclaim.arg(id);
        }
        xclaim
    }

    /// Has every set of streams read that is not being read.
    fn read(&self, reads: &mut Reads, limit: usize) {
        let limit = limit.min(reads.pace.at_once());
        let block = BLOCK.min(self.idle / 4);
        let Reads {
            under_way, sets, ..
        } = reads;
        for (set, (members, is_read)) in sets.iter_mut().enumerate() {
            if std::mem::replace(is_read, true) {
                continue;
            }
            let streams = members.iter().filter_map(|at| self.streams.get(*at));
            let keys: Vec<_> = streams.map(|stream| Arc::clone(&stream.key)).collect();
            let Some(first) = keys.first().cloned() else {
                continue;
            };
            let mut xread = redis::cmd("XREADGROUP");
            xread.arg("GROUP").arg(self.group.as_str()).arg(&self.name);
            // It is for each stream.
            xread
                .arg("COUNT")
                .arg(limit.div_ceil(self.streams.len().max(1)));
            xread.arg("BLOCK").arg(milliseconds_of(block).max(1));
            xread.arg("STREAMS");
            for key in &keys {
                xread.arg(&**key);
            }
            for _ in &keys {
                xread.arg(">");
            }
            let link = Arc::clone(&self.link);
            let read = async move {
                let began = Instant::now();
                let answer = link.readers.run(&first, &xread, block).await;
                Read { set, began, answer }
            };
            under_way.push(read.boxed());
        }
    }

    /// Holds what a read brought.
    async fn take_in(&self, reads: &mut Reads, read: Read) -> Result<(), Failed> {
        if let Some((_, is_read)) = reads.sets.get_mut(read.set) {
            *is_read = false;
        }
        let answer = match read.answer {
            Ok(answer) => answer,
            Err(BlockingError::Connect(error)) => return Err(error.into()),
            Err(BlockingError::Command(error)) => {
                if error.code().is_none() {
                    reads.pace.failed();
                }
                let failed = Failed::from(error);
                return if failed.is_no_group() {
                    self.make_groups().await
                } else {
                    Err(failed)
                };
            }
        };
        let (mut count, mut bytes) = (0, 0);
        for (key, entries) in streams(answer) {
            let mut all = self.streams.iter().enumerate();
            let Some((at, stream)) = all.find(|(_, stream)| *stream.key == *key) else {
                continue;
            };
            let read_one = |entry| self.link.form.read(&stream.channel, entry);
            let entries: Vec<_> = entries.into_iter().filter_map(read_one).collect();
            count += entries.len();
            bytes += entries.iter().map(|entry| entry.body.len()).sum::<usize>();
            let first_try = entries.into_iter().map(|entry| (entry, 1));
            self.hold(at, first_try, read.began).await?;
        }
        reads.pace.came(count, bytes);
        Ok(())
    }

    /// Holds what came of the reads that are over.
    pub(super) async fn catch_up(&self, reads: &mut Reads) -> Result<(), Failed> {
        while let Some(Some(read)) = reads.under_way.next().now_or_never() {
            self.take_in(reads, read).await?;
        }
        Ok(())
    }

    /// Waits for the reads that are under way, and holds what they bring.
    pub(super) async fn finish_reads(&self, reads: &mut Reads) {
        while let Some(read) = reads.under_way.next().await {
            // What cannot be held is pending, and is given back with all that is.
            let _pending = self.take_in(reads, read).await;
        }
    }

    /// Hands what is ready to the worker.
    fn ready(&self, limit: usize) -> Vec<Delivery> {
        let channel = |at: usize| self.streams.get(at).map(|stream| &stream.channel);
        let age = |id: &EntryId, _: &_| {
            let stored = Duration::from_millis(milliseconds(id));
            self.clock.since(stored)
        };
        lock(&self.holding).hand_out(limit, channel, age)
    }

    pub(super) fn key_of(&self, taken: &Taken) -> Option<(Key, &Stream)> {
        let at = *self.numbers.get(&taken.channel)?;
        Some(((at, Arc::clone(&taken.entry)), self.streams.get(at)?))
    }

    /// Moves a message to the dead letters.
    async fn bury(
        &self,
        stream: &Stream,
        id: &str,
        body: &[u8],
        error: &str,
        attempts: u32,
    ) -> Result<(), Failed> {
        let mut commands = redis::pipe();
        commands.atomic();
        let mut bury = xadd(&self.link.form.dead_key(&stream.key, &self.group), body);
        bury.arg(super::ERROR).arg(error);
        bury.arg(super::ATTEMPTS).arg(attempts);
        commands.add_command(bury);
        commands.cmd("XACK").arg(&*stream.key);
        commands.arg(self.group.as_str()).arg(id);
        self.link.run_as_one(&commands).await?;
        Ok(())
    }
}

#[async_trait]
impl Consumer for RedisConsumer {
    async fn take(&self, limit: usize, wait: Duration) -> Result<Vec<Delivery>, MessageBusError> {
        let deadline = Instant::now() + wait;
        let mut reads = self.reads.lock().await;
        loop {
            self.resume_due(limit).await?;
            if Instant::now() >= reads.claim_at {
                let (often, seldom) = CLAIM_INTERVAL;
                reads.claim_at = Instant::now() + (self.idle / 4).clamp(often, seldom);
                if self.claim(limit, &mut reads.pace).await? {
                    reads.claim_at = Instant::now();
                }
            }
            if !lock(&self.holding).late(self.idle).is_empty() {
                // Whose they are is found out first.
                self.show_life().await?;
            }
            let ready = self.ready(limit);
            if !ready.is_empty() || Instant::now() >= deadline {
                return Ok(ready);
            }
            if lock(&self.holding).waiting() < MAX_WAITING {
                self.read(&mut reads, limit);
            }
            let due = lock(&self.holding).next_due(self.idle);
            let until = due.map_or(deadline, |due| due.min(deadline));
            let until = until.min(reads.claim_at);
            let read = tokio::select! {
                Some(read) = reads.under_way.next() => Some(read),
                () = sleep_until(until) => None,
                () = self.put_off.notified() => None,
            };
            if let Some(read) = read {
                self.take_in(&mut reads, read).await?;
            }
        }
    }

    async fn settle(&self, taken: &Taken, outcome: Settlement<'_>) -> Result<(), MessageBusError> {
        let Some((key, stream)) = self.key_of(taken) else {
            return Ok(());
        };
        let is_mine = lock(&self.holding).is_mine(&key, self.idle);
        match outcome {
            Settlement::Done { reply, remove } => {
                let bytes = reply.map_or(0, |(_, reply)| reply.len());
                let handled = Handled {
                    at: key.0,
                    entry: Arc::clone(&key.1),
                    reply: reply.map(|(address, reply)| (address.into(), reply.into())),
                    remove: remove && self.link.form.is_answered_once(),
                };
                self.settling.done(handled, bytes).await?;
            }
            Settlement::Retry { after, counted } if is_mine => {
                lock(&self.holding).put_off(&key, after, counted);
                self.put_off.notify_one();
                return Ok(());
            }
            // It may be dead already, when the answer to that was lost.
            Settlement::Dead { error, attempts }
                if is_mine && self.is_owner(key.0, &key.1).await? =>
            {
                let body = lock(&self.holding).body(&key);
                let body = body.unwrap_or_default();
                self.bury(stream, &taken.entry, &body, error, attempts)
                    .await?;
            }
            // It may have gone to another meanwhile. If it has not, it is claimed.
            Settlement::Retry { .. } | Settlement::Dead { .. } => {}
        }
        lock(&self.holding).let_go(&key);
        stream.is_to_trim.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn tend(&self) -> Result<(), MessageBusError> {
        Ok(self.look_after().await?)
    }

    async fn stop_taking(&self, unbegun: &[Taken]) -> Result<(), MessageBusError> {
        Ok(self.stop_reading(unbegun).await?)
    }

    async fn close(&self) -> Result<(), MessageBusError> {
        Ok(self.leave().await?)
    }
}

pub(super) fn milliseconds_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
