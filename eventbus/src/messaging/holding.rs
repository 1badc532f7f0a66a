//! What a consumer holds: what it has read and not given to its worker yet, what its worker is at, and what waits to be tried again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::messaging::bus::{Delivery, EntryId, Taken};
use crate::messaging::names::Channel;

/// How many failed messages a consumer keeps for another try: beyond it, it takes nothing new.
pub(super) const MAX_WAITING: usize = 1_000;

/// A message that is held: the number of its channel, and its entry.
pub(super) type Key = (usize, EntryId);

pub(super) struct Held<T = ()> {
    pub(super) body: Arc<[u8]>,
    /// What the engine needs to know of it besides.
    #[cfg_attr(not(feature = "nats"), expect(dead_code, reason = "Redis has none"))]
    pub(super) tag: T,
    pub(super) attempt: u32,
    pub(super) tries: u32,
    /// When the engine was shown life about it last.
    pub(super) alive: Instant,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It was read.
    Ready,
    /// The worker has it.
    Running,
    /// It failed, and waits. Whether the try counts.
    Waiting { due: Instant, counted: bool },
}

pub(super) struct Holding<T = ()> {
    held: HashMap<Key, Held<T>>,
    ready: VecDeque<Key>,
    waiting: BTreeSet<(Instant, Key)>,
}

impl<T> Default for Holding<T> {
    fn default() -> Self {
        Self {
            held: HashMap::new(),
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
        }
    }
}

impl<T> Holding<T> {
    #[cfg(feature = "redis")]
    pub(super) fn has(&self, key: &Key) -> bool {
        self.held.contains_key(key)
    }

    /// A message was read, at `since` at the earliest.
    pub(super) fn add(&mut self, key: Key, body: Arc<[u8]>, attempt: u32, tag: T, since: Instant) {
        let held = Held {
            body,
            tag,
            attempt,
            tries: attempt.saturating_sub(1),
            alive: since,
            state: State::Ready,
        };
        self.ready.push_back(key.clone());
        self.held.insert(key, held);
    }

    /// How many messages there are for the worker, about.
    #[cfg(feature = "nats")]
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// What was read, and may have gone to others before the worker began with it.
    pub(super) fn late(&self, idle: Duration) -> Vec<Key> {
        let is_late = |key: &&Key| {
            let held = self.held.get(*key);
            held.is_some_and(|held| held.state == State::Ready && held.alive.elapsed() >= idle)
        };
        self.ready.iter().filter(is_late).cloned().collect()
    }

    /// Up to `limit` messages for the worker, each with the channel that its number is of, and its age.
    pub(super) fn hand_out<'c>(
        &mut self,
        limit: usize,
        channel: impl Fn(usize) -> Option<&'c Channel>,
        age: impl Fn(&EntryId, &Held<T>) -> Duration,
    ) -> Vec<Delivery> {
        let mut ready = Vec::new();
        while ready.len() < limit
            && let Some(((at, entry), held)) = self.start()
        {
            if let Some(channel) = channel(at) {
                ready.push(Delivery {
                    body: Arc::clone(&held.body),
                    attempt: held.attempt,
                    tries: held.tries,
                    age: age(&entry, held),
                    taken: Taken {
                        channel: channel.clone(),
                        entry,
                    },
                });
            }
        }
        ready
    }

    /// The next message for the worker.
    fn start(&mut self) -> Option<(Key, &Held<T>)> {
        loop {
            let key = self.ready.pop_front()?;
            // It may have been let go since, and taken again, even.
            let is_ready = |held: &Held<T>| held.state == State::Ready;
            if self.held.get(&key).is_some_and(is_ready) {
                let held = self.held.get_mut(&key)?;
                held.state = State::Running;
                held.tries += 1;
                return Some((key, held));
            }
        }
    }

    /// It is to be tried again.
    pub(super) fn put_off(&mut self, key: &Key, after: Duration, counted: bool) {
        if let Some(held) = self.held.get_mut(key) {
            let due = Instant::now() + after;
            held.state = State::Waiting { due, counted };
            self.waiting.insert((due, key.clone()));
        }
    }

    /// How many messages wait to be tried again.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// When the next of them is due. Of those that others may have by now it has to be asked first whose they are.
    pub(super) fn next_due(&self, idle: Duration) -> Option<Instant> {
        let mut mine = self
            .waiting
            .iter()
            .filter(|(_, key)| self.is_mine(key, idle));
        mine.next().map(|(due, _)| *due)
    }

    /// Those that are due, and which try each would be, at most `limit`.
    pub(super) fn due(&self, limit: usize, idle: Duration) -> Vec<(Key, u32)> {
        let now = Instant::now();
        let due = self.waiting.iter().take_while(|(due, _)| *due <= now);
        due.filter(|(_, key)| self.is_mine(key, idle))
            .take(limit)
            .filter_map(|(_, key)| {
                let held = self.held.get(key)?;
                let counts = matches!(held.state, State::Waiting { counted: true, .. });
                Some((key.clone(), held.attempt + u32::from(counts)))
            })
            .collect()
    }

    /// Its worker had these and has not begun with them: it is not at them from now on.
    pub(super) fn unbegun(&mut self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            if let Some(held) = self.held.get_mut(&key)
                && held.state == State::Running
            {
                held.state = State::Ready;
            }
        }
    }

    /// Those that its worker is not at.
    #[cfg(feature = "nats")]
    pub(super) fn not_running(&self) -> Vec<Key> {
        let rest = self.held.iter();
        rest.filter(|(_, held)| held.state != State::Running)
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// It is tried again now.
    pub(super) fn resume(&mut self, key: &Key, attempt: u32) {
        if let Some(held) = self.held.get_mut(key)
            && let State::Waiting { due, .. } = held.state
        {
            held.state = State::Ready;
            held.attempt = attempt;
            held.alive = Instant::now();
            self.waiting.remove(&(due, key.clone()));
            self.ready.push_back(key.clone());
        }
    }

    /// Nothing is held any longer.
    #[cfg(feature = "redis")]
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// It is held no longer.
    pub(super) fn let_go(&mut self, key: &Key) {
        if let Some(held) = self.held.remove(key)
            && let State::Waiting { due, .. } = held.state
        {
            self.waiting.remove(&(due, key.clone()));
        }
    }

    /// Whether it is held, and others cannot have taken it meanwhile.
    pub(super) fn is_mine(&self, key: &Key, idle: Duration) -> bool {
        let held = self.held.get(key);
        held.is_some_and(|held| held.alive.elapsed() < idle)
    }

    /// What was not shown life about for `age`, and whether that is longer than `idle`.
    pub(super) fn silent(&self, age: Duration, idle: Duration) -> Vec<(Key, bool)> {
        let silent = self.held.iter().filter_map(|(key, held)| {
            let silent = held.alive.elapsed();
            (silent >= age).then(|| (key.clone(), silent >= idle))
        });
        silent.collect()
    }

    /// The engine was shown life about it, at `when`.
    pub(super) fn alive(&mut self, key: &Key, when: Instant) {
        if let Some(held) = self.held.get_mut(key) {
            held.alive = when;
        }
    }

    /// What is held.
    #[cfg(feature = "nats")]
    pub(super) fn get(&self, key: &Key) -> Option<&Held<T>> {
        self.held.get(key)
    }

    /// All that is held.
    #[cfg(feature = "nats")]
    pub(super) fn keys(&self) -> Vec<Key> {
        self.held.keys().cloned().collect()
    }

    /// It came once more while its worker is at it: it is ours again, by this tag.
    #[cfg(feature = "nats")]
    pub(super) fn renew(&mut self, key: &Key, tag: T, since: Instant) {
        if let Some(held) = self.held.get_mut(key) {
            held.tag = tag;
            held.alive = since;
        }
    }

    /// Its message.
    #[cfg(feature = "redis")]
    pub(super) fn body(&self, key: &Key) -> Option<Arc<[u8]>> {
        self.held.get(key).map(|held| Arc::clone(&held.body))
    }

    /// Whether its worker is at it.
    pub(super) fn is_running(&self, key: &Key) -> bool {
        let held = self.held.get(key);
        held.is_some_and(|held| held.state == State::Running)
    }

    /// How many tries of it are over: of one that waits, this one too.
    pub(super) fn tries_over(&self, key: &Key) -> Option<u32> {
        let held = self.held.get(key)?;
        Some(match held.state {
            State::Waiting { counted: true, .. } => held.attempt,
            _ => held.attempt.saturating_sub(1),
        })
    }
}
