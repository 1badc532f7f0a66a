//! The message bus on Redis Streams.
//!
//! A channel is a stream, `{<app>:messages:<channel>}`, and a group a consumer group of it, made at `0`. The dead letters of a group are the
//! stream `{<app>:messages:<channel>}:dead:<group>`, in the same hash slot, so that a message is moved there in one transaction. An inbox is
//! the stream `{<app>:replies:<uuid>}`, which expires a minute after its requester was seen last.
//!
//! | step | commands | if it is the last one |
//! |---|---|---|
//! | emit | `XADD * message …` | |
//! | request | `XADD NOMKSTREAM * message …`, where `XINFO GROUPS` named a group in the last 5 s | the worker removes it when it has expired |
//! | take | `XREADGROUP`, on a connection of its own, for a quarter of a second at a time | it is pending, and is claimed |
//! | claim | `XPENDING IDLE`, `XRANGE`, then `XCLAIM RETRYCOUNT` with the same bound: the owner's life in between wins. The delivery count is the number of the try | the same |
//! | show life | `XCLAIM 0 … JUSTID` of what is held. Who was away for longer than the bound asks first whether it is the owner still | the same |
//! | done | one pipeline: `XADD NOMKSTREAM` of the reply, `XACK`, and `XDEL` of a request | a reply is passed over the second time. One that Redis refuses is none: the request is over all the same |
//! | try again | nothing now: it stays pending, and its life is shown. When it is due: `XCLAIM RETRYCOUNT`, which makes it the next try | claimed after the bound, as the next try |
//! | dead | `XPENDING`: it is ours; `MULTI`: `XADD` to the dead letters, `XACK` | where the answer is lost, the next `XPENDING` says that it is done |
//! | give back | `XCLAIM` to the consumer `returned`, `IDLE` as the bound, `RETRYCOUNT` one less | |
//! | leave | a script: `XGROUP DELCONSUMER`, where `XPENDING` of the consumer is empty | the consumer is swept after ten minutes, in the same way |
//! | retry a dead letter | `XCLAIM FORCE` of a group of its stream, with a bound: of two who try, one gets it. Then `MULTI`: `XADD` to the channel, `XDEL`, `XACK` | it is listed still, and can be retried after 10 s |
//! | trim | `XTRIM MINID` up to what each group has pending or was given last | |
//!
//! What several tasks request or have done at the same time goes in one trip to a single server ([`gathering`]): the commands are the same, and
//! each task has the answer to its own; the `XACK` and the `XDEL` of a stream are one for all of a trip.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::poll_immediate;
use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::bus::{Consumer, DeadEntry, EntryId, Inbox, MessageBus};
use super::error::MessageBusError;
use super::names::{Channel, Group};
use super::turns::Turns;
use crate::app_name::is_app_name;
use crate::lock::lock;
use crate::redis_streams::InvalidRedisBus;
use crate::redis_streams::connection::{Commands, RESPONSE_TIMEOUT};
use crate::redis_streams::place::Place;
use crate::redis_streams::readers::Readers;

pub(super) mod answers;
mod claiming;
mod consumer;
mod form;
mod gathering;
mod inbox;
pub(super) mod pace;
mod settling;
mod tending;

#[cfg(feature = "nestjs")]
use super::nestjs::{NestForm, NestInbox, NestPatterns};
use answers::{Entry, array, entry, text};
use consumer::RedisConsumer;
use form::Form;
use gathering::Gathering;
use inbox::RedisInbox;

/// The field that has the message.
pub(super) const MESSAGE: &str = "message";

/// The field of a message that is for one group alone.
pub(super) const GROUP: &str = "group";

/// The fields of a dead letter, besides the message.
pub(super) const ERROR: &str = "error";
pub(super) const ATTEMPTS: &str = "attempts";

/// The group of a stream of dead letters that has what is being retried.
const RETRY: &str = "retry";

/// For how long nobody else retries what somebody is at: longer than the commands of it may take.
const RETRY_IDLE_MS: u64 = 10_000;

/// For how long it is taken for granted that a channel has a group.
const KNOWN_FOR: Duration = Duration::from_secs(5);

/// How long it is waited to be told where a request is: its caller may be long gone, and it can only be taken back when that is known. (A Redis
/// whose disk is slow may stand still for some seconds, and adds it then.)
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The largest message: Redis takes 512 MiB, and what is written at once has to be through within the response time.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// A message bus on Redis Streams (Redis 7.0 or later, or a server that is compatible with it), on one server or a cluster.
///
/// Nothing is connected until the first call, and every call connects again after a failure. A TLS connection (`rediss://`) needs rustls'
/// default provider to be installed. `docs/messaging.md` has the keys, and the rights that its user needs.
#[derive(Clone)]
pub struct RedisMessageBus(Arc<Link>);

/// The way to Redis.
pub(super) struct Link {
    form: Form,
    commands: Commands,
    pub(super) readers: Readers<Arc<str>>,
    is_cluster: bool,
    /// When a channel was seen to have a group.
    known: Mutex<HashMap<Channel, Instant>>,
    turns: Turns,
    requests: Arc<Gathering<Cmd, Value>>,
}

impl RedisMessageBus {
    /// A bus for the app `app` on the Redis at `url`, which is as that of a [`RedisEventBus`](crate::RedisEventBus).
    ///
    /// # Errors
    ///
    /// [`InvalidRedisBus`] when the URL or the name are malformed, or a file cannot be read.
    pub fn new(url: &str, app: &str) -> Result<Self, InvalidRedisBus> {
        if !is_app_name(app) {
            return Err(InvalidRedisBus::App);
        }
        let app = app.to_owned();
        Self::in_form(url, Form::Own { app })
    }

    /// A bus on the Redis at `url` in the form of the Redis Streams transport for NestJS (`nestjs-redis-stream-microservice`): workers handle what
    /// its clients emit and send, and `emit` and `send` reach its servers. `docs/interop-nestjs.md` has the form, and what it
    /// cannot carry: payloads and replies are objects and arrays ([`MessageBusError::Unfit`] else), a reply is one value.
    ///
    /// ```no_run
    /// use std::sync::Arc;
    /// use tidelog_eventbus::messaging::{Messaging, NestPatterns, RedisMessageBus, Subject};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// const CREATE: Subject<serde_json::Value, serde_json::Value> = Subject::new("users.create");
    /// let patterns = NestPatterns::default().with(&CREATE, "users:create")?;
    /// let bus = RedisMessageBus::for_nestjs("redis://localhost:6379", patterns)?;
    /// let messaging = Messaging::new(Arc::new(bus), "shop");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidRedisBus`] when the URL is malformed, or a file cannot be read.
    #[cfg(feature = "nestjs")]
    pub fn for_nestjs(url: &str, patterns: NestPatterns) -> Result<Self, InvalidRedisBus> {
        Self::in_form(url, Form::Nest(NestForm::new(patterns)))
    }

    fn in_form(url: &str, form: Form) -> Result<Self, InvalidRedisBus> {
        let place = Arc::new(Place::parse(url)?);
        Ok(Self(Arc::new(Link {
            form,
            is_cluster: place.is_cluster(),
            commands: Commands::new(Arc::clone(&place)),
            readers: Readers::new(place),
            known: Mutex::default(),
            turns: Turns::default(),
            requests: Arc::default(),
        })))
    }

    /// The key of the stream of `channel`.
    #[must_use]
    pub fn key(&self, channel: &Channel) -> String {
        self.0.key(channel)
    }

    /// Puts a request of so many bytes, with those of others.
    async fn put(&self, xadd: Cmd, bytes: usize) -> Result<Value, Failed> {
        if self.0.is_cluster {
            return self.0.run_within(&xadd, REQUEST_TIMEOUT).await;
        }
        let link = Arc::clone(&self.0);
        let run = move |xadds| {
            let link = Arc::clone(&link);
            async move { link.run_each_within(xadds, REQUEST_TIMEOUT).await }
        };
        self.0.requests.run(xadd, bytes, run).await
    }

    /// The key of the stream of the dead letters of `group` on `channel`.
    #[must_use]
    pub fn dead_key(&self, channel: &Channel, group: &Group) -> String {
        self.0.form.dead_key(&self.0.key(channel), group)
    }
}

impl Link {
    fn key(&self, channel: &Channel) -> String {
        self.form.key(channel)
    }

    /// Has something sent to `channel` after all that was begun before it, and waits for the answer.
    async fn begin<T>(
        &self,
        channel: &Channel,
        sending: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, Failed> {
        let turn = self.turns.take(channel, RESPONSE_TIMEOUT).await;
        let turn = turn.ok_or_else(crate::RedisConnectError::timed_out)?;
        drop(self.commands.connection().await?);
        // Where there is a connection, it has its place there when it has run for the first time.
        let mut sending = pin!(unconstrained(sending));
        let begun = poll_immediate(&mut sending).await;
        drop(turn);
        match begun {
            Some(done) => done,
            None => sending.await,
        }
    }

    /// Refuses channels that are one stream: what is for one would come to the other.
    fn are_apart(&self, channels: &[Channel]) -> Result<(), MessageBusError> {
        let mut known: HashMap<String, &Channel> = HashMap::new();
        for channel in channels {
            let key = self.key(channel);
            if let Some(other) = known.get(&key) {
                return Err(MessageBusError::unfit(format!(
                    "{other} and {channel} are both the stream {key}: give each a pattern of its own"
                )));
            }
            known.insert(key, channel);
        }
        Ok(())
    }

    /// The command that puts a message on the stream `key`, which has to be there unless it is `made`.
    fn xadd(&self, key: &str, message: &[u8], made: bool) -> Result<Cmd, MessageBusError> {
        let mut xadd = redis::cmd("XADD");
        xadd.arg(key);
        if !made {
            xadd.arg("NOMKSTREAM");
        }
        xadd.arg("*");
        self.form.write(&mut xadd, message, None)?;
        Ok(xadd)
    }

    /// Runs a command.
    pub(super) async fn run(&self, command: &Cmd) -> Result<Value, Failed> {
        self.run_within(command, RESPONSE_TIMEOUT).await
    }

    /// Runs a command whose answer may take its time.
    async fn run_within(&self, command: &Cmd, timeout: Duration) -> Result<Value, Failed> {
        let mut connection = self.commands.connection().await?;
        connection.wait_up_to(timeout);
        let answer = connection.run(command).await;
        answer.map_err(|error| {
            if is_of_place(&error) {
                connection.give_up();
            }
            Failed::from(error)
        })
    }

    /// Runs commands on one key in one go. All of them are run, whatever becomes of each.
    async fn run_all(&self, commands: &Pipeline) -> Result<Vec<Value>, Failed> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.commands.connection().await?;
        let answers = connection.run_all(commands).await?;
        let answers = answers.into_iter().map(Value::extract_error);
        let answers: Result<Vec<_>, _> = answers.collect();
        answers.map_err(|error| {
            if is_of_place(&error) {
                connection.give_up();
            }
            Failed::from(error)
        })
    }

    /// Runs commands on one key as one, or none of them.
    async fn run_as_one(&self, commands: &Pipeline) -> Result<Vec<Value>, Failed> {
        let mut connection = self.commands.connection().await?;
        let answer = connection.run_as_one(commands).await;
        let answer = answer.map_err(|error| {
            let error = why_aborted(error);
            if is_of_place(&error) {
                connection.give_up();
            }
            Failed::from(error)
        })?;
        Ok(array(answer))
    }

    /// Runs commands in one go, and gives the answer of each: an error of the server is an answer too.
    async fn run_through(
        &self,
        commands: &Pipeline,
        timeout: Duration,
    ) -> Result<Vec<Result<Value, Failed>>, Failed> {
        let mut connection = self.commands.connection().await?;
        connection.wait_up_to(timeout);
        let answers = connection.run_all(commands).await?;
        let answers = answers.into_iter().map(|answer| {
            answer.extract_error().map_err(|error| {
                if is_of_place(&error) {
                    connection.give_up();
                }
                Failed::from(error)
            })
        });
        Ok(answers.collect())
    }

    /// Runs commands on a key each, in one go where they are on one server, and gives the answer of each.
    async fn run_each(&self, commands: Vec<Cmd>) -> Result<Vec<Result<Value, Failed>>, Failed> {
        self.run_each_within(commands, RESPONSE_TIMEOUT).await
    }

    /// The same with commands whose answers may take their time.
    async fn run_each_within(
        &self,
        commands: Vec<Cmd>,
        timeout: Duration,
    ) -> Result<Vec<Result<Value, Failed>>, Failed> {
        if self.is_cluster {
            let each = commands.iter();
            let each = each.map(|command| self.run_within(command, timeout));
            return Ok(futures_util::future::join_all(each).await);
        }
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command);
        }
        self.run_through(&pipeline, timeout).await
    }

    /// Takes a dead letter in hand to have it retried: of several who do at once, one has it. Where that one dies, the next may after a while.
    async fn take_in_hand(&self, dead_key: &str, entry_id: &str) -> Result<Option<Entry>, Failed> {
        let mut xclaim = redis::cmd("XCLAIM");
        xclaim.arg(dead_key).arg(RETRY).arg(RETRY);
        xclaim.arg(RETRY_IDLE_MS).arg(entry_id).arg("FORCE");
        let claimed = match self.run(&xclaim).await {
            Err(failed) if failed.is_no_group() => {
                let mut create = redis::cmd("XGROUP");
                create.arg("CREATE").arg(dead_key).arg(RETRY).arg(0);
                match self.run(&create).await {
                    Err(failed) if failed.is_no_group() => return Ok(None),
                    Err(failed) if failed.code() == Some("BUSYGROUP") => {}
                    created => drop(created?),
                }
                self.run(&xclaim).await?
            }
            claimed => claimed?,
        };
        Ok(array(claimed).into_iter().next().and_then(entry))
    }

    /// Whether a group has joined `channel`, as far as is known for a while.
    async fn has_group(&self, channel: &Channel) -> Result<bool, Failed> {
        let known = lock(&self.known).get(channel).copied();
        if known.is_some_and(|since| since.elapsed() < KNOWN_FOR) {
            return Ok(true);
        }
        let mut xinfo = redis::cmd("XINFO");
        xinfo.arg("GROUPS").arg(self.key(channel));
        let has_group = match self.run(&xinfo).await {
            Ok(groups) => !array(groups).is_empty(),
            Err(failed) if failed.is_no_such_key() => false,
            Err(failed) => return Err(failed),
        };
        let mut known = lock(&self.known);
        known.retain(|_, since| since.elapsed() < KNOWN_FOR);
        if has_group {
            known.insert(channel.clone(), Instant::now());
        }
        Ok(has_group)
    }
}

/// Why a command failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Connect(#[from] crate::RedisConnectError),
    #[error(transparent)]
    Command(#[from] RedisError),
    #[error("it was cut off; try again")]
    Ended,
}

impl Failed {
    fn code(&self) -> Option<&str> {
        match self {
            Self::Connect(_) | Self::Ended => None,
            Self::Command(error) => error.code(),
        }
    }

    fn says(&self, words: &str) -> bool {
        match self {
            Self::Connect(_) | Self::Ended => false,
            Self::Command(error) => error.detail().is_some_and(|detail| detail.contains(words)),
        }
    }

    /// Redis is there, and will not do it: it has no room, the key is of something else, or the user may not.
    fn is_refused(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Ended => false,
            Self::Command(error) => error.code().is_some() && !is_of_place(error),
        }
    }

    fn is_no_such_key(&self) -> bool {
        self.code() == Some("ERR") && self.says("no such key")
    }

    /// The group, or its stream, is not there: Redis lost it, or somebody flushed it.
    fn is_no_group(&self) -> bool {
        matches!(self.code(), Some("NOGROUP" | "UNBLOCKED"))
            || self.says("requires the key to exist")
            || self.is_no_such_key()
    }
}

impl From<Failed> for MessageBusError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Command(error) if error.code() == Some("OOM") => Self::Full(error.into()),
            Failed::Command(error) => Self::unavailable(error),
            Failed::Connect(error) => Self::unavailable(error),
            Failed::Ended => Self::unavailable(failed),
        }
    }
}

/// Why a transaction was aborted: the error of the command that was not queued.
fn why_aborted(error: RedisError) -> RedisError {
    let is_aborted = error.code() == Some("EXECABORT");
    let errors = is_aborted.then(|| error.clone().into_server_errors());
    let first = errors.flatten().and_then(|all| all.first().cloned());
    first.map_or(error, |(_, first)| first.into())
}

/// Whether another connection may lead to one who takes the command: a primary that became a replica keeps its clients.
fn is_of_place(error: &RedisError) -> bool {
    !matches!(
        error.code(),
        None | Some("ERR" | "OOM" | "BUSYGROUP" | "NOGROUP" | "WRONGTYPE" | "NOPERM")
    )
}

fn xadd(key: &str, message: &[u8]) -> Cmd {
    let mut xadd = redis::cmd("XADD");
    xadd.arg(key).arg("*").arg(MESSAGE).arg(message);
    xadd
}

/// An entry in a stream that has to be there.
fn xadd_if_there(key: &str, message: &[u8]) -> Cmd {
    let mut xadd = redis::cmd("XADD");
    xadd.arg(key).arg("NOMKSTREAM").arg("*");
    xadd.arg(MESSAGE).arg(message);
    xadd
}

#[async_trait]
impl MessageBus for RedisMessageBus {
    fn max_message_bytes(&self) -> usize {
        MAX_MESSAGE_BYTES
    }

    async fn publish(
        &self,
        channel: &Channel,
        messages: &[Vec<u8>],
    ) -> Result<Vec<EntryId>, MessageBusError> {
        let key = self.0.key(channel);
        if let [message] = messages {
            let xadd = self.0.xadd(&key, message, true)?;
            let entry = self.0.begin(channel, self.0.run(&xadd)).await?;
            return Ok(vec![text(&entry).into()]);
        }
        let mut commands = Pipeline::with_capacity(messages.len());
        for message in messages {
            commands.add_command(self.0.xadd(&key, message, true)?);
        }
        let entries = self.0.begin(channel, self.0.run_all(&commands)).await?;
        Ok(entries.iter().map(|entry| text(entry).into()).collect())
    }

    async fn request(&self, channel: &Channel, message: &[u8]) -> Result<EntryId, MessageBusError> {
        if !self.0.has_group(channel).await? {
            return Err(MessageBusError::NoGroup);
        }
        let key = self.0.key(channel);
        let xadd = self.0.xadd(&key, message, false)?;
        match self.put(xadd, message.len()).await? {
            Value::Nil => {
                lock(&self.0.known).remove(channel);
                Err(MessageBusError::NoGroup)
            }
            entry => Ok(text(&entry).into()),
        }
    }

    async fn withdraw(
        &self,
        channel: &Channel,
        entries: &[EntryId],
    ) -> Result<(), MessageBusError> {
        let mut xdel = redis::cmd("XDEL");
        xdel.arg(self.0.key(channel));
        for entry in entries {
            xdel.arg(&**entry);
        }
        self.0.run(&xdel).await?;
        Ok(())
    }

    async fn inbox(&self) -> Result<Arc<dyn Inbox>, MessageBusError> {
        let link = Arc::clone(&self.0);
        match &self.0.form {
            Form::Own { app } => Ok(Arc::new(RedisInbox::open(Arc::clone(&link), app).await?)),
            #[cfg(feature = "nestjs")]
            Form::Nest(_) => Ok(Arc::new(NestInbox::open(link).await?)),
        }
    }

    async fn answer(&self, address: &str, replies: &[Vec<u8>]) -> Result<bool, MessageBusError> {
        if !self.0.form.has_several_values() {
            return Err(MessageBusError::unfit("a reply of several values"));
        }
        let Some((first, others)) = replies.split_first() else {
            return Ok(true);
        };
        let mut put = self.0.form.reply(address, first);
        for (number, reply) in (2..).zip(others) {
            self.0.form.add_reply(&mut put, number, reply);
        }
        match self.0.run(&put).await {
            Ok(answer) => Ok(answer != Value::Nil),
            // It is no inbox.
            Err(failed) if matches!(failed.code(), Some("WRONGTYPE" | "NOPERM")) => Ok(false),
            Err(failed) => Err(failed.into()),
        }
    }

    async fn join(
        &self,
        group: &Group,
        channels: &[Channel],
        idle: Duration,
    ) -> Result<Arc<dyn Consumer>, MessageBusError> {
        self.0.are_apart(channels)?;
        let consumer = RedisConsumer::join(Arc::clone(&self.0), group, channels, idle).await?;
        Ok(Arc::new(consumer))
    }

    async fn dead_letters(
        &self,
        group: &Group,
        channel: &Channel,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<DeadEntry>, MessageBusError> {
        let mut xrange = redis::cmd("XRANGE");
        xrange.arg(self.dead_key(channel, group));
        match after {
            None => xrange.arg("-"),
            Some(entry) => xrange.arg(format!("({entry}")),
        };
        xrange.arg("+").arg("COUNT").arg(limit);
        let found = self.0.run(&xrange).await?;
        Ok(array(found).into_iter().filter_map(answers::dead).collect())
    }

    async fn retry_dead(
        &self,
        group: &Group,
        channel: &Channel,
        entry_id: &EntryId,
    ) -> Result<bool, MessageBusError> {
        let (key, dead_key) = (self.0.key(channel), self.dead_key(channel, group));
        let Some(found) = self.0.take_in_hand(&dead_key, entry_id).await? else {
            return Ok(false);
        };
        let mut commands = redis::pipe();
        commands.atomic();
        let mut xadd = redis::cmd("XADD");
        xadd.arg(&key).arg("*");
        self.0.form.write(&mut xadd, &found.body, Some(group))?;
        commands.add_command(xadd);
        commands.cmd("XDEL").arg(&dead_key).arg(&**entry_id);
        commands.cmd("XACK").arg(&dead_key).arg(RETRY);
        commands.arg(&**entry_id);
        self.0.run_as_one(&commands).await?;
        Ok(true)
    }

    async fn discard_dead(
        &self,
        group: &Group,
        channel: &Channel,
        entry: &EntryId,
    ) -> Result<bool, MessageBusError> {
        let mut xdel = redis::cmd("XDEL");
        xdel.arg(self.dead_key(channel, group)).arg(&**entry);
        Ok(self.0.run(&xdel).await? == Value::Int(1))
    }
}
