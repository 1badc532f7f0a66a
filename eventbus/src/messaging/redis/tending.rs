//! What a consumer does now and then, and at its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{Cmd, Value};
use tidelog_domain::causes;
use tokio::time::Instant;

use super::Failed;
use super::answers::{Pending, array, field, next_id, number, order, pending, text};
use super::consumer::{RedisConsumer, Stream, milliseconds_of};
use crate::lock::lock;
use crate::messaging::bus::{EntryId, Taken};

/// How many entries are named in one command.
const AT_ONCE: usize = 500;

/// The consumer that what is given back belongs to until somebody claims it. Nobody reads by this name.
const RETURNED: &str = "returned";

/// How often the clock is asked for, and those who are gone are swept away.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// After how long of no command a consumer that holds nothing is swept away.
const GONE_AFTER: Duration = Duration::from_secs(600);

/// Removes a consumer that holds nothing. (`WATCH` does not notice a read by a group.)
const REMOVE: &str = "
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
    return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
return 0";

impl RedisConsumer {
    pub(super) async fn look_after(&self) -> Result<(), Failed> {
        // Whoever waits in it holds what its reads bring himself.
        if let Ok(mut reads) = self.reads.try_lock() {
            self.catch_up(&mut reads).await?;
        }
        self.show_life().await?;
        if lock(&self.swept).elapsed() >= SWEEP_INTERVAL {
            *lock(&self.swept) = Instant::now();
            self.set_clock().await?;
            for stream in self.streams.iter() {
                self.sweep(stream).await?;
            }
        }
        self.trim().await
    }

    /// Shows life about what is held.
    pub(super) async fn show_life(&self) -> Result<(), Failed> {
        let _showing = self.showing.lock().await;
        let silent = lock(&self.holding).silent(self.idle / 4, self.idle);
        let mut by_stream: HashMap<usize, Vec<EntryId>> = HashMap::new();
        for ((at, id), is_late) in silent {
            if !is_late || self.is_owner(at, &id).await? {
                by_stream.entry(at).or_default().push(id);
            } else {
                // Whoever is at it may end it; it is not ours to be tried again.
                lock(&self.holding).let_go(&(at, id));
            }
        }
        for (at, ids) in by_stream {
            let Some(stream) = self.streams.get(at) else {
                continue;
            };
            for ids in ids.chunks(AT_ONCE) {
                let when = Instant::now();
                let named = ids.iter().map(|id| &**id);
                let mut xclaim = self.xclaim(stream, &self.name, Duration::ZERO, named);
                xclaim.arg("JUSTID");
                let claimed = match self.link.run(&xclaim).await {
                    Err(failed) if failed.is_no_group() => Value::Nil,
                    claimed => claimed?,
                };
                let claimed: Vec<EntryId> =
                    array(claimed).iter().map(|id| text(id).into()).collect();
                let mut holding = lock(&self.holding);
                for id in ids {
                    let key = (at, Arc::clone(id));
                    if claimed.contains(id) {
                        holding.alive(&key, when);
                    } else if !holding.is_running(&key) {
                        // It was taken back, or is lost: there is nothing to try.
                        holding.let_go(&key);
                    }
                }
                drop(holding);
                self.put_off.notify_one();
            }
        }
        Ok(())
    }

    /// Whether an entry is pending with this consumer still.
    pub(super) async fn is_owner(&self, at: usize, id: &str) -> Result<bool, Failed> {
        let Some(stream) = self.streams.get(at) else {
            return Ok(false);
        };
        match self
            .link
            .run(&self.pending_of(stream, id, id, 1, &self.name))
            .await
        {
            Err(failed) if failed.is_no_group() => Ok(false),
            found => Ok(!pending(found?).is_empty()),
        }
    }

    fn pending_of(
        &self,
        stream: &Stream,
        from: &str,
        to: &str,
        count: usize,
        consumer: &str,
    ) -> Cmd {
        let mut xpending = redis::cmd("XPENDING");
        xpending.arg(&*stream.key).arg(self.group.as_str());
        xpending.arg(from).arg(to).arg(count).arg(consumer);
        xpending
    }

    /// Throws away what every group has handled.
    async fn trim(&self) -> Result<(), Failed> {
        let due = |stream: &&Stream| stream.is_to_trim.swap(false, Ordering::Relaxed);
        let streams: Vec<_> = self.streams.iter().filter(due).collect();
        let trimmed = self.trim_streams(&streams).await;
        if trimmed.is_err() {
            for stream in streams {
                stream.is_to_trim.store(true, Ordering::Relaxed);
            }
        }
        trimmed
    }

    async fn trim_streams(&self, streams: &[&Stream]) -> Result<(), Failed> {
        let ask = |stream: &&Stream| {
            let mut xinfo = redis::cmd("XINFO");
            xinfo.arg("GROUPS").arg(&*stream.key);
            xinfo
        };
        let asked = self.link.run_each(streams.iter().map(ask).collect());
        for (stream, groups) in streams.iter().zip(asked.await?) {
            let groups = match groups {
                Err(failed) if failed.is_no_such_key() => continue,
                groups => array(groups?),
            };
            if let Some(least) = self.handled(stream, groups).await? {
                let mut xtrim = redis::cmd("XTRIM");
                xtrim.arg(&*stream.key).arg("MINID").arg(least);
                self.link.run(&xtrim).await?;
            }
        }
        Ok(())
    }

    /// The first entry that one of the groups has not handled. What is before it was acknowledged by all, and that is for good.
    async fn handled(&self, stream: &Stream, groups: Vec<Value>) -> Result<Option<String>, Failed> {
        let mut least: Option<String> = None;
        for group in groups {
            let group = array(group);
            let last = field(&group, "last-delivered-id").map(text);
            let Some(mut first) = last.and_then(|last| next_id(&last)) else {
                return Ok(None);
            };
            if field(&group, "pending").is_some_and(|pending| number(pending) > 0) {
                let name = field(&group, "name").map(text).unwrap_or_default();
                let mut xpending = redis::cmd("XPENDING");
                xpending.arg(&*stream.key).arg(&*name);
                // The number of them, the first, the last, whose they are.
                let answer = array(self.link.run(&xpending).await?);
                if let Some(pending) = answer.get(1).map(text).filter(|id| !id.is_empty()) {
                    first = pending.into_owned();
                }
            }
            if least
                .as_deref()
                .is_none_or(|least| order(&first) < order(least))
            {
                least = Some(first);
            }
        }
        Ok(least)
    }

    /// Removes consumers that have not been heard of for long and hold nothing.
    async fn sweep(&self, stream: &Stream) -> Result<(), Failed> {
        let mut xinfo = redis::cmd("XINFO");
        xinfo
            .arg("CONSUMERS")
            .arg(&*stream.key)
            .arg(self.group.as_str());
        let consumers = match self.link.run(&xinfo).await {
            Err(failed) if failed.is_no_group() => return Ok(()),
            consumers => array(consumers?),
        };
        let gone_after = milliseconds_of(GONE_AFTER.max(self.idle * 10));
        for consumer in consumers {
            let consumer = array(consumer);
            let is = |name: &str| field(&consumer, name).map(number).unwrap_or_default();
            let name = field(&consumer, "name").map(text).unwrap_or_default();
            let is_other = name != self.name && name != RETURNED;
            if is("pending") == 0 && is("idle") > gone_after && is_other {
                self.remove(stream, &name).await?;
            }
        }
        Ok(())
    }

    /// Removes a consumer that holds nothing, in one step with making sure of that: what it held would be nobody's. A user who may not run
    /// scripts leaves it.
    async fn remove(&self, stream: &Stream, consumer: &str) -> Result<(), Failed> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(REMOVE).arg(1).arg(&*stream.key);
        eval.arg(self.group.as_str()).arg(consumer);
        match self.link.run(&eval).await {
            Err(failed) if failed.is_refused() => {
                tracing::debug!(error = causes(&failed), "a consumer cannot be removed");
                Ok(())
            }
            removed => removed.map(drop),
        }
    }

    /// Reads no more, and gives back what its worker is not at.
    pub(super) async fn stop_reading(&self, unbegun: &[Taken]) -> Result<(), Failed> {
        let mut reads = self.reads.lock().await;
        self.finish_reads(&mut reads).await;
        drop(reads);
        let _showing = self.showing.lock().await;
        let unbegun = unbegun.iter().filter_map(|taken| self.key_of(taken));
        lock(&self.holding).unbegun(unbegun.map(|(key, _)| key));
        for (at, stream) in self.streams.iter().enumerate() {
            match self.give_back_unbegun(at, stream).await {
                Err(failed) if !failed.is_no_group() => return Err(failed),
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives back all of a stream that is pending here and not being handled, also what was never held: a claim or a read may have been cut off.
    async fn give_back_unbegun(&self, at: usize, stream: &Stream) -> Result<(), Failed> {
        let mut from = "-".to_owned();
        loop {
            let mine = self.pending_of(stream, &from, "+", AT_ONCE, &self.name);
            let mine = pending(self.link.run(&mine).await?);
            let Some(last) = mine.last() else {
                return Ok(());
            };
            from = format!("({}", last.id);
            let key = |one: &Pending| (at, Arc::clone(&one.id));
            let mut unbegun = mine;
            unbegun.retain(|one| !lock(&self.holding).is_running(&key(one)));
            self.return_to_group(at, stream, &unbegun).await?;
            let mut holding = lock(&self.holding);
            for one in &unbegun {
                holding.let_go(&key(one));
            }
        }
    }

    /// Gives back what is held, and what was on its way here, and leaves the group.
    pub(super) async fn leave(&self) -> Result<(), Failed> {
        let mut reads = self.reads.lock().await;
        self.finish_reads(&mut reads).await;
        drop(reads);
        let mut left = Ok(());
        for (at, stream) in self.streams.iter().enumerate() {
            match self.give_back(at, stream).await {
                Err(failed) if !failed.is_no_group() => left = Err(failed),
                _ => {}
            }
        }
        left?;
        lock(&self.holding).clear();
        self.trim().await
    }

    async fn give_back(&self, at: usize, stream: &Stream) -> Result<(), Failed> {
        loop {
            let mine = self.pending_of(stream, "-", "+", AT_ONCE, &self.name);
            let mine = pending(self.link.run(&mine).await?);
            if mine.is_empty() {
                return self.remove(stream, &self.name).await;
            }
            self.return_to_group(at, stream, &mine).await?;
        }
    }

    /// Gives entries of a stream to nobody, so that the first who looks takes them. Of one that is not held here only the delivery to us does
    /// not count.
    async fn return_to_group(
        &self,
        at: usize,
        stream: &Stream,
        entries: &[Pending],
    ) -> Result<(), Failed> {
        let mut commands = redis::Pipeline::with_capacity(entries.len());
        for one in entries {
            let tries = lock(&self.holding).tries_over(&(at, Arc::clone(&one.id)));
            let tries = tries.unwrap_or(one.deliveries.saturating_sub(1));
            let mut xclaim = self.xclaim(stream, RETURNED, Duration::ZERO, [&*one.id]);
            xclaim.arg("IDLE").arg(milliseconds_of(self.idle));
            xclaim.arg("RETRYCOUNT").arg(tries).arg("JUSTID");
            commands.add_command(xclaim);
        }
        self.link.run_all(&commands).await?;
        Ok(())
    }
}
