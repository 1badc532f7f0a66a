//! What a service does at a time: the requests that it handles, and the bytes of their bodies that it holds.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::HeaderName;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use metrics::Counter;

use super::bound::Bound;
use super::places::{Places, Seat};
use super::refusals::Refusals;
use crate::problem::{Problem, ProblemKind};
use crate::rejected::rejected;

/// What a read brings that waits for a write.
const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");

/// When a client may try again whose request was too much.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How much a service does at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadLimits {
    /// The most requests that are handled at a time. A request is handled until its answer begins: live connections, and answers that are on the
    /// way, do not count; nor does a request while its body is waited for. So many are a burst: while more than can be done is asked for, they become fewer. 512 unless said otherwise.
    pub max_requests: usize,
    /// The most requests beside them that bring a `Consistency-Token`: what those wait for costs next to nothing, and may take seconds. 0,
    /// unless said otherwise: then they count like all others.
    pub max_waiting: usize,
    /// The most bytes that the bodies of all requests have together while these are handled; 64 MiB unless said otherwise.
    pub max_body_bytes: usize,
}

impl Default for LoadLimits {
    fn default() -> Self {
        Self {
            max_requests: 512,
            max_waiting: 0,
            max_body_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Turns down, with [`ProblemKind::Overloaded`], what is more than `limits` to `router`, which is counted as `service`. Up to a thousand a second are told
/// at once; where it is more, the others wait for that answer, for a second at most.
pub fn limited(service: &'static str, router: Router, limits: LoadLimits) -> Router {
    router.layer(from_fn_with_state(Load::new(service, limits), bear))
}

/// What a service is doing. Cloning gives another handle to the same.
#[derive(Clone)]
struct Load {
    places: Places,
    /// For those that wait; none, where they count like the others.
    waiting: Option<Places>,
    bytes_left: Arc<AtomicUsize>,
    too_many: Counter,
    too_large: Counter,
    refusals: Refusals,
}

impl Load {
    fn new(service: &'static str, limits: LoadLimits) -> Self {
        Self {
            places: Places::new(Bound::new(limits.max_requests)),
            waiting: (limits.max_waiting > 0)
                .then(|| Places::new(Bound::fixed(limits.max_waiting))),
            bytes_left: Arc::new(AtomicUsize::new(limits.max_body_bytes)),
            too_many: rejected(service, "requests"),
            too_large: rejected(service, "bodies"),
            refusals: Refusals::new(),
        }
    }
}

async fn bear(State(load): State<Load>, mut request: Request, next: Next) -> Response {
    let waits = request.headers().contains_key(CONSISTENCY_TOKEN);
    let places = load.waiting.as_ref().filter(|_| waits);
    let Some(place) = places.unwrap_or(&load.places).take() else {
        return load.turn_down(TooMuch::Requests).await;
    };
    request.extensions_mut().insert(place.seat());
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let share = Arc::new(Share::new(&load.bytes_left));
    let (counted, seat) = (Arc::clone(&share), place.seat());
    let request = request.map(|body| {
        Body::new(Counted {
            body,
            share: counted,
            seat,
        })
    });
    let response = next.run(request).await;
    match share.refused.get().copied() {
        None => response,
        Some(what) => {
            // Others may have its place and its bytes while it waits.
            drop((place, share));
            load.turn_down(what).await
        }
    }
}

/// What there is too much of.
#[derive(Clone, Copy)]
enum TooMuch {
    Requests,
    Bodies,
}

impl Load {
    async fn turn_down(&self, what: TooMuch) -> Response {
        let (counter, detail) = match what {
            TooMuch::Requests => (
                &self.too_many,
                "More requests are being handled than this service bears.",
            ),
            TooMuch::Bodies => (
                &self.too_large,
                "The requests being handled have larger bodies than this service bears.",
            ),
        };
        counter.increment(1);
        self.refusals.turn().await;
        overloaded(detail)
    }
}

pub(super) fn overloaded(what: &str) -> Response {
    let detail = format!("{what} Send it again in a moment.");
    Problem::new(ProblemKind::Overloaded, detail)
        .retry_after(RETRY_AFTER)
        .into_response()
}

/// What one request takes of the bytes that there are for all. It gives them back when the request is answered.
struct Share {
    left: Arc<AtomicUsize>,
    taken: AtomicUsize,
    /// What there was too much of for it.
    refused: OnceLock<TooMuch>,
}

impl Share {
    fn new(left: &Arc<AtomicUsize>) -> Self {
        Self {
            left: Arc::clone(left),
            taken: AtomicUsize::new(0),
            refused: OnceLock::new(),
        }
    }

    /// Takes so many more. Says whether they were there.
    fn take(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if taken.is_ok() {
            self.taken.fetch_add(bytes, Ordering::Relaxed);
        }
        taken.is_ok()
    }

    /// Refuses what there is too much of. The first reason counts.
    fn refuse(&self, what: TooMuch) -> axum::Error {
        axum::Error::new(match self.refused.get_or_init(|| what) {
            TooMuch::Requests => "too many requests at a time",
            TooMuch::Bodies => "too many bytes at a time",
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.left
            .fetch_add(*self.taken.get_mut(), Ordering::Relaxed);
    }
}

/// A body whose bytes are counted. While it is waited for, its request holds no place: else clients that send slowly would keep all of them. When it
/// has ended, its request needs one again.
struct Counted {
    body: Body,
    share: Arc<Share>,
    seat: Seat,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                self.seat.leave();
                return Poll::Pending;
            }
        };
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            if !self.share.take(bytes) {
                return Poll::Ready(Some(Err(self.share.refuse(TooMuch::Bodies))));
            }
        }
        // Some readers ask no further once they know that it was the last.
        let has_ended = frame.is_none() || self.body.is_end_stream();
        if has_ended && !self.seat.take_again() {
            return Poll::Ready(Some(Err(self.share.refuse(TooMuch::Requests))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::http::header;
    use axum::routing::post;
    use futures_util::stream;
    use tokio::sync::{Semaphore, oneshot};
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt;

    use super::*;
    use crate::body::tests::problem;

    /// A service that reads a body, says so, and answers when it may.
    struct Slow {
        router: Router,
        has_read: Arc<Semaphore>,
        go_on: CancellationToken,
    }

    fn slow(limits: LoadLimits) -> Slow {
        let (has_read, go_on) = (Arc::new(Semaphore::new(0)), CancellationToken::new());
        let (read, wait) = (has_read.clone(), go_on.clone());
        let handler = post(async move |body: Body| {
            let bytes = axum::body::to_bytes(body, usize::MAX).await;
            read.add_permits(1);
            wait.cancelled().await;
            bytes.map_or_else(|_| "broken".to_owned(), |bytes| bytes.len().to_string())
        });
        let router = Router::new().route("/", handler);
        Slow {
            router: limited("test", router, limits),
            has_read,
            go_on,
        }
    }

    impl Slow {
        async fn send(&self, body: Body) -> Response {
            let request = Request::post("/").body(body).unwrap();
            self.router.clone().oneshot(request).await.unwrap()
        }
    }

    async fn assert_overloaded(response: Response) {
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let (status, document) = problem(response).await;
        let kind = document["type"].as_str().unwrap();
        assert_eq!((status, kind), (503, "urn:tidelog:problem:overloaded"));
    }

    #[tokio::test]
    async fn one_request_more_than_there_may_be_is_turned_down_at_once() {
        let service = slow(LoadLimits {
            max_requests: 2,
            ..LoadLimits::default()
        });
        let third = async {
            service.has_read.acquire_many(2).await.unwrap().forget();
            assert_overloaded(service.send(Body::empty()).await).await;
            service.go_on.cancel();
        };
        let (first, second, ()) = tokio::join!(
            service.send(Body::empty()),
            service.send(Body::empty()),
            third
        );
        assert!(first.status().is_success() && second.status().is_success());
        assert!(service.send(Body::empty()).await.status().is_success());
    }

    #[tokio::test]
    async fn clients_without_patience_are_turned_down_a_thousand_a_second() {
        let service = slow(LoadLimits {
            max_requests: 1,
            ..LoadLimits::default()
        });
        let others = async {
            service.has_read.acquire().await.unwrap().forget();
            let begun = Instant::now();
            let many = (0..64).map(|_| async {
                assert_overloaded(service.send(Body::empty()).await).await;
            });
            futures_util::future::join_all(many).await;
            service.go_on.cancel();
            begun.elapsed()
        };
        let (first, took) = tokio::join!(service.send(Body::empty()), others);
        assert!(first.status().is_success());
        assert!(took >= Duration::from_millis(63), "{took:?}");
    }

    #[tokio::test]
    async fn requests_that_wait_have_places_of_their_own() {
        let service = slow(LoadLimits {
            max_requests: 1,
            max_waiting: 1,
            ..LoadLimits::default()
        });
        let wait = async || {
            let request = Request::post("/").header(CONSISTENCY_TOKEN, "1");
            let request = request.body(Body::empty()).unwrap();
            service.router.clone().oneshot(request).await.unwrap()
        };
        let others = async {
            service.has_read.acquire_many(2).await.unwrap().forget();
            assert_overloaded(wait().await).await;
            assert_overloaded(service.send(Body::empty()).await).await;
            service.go_on.cancel();
        };
        let (waited, done, ()) = tokio::join!(wait(), service.send(Body::empty()), others);
        assert!(waited.status().is_success() && done.status().is_success());
    }

    /// A body that ends when it is told to, of which nothing comes before.
    fn waited_for() -> (oneshot::Sender<()>, Body) {
        let (end, ended) = oneshot::channel::<()>();
        let rest = async move {
            let _ = ended.await;
            Ok::<_, std::io::Error>("rest")
        };
        (end, Body::from_stream(stream::once(rest)))
    }

    #[tokio::test]
    async fn a_request_holds_no_place_while_its_body_is_waited_for() {
        let service = slow(LoadLimits {
            max_requests: 1,
            ..LoadLimits::default()
        });
        service.go_on.cancel();
        let (ends, bodies): (Vec<_>, Vec<_>) = (0..64).map(|_| waited_for()).unzip();
        let begun = Arc::new(Semaphore::new(0));
        let waiting = bodies.into_iter().map(|body| {
            begun.add_permits(1);
            service.send(body)
        });
        let others = async {
            begun.acquire_many(64).await.unwrap().forget();
            for _ in 0..3 {
                assert_eq!(service.send(Body::from("x")).await.status(), 200);
            }
            for end in ends {
                end.send(()).unwrap();
            }
        };
        let (answers, ()) = tokio::join!(futures_util::future::join_all(waiting), others);
        assert!(answers.iter().all(|answer| answer.status() == 200));
    }

    #[tokio::test]
    async fn a_body_that_has_come_needs_a_place_again() {
        let service = slow(LoadLimits {
            max_requests: 1,
            ..LoadLimits::default()
        });
        let (end, body) = waited_for();
        let others = async {
            let one = service.send(Body::empty());
            let then = async {
                service.has_read.acquire().await.unwrap().forget();
                end.send(()).unwrap();
                // It could not be read.
                service.has_read.acquire().await.unwrap().forget();
                service.go_on.cancel();
            };
            let (one, ()) = tokio::join!(one, then);
            assert_eq!(one.status(), 200);
        };
        let (late, ()) = tokio::join!(service.send(body), others);
        assert_overloaded(late).await;
        assert_eq!(service.send(Body::empty()).await.status(), 200);
    }

    #[tokio::test]
    async fn bodies_that_are_too_large_together_are_turned_down_until_one_is_through() {
        let service = slow(LoadLimits {
            max_body_bytes: 100,
            ..LoadLimits::default()
        });
        let second = async {
            service.has_read.acquire().await.unwrap().forget();
            // What is left over is enough for a small one.
            service.go_on.cancel();
            assert!(
                service
                    .send(Body::from(vec![0; 40]))
                    .await
                    .status()
                    .is_success()
            );
        };
        let (first, ()) = tokio::join!(service.send(Body::from(vec![0; 60])), second);
        assert!(first.status().is_success());
        assert_overloaded(service.send(Body::from(vec![0; 101])).await).await;
        let again = service.send(Body::from(vec![0; 100])).await;
        assert!(again.status().is_success(), "the bytes were not given back");
    }

    #[tokio::test]
    async fn a_body_beside_a_large_one_waits_for_its_turn() {
        let service = slow(LoadLimits {
            max_body_bytes: 100,
            ..LoadLimits::default()
        });
        let second = async {
            service.has_read.acquire().await.unwrap().forget();
            let too_much = service.send(Body::from(vec![0; 41]));
            let let_go = async {
                service.has_read.acquire().await.unwrap().forget();
                service.go_on.cancel();
            };
            let (too_much, ()) = tokio::join!(too_much, let_go);
            assert_overloaded(too_much).await;
        };
        let (first, ()) = tokio::join!(service.send(Body::from(vec![0; 60])), second);
        assert!(first.status().is_success());
    }
}
