//! What a consumer does now and then, and at its end.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, sleep};

use super::consumer::{Lane, NatsConsumer};
use super::link::Failed;
use super::names;
use super::pulling::Pulls;
use crate::lock::lock;
use crate::messaging::bus::Taken;
use crate::messaging::holding::Key;

/// About how many messages something is said at once.
const AT_ONCE: usize = 64;

/// How many messages are thrown away one by one in one go.
const MAX_DELETES: u64 = 5_000;

/// How often the clock is asked for.
const CLOCK_INTERVAL: Duration = Duration::from_secs(60);

impl NatsConsumer {
    pub(super) async fn look_after(&self) -> Result<(), Failed> {
        // Whoever waits in it holds what comes himself.
        if let Ok(mut pulls) = self.pulls.try_lock() {
            self.drain(&mut pulls);
        }
        let mut shown = self.show_life().await;
        let mut tidied = pin!(self.tidy());
        loop {
            // That may take longer than what is held may be silent.
            tokio::select! {
                tidied = &mut tidied => return shown.and(tidied),
                () = sleep(self.idle / 4) => shown = shown.and(self.show_life().await),
            }
        }
    }

    /// Looks up what came, and throws away what is over.
    async fn tidy(&self) -> Result<(), Failed> {
        if let Ok(mut pulls) = self.pulls.try_lock() {
            self.look_up(&mut pulls).await?;
        }
        let is_late = self.clock.asked() >= CLOCK_INTERVAL;
        if let (true, Some(lane)) = (is_late, self.lanes.first()) {
            lane.is_to_trim.store(true, Ordering::Relaxed);
        }
        self.trim().await
    }

    /// Shows life about what is held.
    async fn show_life(&self) -> Result<(), Failed> {
        let mut alive = Vec::new();
        {
            let mut holding = lock(&self.holding);
            for (key, is_late) in holding.silent(self.idle / 4, self.idle) {
                // What is late went to others. Its worker may end it; it is not ours to be tried again.
                if !is_late {
                    let about = holding.get(&key).map(|held| Arc::clone(&held.tag.about));
                    alive.extend(about.map(|about| (key, about)));
                } else if !holding.is_running(&key) {
                    holding.let_go(&key);
                }
            }
        }
        let told = alive.into_iter().map(|(key, about)| async move {
            let when = Instant::now();
            match self.link.tell(&about, b"+WPI").await {
                Ok(()) => lock(&self.holding).alive(&key, when),
                Err(failed) if failed.is_missing() => {
                    if let Some(lane) = self.lanes.get(key.0) {
                        self.unless_lost(lane, failed).await?;
                    }
                    let mut holding = lock(&self.holding);
                    if !holding.is_running(&key) {
                        // It is lost: there is nothing to try.
                        holding.let_go(&key);
                    }
                }
                Err(failed) => return Err(failed),
            }
            Ok(())
        });
        self.all(told).await
    }

    /// Does all of it, some at once, and gives the first failure.
    async fn all<F>(&self, steps: impl Iterator<Item = F>) -> Result<(), Failed>
    where
        F: Future<Output = Result<(), Failed>>,
    {
        let mut steps = stream::iter(steps.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        let mut failed = None;
        while let Some(done) = steps.next().await {
            failed = failed.or(done.err());
        }
        failed.map_or(Ok(()), Err)
    }

    /// Throws away what every group has handled.
    async fn trim(&self) -> Result<(), Failed> {
        for lane in &self.lanes {
            if lane.is_to_trim.swap(false, Ordering::Relaxed) {
                let trimmed = self.trim_one(lane).await;
                trimmed.inspect_err(|_| lane.is_to_trim.store(true, Ordering::Relaxed))?;
            }
        }
        Ok(())
    }

    async fn trim_one(&self, lane: &Lane) -> Result<(), Failed> {
        let groups = match self.link.groups(&lane.stream).await {
            Err(failed) if failed.is_missing() => Vec::new(),
            groups => groups?,
        };
        let name = names::consumer(&self.group);
        let Some(own) = groups.iter().find(|group| group.name == name) else {
            return self.make_groups().await;
        };
        self.clock.set(own.clock());
        // What is before it was acknowledged by all, and that is for good.
        let settled = groups.iter().map(super::link::ConsumerInfo::settled).min();
        let settled = settled.unwrap_or(0);
        let Some(first) = self.link.first(&lane.stream).await? else {
            return Ok(());
        };
        if settled < first {
            return Ok(());
        }
        if groups.iter().all(super::link::ConsumerInfo::holds_nothing) {
            return self.link.purge(&lane.stream, settled).await;
        }
        let last = settled.min(first.saturating_add(MAX_DELETES));
        if last < settled {
            lane.is_to_trim.store(true, Ordering::Relaxed);
        }
        let deletes = (first..=last).map(|one| self.link.delete_any(&lane.stream, one));
        self.all(deletes).await
    }

    /// Pulls no more, and gives back what its worker is not at.
    pub(super) async fn stop_pulling(&self, unbegun: &[Taken]) -> Result<(), Failed> {
        let mut pulls = self.pulls.lock().await;
        let finished = self.finish_pulls(&mut pulls).await;
        let unbegun = unbegun.iter().filter_map(|taken| self.key_of(taken));
        let keys = {
            let mut holding = lock(&self.holding);
            holding.unbegun(unbegun.map(|(key, _)| key));
            holding.not_running()
        };
        let given = self.all(keys.iter().map(|key| self.give_back(key))).await;
        finished?;
        // Else what is to be looked up still is given back at the end.
        *pulls = Pulls::new();
        given
    }

    /// Gives back what is held, and what was on its way here.
    pub(super) async fn leave(&self) -> Result<(), Failed> {
        let mut pulls = self.pulls.lock().await;
        let finished = self.finish_pulls(&mut pulls).await;
        let keys = lock(&self.holding).keys();
        let given = self.all(keys.iter().map(|key| self.give_back(key))).await;
        *pulls = Pulls::new();
        drop(pulls);
        finished.and(given)?;
        self.trim().await
    }

    /// Gives a message back. A try that was cut off does not count; one that had failed does.
    async fn give_back(&self, key: &Key) -> Result<(), Failed> {
        let held = {
            let holding = lock(&self.holding);
            holding
                .get(key)
                .map(|held| held.tag.clone())
                .zip(holding.tries_over(key))
        };
        let (Some((tag, tries)), Some(lane)) = (held, self.lanes.get(key.0)) else {
            return Ok(());
        };
        if lock(&self.holding).is_mine(key, self.idle) {
            let uncounted = tag.delivered.saturating_sub(tries);
            if uncounted != tag.uncounted {
                let names = &self.link.names;
                let message = tag.identity(&key.1);
                let subject = names.tries(&self.group, message, &lane.channel);
                self.link.uncount(subject, uncounted).await?;
            }
            match self.link.tell(&tag.about, b"-NAK").await {
                Err(failed) if failed.is_missing() => {}
                told => told?,
            }
        }
        lock(&self.holding).let_go(key);
        Ok(())
    }
}
