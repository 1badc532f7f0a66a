//! Workers: they take messages from a group, and hand them to their handlers.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidelog_domain::causes;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bus::{Consumer, Taken};
use super::client::Messaging;
use super::error::{HandlerError, MessageBusError, WorkerError};
use super::handler::{self, AnyHandler, Replies};
use super::handling::Handling;
use super::message::MessageContext;
use super::names::{Channel, Group, Subject};
use crate::backoff::Backoff;
use crate::failure::FailurePolicy;

/// How long one call for messages waits.
const TAKE_WAIT: Duration = Duration::from_secs(1);

/// How often what is held is shown life about, at the least.
const TEND_INTERVAL: Duration = Duration::from_secs(1);

/// How long it is tried to give back what is held, at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// A worker that is being made: a member of a group, with a handler for each subject.
///
/// A message is settled only after its handler has returned. What becomes of one that failed, [`HandlerError`] says.
#[must_use]
pub struct Worker {
    messaging: Messaging,
    group: String,
    handlers: HashMap<Channel, AnyHandler>,
    /// A channel that was given a second handler.
    twice: Option<Channel>,
    concurrency: usize,
    idle: Duration,
    stop_timeout: Duration,
    policy: FailurePolicy,
}

impl Worker {
    /// How many messages a worker handles at once, unless told otherwise.
    pub const DEFAULT_CONCURRENCY: usize = 64;

    /// After how long others take what a dead worker held, unless told otherwise: 30 s.
    pub const DEFAULT_IDLE: Duration = Duration::from_secs(30);

    const SHORTEST_IDLE: Duration = Duration::from_millis(100);
    const LONGEST_IDLE: Duration = Duration::from_secs(24 * 60 * 60);

    /// How long a worker that stops waits for what it has begun, unless told otherwise: 20 s.
    pub const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(20);

    pub(super) fn new(messaging: Messaging, group: &str) -> Self {
        Self {
            messaging,
            group: group.to_owned(),
            handlers: HashMap::new(),
            twice: None,
            concurrency: Self::DEFAULT_CONCURRENCY,
            idle: Self::DEFAULT_IDLE,
            stop_timeout: Self::DEFAULT_STOP_TIMEOUT,
            policy: FailurePolicy::default(),
        }
    }

    /// Handles the messages of `subject` (of its shard, where it names one) by `handler`, whose value is the reply.
    pub fn handle<Message, Reply, F, Fut>(
        self,
        subject: &Subject<Message, Reply>,
        handler: F,
    ) -> Self
    where
        Message: DeserializeOwned + Send + 'static,
        Reply: Serialize + Send + 'static,
        F: Fn(Message, MessageContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply, HandlerError>> + Send + 'static,
    {
        self.with(subject.channel(), handler::one(handler))
    }

    /// The same by a handler that replies with several values.
    pub fn handle_stream<Message, Reply, F, Fut>(
        self,
        subject: &Subject<Message, Reply>,
        handler: F,
    ) -> Self
    where
        Message: DeserializeOwned + Send + 'static,
        Reply: Serialize + Send + 'static,
        F: Fn(Message, MessageContext, Replies<Reply>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.with(subject.channel(), handler::several(handler))
    }

    fn with(mut self, channel: Channel, handler: AnyHandler) -> Self {
        if self.handlers.insert(channel.clone(), handler).is_some() {
            self.twice = Some(channel);
        }
        self
    }

    /// How many messages are handled at once. A worker of one subject takes no more than these from the group; one of several may take some ahead,
    /// since it asks all of them at the same time: one more of each, and on Redis as many of each where others left them behind. These wait for their turn, and no other worker has them meanwhile.
    pub fn concurrency(mut self, messages: usize) -> Self {
        self.concurrency = messages.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// After how long of no sign of life others take what this worker holds; 100 ms to a day. A worker that lives shows it every quarter of
    /// that, and every second at least, however long its handlers take.
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle.clamp(Self::SHORTEST_IDLE, Self::LONGEST_IDLE);
        self
    }

    /// How long it waits at the end for what it has begun. The rest goes back to the group: what it has not begun with at once.
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.stop_timeout = timeout;
        self
    }

    /// How often, and after which waits, what failed is tried again. (`max_parked` has no meaning here.)
    pub fn policy(mut self, policy: FailurePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Joins the group and starts: when it returns, requests to its subjects are taken. It runs until it is stopped, whatever becomes of
    /// the bus meanwhile.
    ///
    /// # Errors
    ///
    /// [`WorkerError`]; with [`WorkerError::Bus`] a later try may go well ([`Worker::run`] tries by itself).
    pub async fn start(self) -> Result<RunningWorker, WorkerError> {
        let group = self.check()?;
        let consumer = self.join(&group).await?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(self.work(group, consumer, stop.clone()));
        Ok(RunningWorker { stop, task })
    }

    /// Joins the group, however long that takes, and works until `stop`.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] of its names and handlers, at once, and [`MessageBusError::Unfit`] where the bus cannot keep them apart.
    pub async fn run(self, stop: CancellationToken) -> Result<(), WorkerError> {
        let group = self.check()?;
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let joined = async {
            loop {
                match self.join(&group).await {
                    Ok(consumer) => return Ok(consumer),
                    Err(error @ MessageBusError::Unfit(_)) => return Err(error),
                    Err(error) => {
                        let wait = backoff.next_wait();
                        tracing::warn!(%group, error = causes(&error), ?wait, "a worker cannot join its group");
                        tokio::time::sleep(wait).await;
                    }
                }
            }
        };
        if let Some(consumer) = stop.run_until_cancelled(joined).await {
            self.work(group, consumer?, stop).await;
        }
        Ok(())
    }

    fn check(&self) -> Result<Group, WorkerError> {
        if let Some(channel) = &self.twice {
            let subject = channel.to_string();
            return Err(WorkerError::TwoHandlers { subject });
        }
        if self.handlers.is_empty() {
            return Err(WorkerError::NoHandlers);
        }
        Ok(Group::new(&self.group)?)
    }

    async fn join(&self, group: &Group) -> Result<Arc<dyn Consumer>, MessageBusError> {
        let mut channels: Vec<_> = self.handlers.keys().cloned().collect();
        channels.sort();
        let bus = self.messaging.bus();
        bus.join(group, &channels, self.idle).await
    }

    /// Works until `stop`, then finishes what it has begun.
    async fn work(self, group: Group, consumer: Arc<dyn Consumer>, stop: CancellationToken) {
        metrics::describe_counter!(
            "tidelog_messages_total",
            "Messages that a worker was at, by what became of them."
        );
        metrics::describe_gauge!(
            "tidelog_messages_in_flight",
            "Messages that workers are at."
        );
        let end = CancellationToken::new();
        let handling = Arc::new(Handling {
            app: Arc::clone(self.messaging.app()),
            bus: Arc::clone(self.messaging.bus()),
            max_bytes: self.messaging.max_message_bytes(),
            group,
            handlers: self.handlers,
            policy: self.policy,
            consumer: Arc::clone(&consumer),
            stop,
            end: end.clone(),
        });
        let tasks = TaskTracker::new();
        let interval = TEND_INTERVAL.min(self.idle / 4);
        let tended = tend(&*consumer, interval);
        let worked = async {
            let unbegun = take(&handling, &tasks, self.concurrency).await;
            tasks.close();
            let ended = async {
                if timeout(self.stop_timeout, tasks.wait()).await.is_err() {
                    end.cancel();
                    tasks.wait().await;
                }
            };
            let given_back = async {
                handling.give_back(&unbegun).await;
                std::future::pending().await
            };
            // What is not given back by the end is so with all else.
            tokio::select! {
                () = ended => {}
                () = given_back => {}
            }
        };
        tokio::select! {
            () = tended => {}
            () = worked => {}
        }
        match timeout(CLOSE_TIMEOUT, consumer.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(
                group = %handling.group, error = causes(&error),
                "a worker cannot give back what it holds: others take it after the idle bound"
            ),
            Err(_) => tracing::warn!(
                group = %handling.group,
                "a worker cannot give back what it holds in time: others take it after the idle bound"
            ),
        }
    }
}

/// Takes messages until the worker stops, and has each handled by a task, as many as there are slots. What it took and has not begun with.
async fn take(handling: &Arc<Handling>, tasks: &TaskTracker, concurrency: usize) -> Vec<Taken> {
    let stop = &handling.stop;
    let slots = Arc::new(Semaphore::new(concurrency));
    let slot = || stop.run_until_cancelled(Arc::clone(&slots).acquire_owned());
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    while let Some(Ok(first)) = slot().await {
        let free = slots.available_permits() + 1;
        let taken = handling.consumer.take(free, TAKE_WAIT);
        match stop.run_until_cancelled(taken).await {
            None => break,
            Some(Ok(deliveries)) => {
                backoff.reset();
                let mut first = Some(first);
                let mut deliveries = deliveries.into_iter();
                while let Some(delivery) = deliveries.next() {
                    let slot = match first.take() {
                        Some(slot) => slot,
                        None => match slot().await {
                            Some(Ok(slot)) => slot,
                            _ => {
                                let rest = std::iter::once(delivery).chain(deliveries);
                                return rest.map(|delivery| delivery.taken).collect();
                            }
                        },
                    };
                    let handling = Arc::clone(handling);
                    tasks.spawn(async move {
                        handling.handle(delivery).await;
                        drop(slot);
                    });
                }
            }
            Some(Err(error)) => {
                let wait = backoff.next_wait();
                tracing::warn!(group = %handling.group, error = causes(&error), ?wait, "no messages can be taken");
                stop.run_until_cancelled(tokio::time::sleep(wait)).await;
            }
        }
    }
    Vec::new()
}

/// Shows life about what is held, again and again.
async fn tend(consumer: &dyn Consumer, interval: Duration) {
    let mut failing = false;
    loop {
        tokio::time::sleep(interval).await;
        match consumer.tend().await {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(error = causes(&error), "a worker cannot show that it lives");
            }
            Err(_) => {}
        }
    }
}

/// A worker that runs. To drop it stops it too, in the background.
pub struct RunningWorker {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl RunningWorker {
    /// Stops it: takes no more, waits for what it has begun as long as [`Worker::stop_timeout`] says, gives the rest back to the group.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(
                error = causes(&error),
                "a worker ended otherwise than it should"
            );
        }
    }
}

impl Drop for RunningWorker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::failure::Failure;

    const NOTE: Subject<u32> = Subject::new("note");

    /// A worker with one slot that fails at 1 in some way has room for 2.
    async fn goes_on_after(worker: Worker, messaging: &Messaging, fails: fn() -> HandlerError) {
        let (seen, came) = tokio::sync::oneshot::channel();
        let seen = Arc::new(std::sync::Mutex::new(Some(seen)));
        let worker = worker.handle(&NOTE, move |number, _| {
            let seen = Arc::clone(&seen);
            let fail = if number == 1 { Some(fails()) } else { None };
            async move {
                if let Some(seen) = seen.lock().unwrap().take_if(|_| number == 2) {
                    seen.send(()).unwrap();
                }
                fail.map_or(Ok(()), Err)
            }
        });
        let worker = worker.start().await.unwrap();
        messaging.emit_all(&NOTE, &[1, 2]).await.unwrap();
        timeout(Duration::from_secs(30), came)
            .await
            .unwrap()
            .unwrap();
        worker.stop().await;
    }

    #[tokio::test]
    async fn a_wait_without_end_is_a_long_one() {
        let messaging = Messaging::in_process("app");
        let worker = messaging.worker("g").concurrency(1).idle(Duration::MAX);
        goes_on_after(worker, &messaging, || {
            Failure::retry_after(Duration::MAX, "not now").into()
        })
        .await;
    }

    #[tokio::test]
    async fn what_a_worker_that_stops_is_not_at_goes_to_others_while_it_ends_the_rest() {
        let messaging = Messaging::in_process("app");
        let (came, mut taken) = tokio::sync::mpsc::unbounded_channel();
        let go_on = CancellationToken::new();
        let worker = |name: &'static str| {
            let (came, go_on) = (came.clone(), go_on.clone());
            let worker = messaging.worker("g").handle(&NOTE, move |number, _| {
                came.send((name, number)).unwrap();
                let go_on = go_on.clone();
                async move {
                    match (name, number) {
                        ("one", 1) => go_on.cancelled().await,
                        ("one", _) => return Err(Failure::retry_after(Duration::MAX, "").into()),
                        _ => {}
                    }
                    Ok(())
                }
            });
            worker.stop_timeout(Duration::MAX).start()
        };
        let one = worker("one").await.unwrap();
        messaging.emit_all(&NOTE, &[1, 2]).await.unwrap();
        let mut next = async || {
            let next = timeout(Duration::from_secs(30), taken.recv()).await;
            next.unwrap().unwrap()
        };
        assert_eq!((next().await, next().await), (("one", 1), ("one", 2)));
        let two = worker("two").await.unwrap();
        let stopped = tokio::spawn(one.stop());
        assert_eq!(next().await, ("two", 2));
        assert!(!stopped.is_finished());
        go_on.cancel();
        stopped.await.unwrap();
        two.stop().await;
        assert!(taken.is_empty(), "each is handled once");
    }

    #[tokio::test]
    async fn a_panic_beside_the_handlers_future_is_a_failed_try() {
        let messaging = Messaging::in_process("app");
        let policy = FailurePolicy {
            attempts: 2,
            ..FailurePolicy::default()
        };
        let worker = messaging.worker("g").concurrency(1).policy(policy);
        goes_on_after(worker, &messaging, || panic!("before there is a future")).await;
    }

    #[tokio::test]
    async fn a_message_whose_policy_panics_is_a_dead_letter_after_its_tries() {
        let messaging = Messaging::in_process("app");
        let letters = messaging.dead_letters("g", &NOTE).unwrap();
        let worker = messaging.worker("g");
        let tries = Arc::new(AtomicU32::new(0));
        let policy = FailurePolicy {
            attempts: 2,
            classify: Some(Arc::new(|_| panic!("the policy"))),
            ..FailurePolicy::default()
        };
        let tried = Arc::clone(&tries);
        let worker = worker.policy(policy).handle(&NOTE, move |_, _| {
            tried.fetch_add(1, Ordering::Relaxed);
            async { Err(std::io::Error::other("no").into()) }
        });
        let worker = worker.start().await.unwrap();
        messaging.emit(&NOTE, &1).await.unwrap();
        let is_dead = async {
            while letters.list(None, 9).await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(30), is_dead).await.unwrap();
        assert_eq!(tries.load(Ordering::Relaxed), 2);
        worker.stop().await;
    }
}
