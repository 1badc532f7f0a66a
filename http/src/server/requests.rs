//! What is done to each request and answer of a connection: its head is looked at, who sends it is noted, and how long the body may take is
//! bounded.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Buf, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::connections::Activity;
use super::paced::MIN_BYTES;
use crate::problem::{Problem, ProblemKind};

/// Who is at the other end of the connection that a request came by. It is among the request's extensions.
///
/// Behind a proxy it is the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// What is answered to a request whose head is none that HTTP/1.1 permits (RFC 9112, 3.2), or is larger than `max_bytes`; hyper only looks at
/// what it has not read yet.
pub(super) fn refused<B>(request: &Request<B>, max_bytes: usize) -> Option<Response> {
    if bytes_of_head(request) > max_bytes {
        return Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response());
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let is_fine = match (hosts.next(), hosts.next()) {
        (Some(host), None) => is_host(host),
        (None, _) => request.version() < Version::HTTP_11,
        (Some(_), Some(_)) => false,
    };
    if is_fine {
        return None;
    }
    let detail = "A request has one header Host, with the name or address that it was sent to. Send it again with one.";
    Some(Problem::new(ProblemKind::MalformedRequest, detail).into_response())
}

/// How many bytes the head of a request had, but for blanks that mean nothing.
fn bytes_of_head<B>(request: &Request<B>) -> usize {
    let uri = request.uri();
    let authority = uri
        .authority()
        .map_or(0, |authority| authority.as_str().len());
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    request.method().as_str().len() + authority + path + headers.sum::<usize>()
}

fn is_host(host: &HeaderValue) -> bool {
    let host = host.as_bytes();
    host.is_empty() || (!host.contains(&b'@') && Authority::try_from(host).is_ok())
}

/// The body of a request, which has to come within a time once it is read; it tells when it is waited for. (One that nobody reads, hyper
/// does not read either: it closes the connection after the answer.)
pub(super) struct Timed<B> {
    body: B,
    within: Duration,
    activity: Arc<Activity>,
    /// How much of it has come since it was last told that it has.
    come: usize,
    /// Only of a body that does not come at once.
    late: Option<Pin<Box<Sleep>>>,
}

impl<B> Timed<B> {
    pub(super) const fn new(body: B, within: Duration, activity: Arc<Activity>) -> Self {
        Self {
            body,
            within,
            activity,
            come: 0,
            late: None,
        }
    }
}

impl<B> Drop for Timed<B> {
    fn drop(&mut self) {
        self.activity.has_come();
    }
}

impl<B: HttpBody<Error: Into<BoxError>> + Unpin> HttpBody for Timed<B> {
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let is_late = |late: &mut Pin<Box<Sleep>>| late.as_mut().poll(cx).is_ready();
        // However steadily it drips.
        if self.late.as_mut().is_some_and(is_late) {
            return Poll::Ready(Some(Err(too_late())));
        }
        let within = self.within;
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                let bytes = match &frame {
                    Some(Ok(frame)) => frame.data_ref().map_or(0, Buf::remaining),
                    _ => 0,
                };
                self.come = self.come.saturating_add(bytes);
                let has_ended = bytes == 0 || self.body.is_end_stream();
                if has_ended || self.come >= MIN_BYTES {
                    self.come = 0;
                    self.activity.has_come();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                self.activity.waits_for_body();
                let late = self.late.get_or_insert_with(|| Box::pin(sleep(within)));
                late.as_mut().poll(cx).map(|()| Some(Err(too_late())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn too_late() -> BoxError {
    "the body did not arrive in time".into()
}
