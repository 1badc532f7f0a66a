//! The message bus within one process.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::bus::{Consumer, DeadEntry, Delivery, EntryId, Inbox, MessageBus, Settlement, Taken};
use super::error::MessageBusError;
use super::names::{Channel, Group};

/// How long an inbox waits at a time.
const INBOX_WAIT: Duration = Duration::from_secs(1);

/// A message bus in memory, for programs that are one process: what is on it is lost with the process.
#[derive(Default)]
pub struct InProcessMessageBus(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Changes whenever there may be something to take.
    changed: watch::Sender<()>,
    names: AtomicU64,
}

#[derive(Default)]
struct State {
    topics: HashMap<Channel, Topic>,
    inboxes: HashMap<String, mpsc::UnboundedSender<Vec<u8>>>,
    /// What all messages and dead letters take.
    bytes: usize,
}

/// What is on one channel. Entries are numbered from 1.
#[derive(Default)]
struct Topic {
    last: u64,
    entries: BTreeMap<u64, Entry>,
    groups: HashMap<Group, Members>,
}

struct Entry {
    body: Arc<[u8]>,
    since: Instant,
    /// The one group that it is for.
    only: Option<Group>,
}

/// A group on one channel.
#[derive(Default)]
struct Members {
    /// The last entry that was given out.
    cursor: u64,
    held: BTreeMap<u64, Held>,
    dead: BTreeMap<u64, DeadEntry>,
    last_dead: u64,
}

/// A message that a consumer holds.
struct Held {
    consumer: u64,
    attempt: u32,
    tries: u32,
    /// When the consumer showed life last; `None`: it was given back.
    alive: Option<Instant>,
    /// When it is to be tried again, and whether that counts.
    due: Option<(Instant, bool)>,
}

impl InProcessMessageBus {
    /// How many bytes of messages it keeps, at most: 256 MiB.
    pub const MAX_BYTES: usize = 256 * 1024 * 1024;

    /// A bus with nothing on it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and no state of it would be invalid if something did.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, channel: &Channel, body: Arc<[u8]>, only: Option<Group>) -> EntryId {
        self.bytes += body.len();
        let topic = self.topics.entry(channel.clone()).or_default();
        topic.last += 1;
        let since = Instant::now();
        topic
            .entries
            .insert(topic.last, Entry { body, since, only });
        entry_id(topic.last)
    }

    fn room_for(&self, bytes: usize) -> Result<(), MessageBusError> {
        if self.bytes + bytes > InProcessMessageBus::MAX_BYTES {
            let full = format!("{} bytes are the most", InProcessMessageBus::MAX_BYTES);
            return Err(MessageBusError::Full(full.into()));
        }
        Ok(())
    }

    fn remove(&mut self, channel: &Channel, number: u64) {
        if let Some(topic) = self.topics.get_mut(channel)
            && let Some(entry) = topic.entries.remove(&number)
        {
            self.bytes -= entry.body.len();
        }
    }

    /// Throws away what every group has handled.
    fn trim(&mut self, channel: &Channel) {
        let Some(topic) = self.topics.get_mut(channel) else {
            return;
        };
        let handled = |members: &Members| match members.held.first_key_value() {
            Some((first, _)) => first - 1,
            None => members.cursor,
        };
        let handled = topic.groups.values().map(handled).min().unwrap_or(0);
        while let Some(first) = topic.entries.first_entry() {
            if *first.key() > handled {
                return;
            }
            self.bytes -= first.remove().body.len();
        }
    }

    fn members(&mut self, channel: &Channel, group: &Group) -> Option<&mut Members> {
        self.topics.get_mut(channel)?.groups.get_mut(group)
    }
}

fn entry_id(number: u64) -> EntryId {
    number.to_string().into()
}

fn number(entry: &EntryId) -> u64 {
    entry.parse().unwrap_or_default()
}

#[async_trait]
impl MessageBus for InProcessMessageBus {
    fn max_message_bytes(&self) -> usize {
        usize::MAX
    }

    async fn publish(
        &self,
        channel: &Channel,
        messages: &[Vec<u8>],
    ) -> Result<Vec<EntryId>, MessageBusError> {
        let mut state = self.0.lock();
        state.room_for(messages.iter().map(Vec::len).sum())?;
        let add = |message: &Vec<u8>| state.add(channel, message.as_slice().into(), None);
        let entries = messages.iter().map(add).collect();
        drop(state);
        self.0.changed.send_replace(());
        Ok(entries)
    }

    async fn request(&self, channel: &Channel, message: &[u8]) -> Result<EntryId, MessageBusError> {
        let mut state = self.0.lock();
        let topic = state.topics.get(channel);
        if topic.is_none_or(|topic| topic.groups.is_empty()) {
            return Err(MessageBusError::NoGroup);
        }
        state.room_for(message.len())?;
        let entry = state.add(channel, message.into(), None);
        drop(state);
        self.0.changed.send_replace(());
        Ok(entry)
    }

    async fn withdraw(
        &self,
        channel: &Channel,
        entries: &[EntryId],
    ) -> Result<(), MessageBusError> {
        let mut state = self.0.lock();
        for entry in entries {
            state.remove(channel, number(entry));
        }
        Ok(())
    }

    async fn inbox(&self) -> Result<Arc<dyn Inbox>, MessageBusError> {
        let address = format!("inbox:{}", self.0.names.fetch_add(1, Ordering::Relaxed));
        let (replies, taken) = mpsc::unbounded_channel();
        self.0.lock().inboxes.insert(address.clone(), replies);
        Ok(Arc::new(InProcessInbox {
            address,
            shared: Arc::clone(&self.0),
            replies: tokio::sync::Mutex::new(taken),
        }))
    }

    async fn answer(&self, address: &str, replies: &[Vec<u8>]) -> Result<bool, MessageBusError> {
        Ok(self.0.lock().answer(address, replies))
    }

    async fn join(
        &self,
        group: &Group,
        channels: &[Channel],
        idle: Duration,
    ) -> Result<Arc<dyn Consumer>, MessageBusError> {
        let mut state = self.0.lock();
        for channel in channels {
            let topic = state.topics.entry(channel.clone()).or_default();
            topic.groups.entry(group.clone()).or_default();
        }
        Ok(Arc::new(InProcessConsumer {
            id: self.0.names.fetch_add(1, Ordering::Relaxed),
            shared: Arc::clone(&self.0),
            group: group.clone(),
            channels: channels.to_vec(),
            idle,
        }))
    }

    async fn dead_letters(
        &self,
        group: &Group,
        channel: &Channel,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<DeadEntry>, MessageBusError> {
        let mut state = self.0.lock();
        let Some(members) = state.members(channel, group) else {
            return Ok(Vec::new());
        };
        let after = (Bound::Excluded(after.map_or(0, number)), Bound::Unbounded);
        let dead = members.dead.range(after).take(limit);
        Ok(dead.map(|(_, dead)| dead.clone()).collect())
    }

    async fn retry_dead(
        &self,
        group: &Group,
        channel: &Channel,
        entry: &EntryId,
    ) -> Result<bool, MessageBusError> {
        let mut state = self.0.lock();
        let members = state.members(channel, group);
        let Some(dead) = members.and_then(|members| members.dead.remove(&number(entry))) else {
            return Ok(false);
        };
        state.bytes -= dead.body.len();
        state.add(channel, dead.body, Some(group.clone()));
        drop(state);
        self.0.changed.send_replace(());
        Ok(true)
    }

    async fn discard_dead(
        &self,
        group: &Group,
        channel: &Channel,
        entry: &EntryId,
    ) -> Result<bool, MessageBusError> {
        let mut state = self.0.lock();
        let members = state.members(channel, group);
        let dead = members.and_then(|members| members.dead.remove(&number(entry)));
        if let Some(dead) = &dead {
            state.bytes -= dead.body.len();
        }
        Ok(dead.is_some())
    }
}

impl State {
    fn answer(&self, address: &str, replies: &[Vec<u8>]) -> bool {
        let Some(inbox) = self.inboxes.get(address) else {
            return false;
        };
        replies
            .iter()
            .all(|reply| inbox.send(reply.clone()).is_ok())
    }
}

struct InProcessInbox {
    address: String,
    shared: Arc<Shared>,
    replies: tokio::sync::Mutex<mpsc::UnboundedReceiver<Vec<u8>>>,
}

#[async_trait]
impl Inbox for InProcessInbox {
    fn address(&self) -> &str {
        &self.address
    }

    async fn next(&self) -> Result<Vec<Vec<u8>>, MessageBusError> {
        let mut taken = Vec::new();
        let mut replies = self.replies.lock().await;
        let _nothing = timeout(INBOX_WAIT, replies.recv_many(&mut taken, 500)).await;
        Ok(taken)
    }

    async fn close(&self) -> Result<(), MessageBusError> {
        self.shared.lock().inboxes.remove(&self.address);
        Ok(())
    }
}

impl Drop for InProcessInbox {
    fn drop(&mut self) {
        self.shared.lock().inboxes.remove(&self.address);
    }
}

struct InProcessConsumer {
    id: u64,
    shared: Arc<Shared>,
    group: Group,
    channels: Vec<Channel>,
    idle: Duration,
}

impl InProcessConsumer {
    /// Does something about each message that this consumer holds and is alive about.
    fn each_held(&self, mut act: impl FnMut(&Channel, u64, &mut Held)) {
        let mut state = self.shared.lock();
        for channel in &self.channels {
            let members = state.members(channel, &self.group);
            let held = members.into_iter().flat_map(|members| &mut members.held);
            held.filter(|(_, held)| held.consumer == self.id && held.alive.is_some())
                .for_each(|(number, held)| act(channel, *number, held));
        }
    }

    /// What there is to take now, and when there is more that is held now.
    fn ready(&self, limit: usize) -> (Vec<Delivery>, Option<Instant>) {
        let mut state = self.shared.lock();
        let (mut taken, mut next) = (Vec::new(), None);
        for channel in &self.channels {
            let Some(topic) = state.topics.get_mut(channel) else {
                continue;
            };
            let (entries, groups) = (&topic.entries, &mut topic.groups);
            let Some(members) = groups.get_mut(&self.group) else {
                continue;
            };
            self.again(channel, entries, members, limit, &mut taken, &mut next);
            self.fresh(channel, entries, members, limit, &mut taken);
            state.trim(channel);
        }
        (taken, next)
    }

    /// Takes what is to be tried again by now, and what others left behind.
    fn again(
        &self,
        channel: &Channel,
        entries: &BTreeMap<u64, Entry>,
        members: &mut Members,
        limit: usize,
        taken: &mut Vec<Delivery>,
        next: &mut Option<Instant>,
    ) {
        let now = Instant::now();
        // A request that was taken back is not tried again.
        members
            .held
            .retain(|number, _| entries.contains_key(number));
        for (number, held) in &mut members.held {
            let (at, counted) = match (held.due, held.alive) {
                (Some((due, counted)), _) if held.consumer == self.id => (due, counted),
                (_, Some(alive)) => (alive + self.idle, true),
                (_, None) => (now, true),
            };
            if at > now || taken.len() >= limit {
                *next = Some(next.map_or(at, |next| next.min(at)));
                continue;
            }
            let Some(entry) = entries.get(number) else {
                continue;
            };
            held.consumer = self.id;
            held.attempt += u32::from(counted);
            held.tries += 1;
            held.alive = Some(now);
            held.due = None;
            taken.push(delivery(channel, *number, entry, held));
        }
    }

    /// Takes what is new.
    fn fresh(
        &self,
        channel: &Channel,
        entries: &BTreeMap<u64, Entry>,
        members: &mut Members,
        limit: usize,
        taken: &mut Vec<Delivery>,
    ) {
        let after = (Bound::Excluded(members.cursor), Bound::Unbounded);
        for (number, entry) in entries.range(after) {
            if taken.len() >= limit {
                return;
            }
            members.cursor = *number;
            if entry.only.as_ref().is_some_and(|only| *only != self.group) {
                continue;
            }
            let held = Held {
                consumer: self.id,
                attempt: 1,
                tries: 1,
                alive: Some(Instant::now()),
                due: None,
            };
            taken.push(delivery(channel, *number, entry, &held));
            members.held.insert(*number, held);
        }
    }
}

fn delivery(channel: &Channel, number: u64, entry: &Entry, held: &Held) -> Delivery {
    Delivery {
        taken: Taken {
            channel: channel.clone(),
            entry: entry_id(number),
        },
        body: Arc::clone(&entry.body),
        attempt: held.attempt,
        tries: held.tries,
        age: entry.since.elapsed(),
    }
}

#[async_trait]
impl Consumer for InProcessConsumer {
    async fn take(&self, limit: usize, wait: Duration) -> Result<Vec<Delivery>, MessageBusError> {
        let deadline = Instant::now() + wait;
        let mut changed = self.shared.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let (taken, next) = self.ready(limit.max(1));
            if !taken.is_empty() || Instant::now() >= deadline {
                return Ok(taken);
            }
            let until = next.map_or(deadline, |next| next.min(deadline));
            let _late = timeout_at(until, changed.changed()).await;
        }
    }

    async fn settle(&self, taken: &Taken, outcome: Settlement<'_>) -> Result<(), MessageBusError> {
        let mut state = self.shared.lock();
        let number = number(&taken.entry);
        let body = state
            .topics
            .get(&taken.channel)
            .and_then(|topic| topic.entries.get(&number))
            .map(|entry| Arc::clone(&entry.body));
        if let Settlement::Done {
            reply: Some((address, reply)),
            ..
        } = outcome
        {
            state.answer(address, &[reply.to_vec()]);
        }
        let Some(members) = state.members(&taken.channel, &self.group) else {
            return Ok(());
        };
        let Some(held) = members.held.get_mut(&number) else {
            return Ok(());
        };
        let is_mine = held.consumer == self.id;
        match outcome {
            Settlement::Done { remove, .. } => {
                members.held.remove(&number);
                if remove {
                    state.remove(&taken.channel, number);
                }
                state.trim(&taken.channel);
            }
            Settlement::Retry { after, counted } if is_mine => {
                held.due = Some((Instant::now() + after, counted));
                drop(state);
                self.shared.changed.send_replace(());
            }
            Settlement::Dead { error, attempts } if is_mine => {
                members.held.remove(&number);
                if let Some(body) = body {
                    let bytes = body.len();
                    members.bury(body, error, attempts);
                    state.bytes += bytes;
                }
                state.trim(&taken.channel);
            }
            // It went to another meanwhile.
            Settlement::Retry { .. } | Settlement::Dead { .. } => {}
        }
        Ok(())
    }

    async fn tend(&self) -> Result<(), MessageBusError> {
        let now = Instant::now();
        self.each_held(|_, _, held| held.alive = Some(now));
        Ok(())
    }

    async fn stop_taking(&self, unbegun: &[Taken]) -> Result<(), MessageBusError> {
        self.each_held(|channel, number, held| {
            let mut unbegun = unbegun.iter().filter(|taken| taken.channel == *channel);
            if held.due.is_some() || unbegun.any(|taken| self::number(&taken.entry) == number) {
                held.give_back();
            }
        });
        self.shared.changed.send_replace(());
        Ok(())
    }

    async fn close(&self) -> Result<(), MessageBusError> {
        self.each_held(|_, _, held| held.give_back());
        self.shared.changed.send_replace(());
        Ok(())
    }
}

impl Held {
    /// Anybody may take it. A try that was cut off does not count; one that had failed does.
    fn give_back(&mut self) {
        self.alive = None;
        let was_over = self.due.take().is_some_and(|(_, counted)| counted);
        self.attempt -= u32::from(!was_over);
    }
}

impl Members {
    fn bury(&mut self, body: Arc<[u8]>, error: &str, attempts: u32) {
        self.last_dead += 1;
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since_ms = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
        let dead = DeadEntry {
            entry: entry_id(self.last_dead),
            body,
            error: error.to_owned(),
            attempts,
            since_ms,
        };
        self.dead.insert(self.last_dead, dead);
    }
}

#[cfg(all(test, feature = "conformance"))]
mod tests {
    use super::*;
    use crate::messaging::conformance::MessageBusFactory;

    struct Factory;

    #[async_trait]
    impl MessageBusFactory for Factory {
        async fn bus(&self) -> Arc<dyn MessageBus> {
            Arc::new(InProcessMessageBus::new())
        }
    }

    crate::message_bus_conformance!(conformance, Factory);
}
