//! Handlers of messages, as a worker keeps them: without their types.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::bus::MessageBus;
use super::envelope::{self, ReplyHead};
use super::error::{HandlerError, MessageBusError, ReplyError};
use super::message::MessageContext;
use crate::failure::Failure;

/// A handler without its types. It gives its one value, or none where it gave them to [`Answers`].
pub(super) type AnyHandler = Arc<
    dyn Fn(
            Box<RawValue>,
            MessageContext,
            Answers,
        ) -> BoxFuture<'static, Result<Option<Box<RawValue>>, HandlerError>>
        + Send
        + Sync,
>;

/// A handler that gives one value.
pub(super) fn one<Message, Reply, F, Fut>(handler: F) -> AnyHandler
where
    Message: DeserializeOwned + Send + 'static,
    Reply: Serialize + Send + 'static,
    F: Fn(Message, MessageContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply, HandlerError>> + Send + 'static,
{
    let handler = Arc::new(handler);
    Arc::new(move |payload, context, _| {
        let handler = Arc::clone(&handler);
        async move {
            let message = read(&payload)?;
            drop(payload);
            let reply = handler(message, context).await?;
            let reply = serde_json::value::to_raw_value(&reply)?;
            Ok(Some(reply))
        }
        .boxed()
    })
}

/// A handler that gives several values.
pub(super) fn several<Message, Reply, F, Fut>(handler: F) -> AnyHandler
where
    Message: DeserializeOwned + Send + 'static,
    Reply: Serialize + Send + 'static,
    F: Fn(Message, MessageContext, Replies<Reply>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    let handler = Arc::new(handler);
    Arc::new(move |payload, context, answers| {
        let handler = Arc::clone(&handler);
        async move {
            let message = read(&payload)?;
            drop(payload);
            let replies = Replies {
                answers,
                types: PhantomData,
            };
            handler(message, context, replies).await?;
            Ok(None)
        }
        .boxed()
    })
}

/// The payload as the handler wants it. A request with another is answered, and another message is dead at once: to try it again does not help.
fn read<Message: DeserializeOwned>(payload: &RawValue) -> Result<Message, HandlerError> {
    serde_json::from_str(payload.get()).map_err(|error| {
        HandlerError::Refused(ReplyError::new(ReplyError::MALFORMED, error.to_string()))
    })
}

/// Where a handler puts several values, in order.
pub struct Replies<Reply> {
    answers: Answers,
    types: PhantomData<fn(Reply)>,
}

impl<Reply: Serialize> Replies<Reply> {
    /// Sends a value to who waits. The end mark comes by itself, when the handler has returned.
    ///
    /// For a message that nobody waits for it does nothing. A request that is tried again begins anew: its caller has each value once,
    /// by its number.
    ///
    /// # Errors
    ///
    /// [`ReplyError`] `gone` when the caller is known to be gone, and `too-large`; [`Failure`] when the bus does not take it. Return it
    /// (`?`).
    pub async fn send(&self, value: &Reply) -> Result<(), HandlerError> {
        self.answers.send(value).await
    }
}

/// Where the replies to one message go.
#[derive(Clone)]
pub(super) struct Answers(pub(super) Arc<AnswersTo>);

pub(super) struct AnswersTo {
    pub(super) app: Arc<str>,
    pub(super) bus: Arc<dyn MessageBus>,
    pub(super) context: MessageContext,
    pub(super) max_bytes: usize,
    /// How many values were sent.
    pub(super) sent: AtomicU32,
}

impl Answers {
    async fn send<D: Serialize>(&self, value: &D) -> Result<(), HandlerError> {
        let to = &self.0;
        let Some((address, _)) = &to.context.0.reply_to else {
            return Ok(());
        };
        let sequence = to.sent.load(Ordering::Relaxed) + 1;
        let reply = envelope::encode_reply(self.head(sequence, false), Some(value))?;
        if reply.len() > to.max_bytes {
            return Err(self.too_large(reply.len()).into());
        }
        let is_there = to.bus.answer(address, &[reply]).await;
        to.sent.store(sequence, Ordering::Relaxed);
        match is_there {
            Ok(true) => Ok(()),
            Ok(false) => Err(ReplyError::new("gone", "its caller is gone").into()),
            Err(error @ MessageBusError::Unavailable(_)) => Err(Failure::transient(error).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The last reply, written: the one value, or the end mark, or an error.
    pub(super) fn last(&self, outcome: Result<Option<&RawValue>, &ReplyError>) -> Vec<u8> {
        let head = self.head(self.0.sent.load(Ordering::Relaxed) + 1, true);
        let written = match outcome {
            Ok(value) => envelope::encode_reply(head, value),
            Err(error) => envelope::encode_error(head, error),
        };
        match written {
            Ok(reply) if reply.len() > self.0.max_bytes => {
                envelope::encode_error(head, &self.too_large(reply.len())).unwrap_or_default()
            }
            // What is JSON already can be written.
            written => written.unwrap_or_default(),
        }
    }

    fn too_large(&self, bytes: usize) -> ReplyError {
        let max = self.0.max_bytes;
        ReplyError::new(
            ReplyError::TOO_LARGE,
            format!("the reply has {bytes} bytes, and {max} is the most"),
        )
    }

    fn head(&self, sequence: u32, last: bool) -> ReplyHead<'_> {
        ReplyHead {
            app: &self.0.app,
            request: self.0.context.id().as_str(),
            sequence,
            last,
        }
    }
}
