//! The port of the message bus.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::error::MessageBusError;
use super::names::{Channel, Group};

/// A message bus: channels that keep messages until every group has handled them, groups that share them out, and inboxes for replies.
///
/// What goes over it are bytes: the [wire form](super). A message that [`MessageBus::publish`] has taken MUST reach each group of its
/// channel at least once, those that are made later too as far as the channel still has it, whatever process dies in the middle. Every
/// engine passes the same conformance suite (the feature `conformance`).
#[async_trait]
pub trait MessageBus: Send + Sync {
    /// The largest message that it takes, in bytes.
    fn max_message_bytes(&self) -> usize;

    /// Puts messages on `channel`, in order, durably, and says where each is. What was begun later, while an earlier call was under way, comes after
    /// it; where either fails there is no such order.
    ///
    /// # Errors
    ///
    /// [`MessageBusError`], after which any of them may be there.
    async fn publish(
        &self,
        channel: &Channel,
        messages: &[Vec<u8>],
    ) -> Result<Vec<EntryId>, MessageBusError>;

    /// Puts a request on `channel`, where a group has joined it.
    ///
    /// # Errors
    ///
    /// [`MessageBusError::NoGroup`] where none ever has, and then nothing MUST be left behind; the others, after which it may be there.
    async fn request(&self, channel: &Channel, message: &[u8]) -> Result<EntryId, MessageBusError>;

    /// Takes requests away that nobody waits for any more. One that is being handled meanwhile goes on.
    ///
    /// # Errors
    ///
    /// [`MessageBusError`], after which some may be there still.
    async fn withdraw(&self, channel: &Channel, entries: &[EntryId])
    -> Result<(), MessageBusError>;

    /// Makes an inbox for replies.
    ///
    /// # Errors
    ///
    /// [`MessageBusError`].
    async fn inbox(&self) -> Result<Arc<dyn Inbox>, MessageBusError>;

    /// Puts replies into the inbox at `address`, in order. Whether it is there still, as far as the engine can tell; into one that is
    /// not, nothing MUST be put.
    ///
    /// # Errors
    ///
    /// [`MessageBusError`], after which any of them may be there.
    async fn answer(&self, address: &str, replies: &[Vec<u8>]) -> Result<bool, MessageBusError>;

    /// Has a consumer join `group` on `channels`, which are made where they are not there. A group that is new begins with the
    /// first message that each channel has. What a consumer holds and has not shown life about for `idle` goes to others.
    ///
    /// # Errors
    ///
    /// [`MessageBusError`].
    async fn join(
        &self,
        group: &Group,
        channels: &[Channel],
        idle: Duration,
    ) -> Result<Arc<dyn Consumer>, MessageBusError>;

    /// The dead letters of `group` on `channel`, oldest first, those after `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`MessageBusError`].
    async fn dead_letters(
        &self,
        group: &Group,
        channel: &Channel,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<DeadEntry>, MessageBusError>;

    /// Puts a dead letter back on its channel, for this group alone, as if it had never been tried; whether it was there. Of several who do so
    /// at once, one finds it there.
    ///
    /// # Errors
    ///
    /// [`MessageBusError`], after which it may be back.
    async fn retry_dead(
        &self,
        group: &Group,
        channel: &Channel,
        entry: &EntryId,
    ) -> Result<bool, MessageBusError>;

    /// Throws a dead letter away; whether it was there.
    ///
    /// # Errors
    ///
    /// [`MessageBusError`], after which it may be gone.
    async fn discard_dead(
        &self,
        group: &Group,
        channel: &Channel,
        entry: &EntryId,
    ) -> Result<bool, MessageBusError>;
}

/// Where the replies to one requester come in.
#[async_trait]
pub trait Inbox: Send + Sync {
    /// What workers reach it by.
    fn address(&self) -> &str;

    /// Waits for replies, for a while that the engine chooses, and gives those that are there, each once, in the order in which they
    /// came. Called by one task, in a loop: between the calls the engine keeps the inbox alive, and throws away what was given.
    ///
    /// # Errors
    ///
    /// [`MessageBusError`]; the next call connects again.
    async fn next(&self) -> Result<Vec<Vec<u8>>, MessageBusError>;

    /// Removes it.
    ///
    /// # Errors
    ///
    /// [`MessageBusError`]; then it goes by itself, after a while.
    async fn close(&self) -> Result<(), MessageBusError>;
}

/// A member of a group.
///
/// It holds each message that it has taken until it is settled. The engine remembers what is held, and keeps it from going to others
/// for as long as [`Consumer::tend`] is called.
#[async_trait]
pub trait Consumer: Send + Sync {
    /// Waits at most `wait` for messages, and takes about `limit` of them (more only where the engine can ask for no fewer): what is
    /// new, what is to be tried again by now, and what others left behind. It MUST give out nothing that came so long ago that others may have it.
    /// Called by one task. A call that is dropped MUST lose nothing.
    ///
    /// # Errors
    ///
    /// [`MessageBusError`]; the next call connects, and joins, again.
    async fn take(&self, limit: usize, wait: Duration) -> Result<Vec<Delivery>, MessageBusError>;

    /// Says what became of a message. It is then no longer held, unless it failed or is to be tried again here. To settle one that went
    /// to another meanwhile is no error, and MUST not take it from there.
    ///
    /// # Errors
    ///
    /// [`MessageBusError`]: settle it again.
    async fn settle(&self, taken: &Taken, outcome: Settlement<'_>) -> Result<(), MessageBusError>;

    /// Does what is to be done now and then, and is called about once a second: show life about what is held, throw away what every
    /// group has handled.
    ///
    /// # Errors
    ///
    /// [`MessageBusError`]; it is called again.
    async fn tend(&self) -> Result<(), MessageBusError>;

    /// Takes no more, and gives back to the group, at once, what its worker is not at: what was taken in and not handed out, what waits to be
    /// tried again, and `unbegun`, which was handed out. A try that was not begun does not count. The rest is held on, tended and settled as ever.
    ///
    /// # Errors
    ///
    /// [`MessageBusError`]; then [`Consumer::close`] gives it back.
    async fn stop_taking(&self, unbegun: &[Taken]) -> Result<(), MessageBusError>;

    /// Gives what is held back to the group, at once, without counting the try that was cut off, and leaves. Nothing is taken after it.
    ///
    /// # Errors
    ///
    /// [`MessageBusError`]; then what is held goes to others after the idle bound.
    async fn close(&self) -> Result<(), MessageBusError>;
}

/// Where a message is on its channel, in the engine's words.
pub type EntryId = Arc<str>;

/// A message that a consumer holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Taken {
    /// Its channel.
    pub channel: Channel,
    /// Where it is there.
    pub entry: EntryId,
}

/// A message that was taken.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What it is settled by.
    pub taken: Taken,
    /// Its bytes.
    pub body: Arc<[u8]>,
    /// Which try this is, from 1. A try whose worker died counts; one that was [not counted](Settlement::Retry) does not.
    pub attempt: u32,
    /// How often it was tried, at least, uncounted tries included. For back-off.
    pub tries: u32,
    /// For how long it has been on the bus, by the bus' clock.
    pub age: Duration,
}

/// What became of a message.
#[derive(Clone, Debug)]
pub enum Settlement<'a> {
    /// It was handled: the group has no more to do with it.
    Done {
        /// The last reply, which is put into the inbox of this address before or with it. Where the bus refuses it, for want of room or
        /// because there is no such address, the message MUST be settled all the same: a sender names what it likes.
        reply: Option<(&'a str, &'a [u8])>,
        /// Whether it is taken off the channel for the other groups too: a request, which is answered once.
        remove: bool,
    },
    /// It is to be tried again.
    Retry {
        /// When.
        after: Duration,
        /// Whether this try counts.
        counted: bool,
    },
    /// It becomes a dead letter of the group, in one step with being settled, or so that who gets it next finds it dead and passes it over.
    Dead {
        /// Why.
        error: &'a str,
        /// After how many tries.
        attempts: u32,
    },
}

/// A dead letter, as the bus has it.
#[derive(Clone, Debug)]
pub struct DeadEntry {
    /// Where it is.
    pub entry: EntryId,
    /// The message's bytes.
    pub body: Arc<[u8]>,
    /// Why it is dead.
    pub error: String,
    /// After how many tries.
    pub attempts: u32,
    /// Since when: milliseconds since 1970, by the bus' clock.
    pub since_ms: u64,
}
