//! How a consumer takes what others left behind, and tries again what is due.

use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::Failed;
use super::answers::{Entry, Pending, array, pending, text};
use super::consumer::{RedisConsumer, Stream, milliseconds_of};
use super::pace::Pace;
use crate::lock::lock;

impl RedisConsumer {
    /// Tries again what is due: that makes it the next try, for all to see.
    pub(super) async fn resume_due(&self, limit: usize) -> Result<(), Failed> {
        let due = lock(&self.holding).due(limit, self.idle);
        if due.is_empty() {
            return Ok(());
        }
        let claims = due.iter().filter_map(|((number, id), attempt)| {
            let stream = self.streams.get(*number)?;
            let mut xclaim = self.xclaim(stream, &self.name, Duration::ZERO, [&**id]);
            xclaim.arg("RETRYCOUNT").arg(attempt).arg("JUSTID");
            Some(xclaim)
        });
        let answers = self.link.run_each(claims.collect()).await?;
        for ((key, attempt), answer) in due.iter().zip(answers) {
            let is_there = match answer {
                Ok(claimed) => !array(claimed).is_empty(),
                Err(failed) if failed.is_no_group() => false,
                Err(failed) => return Err(failed),
            };
            let mut holding = lock(&self.holding);
            if is_there {
                holding.resume(key, *attempt);
            } else {
                // It was taken back, or is lost.
                holding.let_go(key);
            }
        }
        Ok(())
    }

    /// Takes what others left behind. Whether there may be more of it.
    pub(super) async fn claim(&self, limit: usize, pace: &mut Pace) -> Result<bool, Failed> {
        let ask = |stream: &Stream| {
            let mut xpending = redis::cmd("XPENDING");
            xpending.arg(&*stream.key).arg(self.group.as_str());
            xpending.arg("IDLE").arg(milliseconds_of(self.idle));
            xpending.arg("-").arg("+").arg(limit);
            xpending
        };
        let asked = self.link.run_each(self.streams.iter().map(ask).collect());
        let mut is_more = false;
        for (at, answer) in asked.await?.into_iter().enumerate() {
            let mut left = match answer {
                Ok(left) => pending(left),
                Err(failed) if failed.is_no_group() => {
                    self.make_groups().await?;
                    return Ok(false);
                }
                Err(failed) => return Err(failed),
            };
            let is_full = left.len() >= limit;
            left.retain(|one| !lock(&self.holding).has(&(at, one.id.clone())));
            let mut left = left.as_slice();
            while let Some((some, rest)) = left.split_at_checked(pace.at_once().min(left.len()))
                && !some.is_empty()
            {
                let taken = self.claim_some(at, some).await;
                if taken.is_err() {
                    pace.failed();
                }
                let (entries, bytes) = taken?;
                pace.came(entries, bytes);
                is_more |= is_full && entries > 0;
                left = rest;
            }
        }
        Ok(is_more)
    }

    /// Claims some of what is pending. The messages come first: when they do not come in time, nothing was claimed, and no try is counted
    /// that nobody made. How many messages came, and their bytes.
    async fn claim_some(&self, at: usize, left: &[Pending]) -> Result<(usize, usize), Failed> {
        let Some(stream) = self.streams.get(at) else {
            return Ok((0, 0));
        };
        let mut bodies = Pipeline::with_capacity(left.len());
        for one in left {
            bodies.cmd("XRANGE").arg(&*stream.key);
            bodies.arg(&*one.id).arg(&*one.id);
        }
        let bodies = self.link.run_all(&bodies).await?;
        let since = Instant::now();
        let mut claims = Pipeline::with_capacity(left.len());
        for one in left {
            // One that was deleted is no longer pending after it.
            let mut xclaim = self.xclaim(stream, &self.name, self.idle, [&*one.id]);
            xclaim.arg("RETRYCOUNT").arg(one.deliveries + 1);
            xclaim.arg("JUSTID");
            claims.add_command(xclaim);
        }
        let claimed = self.link.run_all(&claims).await?;
        let is_mine = |one: &Pending, claimed: Value| {
            let claimed = array(claimed);
            claimed.first().is_some_and(|id| text(id) == *one.id)
        };
        let (mut entries, mut bytes) = (Vec::with_capacity(left.len()), 0);
        for ((one, body), claimed) in left.iter().zip(bodies).zip(claimed) {
            let found = array(body).into_iter().next();
            let read = |entry| self.link.form.read(&stream.channel, entry);
            let Some(found) = found.and_then(read) else {
                continue;
            };
            bytes += found.body.len();
            if is_mine(one, claimed) {
                entries.push((found, one.deliveries + 1));
            }
        }
        let count = entries.len();
        self.hold(at, entries, since).await?;
        Ok((count, bytes))
    }

    /// Holds messages that were read or claimed at `since`, each with which try it is.
    pub(super) async fn hold(
        &self,
        at: usize,
        entries: impl IntoIterator<Item = (Entry, u32)>,
        since: Instant,
    ) -> Result<(), Failed> {
        let mut for_others = Vec::new();
        {
            let mut holding = lock(&self.holding);
            for (entry, attempt) in entries {
                if entry.only.is_some_and(|only| only != self.group.as_str()) {
                    for_others.push(entry.id);
                } else {
                    holding.add((at, entry.id), entry.body, attempt, (), since);
                }
            }
        }
        if let (Some(stream), false) = (self.streams.get(at), for_others.is_empty()) {
            let mut xack = redis::cmd("XACK");
            xack.arg(&*stream.key).arg(self.group.as_str());
            for id in &for_others {
                xack.arg(&**id);
            }
            self.link.run(&xack).await?;
            stream.is_to_trim.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}
