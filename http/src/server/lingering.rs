//! A connection that is closed so that the client can still read the answer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a closed connection is read on for what the client still sends.
const LINGER: Duration = Duration::from_secs(1);

/// The most bytes that are read on, and thrown away.
const LINGER_MAX_BYTES: usize = 8 * 1024 * 1024;

/// The most bytes that are thrown away at once.
const SCRAP_BYTES: usize = 16 * 1024;

/// Reads on, for a bounded time, after it was shut down.
///
/// A server that answers before it has read the whole body (a 413, a 404) and then closes makes its kernel send a reset, by
/// which the client may lose the answer. So the sending half is closed first, and what still comes is thrown away
/// until the client closes too.
pub(crate) struct Lingering<S> {
    inner: S,
    closing: Option<Closing>,
}

struct Closing {
    deadline: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl<S> Lingering<S> {
    pub(crate) const fn new(inner: S) -> Self {
        Self {
            inner,
            closing: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, closing } = &mut *self;
        let closing = match closing {
            Some(closing) => closing,
            None => {
                ready!(Pin::new(&mut *inner).poll_shutdown(cx))?;
                closing.insert(Closing {
                    deadline: Box::pin(sleep(LINGER)),
                    bytes_left: LINGER_MAX_BYTES,
                })
            }
        };
        while closing.bytes_left > 0 && closing.deadline.as_mut().poll(cx).is_pending() {
            let mut scrap = [0; SCRAP_BYTES];
            let mut scrap = ReadBuf::new(&mut scrap);
            // An error means that the client is gone: there is nobody left to wait for.
            if ready!(Pin::new(&mut *inner).poll_read(cx, &mut scrap)).is_err()
                || scrap.filled().is_empty()
            {
                break;
            }
            closing.bytes_left = closing.bytes_left.saturating_sub(scrap.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}
