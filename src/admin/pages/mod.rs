//! The pages: what a person on call sees and does in a browser.
//!
//! They are made here and need nothing else: a stylesheet, an icon and htmx come along in the program. Whatever they show or do goes
//! through the same API that programs use, so a page can do nothing that the API does not permit and record.

mod asking;
mod assets;
mod audit;
mod chain;
mod confirm;
mod event;
mod events;
mod layout;
mod overview;
mod parameters;
mod parked;
mod sign_in;
mod streams;
mod subscriptions;
mod text;
mod views;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;
use tidelog_domain::causes;
use tidelog_http::{Problem, ProblemKind};
use tidelog_query::Catalog;

use super::access::{Access, Principal, refused};
use super::sampler::Samples;
use crate::subscriptions::Subscriptions;
use layout::Shell;

/// The longest problem document that is made a page of.
const MAX_PROBLEM_BYTES: usize = 1024 * 1024;

/// What pages may load and do: what this listener serves, and nothing else. No style and no script stands in a page itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What the pages are made of.
pub(crate) struct Site {
    /// The program's name.
    pub(crate) app: String,
    pub(crate) access: Access,
    /// The API with its record, for callers inside the process.
    pub(crate) api: Router,
    /// The query service.
    pub(crate) queries: Router,
    pub(crate) catalog: Catalog,
    /// The categories of its streams.
    pub(crate) categories: Vec<String>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) samples: Samples,
}

type Shared = State<Arc<Site>>;

/// What a handler gives: a page, or why there is none, of which another page is made.
type Page = Result<Response, Refusal>;

/// Why there is no page: a problem document.
struct Refusal(Box<Response>);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem.into_response()))
    }
}

impl Refusal {
    /// The same as the API gave it.
    fn again(problem: &Value) -> Self {
        let status = problem.get("status").and_then(Value::as_u64);
        let status =
            status.and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = [(header::CONTENT_TYPE, Problem::MEDIA_TYPE)];
        Self(Box::new(
            (status, kind, problem.to_string()).into_response(),
        ))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        *self.0
    }
}

/// The pages, to be mounted at `/admin`.
pub(crate) fn router(site: Site) -> Router {
    let site = Arc::new(site);
    let inside = Router::new()
        .route("/", get(overview::page))
        .route("/live/overview", get(overview::live))
        .route("/live/subscriptions", get(subscriptions::live_list))
        .route("/live/subscriptions/{name}", get(subscriptions::live_one))
        .route("/live/views", get(views::live))
        .route("/streams", get(streams::list))
        .route("/streams/{category}/{id}", get(streams::one))
        .route("/events", get(events::list))
        .route("/events/{event}", get(event::page))
        .route("/subscriptions", get(subscriptions::list))
        .route("/subscriptions/{name}", get(subscriptions::one))
        .route(
            "/subscriptions/{name}/{action}",
            get(subscriptions::confirm).post(subscriptions::act),
        )
        .route("/parked", get(parked::list))
        .route("/parked/{name}", get(parked::one))
        .route(
            "/parked/{name}/{action}",
            get(parked::confirm).post(parked::act),
        )
        .route("/skipped/{name}", get(parked::skipped))
        .route("/views", get(views::list))
        .route("/views/{view}", get(views::browse))
        .route(
            "/views/{view}/{action}",
            get(views::confirm).post(views::act),
        )
        .route("/audit", get(audit::page))
        .route("/sign-out", axum::routing::post(sign_in::sign_out))
        .layer(from_fn_with_state(site.clone(), enter));
    let outside = Router::new()
        .route("/sign-in", get(sign_in::page).post(sign_in::sign_in))
        .layer(from_fn_with_state(site.clone(), stay_outside));
    let assets = Router::new().route("/assets/{name}", get(assets::serve));
    inside.merge(outside).merge(assets).with_state(site)
}

/// Lets in whoever may see pages, and makes pages of problems.
async fn enter(State(site): Shared, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let is_part = parts.uri.path().starts_with("/live/");
    let principal = match site.access.admit(&parts).await {
        Ok(principal) => principal.by_page(),
        Err(problem) => {
            refused(&parts, &problem);
            let signs_in = problem.kind() == ProblemKind::Unauthenticated;
            if signs_in && parts.method.is_safe() && !is_part {
                return dressed(&site, None, false, sign_in::redirect(&parts)).await;
            }
            let problem = problem.into_response();
            return dressed(&site, None, is_part, problem).await;
        }
    };
    let mut request = Request::from_parts(parts, body);
    request.extensions_mut().insert(principal.clone());
    let response = next.run(request).await;
    dressed(&site, Some(&principal), is_part, response).await
}

/// The same for pages that nobody has to sign in for.
async fn stay_outside(State(site): Shared, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    dressed(&site, None, false, response).await
}

/// The response as a browser is to take it: problems as pages, and the headers that keep pages apart from other sites'.
async fn dressed(
    site: &Site,
    principal: Option<&Principal>,
    is_part: bool,
    response: Response,
) -> Response {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let mut response = if content_type.is_some_and(|own| own == Problem::MEDIA_TYPE) {
        problem_page(site, principal, is_part, response).await
    } else {
        response
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With none at all, browsers send forms without an origin, and could not be told from other sites.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Something that could not be shown or done.
#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    shell: Shell,
    title: String,
    detail: String,
}

/// The same in the place of a part of a page.
#[derive(Template)]
#[template(path = "problem_live.html")]
struct ProblemPart {
    detail: String,
    signs_in: bool,
}

/// A page, or a part of one, that says what a problem document says.
async fn problem_page(
    site: &Site,
    principal: Option<&Principal>,
    is_part: bool,
    response: Response,
) -> Response {
    let status = response.status();
    let said = said(response).await;
    let text = |name: &str| said.get(name).and_then(Value::as_str).map(str::to_owned);
    let title = text("title").unwrap_or_else(|| "This did not work".to_owned());
    let detail = text("detail").unwrap_or_default();
    let page = if is_part {
        let signs_in = status == StatusCode::UNAUTHORIZED;
        html(&ProblemPart { detail, signs_in })
    } else {
        let shell = site.shell(&title, "", principal);
        html(&ProblemPage {
            shell,
            title,
            detail,
        })
    };
    match page {
        Ok(page) => (status, page).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

/// The JSON that a response has; nothing where it has none.
async fn said(response: Response) -> Value {
    let body = to_bytes(response.into_body(), MAX_PROBLEM_BYTES).await;
    serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default()
}

/// A page.
fn html(template: &impl Template) -> Page {
    match template.render() {
        Ok(page) => Ok(Html(page).into_response()),
        Err(error) => {
            tracing::error!(error = causes(&error), "a page cannot be made");
            Err(Problem::internal().into())
        }
    }
}

/// The browser is to go on at this path of ours.
fn see_other(path: &str) -> Response {
    let place = HeaderValue::from_str(path);
    let place = place.unwrap_or(HeaderValue::from_static("/admin"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, place)]).into_response()
}

/// There is no such page.
fn nothing_here() -> Refusal {
    Problem::new(ProblemKind::NotFound, "There is no such page.").into()
}
