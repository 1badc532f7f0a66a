//! Who waits for replies: one inbox for all requests of a [`Messaging`](super::Messaging).
//!
//! A request is registered before it is put on the bus, and its guard ([`Sending`]) takes both back, whichever way its caller goes: a
//! caller that goes while the bus is being asked leaves a task behind that waits for the answer, to know what to take back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::value::RawValue;
use tidelog_domain::causes;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bus::{EntryId, Inbox, MessageBus};
use super::envelope::{self, Reply};
use super::error::{MessageBusError, SendError};
use super::names::{Channel, MessageId};
use super::values::MAX_VALUES;
use crate::backoff::Backoff;

/// How many requests wait to be taken back, at most: beyond it they are left to the workers, who throw away what has expired.
const MAX_WITHDRAWALS: usize = 65_536;

/// How many requests are taken back in one go.
const WITHDRAW_AT_ONCE: usize = 500;

/// How often taking back is tried before it is left to the workers.
const WITHDRAW_TRIES: u32 = 8;

/// How many bytes of requests go on being put on the bus whose callers are gone, so that they can be taken back: beyond it, what comes of one
/// is left to the workers.
const MAX_LEFT_BYTES: usize = 32 * 1024 * 1024;

const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

pub(super) type Value = Result<Box<RawValue>, SendError>;

/// What waits for the replies to one request.
enum Waiter {
    One(oneshot::Sender<Value>),
    Several {
        values: mpsc::Sender<Value>,
        next: u32,
    },
}

#[derive(Default)]
pub(super) struct Waiting(Mutex<HashMap<MessageId, Waiter>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<MessageId, Waiter>> {
        // Nothing panics while it is held, and no state of it would be invalid if something did.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a reply to who waits for it. One that nobody waits for is of a caller who is gone.
    fn give(&self, reply: Reply) {
        let Ok(id) = MessageId::new(&reply.request) else {
            return;
        };
        let mut waiting = self.lock();
        match waiting.get_mut(&id) {
            None => {}
            Some(Waiter::One(_)) => {
                if let Some(Waiter::One(caller)) = waiting.remove(&id) {
                    let value = reply
                        .content
                        .map(|value| value.unwrap_or(RawValue::NULL.to_owned()));
                    let _gone = caller.send(value.map_err(SendError::Refused));
                }
            }
            Some(Waiter::Several { values, next }) => {
                let mut is_last = reply.last || reply.content.is_err();
                let is_next = reply.sequence == *next;
                if !is_next && !is_last {
                    // A worker that died was at it before: it was here already.
                    return;
                }
                let came = next.saturating_sub(1);
                *next = next.saturating_add(1);
                let content = match reply.content {
                    // The try after that ends otherwise.
                    Ok(_) if !is_next => Err(SendError::CutShort { came }),
                    content => content.map_err(SendError::Refused),
                };
                if let Some(mut value) = content.transpose() {
                    // The last place is for saying that there is none.
                    if values.capacity() <= 1 {
                        value = Err(SendError::TooSlow { max: MAX_VALUES });
                        is_last = true;
                    }
                    is_last |= values.try_send(value).is_err();
                }
                if is_last {
                    waiting.remove(&id);
                }
            }
        }
    }
}

/// The one who waits for replies.
pub(super) struct Requester {
    inbox: Arc<dyn Inbox>,
    waiting: Arc<Waiting>,
    withdrawals: mpsc::Sender<(Channel, EntryId)>,
    left: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Requester {
    /// Makes an inbox, and looks after it until `stop`.
    pub(super) async fn start(
        bus: &Arc<dyn MessageBus>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, MessageBusError> {
        let inbox = bus.inbox().await?;
        let waiting = Arc::new(Waiting::default());
        tasks.spawn(receive(
            Arc::clone(&inbox),
            Arc::clone(&waiting),
            stop.clone(),
        ));
        let (withdrawals, to_withdraw) = mpsc::channel(MAX_WITHDRAWALS);
        tasks.spawn(withdraw(Arc::clone(bus), to_withdraw, stop.clone()));
        Ok(Self {
            inbox,
            waiting,
            withdrawals,
            left: Arc::new(Semaphore::new(MAX_LEFT_BYTES)),
            stop: stop.clone(),
        })
    }

    /// What workers reach it by.
    pub(super) fn address(&self) -> &str {
        self.inbox.address()
    }

    /// Waits for the one reply to the request `id`.
    pub(super) fn expect_one(
        self: &Arc<Self>,
        id: &MessageId,
    ) -> Result<(Expected, oneshot::Receiver<Value>), SendError> {
        let (caller, reply) = oneshot::channel();
        Ok((self.expect(id, Waiter::One(caller))?, reply))
    }

    /// Waits for the several replies to the request `id`.
    pub(super) fn expect_several(
        self: &Arc<Self>,
        id: &MessageId,
    ) -> Result<(Expected, mpsc::Receiver<Value>), SendError> {
        let (values, taken) = mpsc::channel(MAX_VALUES + 1);
        Ok((self.expect(id, Waiter::Several { values, next: 1 })?, taken))
    }

    fn expect(self: &Arc<Self>, id: &MessageId, waiter: Waiter) -> Result<Expected, SendError> {
        let mut waiting = self.waiting.lock();
        // Whoever is in before the stop is told of it.
        if self.stop.is_cancelled() {
            return Err(SendError::Closed);
        }
        if waiting.contains_key(id) {
            return Err(SendError::DuplicateId);
        }
        waiting.insert(id.clone(), waiter);
        Ok(Expected {
            requester: Arc::clone(self),
            id: id.clone(),
        })
    }
}

/// Replies to a request are waited for, until it is dropped.
pub(super) struct Expected {
    requester: Arc<Requester>,
    id: MessageId,
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.requester.waiting.lock().remove(&self.id);
    }
}

/// How far a request has come.
enum Put {
    Going(BoxFuture<'static, Result<EntryId, MessageBusError>>),
    There(EntryId),
    Over,
}

/// A request on its way, which is taken back when this is dropped before it is answered.
pub(super) struct Sending {
    expected: Expected,
    channel: Channel,
    bytes: usize,
    put: Put,
}

impl Sending {
    pub(super) fn new(
        expected: Expected,
        bus: &Arc<dyn MessageBus>,
        channel: Channel,
        message: Vec<u8>,
    ) -> Self {
        let (bus, to, bytes) = (Arc::clone(bus), channel.clone(), message.len());
        let going = async move { bus.request(&to, &message).await };
        Self {
            expected,
            channel,
            bytes,
            put: Put::Going(going.boxed()),
        }
    }

    /// Puts it on the bus.
    pub(super) async fn put(&mut self) -> Result<(), SendError> {
        let Put::Going(going) = &mut self.put else {
            return Ok(());
        };
        let put = going.await;
        self.put = Put::Over;
        match put {
            Ok(entry) => {
                self.put = Put::There(entry);
                Ok(())
            }
            Err(MessageBusError::NoGroup) => Err(SendError::UnknownSubject {
                subject: self.channel.to_string(),
            }),
            Err(MessageBusError::TooLarge { bytes, max }) => {
                Err(SendError::TooLarge { bytes, max })
            }
            Err(error) => Err(SendError::Bus(error)),
        }
    }

    /// Its reply is here: the worker has taken it off the bus.
    pub(super) fn is_answered(&mut self) {
        self.put = Put::Over;
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let requester = &self.expected.requester;
        let withdrawals = &requester.withdrawals;
        match std::mem::replace(&mut self.put, Put::Over) {
            Put::Over => {}
            // Where there is no room, or nobody who does it, the workers throw it away when it has expired.
            Put::There(entry) => {
                let _left = withdrawals.try_send((self.channel.clone(), entry));
            }
            Put::Going(going) => {
                let (withdrawals, channel) = (withdrawals.clone(), self.channel.clone());
                let bytes = u32::try_from(self.bytes).unwrap_or(u32::MAX);
                let room = Arc::clone(&requester.left).try_acquire_many_owned(bytes);
                if let (Ok(room), Ok(runtime)) = (room, tokio::runtime::Handle::try_current()) {
                    runtime.spawn(async move {
                        let _room = room;
                        if let Ok(entry) = going.await {
                            let _left = withdrawals.try_send((channel, entry));
                        }
                    });
                }
            }
        }
    }
}

/// Gives replies to those who wait for them.
async fn receive(inbox: Arc<dyn Inbox>, waiting: Arc<Waiting>, stop: CancellationToken) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let received = async {
        loop {
            match inbox.next().await {
                Ok(replies) => {
                    backoff.reset();
                    for text in replies {
                        match envelope::decode_reply(&text) {
                            Ok(reply) => waiting.give(reply),
                            Err(error) => {
                                tracing::warn!(
                                    error = causes(&error),
                                    "a reply cannot be understood"
                                );
                            }
                        }
                    }
                }
                Err(error) => {
                    let wait = backoff.next_wait();
                    tracing::warn!(error = causes(&error), ?wait, "replies cannot be read");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    };
    stop.run_until_cancelled(received).await;
    for (_, waiter) in waiting.lock().drain() {
        // Who waits for one reply learns it by having nobody to wait for.
        if let Waiter::Several { values, .. } = waiter {
            let _full = values.try_send(Err(SendError::Closed));
        }
    }
    if let Err(error) = inbox.close().await {
        tracing::info!(
            error = causes(&error),
            "the inbox for replies is left to expire"
        );
    }
}

/// Takes requests back that nobody waits for.
async fn withdraw(
    bus: Arc<dyn MessageBus>,
    mut requests: mpsc::Receiver<(Channel, EntryId)>,
    stop: CancellationToken,
) {
    let mut taken = Vec::new();
    loop {
        if stop
            .run_until_cancelled(requests.recv_many(&mut taken, WITHDRAW_AT_ONCE))
            .await
            .is_none()
        {
            requests.close();
            requests.recv_many(&mut taken, WITHDRAW_AT_ONCE).await;
        }
        if taken.is_empty() {
            return;
        }
        let mut by_channel: HashMap<Channel, Vec<EntryId>> = HashMap::new();
        for (channel, entry) in taken.drain(..) {
            by_channel.entry(channel).or_default().push(entry);
        }
        for (channel, entries) in by_channel {
            let is_there = withdraw_from(&*bus, &channel, &entries, &stop).await;
            if !is_there && stop.is_cancelled() {
                // A close does not wait for a bus that does not answer.
                return;
            }
        }
    }
}

/// Takes requests of one channel back; whether the bus did.
async fn withdraw_from(
    bus: &dyn MessageBus,
    channel: &Channel,
    entries: &[EntryId],
    stop: &CancellationToken,
) -> bool {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    while let Err(error) = bus.withdraw(channel, entries).await {
        let wait = backoff.next_wait();
        if backoff.attempts() >= WITHDRAW_TRIES || stop.is_cancelled() {
            tracing::info!(
                %channel, requests = entries.len(), error = causes(&error),
                "requests that nobody waits for are left to the workers"
            );
            return false;
        }
        tokio::time::sleep(wait).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::bus::{Consumer, DeadEntry};
    use crate::messaging::error::ReplyError;
    use crate::messaging::in_process::InProcessMessageBus;
    use crate::messaging::names::{Group, Subject};

    type Content = Result<Option<u32>, ReplyError>;

    /// What a caller of several values has when these replies come: the first two are of a try that was cut off.
    async fn came(later: &[(u32, bool, Content)]) -> Vec<Value> {
        let (waiting, id) = (Waiting::default(), MessageId::unique());
        let (values, mut taken) = mpsc::channel(MAX_VALUES + 1);
        let waiter = Waiter::Several { values, next: 1 };
        waiting.lock().insert(id.clone(), waiter);
        let first = [(1, false, Ok(Some(1))), (2, false, Ok(Some(2)))];
        for (sequence, last, content) in first.iter().chain(later).cloned() {
            let value = |number: u32| serde_json::value::to_raw_value(&number).unwrap();
            waiting.give(Reply {
                request: id.as_str().to_owned(),
                sequence,
                last,
                content: content.map(|number| number.map(value)),
            });
        }
        assert!(waiting.lock().is_empty(), "it is over");
        let mut came = Vec::new();
        while let Some(value) = taken.recv().await {
            came.push(value);
        }
        came
    }

    fn number(value: &Value) -> &str {
        value.as_ref().unwrap().get()
    }

    /// A bus that does not answer, or does so with an error, to `withdraw` alone.
    struct Away(std::sync::atomic::AtomicU32);

    #[async_trait::async_trait]
    impl MessageBus for Away {
        fn max_message_bytes(&self) -> usize {
            usize::MAX
        }
        async fn publish(
            &self,
            _: &Channel,
            _: &[Vec<u8>],
        ) -> Result<Vec<EntryId>, MessageBusError> {
            std::future::pending().await
        }
        async fn request(&self, _: &Channel, _: &[u8]) -> Result<EntryId, MessageBusError> {
            std::future::pending().await
        }
        async fn withdraw(&self, _: &Channel, _: &[EntryId]) -> Result<(), MessageBusError> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Err(MessageBusError::Unavailable("away".into()))
        }
        async fn inbox(&self) -> Result<Arc<dyn Inbox>, MessageBusError> {
            InProcessMessageBus::new().inbox().await
        }
        async fn answer(&self, _: &str, _: &[Vec<u8>]) -> Result<bool, MessageBusError> {
            std::future::pending().await
        }
        async fn join(
            &self,
            _: &Group,
            _: &[Channel],
            _: Duration,
        ) -> Result<Arc<dyn Consumer>, MessageBusError> {
            std::future::pending().await
        }
        async fn dead_letters(
            &self,
            _: &Group,
            _: &Channel,
            _: Option<&EntryId>,
            _: usize,
        ) -> Result<Vec<DeadEntry>, MessageBusError> {
            std::future::pending().await
        }
        async fn retry_dead(
            &self,
            _: &Group,
            _: &Channel,
            _: &EntryId,
        ) -> Result<bool, MessageBusError> {
            std::future::pending().await
        }
        async fn discard_dead(
            &self,
            _: &Group,
            _: &Channel,
            _: &EntryId,
        ) -> Result<bool, MessageBusError> {
            std::future::pending().await
        }
    }

    async fn away() -> (Arc<Away>, Arc<Requester>, TaskTracker, CancellationToken) {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let away = Arc::new(Away(0.into()));
        let bus: Arc<dyn MessageBus> = away.clone();
        let requester = Requester::start(&bus, &tasks, &stop).await.unwrap();
        (away, Arc::new(requester), tasks, stop)
    }

    #[tokio::test]
    async fn requests_on_their_way_to_a_bus_that_hangs_are_kept_up_to_a_bound() {
        let (away, requester, ..) = away().await;
        let bus: Arc<dyn MessageBus> = away;
        let channel = Subject::<()>::new("a").channel();
        let mebibyte = 1024 * 1024;
        for _ in 0..2 * MAX_LEFT_BYTES / mebibyte {
            let (expected, _) = requester.expect_one(&MessageId::unique()).unwrap();
            let message = vec![0; mebibyte];
            let mut sending = Sending::new(expected, &bus, channel.clone(), message);
            assert!(sending.put().now_or_never().is_none());
        }
        assert_eq!(requester.left.available_permits(), 0);
        let tasks = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks();
        assert!(tasks <= MAX_LEFT_BYTES / mebibyte + 2, "{tasks}");
    }

    #[tokio::test]
    async fn a_close_asks_a_bus_that_is_away_once_and_nobody_is_left_waiting() {
        let (away, requester, tasks, stop) = away().await;
        for number in 0..40_u32 {
            let name = Subject::<()>::new("a").shard(&number.to_string()).unwrap();
            let put = (name.channel(), "1".into());
            requester.withdrawals.try_send(put).unwrap();
        }
        stop.cancel();
        assert!(matches!(
            requester.expect_one(&MessageId::unique()),
            Err(SendError::Closed)
        ));
        tasks.close();
        tasks.wait().await;
        assert_eq!(away.0.load(std::sync::atomic::Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_second_try_goes_on_where_the_first_was_cut_off() {
        let again = [
            (1, false, Ok(Some(1))),
            (2, false, Ok(Some(2))),
            (3, false, Ok(Some(3))),
            (4, true, Ok(None)),
        ];
        let came = came(&again).await;
        assert_eq!(came.iter().map(number).collect::<Vec<_>>(), ["1", "2", "3"]);
    }

    #[tokio::test]
    async fn a_second_try_that_fails_earlier_than_the_first_ends_the_values() {
        let error = ReplyError::new("no", "");
        let came = came(&[(1, true, Err(error.clone()))]).await;
        assert_eq!(came.len(), 3);
        assert!(matches!(&came[2], Err(SendError::Refused(refused)) if *refused == error));
    }

    #[tokio::test]
    async fn a_second_try_with_fewer_values_than_the_first_ends_with_an_error() {
        let came = came(&[(1, false, Ok(Some(1))), (2, true, Ok(None))]).await;
        assert_eq!(came.len(), 3);
        assert!(matches!(came[2], Err(SendError::CutShort { came: 2 })));
    }
}
