//! The administration, wherever it is: made here of the servers that the settings name; or, where a running process has the log's
//! file, that of this process.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidelog_command::store::{EventStore, OpenError};
use tidelog_query::store::ReadStore;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::ServiceExt;

use super::commands::{or_embedded, say_error};
use crate::App;
use crate::admin::{Audit, Principal, in_process, log as log_view};
use crate::backends::{self, BackendError};
use crate::settings::{Role, Settings, flag, variable};
use crate::subscriptions::{self, Subscriptions};

/// How long an answer may take: longer than a subscription is watched whether it moves.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most bytes that an answer may have.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

type Failure = Box<dyn Error>;

/// The administration.
pub(super) enum Admin {
    /// Made here, of the servers that the settings name.
    Here(Here),
    /// Of the running process that listens at this address.
    At(String),
}

/// What an administration is made of.
pub(super) struct Here {
    pub(super) log: Arc<dyn EventStore>,
    pub(super) store: Arc<dyn ReadStore>,
    router: Router,
}

/// The administration turned down what was asked.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.detail())]
pub(super) struct Refused {
    pub(super) status: u16,
    /// The problem document.
    pub(super) problem: Value,
}

impl Refused {
    fn detail(&self) -> &str {
        let detail = self.problem.get("detail").and_then(Value::as_str);
        let detail = detail.unwrap_or("the request was turned down");
        detail.trim_end_matches('.')
    }
}

/// Nothing answers where a running process should be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreachable(String);

impl Admin {
    /// The administration of `app`.
    pub(super) async fn reach(app: &App, settings: Settings) -> Result<Self, Failure> {
        // It works on the log and the views alone, as the role `all` would.
        let settings = Settings {
            role: Role::All,
            ..or_embedded(settings)
        };
        let log = match backends::open_log(&settings).await {
            Err(BackendError::Log {
                source: OpenError::InUse { .. },
                ..
            }) => {
                let address = settings.admin_addr;
                say_error(&format!(
                    "note: a running process has the log's file, so this asks the one at http://{address}"
                ));
                return Ok(Self::At(address));
            }
            opened => opened?.backend,
        };
        let store = backends::open_read_stores(&settings, app).await?.backend;
        let all = Subscriptions::of(app, &log, &store, Arc::new(Vec::new))?;
        let api = subscriptions::router(all).merge(log_view::router(app, log.clone()));
        let (audit, who) = (Audit::new(log.clone()), Principal::of_command_line());
        let api = in_process(api, &audit, who);
        let router = tidelog_http::app(Router::new().nest("/admin", api));
        Ok(Self::Here(Here { log, store, router }))
    }

    /// What there is at `/admin/api/{first}/{rest…}`.
    pub(super) async fn get(
        &self,
        first: &str,
        rest: &[&str],
        parameters: &[(&str, &str)],
    ) -> Result<Value, Failure> {
        Ok(data(self.page(first, rest, parameters).await?))
    }

    /// The same with what stands beside the data: where it goes on, say.
    pub(super) async fn page(
        &self,
        first: &str,
        rest: &[&str],
        parameters: &[(&str, &str)],
    ) -> Result<Value, Failure> {
        let asking = self.ask(Method::GET, first, rest, parameters, Body::empty());
        within(asking).await
    }

    /// Has `what` done to `name`.
    pub(super) async fn post(
        &self,
        first: &str,
        name: &str,
        what: &str,
        body: &Value,
    ) -> Result<Value, Failure> {
        within(self.post_patiently(first, name, what, body)).await
    }

    /// The same, however long it takes.
    pub(super) async fn post_patiently(
        &self,
        first: &str,
        name: &str,
        what: &str,
        body: &Value,
    ) -> Result<Value, Failure> {
        let body = Body::from(body.to_string());
        let rest = [name, what];
        let asking = self.ask(Method::POST, first, &rest, &[], body);
        Ok(data(asking.await?))
    }

    async fn ask(
        &self,
        method: Method,
        first: &str,
        rest: &[&str],
        parameters: &[(&str, &str)],
        body: Body,
    ) -> Result<Value, Failure> {
        let host = match self {
            Self::Here(_) => "localhost",
            Self::At(address) => address,
        };
        let mut request = Request::builder()
            .method(&method)
            .uri(path(first, rest, parameters)?)
            .header(header::HOST, host);
        if method == Method::POST {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(body)?;
        let (status, body) = self.send(request).await?;
        let body: Value = serde_json::from_slice(&body)
            .map_err(|_| format!("the answer of http://{host} is no JSON (status {status}): is it this program's admin address?"))?;
        if status == 200 {
            return Ok(body);
        }
        let problem = body;
        Err(Refused { status, problem }.into())
    }

    async fn send(&self, request: Request<Body>) -> Result<(u16, Vec<u8>), Failure> {
        let response = match self {
            Self::Here(here) => here.router.clone().oneshot(request).await?,
            Self::At(address) => {
                let stream = TcpStream::connect(address.as_str()).await;
                let stream = stream.map_err(|error| unreachable(address, &error))?;
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
                // It ends with the answer, which says what is wrong with it.
                tokio::spawn(connection);
                sender.send_request(request).await?.map(Body::new)
            }
        };
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), MAX_ANSWER_BYTES).await?;
        Ok((status, body.to_vec()))
    }
}

/// What is asked, while the patience lasts.
async fn within(asking: impl Future<Output = Result<Value, Failure>>) -> Result<Value, Failure> {
    let late = || Unreachable("no answer came in time".to_owned());
    timeout(PATIENCE, asking).await.map_err(|_| late())?
}

/// The data of an answer.
fn data(mut body: Value) -> Value {
    body.get_mut("data").map(Value::take).unwrap_or_default()
}

/// What the answer's data is.
pub(super) fn read<T: DeserializeOwned>(data: Value) -> Result<T, Failure> {
    serde_json::from_value(data).map_err(|error| {
        format!(
            "the answer cannot be understood ({error}): is the running process of another version?"
        )
        .into()
    })
}

/// The path and query of a request.
fn path(first: &str, rest: &[&str], parameters: &[(&str, &str)]) -> Result<String, Failure> {
    let mut url = url::Url::parse("http://localhost/admin/api")?;
    url.path_segments_mut()
        .map_err(|()| "no path")?
        .push(first)
        .extend(rest);
    if !parameters.is_empty() {
        url.query_pairs_mut().extend_pairs(parameters);
    }
    Ok(url[url::Position::BeforePath..].to_owned())
}

fn unreachable(address: &str, error: &std::io::Error) -> Unreachable {
    Unreachable(format!(
        "a running process has the log's file, and none answers at http://{address} ({error}): name its admin address with \
         --{} or {}",
        flag("admin_addr"),
        variable("admin_addr"),
    ))
}
