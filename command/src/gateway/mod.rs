//! Commands over messages: a gateway takes them over HTTP, checks them, and sends them to workers, who run them on the log.
//!
//! The gateway ([`gateway_router`](crate::gateway_router)) is the HTTP of the command service up to the point where the log is needed: the
//! same code finds the command, reads headers and body, and checks the body by its schema. Then the request goes over the message bus
//! ([`Messaging`]), on the subject of its aggregate, to a worker ([`command_worker`]), which hands it to the router of its own command
//! service. What that answers is what the client gets: status, headers and body.
//!
//! # The protocol
//!
//! A gateway sends, waits, and answers; a worker takes, runs, and replies and settles in one. Each of these may be the last thing that one does:
//!
//! | who dies, when | then |
//! |---|---|
//! | the gateway, before the bus has the command | nothing was written; the client's connection breaks |
//! | the gateway, after that | the command is run all the same, if a worker begins before the bus has had it for too long. The reply finds nobody. A client with a key sends it again |
//! | the worker, before it took it | another takes it |
//! | the worker, before the commit | after [`IDLE`] another takes it and runs it |
//! | the worker, after the commit, before the reply | another takes it, finds what was recorded under its key, and gives that answer |
//! | the worker stands still for longer than [`IDLE`] | another takes it: whichever commits first wins, the other gives the same answer |
//! | all workers | the client has 504 `in-doubt` when its time is up; no worker begins with a command that the bus has had for longer |
//! | the bus, before it has the command | 503: nothing was written, where that is certain; else 504 |
//! | the bus, after that | gateway and worker go on when it is back, or the client has 504 |
//! | the bus, with the command on its way into it | the client has 504. What a bus that stood still had not read it stores when it goes on: the command is run then |
//!
//! **Each command is done once, however often its message is taken.** The id of the message, a UUIDv7, is the command's id. Where the client
//! brought no idempotency key, it is the key too, in a form that no client can bring; it is recorded in the transaction of the events like
//! any other. A creation without an id gets one that follows from it. So what a second worker does is either the first time, or it finds the
//! record and repeats the answer.
//!
//! **What is not known is not made up.** 503 is said only where nothing was written and nothing will be: no worker ever joined the subject,
//! the bus was not reached, or had no room. Whatever else keeps the answer away is 504. Then the command was run, or will not be, or is still to
//! be: how old it is the bus' clock tells, from when the bus had it. (A deadline of the gateway's own clock would be held by the worker's, and two
//! machines' clocks are never compared.) A client with a key sends it again: whichever comes first is done, and answers both.
//!
//! **A worker's answer is a message**, and has the bounds of one. Where the state does not fit, it goes without: id, version and headers are there.
//!
//! **Who asks** is found out by the gateway, and believed by the worker, as far as its own settings go: one whose callers sign in takes
//! nothing of somebody who did not, and holds its own rules against the roles that the gateway found. Whoever may write to the streams can say to be
//! anybody: the bus has users and rights for that.

mod passing;
#[cfg(test)]
mod tests;
mod worker;

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use tidelog_domain::causes;
use tidelog_eventbus::messaging::{
    InvalidName, MessageId, MessageOptions, Messaging, ReplyError, SendError, Subject,
};
use uuid::Uuid;

pub use passing::{CommandCall, CommandReply, PassedCaller};
pub use worker::{Trust, command_worker};

pub(crate) use passing::Passing;

/// How long a gateway waits for an answer, unless told otherwise: 20 s.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);

/// After how long of no sign of life others take the commands of a dead worker: 3 s.
pub const IDLE: Duration = Duration::from_secs(3);

/// The group of the workers.
pub const GROUP: &str = "tidelog.commands";

/// The largest message: a body and what is around it, or the answer of a command over several aggregates. (An engine may take less.)
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// The subject of the commands of `name`, an aggregate or a command over several: `tidelog.command.<name>`.
///
/// # Errors
///
/// [`InvalidName`], of a name that no aggregate can have.
pub fn subject(name: &str) -> Result<Subject<CommandCall, CommandReply>, InvalidName> {
    Subject::parse(format!("tidelog.command.{name}"))
}

/// The workers that run commands, as a gateway sees them. A clone is another handle to the same.
#[derive(Clone)]
pub struct Workers {
    messaging: Messaging,
    timeout: Duration,
}

/// Why no worker has answered a command.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// None has ever taken the commands of its aggregate.
    NoWorkers,
    /// It does not go over the bus.
    TooLarge { bytes: usize, max: usize },
    /// The bus has no room.
    Full,
    /// The bus was not reached.
    Unavailable,
    /// It may have been run.
    InDoubt,
    /// Gateway and worker do not understand each other.
    Defect,
}

impl Workers {
    /// The workers who are reached over the bus of `messaging`, each of whose answers is waited for no longer than `timeout`.
    #[must_use]
    pub fn new(messaging: &Messaging, timeout: Duration) -> Self {
        Self {
            messaging: messaging.with_max_bytes(MAX_MESSAGE_BYTES),
            timeout,
        }
    }

    /// Takes leave of the bus: for when no request is under way any more.
    pub async fn close(&self) {
        self.messaging.close().await;
    }

    /// Has a worker run a command that was checked.
    pub(crate) async fn run(&self, passing: Passing) -> Result<Response, Unanswered> {
        let name = passing.name;
        let sent = async {
            let subject = subject(&name).map_err(|_| Unanswered::Defect)?;
            let id = MessageId::new(&Uuid::now_v7().to_string());
            let options = MessageOptions {
                id: Some(id.map_err(|_| Unanswered::Defect)?),
                metadata: passing.metadata,
                timeout: Some(self.timeout),
            };
            let reply = self.messaging.send_with(&subject, &passing.call, options);
            reply.await.map_err(|error| unanswered(&name, &error))
        };
        response(sent.await?).ok_or_else(|| {
            tracing::error!("a worker's answer is none");
            Unanswered::InDoubt
        })
    }
}

/// What it means that there is no reply. What is not the client's business goes to the log, in the request's span.
fn unanswered(name: &str, error: &SendError) -> Unanswered {
    let why = match error {
        SendError::UnknownSubject { .. } => Unanswered::NoWorkers,
        SendError::TooLarge { bytes, max } => {
            return Unanswered::TooLarge {
                bytes: *bytes,
                max: *max,
            };
        }
        SendError::Bus(tidelog_eventbus::messaging::MessageBusError::Full(_)) => Unanswered::Full,
        SendError::Bus(bus) if bus.nothing_was_put() => Unanswered::Unavailable,
        SendError::Refused(refused) if refused.code == ReplyError::MALFORMED => Unanswered::Defect,
        SendError::Encode(_) | SendError::DuplicateId => Unanswered::Defect,
        _ => Unanswered::InDoubt,
    };
    tracing::warn!(
        aggregate = name,
        error = causes(error),
        "a command has no answer"
    );
    why
}

/// The answer of a worker as one of HTTP.
fn response(reply: CommandReply) -> Option<Response> {
    let body = passing::body(reply.body);
    let mut response = Response::new(body.map_or_else(Body::empty, Body::from));
    *response.status_mut() = StatusCode::from_u16(reply.status).ok()?;
    *response.headers_mut() = passing::unlisted(&reply.headers)?;
    Some(response)
}
