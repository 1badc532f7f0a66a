//! What waits to be written to one socket: so many messages, and so many bytes, at most.
//!
//! How large a message is shows only when it is made. So it waits for its bytes in the hands of who made it: the socket itself, which makes no
//! other meanwhile, or one of the subscriptions, which take turns. One that is larger than all the bytes there are goes when nothing else
//! waits.
//!
//! Bytes are given back when their message is written, and all of them when the queue goes with its socket, whoever waits for some then.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use futures_util::stream::SplitSink;
use futures_util::{SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::PollSemaphore;

use super::SocketSettings;

/// The half of a socket that is written to.
pub(super) type Writing<S> = SplitSink<WebSocketStream<S>, Message>;

/// A message that waits, and the bytes that it has taken.
struct Waiting {
    message: Message,
    bytes: Option<OwnedSemaphorePermit>,
}

/// The way into the queue. Cloning gives another handle to the same.
#[derive(Clone)]
pub(super) struct Out {
    messages: mpsc::Sender<Waiting>,
    bytes: Arc<Semaphore>,
    /// How many bytes there are.
    most: u32,
    /// Of the subscriptions.
    turns: Arc<Semaphore>,
}

/// The queue.
pub(super) struct Queue(mpsc::Receiver<Waiting>);

/// A place for one message, whose bytes are to be waited for.
pub(super) struct Place(OwnedPermit<Waiting>);

/// What a message has taken of the bytes.
pub(super) struct Bytes(Option<OwnedSemaphorePermit>);

/// The queue is gone, and its socket with it.
#[derive(Debug)]
pub(super) struct Gone;

/// A subscription's turn to make messages, while it lives.
pub(super) struct Turn(#[allow(dead_code, reason = "it is held")] OwnedSemaphorePermit);

/// Asks for turns.
pub(super) struct Turns(PollSemaphore);

/// A queue of the bounds that `settings` say.
pub(super) fn queue(settings: &SocketSettings) -> (Out, Queue) {
    let (messages, waiting) = mpsc::channel(settings.max_queued);
    let most = settings.max_queued_bytes.clamp(1, Semaphore::MAX_PERMITS);
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    let out = Out {
        messages,
        bytes: Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(usize::MAX))),
        most,
        turns: Arc::new(Semaphore::new(1)),
    };
    (out, Queue(waiting))
}

impl Out {
    /// A place, once there is one.
    pub(super) async fn place(&self) -> Result<Place, Gone> {
        let reserved = self.messages.clone().reserve_owned().await;
        reserved.map(Place).map_err(|_| Gone)
    }

    /// The bytes of a message of this length, once there are as many.
    pub(super) async fn bytes(&self, length: usize) -> Bytes {
        let bytes = u32::try_from(length).unwrap_or(u32::MAX).min(self.most);
        // Nobody closes it.
        let taken = Arc::clone(&self.bytes).acquire_many_owned(bytes).await;
        Bytes(taken.ok())
    }

    /// Puts `text` into the queue, once there is room. The place comes first, for everybody: who holds bytes waits for nothing.
    pub(super) async fn send(&self, text: String) -> Result<(), Gone> {
        let place = self.place().await?;
        let bytes = self.bytes(text.len()).await;
        if self.messages.is_closed() {
            return Err(Gone);
        }
        place.put(text, bytes);
        Ok(())
    }

    /// Asks for a sign of life, where there is room.
    pub(super) fn ping(&self) {
        let message = Message::Ping(tungstenite::Bytes::new());
        let _ = self.messages.try_send(Waiting {
            message,
            bytes: None,
        });
    }

    /// Says why the socket ends, after all that waits.
    pub(super) async fn close(&self, frame: CloseFrame) {
        let message = Message::Close(Some(frame));
        let bytes = None;
        let _ = self.messages.send(Waiting { message, bytes }).await;
    }

    /// The turns of a subscription.
    pub(super) fn turns(&self) -> Turns {
        Turns(PollSemaphore::new(Arc::clone(&self.turns)))
    }
}

impl Place {
    /// Puts `text` there.
    pub(super) fn put(self, text: String, bytes: Bytes) {
        self.0.send(Waiting {
            message: Message::text(text),
            bytes: bytes.0,
        });
    }
}

impl Turns {
    /// The next piece of `body`, which is asked for it only in a turn; that lasts until what the piece says is in the queue. While there is no
    /// piece, others may have it.
    pub(super) async fn next<T>(
        &mut self,
        body: &mut (impl Stream<Item = T> + Unpin),
    ) -> Option<(T, Turn)> {
        poll_fn(|cx| {
            let Some(turn) = ready!(self.0.poll_acquire(cx)) else {
                return Poll::Ready(None);
            };
            let piece = ready!(body.poll_next_unpin(cx));
            Poll::Ready(piece.map(|piece| (piece, Turn(turn))))
        })
        .await
    }
}

impl Queue {
    /// Writes what is in it, one after the other, up to a close. `None` where the client has not taken it.
    pub(super) async fn write<S>(
        mut self,
        mut sink: Writing<S>,
        patience: Duration,
    ) -> Option<Writing<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        while let Some(first) = self.0.recv().await {
            let mut is_last = first.message.is_close();
            let mut held = first.bytes;
            in_time(patience, sink.feed(first.message)).await?;
            // What is there already goes along. Each message has its own time: a steady client may never find the queue empty.
            while let (false, Ok(next)) = (is_last, self.0.try_recv()) {
                is_last = next.message.is_close();
                in_time(patience, sink.feed(next.message)).await?;
                // The one before is written.
                held = next.bytes;
            }
            in_time(patience, sink.flush()).await?;
            drop(held);
            if is_last {
                break;
            }
        }
        Some(sink)
    }
}

/// What was written in time.
async fn in_time(
    patience: Duration,
    written: impl Future<Output = Result<(), tungstenite::Error>>,
) -> Option<()> {
    let written = timeout(patience, written).await.ok()?;
    written
        .inspect_err(|error| tracing::debug!(%error, "a WebSocket cannot be written to"))
        .ok()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn of_bytes(max_queued_bytes: usize) -> (Out, Queue) {
        queue(&SocketSettings {
            max_queued_bytes,
            ..SocketSettings::default()
        })
    }

    fn text(length: usize) -> String {
        "x".repeat(length)
    }

    #[test]
    fn a_message_waits_until_there_are_bytes_for_it() {
        let (out, mut queue) = of_bytes(100);
        assert!(out.send(text(60)).now_or_never().is_some());
        let second = out.send(text(60));
        let mut second = std::pin::pin!(second);
        assert!(second.as_mut().now_or_never().is_none());
        // Whoever comes later does not get past it.
        let third = out.send(text(40));
        let mut third = std::pin::pin!(third);
        assert!(third.as_mut().now_or_never().is_none());
        drop(queue.0.try_recv().unwrap());
        assert!(second.as_mut().now_or_never().is_some());
        assert!(third.as_mut().now_or_never().is_some());
        assert!(out.send(text(1)).now_or_never().is_none());
    }

    #[test]
    fn a_message_larger_than_all_bytes_goes_alone() {
        let (out, mut queue) = of_bytes(100);
        out.send(text(1)).now_or_never().unwrap().unwrap();
        let large = out.send(text(1_000));
        let mut large = std::pin::pin!(large);
        assert!(large.as_mut().now_or_never().is_none());
        drop(queue.0.try_recv().unwrap());
        assert!(large.as_mut().now_or_never().is_some());
        assert!(out.send(text(1)).now_or_never().is_none());
    }

    #[test]
    fn who_has_the_last_place_does_not_wait_for_the_bytes_of_who_has_none() {
        let settings = SocketSettings {
            max_queued: 1,
            max_queued_bytes: 100,
            ..SocketSettings::default()
        };
        let (out, _queue) = queue(&settings);
        let place = out.place().now_or_never().unwrap().unwrap();
        let second = out.send(text(100));
        let mut second = std::pin::pin!(second);
        assert!(second.as_mut().now_or_never().is_none());
        let bytes = out.bytes(100).now_or_never();
        place.put(text(100), bytes.expect("nobody has them"));
    }

    #[test]
    fn who_waits_for_bytes_is_told_that_the_socket_is_gone() {
        let (out, queue) = of_bytes(100);
        out.send(text(100)).now_or_never().unwrap().unwrap();
        let waits = out.send(text(1));
        let mut waits = std::pin::pin!(waits);
        assert!(waits.as_mut().now_or_never().is_none());
        drop(queue);
        assert!(matches!(waits.as_mut().now_or_never(), Some(Err(Gone))));
    }
}
