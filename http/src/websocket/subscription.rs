//! One subscription of a socket: a live query, whose events are passed on.

use axum::Router;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use tower::ServiceExt;

use super::answer;
use super::events::Events;
use super::message::LIVE;
use super::queue::Out;
use crate::problem::{Problem, ProblemKind};

/// Asks `queries`, and passes on to `out` what comes, for as long as it comes. The last message of it is given back: its end, or why there is
/// nothing to tell.
///
/// Nothing more is read of what comes while what has come, of this or of another subscription of the socket, has no room in `out`.
pub(super) async fn tell(id: String, queries: Router, request: Request, out: Out) -> String {
    let Ok(response) = queries.oneshot(request).await;
    if !response.status().is_success() {
        return answer::answer(&id, response).await;
    }
    if !is_live(&response) {
        return answer::problem(Some(&id), not_live()).await;
    }
    let subscribed = answer::subscribed(&id, &response);
    let mut is_taken = out.send(subscribed).await.is_ok();
    let mut body = response.into_body().into_data_stream();
    let (mut events, mut turns) = (Events::default(), out.turns());
    while is_taken && let Some((piece, _turn)) = turns.next(&mut body).await {
        let taken = piece.ok().map(|piece| events.take(&piece));
        if !matches!(taken, Some(Ok(()))) {
            return answer::ended(&id, "failed");
        }
        while let Some(event) = events.next() {
            is_taken = out.send(answer::event(&id, event)).await.is_ok();
        }
    }
    answer::ended(&id, "over")
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
