//! A whole program in memory, asked by its routers: what reads a request is tried where it is used.

use std::panic::AssertUnwindSafe;

use serde_json::{Value, json};
use tidelog::axum::Router;
use tidelog::axum::body::{Body, to_bytes};
use tidelog::axum::http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use tidelog::prelude::*;
use tidelog::settings::Settings;
use tidelog::{App, Running};
use tokio::runtime::Runtime;
use tower::ServiceExt;

/// After so many requests the program begins anew: what they wrote is in memory.
const REQUESTS: u32 = 20_000;

/// What may come back, at most.
const MAX_ANSWER: usize = 32 * 1024 * 1024;

/// Something with fields of every kind.
#[entity]
struct Note {
    #[schemars(length(max = 200))]
    title: String,
    stars: i64,
    weight: f64,
    published: bool,
    tags: Vec<String>,
    author: Option<Author>,
}

/// Fields within a field.
#[data]
struct Author {
    name: String,
    year: Option<u32>,
}

/// Which of its services is asked.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Commands,
    Queries,
    Admin,
}

/// The program.
pub(super) struct Site {
    runtime: Runtime,
    running: Option<Running>,
    left: u32,
}

impl Site {
    pub(super) fn new() -> Self {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let mut site = Self {
            runtime: runtime.enable_all().build().unwrap(),
            running: None,
            left: 0,
        };
        site.begin();
        site
    }

    /// Stops the program, if there is one, and starts another that has a few notes.
    fn begin(&mut self) {
        if let Some(running) = self.running.take() {
            assert!(self.runtime.block_on(running.stop()));
        }
        let app = App::new("fuzz").entity::<Note>();
        let running = self.runtime.block_on(app.mount(Settings::in_memory()));
        self.running = Some(running.unwrap());
        self.left = REQUESTS;
        for (number, id) in ["a", "b", "c"].into_iter().enumerate() {
            let note = json!({
                "id": id, "title": format!("Note {id}"), "stars": number, "weight": 0.5, "published": true, "tags": ["x", id],
                "author": {"name": "Ann", "year": 1999}
            });
            let request = request(
                &Method::POST,
                "/note",
                &[("content-type", "application/json")],
                &note.to_string(),
            );
            let written = self.answer(Part::Commands, request.unwrap());
            assert_eq!(written.0, 201, "{:?}", written.2);
            let read = request_of(
                &format!("/note/{id}"),
                &[(
                    "consistency-token",
                    written.1["consistency-token"].to_str().unwrap(),
                )],
            );
            assert_eq!(self.answer(Part::Queries, read.unwrap()).0, 200);
        }
    }

    /// Asks one of the services, and looks at the answer: it is one, a problem that says so where it is no success, and never
    /// that something is wrong with the program. Says whether it is a success.
    pub(super) fn ask(&mut self, part: Part, request: Request<Body>) -> bool {
        if self.left == 0 {
            self.begin();
        }
        self.left -= 1;
        let (status, headers, body) = self.answer(part, request);
        // A panic is caught, and told as 500; nothing is away here.
        assert!(!matches!(status, 500 | 502 | 503), "{status}: {body:?}");
        let is_problem = headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind == "application/problem+json");
        if status >= 400 && is_problem {
            let problem: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(problem["status"], status, "{problem}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(!detail.is_empty() && body.len() < 16 * 1024, "{problem}");
        } else {
            // A page says it in its own way.
            assert!(
                status < 400 || matches!(part, Part::Admin),
                "{status}: {body:?}"
            );
        }
        status < 400
    }

    fn answer(&self, part: Part, request: Request<Body>) -> (u16, HeaderMap, Vec<u8>) {
        let running = self.running.as_ref().unwrap();
        let router: Router = match part {
            Part::Commands => running.command_router().unwrap(),
            Part::Queries => running.query_router().unwrap(),
            Part::Admin => running.admin_router(),
        };
        let answered = AssertUnwindSafe(async {
            let answer: Response<Body> = router.oneshot(request).await.unwrap();
            let (status, headers) = (answer.status(), answer.headers().clone());
            let is_live = headers
                .get(header::CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
            if is_live || status == StatusCode::SWITCHING_PROTOCOLS {
                // It has no end.
                return (status.as_u16(), headers, Vec::new());
            }
            let body = to_bytes(answer.into_body(), MAX_ANSWER).await.unwrap();
            (status.as_u16(), headers, body.to_vec())
        });
        self.runtime.block_on(answered.0)
    }
}

/// A request; none where no server would have taken the bytes for one.
pub(super) fn request(
    method: &Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Request<Body>> {
    let uri: Uri = path.parse().ok()?;
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_owned())).ok()
}

/// A request to read.
pub(super) fn request_of(path: &str, headers: &[(&str, &str)]) -> Option<Request<Body>> {
    request(&Method::GET, path, headers, "")
}

/// `bytes` as they can stand in the part of a URL: what no URL has is in percent-encoding.
pub(super) fn in_url(bytes: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(byte);
    let write = |byte: &u8| match plain(byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02x}"),
    };
    bytes.iter().map(write).collect()
}
