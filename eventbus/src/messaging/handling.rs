//! What a worker does with one message, and what becomes of it.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::value::RawValue;
use tidelog_domain::{Metadata, causes};
use tidelog_telemetry::{adopt, traced};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::bus::{Consumer, Delivery, MessageBus, Settlement, Taken};
use super::envelope::{self, Message};
use super::error::{HandlerError, MessageBusError, ReplyError};
use super::handler::{Answers, AnswersTo, AnyHandler};
use super::message::{Context, MessageContext};
use super::names::{Channel, Group, MessageId};
use crate::backoff::Backoff;
use crate::failure::{Failure, FailureKind, FailurePolicy};

/// How long the error of a dead letter may be, in characters.
const MAX_ERROR_CHARS: usize = 2_000;

const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The longest wait before another try, whatever a handler asks for: 30 days.
const LONGEST_DELAY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The wait after a panic that was not in the handler's future: in what made it, or in the policy.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// What a worker handles messages by.
pub(super) struct Handling {
    pub(super) app: Arc<str>,
    pub(super) bus: Arc<dyn MessageBus>,
    pub(super) max_bytes: usize,
    pub(super) group: Group,
    pub(super) handlers: HashMap<Channel, AnyHandler>,
    pub(super) policy: FailurePolicy,
    pub(super) consumer: Arc<dyn Consumer>,
    /// No more is taken.
    pub(super) stop: CancellationToken,
    /// Ends handlers that take too long to stop.
    pub(super) end: CancellationToken,
}

/// What is to become of a message.
enum Verdict {
    /// It is over.
    Done(Outcome),
    /// Its caller has this reply, and it is over.
    Reply {
        outcome: Outcome,
        address: String,
        reply: Vec<u8>,
        /// For how long its caller waits.
        until: Instant,
    },
    Retry {
        after: Duration,
        counted: bool,
    },
    Dead(String),
}

/// How a message is over, for the metrics.
#[derive(Clone, Copy)]
enum Outcome {
    Handled,
    Refused,
    Failed,
    Skipped,
    Expired,
}

impl Verdict {
    fn name(&self) -> &'static str {
        match self {
            Self::Done(outcome) | Self::Reply { outcome, .. } => match outcome {
                Outcome::Handled => "handled",
                Outcome::Refused => "refused",
                Outcome::Failed => "failed",
                Outcome::Skipped => "skipped",
                Outcome::Expired => "expired",
            },
            Self::Retry { .. } => "retried",
            Self::Dead(_) => "dead",
        }
    }
}

/// One message that is handled.
struct Work<'a> {
    delivery: &'a Delivery,
    context: MessageContext,
    answers: Answers,
}

impl Handling {
    /// Handles a message and settles it.
    pub(super) async fn handle(&self, delivery: Delivery) {
        let in_flight = metrics::gauge!("tidelog_messages_in_flight", "group" => self.group.as_str().to_owned());
        in_flight.increment(1.0);
        let judged = AssertUnwindSafe(self.judge(&delivery)).catch_unwind();
        let verdict = self.end.run_until_cancelled(judged).await;
        let verdict = verdict.map(|judged| {
            judged.unwrap_or_else(|panic| {
                let Taken { channel, entry } = &delivery.taken;
                let error = panicked(&*panic);
                tracing::error!(%channel, %entry, error, "a message was not handled");
                Verdict::Retry {
                    after: AFTER_PANIC,
                    counted: true,
                }
            })
        });
        if let Some(verdict) = verdict {
            self.count(&delivery.taken.channel, verdict.name());
            self.end
                .run_until_cancelled(self.settle(&delivery, &verdict))
                .await;
        } else {
            self.count(&delivery.taken.channel, "given_back");
        }
        in_flight.decrement(1.0);
    }

    fn count(&self, channel: &Channel, outcome: &'static str) {
        metrics::counter!(
            "tidelog_messages_total",
            "subject" => channel.subject().to_owned(), "group" => self.group.as_str().to_owned(), "outcome" => outcome
        )
        .increment(1);
    }

    /// Has a message handled, and says what is to become of it.
    async fn judge(&self, delivery: &Delivery) -> Verdict {
        let Taken { channel, entry } = &delivery.taken;
        let message = match envelope::decode(&delivery.body) {
            Ok(message) => message,
            Err(error) => {
                let error = causes(&error);
                tracing::error!(%channel, %entry, error, "a message cannot be read");
                return Verdict::Dead(format!("it cannot be read: {error}"));
            }
        };
        let Ok(id) = MessageId::new(&message.id) else {
            return Verdict::Dead("its id cannot be one".to_owned());
        };
        let Some(handler) = self.handlers.get(channel) else {
            return Verdict::Dead("the worker has no handler for it".to_owned());
        };
        let payload = envelope::or_null(message.data).to_owned();
        let context = context(message, id, delivery);
        let work = Work {
            answers: Answers(Arc::new(AnswersTo {
                app: Arc::clone(&self.app),
                bus: Arc::clone(&self.bus),
                context: context.clone(),
                max_bytes: self.max_bytes,
                sent: AtomicU32::new(0),
            })),
            context,
            delivery,
        };
        if let Some(verdict) = self.is_not_to_be_begun(&work) {
            return verdict;
        }
        let span = traced!(
            "message", subject = channel.as_str(), group = self.group.as_str(), message = %work.context.id(),
            attempt = delivery.attempt, otel.kind = "consumer", outcome = tracing::field::Empty, otel.status_code = tracing::field::Empty
        );
        if let Some(traceparent) = &work.context.metadata().traceparent {
            adopt(&span, traceparent);
        }
        let handled = handler(payload, work.context.clone(), work.answers.clone());
        let handled = AssertUnwindSafe(handled).catch_unwind();
        let verdict = match handled.instrument(span.clone()).await {
            Ok(Ok(value)) => work.reply(Outcome::Handled, Ok(value.as_deref())),
            Ok(Err(error)) => self.failed(&work, error),
            Err(panic) => {
                let panic = panicked(&*panic);
                self.failed(&work, HandlerError::Failed(Failure::permanent(panic)))
            }
        };
        crate::traces::told(&span, verdict.name());
        verdict
    }

    /// What becomes of a message whose caller waits no longer, or at which workers died again and again.
    fn is_not_to_be_begun(&self, work: &Work<'_>) -> Option<Verdict> {
        if work.context.remaining() == Some(Duration::ZERO) {
            return Some(Verdict::Done(Outcome::Expired));
        }
        let attempts = self.policy.attempts.max(1);
        (work.delivery.attempt > attempts).then(|| {
            let died = format!(
                "{attempts} workers died while they handled it, or it was too much for them"
            );
            self.give_up(work, died)
        })
    }

    /// What becomes of a message that was not handled.
    fn failed(&self, work: &Work<'_>, error: HandlerError) -> Verdict {
        let is_request = work.context.is_request();
        let failure = match error {
            HandlerError::Refused(error) if is_request => {
                return work.reply(Outcome::Refused, Err(&error));
            }
            HandlerError::Refused(error) if error.code == ReplyError::MALFORMED => {
                Failure::park(error.to_string())
            }
            HandlerError::Refused(error) => Failure::permanent(error.to_string()),
            HandlerError::Failed(failure) => failure,
        };
        let text = causes(&*failure.cause);
        let kind = self.policy.judge(&failure);
        let delivery = work.delivery;
        tracing::warn!(
            channel = %delivery.taken.channel, group = %self.group, message = %work.context.id(), attempt = delivery.attempt,
            error = text, ?kind, "a message was not handled"
        );
        match kind {
            FailureKind::Transient => work.later(self.policy.delay(delivery.tries), false, &text),
            FailureKind::RetryAfter(delay) => work.later(delay, false, &text),
            FailureKind::Skip if !is_request => Verdict::Done(Outcome::Skipped),
            FailureKind::Permanent if !is_request && delivery.attempt < self.policy.attempts => {
                work.later(self.policy.delay(delivery.attempt), true, &text)
            }
            _ => self.give_up(work, text),
        }
    }

    /// A message is given up: its caller is told, or it becomes a dead letter.
    fn give_up(&self, work: &Work<'_>, error: String) -> Verdict {
        if work.context.is_request() {
            let detail = "the handler failed: the log of its worker says why";
            let told = ReplyError::new(ReplyError::FAILED, detail);
            work.reply(Outcome::Failed, Err(&told))
        } else {
            tracing::error!(
                channel = %work.delivery.taken.channel, group = %self.group, message = %work.context.id(), error,
                "a message is a dead letter now"
            );
            Verdict::Dead(error.chars().take(MAX_ERROR_CHARS).collect())
        }
    }

    /// Tells the bus what becomes of a message, until it knows.
    async fn settle(&self, delivery: &Delivery, verdict: &Verdict) {
        let mut settlement = match verdict {
            Verdict::Done(outcome) => Settlement::Done {
                reply: None,
                remove: matches!(outcome, Outcome::Expired),
            },
            Verdict::Reply { address, reply, .. } => Settlement::Done {
                reply: Some((address, reply)),
                remove: true,
            },
            Verdict::Retry { after, counted } => Settlement::Retry {
                after: *after,
                counted: *counted,
            },
            Verdict::Dead(error) => Settlement::Dead {
                error,
                attempts: delivery.attempt,
            },
        };
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        while let Err(error) = self
            .consumer
            .settle(&delivery.taken, settlement.clone())
            .await
        {
            let wait = backoff.next_wait();
            tracing::warn!(channel = %delivery.taken.channel, error = causes(&error), ?wait, "a message cannot be settled");
            if let Some(other) = self.instead(verdict, &error) {
                settlement = other;
            }
            tokio::time::sleep(wait).await;
        }
        // It would wait here for the slowest handler, and be given back then.
        if matches!(settlement, Settlement::Retry { .. }) && self.stop.is_cancelled() {
            self.give_back(&[]).await;
        }
    }

    /// Gives back to the group what is not begun, `unbegun` and what waits to be tried again among it.
    pub(super) async fn give_back(&self, unbegun: &[Taken]) {
        if let Err(error) = self.consumer.stop_taking(unbegun).await {
            tracing::warn!(
                group = %self.group, error = causes(&error),
                "a worker that stops cannot give back what it has not begun with: it tries again at its end"
            );
        }
    }

    /// What becomes of a message that the bus does not let be settled, so that it does not keep its slot: nobody waits for its reply any
    /// longer, or it is too large, or there is no room for another dead letter.
    fn instead(&self, verdict: &Verdict, error: &MessageBusError) -> Option<Settlement<'static>> {
        let is_too_large = matches!(error, MessageBusError::TooLarge { .. });
        match verdict {
            Verdict::Reply { until, .. } if is_too_large || *until <= Instant::now() => {
                Some(Settlement::Done {
                    reply: None,
                    remove: true,
                })
            }
            Verdict::Dead(_) if is_too_large || matches!(error, MessageBusError::Full(_)) => {
                Some(Settlement::Retry {
                    after: self.policy.max_delay.min(LONGEST_DELAY),
                    counted: false,
                })
            }
            _ => None,
        }
    }
}

impl Work<'_> {
    /// Its caller has this as the last reply, if somebody waits for one.
    fn reply(&self, outcome: Outcome, reply: Result<Option<&RawValue>, &ReplyError>) -> Verdict {
        match &self.context.0.reply_to {
            None => Verdict::Done(outcome),
            Some((address, until)) => Verdict::Reply {
                outcome,
                address: address.clone(),
                reply: self.answers.last(reply),
                until: *until,
            },
        }
    }

    /// It is tried again, unless its caller does not wait for so long.
    fn later(&self, after: Duration, counted: bool, why: &str) -> Verdict {
        if self
            .context
            .remaining()
            .is_some_and(|remaining| remaining <= after)
        {
            tracing::info!(message = %self.context.id(), why, "a request is given up, since its caller waits no longer");
            let detail = "it cannot be handled now: try again later";
            let told = ReplyError::new(ReplyError::UNAVAILABLE, detail);
            return self.reply(Outcome::Failed, Err(&told));
        }
        Verdict::Retry {
            after: after.min(LONGEST_DELAY),
            counted,
        }
    }
}

fn context(message: Message<'_>, id: MessageId, delivery: &Delivery) -> MessageContext {
    let timeout = message.timeoutms.map(|ms| Duration::from_millis(ms.into()));
    let longest = Duration::from_millis(u32::MAX.into());
    let remaining = timeout.unwrap_or(longest).saturating_sub(delivery.age);
    MessageContext(Arc::new(Context {
        id,
        source: message.source.into_owned(),
        channel: delivery.taken.channel.clone(),
        metadata: Metadata {
            correlation_id: message.correlationid,
            causation_id: message.causationid,
            actor: message.actor,
            tenant: message.tenant,
            traceparent: message.traceparent,
            key_id: None,
        },
        attempt: delivery.attempt,
        reply_to: message
            .replyto
            .map(|address| (address, Instant::now() + remaining)),
    }))
}

/// What a panic says.
fn panicked(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", text.unwrap_or("without a text"))
}
