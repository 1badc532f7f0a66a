//! The states that are kept at hand: a hint only, because each append is checked against the log.

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tidelog_domain::{Decider, EventId, Loading, Payload, Position, State, StreamId, Version};

use super::batch::guarded;
use super::load::payload_bytes;

/// About how many bytes an entry takes besides its state.
const ENTRY_BYTES: u32 = 512;

/// How many times the bytes of its JSON a state is taken to need.
const STATE_FACTOR: u32 = 4;

/// What is known of a stream. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// Its version.
    pub(super) version: Version,
    /// The position of its last event.
    pub(super) position: Position,
    /// The id of that event.
    pub(super) last: Option<EventId>,
    /// Its state.
    pub(super) state: State,
    /// About how many bytes its state has as JSON: see [`Held::weigh`].
    pub(super) bytes: u32,
}

impl Held {
    /// A stream without events.
    pub(super) fn nothing(decider: &dyn Decider) -> Self {
        Self {
            version: Version::NONE,
            position: Position::START,
            last: None,
            state: decider.initial(),
            bytes: 0,
        }
    }

    /// Another event, of this payload, is in the state now.
    ///
    /// A state that each event carries whole is about as large as the largest of them. Any other is measured each time that the
    /// stream has doubled, so that measuring costs less than folding, and what grows with its events is never far off.
    pub(super) fn weigh(&mut self, decider: &dyn Decider, payload: &Payload) {
        match decider.loading() {
            Loading::LastEvent => self.bytes = self.bytes.max(payload_bytes(payload)),
            Loading::AllEvents if self.version.number().is_power_of_two() => {
                let shown = guarded(|| decider.show(&self.state).to_string().len());
                self.bytes = shown.map_or(self.bytes, |length| {
                    u32::try_from(length).unwrap_or(u32::MAX)
                });
            }
            Loading::AllEvents => {}
        }
    }

    /// About how many bytes it takes.
    fn weight(&self) -> u32 {
        self.bytes
            .saturating_mul(STATE_FACTOR)
            .saturating_add(ENTRY_BYTES)
    }
}

/// The last known state of the streams that were used last, shared by all lanes.
#[derive(Clone, Debug)]
pub(super) struct StateCache(Cache<StreamId, Held>);

impl StateCache {
    pub(super) fn new(max_bytes: u64) -> Self {
        let cache = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|_, held: &Held| held.weight())
            // What was just created is likely to be changed next, however rarely it was used until now.
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self(cache)
    }

    pub(super) fn get(&self, stream: &StreamId) -> Option<Held> {
        self.0.get(stream)
    }

    /// Keeps a state that was read from the log, or committed to it.
    pub(super) fn keep(&self, stream: StreamId, held: Held) {
        self.0.insert(stream, held);
    }

    /// Forgets a state that turned out to be old, or may be.
    pub(super) fn forget(&self, stream: &StreamId) {
        self.0.invalidate(stream);
    }

    /// Forgets all: the log is not what it was.
    pub(super) fn forget_all(&self) {
        self.0.invalidate_all();
    }
}
