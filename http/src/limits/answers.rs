//! What a service holds of answers that are on the way to clients who may read slowly.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use metrics::Counter;
use tokio::sync::Semaphore;

use super::load::overloaded;
use super::refusals::Refusals;
use crate::kept::Kept;
use crate::rejected::rejected;

/// Answers of at most so many bytes are not counted: one for each connection is little.
const SMALL: u64 = 64 * 1024;

/// In what is counted: KiB.
const UNIT: u64 = 1024;

/// Turns down, with [`ProblemKind::Overloaded`](crate::ProblemKind::Overloaded), what `router` would answer beyond `max_bytes` that are on the way
/// to clients. Answers of up to 64 KiB do not count, nor those of which nobody knows how long they will be: live ones have bounds of their own.
///
/// An answer counts until its client has taken all of it, or is cut off.
pub fn bounded_answers(service: &'static str, router: Router, max_bytes: u64) -> Router {
    let units = usize::try_from(max_bytes.div_ceil(UNIT)).unwrap_or(usize::MAX);
    let answers = Answers {
        room: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))),
        too_large: rejected(service, "answers"),
        refusals: Refusals::new(),
    };
    router.layer(from_fn_with_state(answers, hold))
}

/// The answers on the way. Cloning gives another handle to the same.
#[derive(Clone)]
struct Answers {
    room: Arc<Semaphore>,
    too_large: Counter,
    refusals: Refusals,
}

async fn hold(State(answers): State<Answers>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let size = response.body().size_hint().exact().unwrap_or_default();
    if size <= SMALL {
        return response;
    }
    let units = u32::try_from(size.div_ceil(UNIT)).unwrap_or(u32::MAX);
    match answers.room.clone().try_acquire_many_owned(units) {
        Ok(room) => response.map(|body| Body::new(Kept::new(body, room))),
        Err(_) => {
            drop(response);
            answers.too_large.increment(1);
            answers.refusals.turn().await;
            overloaded("The answers that are on the way have more bytes than this service bears.")
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::Path;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    async fn ask(router: &Router, bytes: usize) -> Response {
        let request = Request::get(format!("/{bytes}")).body(Body::empty());
        router.clone().oneshot(request.unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn answers_that_are_not_taken_leave_no_room_for_large_ones_until_they_are() {
        let answer = async |Path(bytes): Path<usize>| "x".repeat(bytes);
        let router = Router::new().route("/{bytes}", get(answer));
        let router = bounded_answers("test", router, 200 * 1024);
        let large = 100 * 1024;
        let first = ask(&router, large).await;
        let second = ask(&router, large).await;
        assert!(first.status().is_success() && second.status().is_success());
        assert_eq!(ask(&router, large).await.status(), 503);
        assert_eq!(ask(&router, 64 * 1024).await.status(), 200);
        let read = axum::body::to_bytes(first.into_body(), usize::MAX).await;
        assert_eq!(read.unwrap().len(), large);
        assert_eq!(ask(&router, large).await.status(), 200);
        drop(second);
        assert_eq!(ask(&router, large).await.status(), 200);
    }
}
