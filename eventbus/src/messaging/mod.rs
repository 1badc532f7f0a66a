//! Messaging: emitting messages that every group of workers handles at least once, and sending requests that are replied to.
//!
//! It is beside the log, not part of it: what a [`Messaging`] emits is kept until every group has handled it, and then thrown away. Events that
//! must be there for good, in order and to be read again, belong in the log. `docs/messaging.md` has the guarantees, and the wire form for
//! programs that do without this library.
//!
//! # The protocol
//!
//! A message is put on a *channel* (a subject, or a shard of it), which keeps it until every group has settled it. A *consumer* takes
//! it, and from then on holds it; a worker's handler runs; then it is settled: done, to be tried again, or dead. Each of these steps may be
//! the last one that a process does:
//!
//! | who dies, when | then |
//! |---|---|
//! | the sender, before the bus has it | it is not there; the sender did not say so to anybody |
//! | the sender, after that | it is handled all the same. Of a request: the reply finds no inbox, and leaves nothing |
//! | the worker, before it took it | another takes it |
//! | the worker, holding it | it shows no life about it: after the idle bound another takes it, as the next try |
//! | the worker, having done its work, before it settled it | the same: it is handled twice. [Idempotent handling](#idempotent-handling) makes that once |
//! | the worker, between a reply and the settling | these are one step, or the reply is first: a second one is passed over by its number |
//! | the worker, while a failed message waits to be tried again | the wait is lost with it: after the idle bound another takes it |
//! | the worker, becoming a dead letter | moved in one step; on NATS in two, and who gets it next finds it dead: it is one or the other |
//! | who has a dead letter retried, in the middle | it is one still, and may be back on its channel, with the id that it has |
//! | the worker stands still for longer than the idle bound | another takes it; when it goes on it may settle it as done, and nothing else |
//! | the bus | senders have errors, workers try again without end; what it has kept is there when it is back |
//!
//! **A worker that lives keeps what it holds**, however long a handler takes: it shows life about it every quarter of the idle bound.
//!
//! **Requests.** A requester has one inbox. A request names it, and how long its caller waits. How old it is tells the bus' clock, so no
//! two machines' clocks are compared; a worker does not begin with one that is too old. Its caller takes it back when it waits no longer. A
//! reply has a number, and the last one says that it is; who waits takes each number once, in order.
//!
//! # Idempotent handling
//!
//! At least once is what a handler gets. To have the *effect* once, the id of the message is recorded in the transaction of the effect: see
//! `docs/messaging.md` for SQL (`tidelog_command::handled`) and for documents.

mod bus;
mod client;
#[cfg(any(feature = "redis", feature = "nats"))]
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod dead;
mod envelope;
mod error;
mod handler;
mod handling;
#[cfg(any(feature = "redis", feature = "nats"))]
mod holding;
mod in_process;
mod message;
mod names;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "nestjs")]
mod nestjs;
#[cfg(feature = "redis")]
mod redis;
mod requester;
#[cfg(any(feature = "redis", feature = "nats"))]
mod turns;
mod values;
mod worker;

#[cfg(feature = "nats")]
pub use self::nats::NatsMessageBus;
#[cfg(feature = "nestjs")]
pub use self::nestjs::NestPatterns;
#[cfg(feature = "redis")]
pub use self::redis::RedisMessageBus;
pub use bus::{Consumer, DeadEntry, Delivery, EntryId, Inbox, MessageBus, Settlement, Taken};
pub use client::{ConnectError, DEFAULT_MAX_BYTES, Messaging};
pub use dead::{DeadLetter, DeadLetters};
pub use error::{EmitError, HandlerError, MessageBusError, ReplyError, SendError, WorkerError};
pub use handler::Replies;
pub use in_process::InProcessMessageBus;
pub use message::{MessageContext, MessageOptions, SEND_TIMEOUT};
pub use names::{Channel, Group, InvalidName, MAX_NAME_BYTES, MessageId, Subject};
pub use values::Values;
pub use worker::{RunningWorker, Worker};
