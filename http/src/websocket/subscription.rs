//! One subscription of a socket: a live query, whose events are passed on.

use std::future::poll_fn;
use std::task::{Poll, ready};

use axum::Router;
use axum::body::{BodyDataStream, Bytes};
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::PollSender;
use tower::ServiceExt;

use super::answer;
use super::events::Events;
use super::message::LIVE;
use crate::problem::{Problem, ProblemKind};

/// Asks `queries`, and passes on to `out` what comes, for as long as it comes. The last message of it is given back: its end, or why there is
/// nothing to tell.
///
/// Nothing is read of what comes while there is no room in `out`.
pub(super) async fn tell(
    id: String,
    queries: Router,
    request: Request,
    out: mpsc::Sender<Message>,
) -> String {
    let Ok(response) = queries.oneshot(request).await;
    if !response.status().is_success() {
        return answer::answer(&id, response).await;
    }
    if !is_live(&response) {
        return answer::problem(Some(&id), not_live()).await;
    }
    let subscribed = Message::text(answer::subscribed(&id, &response));
    let mut out = PollSender::new(out);
    let mut is_taken = out.send(subscribed).await.is_ok();
    let mut body = response.into_body().into_data_stream();
    let mut events = Events::default();
    while let (true, Some(piece)) = (is_taken, next(&mut body, &mut out).await) {
        let taken = piece.ok().map(|piece| events.take(&piece));
        if !matches!(taken, Some(Ok(()))) {
            return answer::ended(&id, "failed");
        }
        while let Some(event) = events.next() {
            let event = Message::text(answer::event(&id, event));
            is_taken = out.send(event).await.is_ok();
        }
    }
    answer::ended(&id, "over")
}

/// The next piece of `body`, which is not asked for it before there is room in `out`. The room is kept for what the piece has; while there is
/// none, others may have it.
async fn next(
    body: &mut BodyDataStream,
    out: &mut PollSender<Message>,
) -> Option<Result<Bytes, axum::Error>> {
    poll_fn(|cx| {
        if ready!(out.poll_reserve(cx)).is_err() {
            return Poll::Ready(None);
        }
        let piece = body.poll_next_unpin(cx);
        if piece.is_pending() {
            out.abort_send();
        }
        piece
    })
    .await
}

fn is_live(response: &Response) -> bool {
    let media = response.headers().get(CONTENT_TYPE);
    media.is_some_and(|media| media.as_bytes().starts_with(LIVE.as_bytes()))
}

fn not_live() -> Problem {
    Problem::new(
        ProblemKind::NotAcceptable,
        "Nothing of this changes: subscribe to a document or to a list of a view.",
    )
}
