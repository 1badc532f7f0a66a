//! Many messages at one request, of any server that keeps the stream.

use async_nats::header::NATS_SEQUENCE;
use async_nats::{Message, StatusCode, Subscriber};
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::timeout;

use super::connection::Session;
use super::place::RESPONSE_TIMEOUT;

/// The most bytes that are asked for at once (one message may have more).
const PAGE_MAX_BYTES: usize = 4 * 1024 * 1024;

/// The status of the answer that ends a page.
const NO_CONTENT: u16 = 204;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// What a server gives at one request.
pub(crate) struct Page {
    /// Messages and their places, in their order.
    pub(crate) messages: Vec<(u64, Message)>,
    /// Whether there was nothing more.
    pub(crate) is_last: bool,
    /// Whether nobody gave it: the stream is gone, or has no server now.
    pub(crate) is_nobodys: bool,
}

/// Up to `count` messages of `subject` from `sequence` on.
pub(crate) async fn page(
    session: &Session,
    stream: &str,
    subject: &str,
    sequence: u64,
    count: usize,
) -> Result<Page, Failed> {
    let inbox = session.client.new_inbox();
    let mut answers = session.client.subscribe(inbox.clone()).await?;
    let request = json!({
        "seq": sequence, "next_by_subj": subject, "batch": count, "max_bytes": PAGE_MAX_BYTES,
    });
    let to = format!("$JS.API.DIRECT.GET.{stream}");
    let asked = session
        .client
        .publish_with_reply(to, inbox, request.to_string().into());
    asked.await?;
    let page = take(&mut answers).await;
    // Dropping it would do, too, but not for sure.
    drop(answers.unsubscribe().await);
    page
}

async fn take(answers: &mut Subscriber) -> Result<Page, Failed> {
    let mut page = Page {
        messages: Vec::new(),
        is_last: true,
        is_nobodys: false,
    };
    loop {
        let answer = timeout(RESPONSE_TIMEOUT, answers.next()).await;
        let Ok(Some(message)) = answer else {
            return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
        };
        match message.status {
            None | Some(StatusCode::OK) => {
                let sequence = sequence(&message).ok_or("a message without its place")?;
                page.messages.push((sequence, message));
            }
            Some(status) if status.as_u16() == NO_CONTENT => {
                let headers = message.headers.as_ref();
                let pending = headers.and_then(|own| own.get("Nats-Num-Pending"));
                page.is_last = pending.is_none_or(|pending| pending.as_str() == "0");
                return Ok(page);
            }
            Some(StatusCode::NOT_FOUND) => return Ok(page),
            Some(StatusCode::NO_RESPONDERS) => {
                page.is_nobodys = true;
                return Ok(page);
            }
            Some(status) => {
                let what = message.description.unwrap_or_default();
                return Err(format!("{status} {what}").into());
            }
        }
    }
}

/// The place in its stream that a message says it has.
fn sequence(message: &Message) -> Option<u64> {
    let sequence = message.headers.as_ref()?.get(NATS_SEQUENCE)?;
    sequence.as_str().parse().ok()
}
