//! A connection whose client must take what is sent to it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use metrics::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::connections::Activity;

/// The fewest bytes that a client takes or sends within the time there is, unless these are all there are.
pub(super) const MIN_BYTES: usize = 16 * 1024;

/// Fails once its client has taken too little for too long, and tells what the connection is doing.
pub(super) struct Paced<S> {
    inner: S,
    activity: Arc<Activity>,
    /// How long a client may take for [`MIN_BYTES`].
    patience: Duration,
    waiting: Option<Waiting>,
    too_slow: Counter,
}

/// The client has not taken all of it.
struct Waiting {
    deadline: Pin<Box<Sleep>>,
    taken: usize,
}

impl<S> Paced<S> {
    pub(super) const fn new(
        inner: S,
        activity: Arc<Activity>,
        patience: Duration,
        too_slow: Counter,
    ) -> Self {
        Self {
            inner,
            activity,
            patience,
            waiting: None,
            too_slow,
        }
    }

    /// What to say of a write of `of` bytes that ended so.
    fn paced(
        &mut self,
        written: Poll<io::Result<usize>>,
        of: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) if bytes >= of => self.is_through(),
            Poll::Ready(Ok(bytes)) => {
                let patience = self.patience;
                let waiting = self.waiting();
                waiting.taken += bytes;
                if waiting.taken >= MIN_BYTES {
                    *waiting = Waiting::new(patience);
                    self.activity.told(true);
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                if self.waiting().deadline.as_mut().poll(cx).is_ready() {
                    self.too_slow.increment(1);
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        written
    }

    fn is_through(&mut self) {
        if self.waiting.take().is_some() {
            self.activity.told(false);
        }
    }

    fn waiting(&mut self) -> &mut Waiting {
        let (activity, patience) = (&self.activity, self.patience);
        self.waiting.get_or_insert_with(|| {
            activity.told(true);
            Waiting::new(patience)
        })
    }
}

impl Waiting {
    fn new(patience: Duration) -> Self {
        Self {
            deadline: Box::pin(sleep(patience)),
            taken: 0,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.heard();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.paced(written, buf.len(), cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        let of = bufs.iter().map(|buf| buf.len()).sum();
        self.paced(written, of, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::server::ServerSettings;
    use crate::server::connections::{Connections, Phase};

    const PATIENCE: Duration = Duration::from_secs(30);

    fn paced<S>(inner: S) -> Paced<S> {
        let connection = Connections::new(ServerSettings::default()).count(Phase::Idle);
        let activity = Arc::clone(&connection.activity);
        Paced::new(inner, activity, PATIENCE, Counter::noop())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (_client, server) = duplex(1024);
        let error = paced(server).write_all(&[0; 4096]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_drop_by_drop_is_given_up() {
        let (mut client, server) = duplex(1024);
        let sipping = async {
            let mut taken = [0; 64];
            loop {
                client.read_exact(&mut taken).await.unwrap();
                sleep(Duration::from_secs(1)).await;
            }
        };
        let (mut server, all) = (paced(server), vec![0; 1024 * 1024]);
        tokio::select! {
            ended = server.write_all(&all) => {
                assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
            }
            () = sipping => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_slow_and_goes_on_gets_all_of_it() {
        let (mut client, server) = duplex(1024);
        let all = vec![0; 256 * 1024];
        let began = tokio::time::Instant::now();
        let reading = async {
            let mut taken = [0; 1024];
            for _ in 0..all.len() / taken.len() {
                client.read_exact(&mut taken).await.unwrap();
                sleep(Duration::from_secs(1)).await;
            }
        };
        let mut server = paced(server);
        let (written, ()) = tokio::join!(server.write_all(&all), reading);
        written.unwrap();
        assert!(!server.activity.is_blocked(), "it took all there was");
        assert!(began.elapsed() > 4 * PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_between_two_writes_is_nobodys_fault() {
        let (mut client, server) = duplex(1024);
        let mut server = paced(server);
        for _ in 0..3 {
            server.write_all(&[0; 100]).await.unwrap();
            sleep(2 * PATIENCE).await;
            client.read_exact(&mut [0; 100]).await.unwrap();
        }
    }
}
