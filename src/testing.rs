//! Tests of a whole program: its services on memory stores, without a port and without a server.
//!
//! ```
//! use serde_json::json;
//! use tidelog::App;
//! use tidelog::testing::TestApp;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let blog = TestApp::start(App::new("blog")).await?;
//! let post = json!({"id": "1", "title": "Hello", "content": "…", "author_name": "Ann"});
//! blog.given("POST /post", &post).await;
//! blog.when("PATCH /post/1", &json!({"title": "Bye"})).await.then(200, &json!({"data": {"title": "Bye"}}));
//! blog.when("PATCH /post/1", &json!({"title": ""})).await.then_problem(422, "invalid");
//! let at_first = [("if-match", "\"1\"")];
//! blog.when_with(&at_first, "DELETE /post/1", &json!(null)).await.then_problem(412, "precondition-failed");
//! blog.when_read("/post/1").await.then(200, &json!({"data": {"title": "Bye", "version": 2}}));
//! blog.stop().await;
//! # Ok(())
//! # }
//! ```

pub use tidelog_domain::testing::*;

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use serde_json::Value;
use tower::ServiceExt;

use crate::App;
use crate::client::Client;
use crate::service::{Listen, Reads, Running, StartError};
use crate::settings::Settings;

/// How long the reactions may take to be given what was committed.
const REACTION_PATIENCE: Duration = Duration::from_secs(60);

/// The most bytes of an answer.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// A program that runs in the memory of its test, and is asked over HTTP without a network.
///
/// Each read waits until the views have seen all writes before it.
pub struct TestApp {
    running: Running,
    commands: Router,
    queries: Router,
}

/// What a service answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; null where it is empty or not JSON.
    pub body: Value,
}

impl TestApp {
    /// Starts `app` with an empty log.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the program contradicts itself.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn start(app: App) -> Result<Self, StartError> {
        let settings = Settings::in_memory();
        let running = app
            .begin(settings, Listen::Nowhere, Reads::AfterCommits)
            .await?;
        Ok(Self {
            commands: running.command_router().unwrap_or_default(),
            queries: running.query_router().unwrap_or_default(),
            running,
        })
    }

    /// Waits until the reactions were given everything that was written before. What they could not handle is tried again later, and
    /// not waited for.
    ///
    /// # Panics
    ///
    /// When that takes longer than a minute.
    pub async fn reacted(&self) {
        let reacted = tokio::time::timeout(REACTION_PATIENCE, self.running.reacted()).await;
        assert!(
            reacted.is_ok(),
            "the reactions did not come that far within {REACTION_PATIENCE:?}: {:?}",
            self.running.reactions()
        );
    }

    /// A client of the program that does not speak HTTP.
    #[must_use]
    pub fn client(&self) -> Client {
        self.running.client()
    }

    /// Something that happened before: sends `body` to the command service and makes sure that it is a success. `request` is
    /// a method and a path, `POST /post`.
    ///
    /// # Panics
    ///
    /// When it is none.
    pub async fn given(&self, request: &str, body: &Value) -> Answer {
        let answer = self.when(request, body).await;
        assert!(
            (200..300).contains(&answer.status),
            "given {request}, but that is answered {}: {}",
            answer.status,
            answer.body
        );
        answer
    }

    /// Sends `body` to the command service; null sends none.
    ///
    /// # Panics
    ///
    /// When `request` is not a method and a path.
    pub async fn when(&self, request: &str, body: &Value) -> Answer {
        self.when_with(&[], request, body).await
    }

    /// The same with headers: `("if-match", "\"3\"")`.
    ///
    /// # Panics
    ///
    /// When `request` is not a method and a path, or a header cannot be one.
    pub async fn when_with(&self, headers: &[(&str, &str)], request: &str, body: &Value) -> Answer {
        let (method, path) = request.split_once(' ').unwrap_or(("", request));
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut bytes = String::new();
        if !body.is_null() {
            let is_patch = method == "PATCH";
            let media = if is_patch {
                "application/merge-patch+json"
            } else {
                "application/json"
            };
            request = request.header("content-type", media);
            bytes = body.to_string();
        }
        send(&self.commands, request.body(bytes.into())).await
    }

    /// Asks the query service for `path`, `/posts?author_name=Ann`.
    ///
    /// # Panics
    ///
    /// When `path` is none.
    pub async fn when_read(&self, path: &str) -> Answer {
        send(&self.queries, Request::get(path).body(Body::empty())).await
    }

    /// Stops it, and says whether all that was in flight was finished.
    pub async fn stop(self) -> bool {
        self.running.stop().await
    }
}

#[allow(clippy::panic, reason = "a test that asks wrongly fails loudly")]
async fn send(router: &Router, request: Result<Request<Body>, axum::http::Error>) -> Answer {
    let request = match request {
        Ok(request) => request,
        Err(error) => panic!("a request is a method and a path, `POST /post`: {error}"),
    };
    let response = match router.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, MAX_ANSWER_BYTES).await.unwrap_or_default();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: serde_json::from_slice(&bytes).unwrap_or_default(),
    }
}

impl Answer {
    /// It is answered with `status` and a body that has all that `expected` has, and maybe more in its objects.
    ///
    /// # Panics
    ///
    /// When it is not.
    #[track_caller]
    pub fn then(&self, status: u16, expected: &Value) -> &Self {
        assert_eq!(self.status, status, "the answer is {}", self.body);
        assert!(
            includes(&self.body, expected),
            "the answer is {}, which does not have all of {expected}",
            self.body
        );
        self
    }

    /// It is the problem `name` of `status`: `then_problem(422, "rejected")`.
    ///
    /// # Panics
    ///
    /// When it is not.
    #[track_caller]
    pub fn then_problem(&self, status: u16, name: &str) -> &Self {
        let expected = serde_json::json!({"type": format!("urn:tidelog:problem:{name}")});
        self.then(status, &expected)
    }
}

/// Whether `found` has all that `expected` has.
fn includes(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            expected.iter().all(|(name, expected)| {
                found
                    .get(name)
                    .is_some_and(|found| includes(found, expected))
            })
        }
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len()
                && found
                    .iter()
                    .zip(expected)
                    .all(|(found, expected)| includes(found, expected))
        }
        _ => found == expected,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_may_have_more_fields_but_not_other_ones() {
        let found = json!({"data": [{"id": "1", "x": 1}], "next": null});
        for expected in [
            json!({}),
            json!({"next": null}),
            json!({"data": [{"x": 1}]}),
        ] {
            assert!(includes(&found, &expected), "{expected}");
        }
        for expected in [
            json!({"data": []}),
            json!({"data": [{"x": 2}]}),
            json!({"more": null}),
            json!([]),
        ] {
            assert!(!includes(&found, &expected), "{expected}");
        }
    }

    async fn blog() -> TestApp {
        TestApp::start(App::new("blog")).await.unwrap()
    }

    fn post(id: &str) -> Value {
        json!({"id": id, "title": "a", "content": "c", "author_name": "ann"})
    }

    #[tokio::test]
    async fn a_read_sees_the_writes_before_it() {
        let blog = blog().await;
        for id in ["1", "2", "3"] {
            blog.given("POST /post", &post(id)).await;
            let path = format!("/post/{id}");
            blog.when_read(&path)
                .await
                .then(200, &json!({"data": {"id": id}}));
        }
        blog.given("DELETE /post/2", &Value::Null).await;
        blog.when_read("/post/2")
            .await
            .then_problem(404, "not-found");
        let client = blog.client();
        assert_eq!(client.list("posts", &[]).await.unwrap().documents.len(), 2);
        assert!(blog.stop().await);
    }

    #[tokio::test]
    async fn the_services_describe_themselves_and_the_feed_has_what_was_written() {
        let blog = blog().await;
        blog.given("POST /post", &post("1")).await;
        for path in ["/openapi.json", "/docs"] {
            assert_eq!(
                blog.when(&format!("GET {path}"), &Value::Null).await.status,
                200
            );
            assert_eq!(blog.when_read(path).await.status, 200);
        }
        let mut events = 0;
        for partition in 0..16 {
            let feed = format!("GET /events?partition={partition}");
            let page = blog.when(&feed, &Value::Null).await;
            events += page.body["data"].as_array().unwrap().len();
        }
        assert_eq!(events, 1);
        blog.when("GET /post", &Value::Null)
            .await
            .then_problem(405, "method-not-allowed");
        assert!(blog.stop().await);
    }
}
