//! The administration, wherever it is: made here of the servers that the settings name; or, where a running process has the log's
//! file, that of this process.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidelog_command::store::{EventStore, OpenError};
use tidelog_query::ReplayError;
use tidelog_query::store::ReadStore;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower::ServiceExt;

use super::commands::{or_embedded, say_error};
use super::https;
use crate::App;
use crate::admin::actions::Action;
use crate::admin::audit::Outcome as Ending;
use crate::admin::{Audit, Principal, in_process, log as log_view};
use crate::backends::{self, BackendError};
use crate::settings::{AdminSecret, Role, Settings, flag, variable};
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
    At(There),
}

/// What an administration is made of.
pub(super) struct Here {
    pub(super) log: Arc<dyn EventStore>,
    pub(super) store: Arc<dyn ReadStore>,
    audit: Audit,
    who: Principal,
    router: Router,
}

/// A running process.
pub(super) struct There {
    /// Its admin listener, `host:port`.
    address: String,
    /// Where it speaks HTTPS: what makes sure that it is the one.
    tls: Option<TlsConnector>,
    /// What it is shown.
    token: Option<AdminSecret>,
}

/// The administration turned down what was asked.
#[derive(Debug, thiserror::Error)]
#[error("{}{advice}", self.detail())]
pub(super) struct Refused {
    pub(super) status: u16,
    /// The problem document.
    pub(super) problem: Value,
    /// What to do about it, where the setting is here.
    pub(super) advice: String,
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
                let there = There::of(settings)?;
                say_error(&format!(
                    "note: a running process has the log's file, so this asks the one at {}",
                    there.url()
                ));
                return Ok(Self::At(there));
            }
            opened => opened?.backend,
        };
        let store = backends::open_read_stores(&settings, app).await?.backend;
        let all = Subscriptions::of(app, &settings, &log, &store, Arc::new(Vec::new))?;
        let api = subscriptions::router(all).merge(log_view::router(app, log.clone()));
        let (audit, who) = (Audit::new(log.clone()), Principal::of_command_line());
        let api = in_process(api, &audit, who.clone());
        let router = tidelog_http::app(Router::new().nest("/admin", api));
        Ok(Self::Here(Here {
            log,
            store,
            audit,
            who,
            router,
        }))
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
        let (host, url) = match self {
            Self::Here(_) => ("localhost", "http://localhost".to_owned()),
            Self::At(there) => (there.address.as_str(), there.url()),
        };
        let mut request = Request::builder()
            .method(&method)
            .uri(path(first, rest, parameters)?)
            .header(header::HOST, host);
        if method == Method::POST {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Self::At(There {
            token: Some(token), ..
        }) = self
        {
            request = request.header(header::AUTHORIZATION, token.bearer());
        }
        let request = request.body(body)?;
        let (status, body) = self.send(request).await?;
        let body: Value = serde_json::from_slice(&body)
            .map_err(|_| format!("the answer of {url} is no JSON (status {status}): is it this program's admin address?"))?;
        if status == 200 {
            return Ok(body);
        }
        let refused = Refused {
            advice: self.advice(status),
            status,
            problem: body,
        };
        Err(refused.into())
    }

    /// What to do about an answer with this status.
    fn advice(&self, status: u16) -> String {
        let Self::At(There { token, .. }) = self else {
            return String::new();
        };
        let (variable, flag) = (variable("admin_token"), flag("admin_token"));
        match (status, token) {
            (401, Some(_)) => {
                format!("; what {variable} (or --{flag}) says is not one of its tokens")
            }
            (403, Some(_)) => {
                format!("; {variable} (or --{flag}) is to say a token that has the permission")
            }
            (401 | 403, None) => {
                format!("; here {variable} (or --{flag}) says which token to show")
            }
            _ => String::new(),
        }
    }

    async fn send(&self, request: Request<Body>) -> Result<(u16, Vec<u8>), Failure> {
        let response = match self {
            Self::Here(here) => here.router.clone().oneshot(request).await?,
            Self::At(there) => there.send(request).await?,
        };
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), MAX_ANSWER_BYTES).await?;
        Ok((status, body.to_vec()))
    }
}

impl There {
    /// The process that listens where `settings` say.
    fn of(settings: Settings) -> Result<Self, Failure> {
        let said = settings.admin_addr.strip_prefix("https://");
        let is_https = said.is_some() || settings.tls_cert.is_some();
        let tls = is_https.then(|| https::connector(&settings)).transpose()?;
        Ok(Self {
            address: said.unwrap_or(&settings.admin_addr).to_owned(),
            tls,
            token: settings.admin_token,
        })
    }

    fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let stream = TcpStream::connect(self.address.as_str()).await;
        let stream = stream.map_err(|error| unreachable(&self.url(), &error))?;
        match &self.tls {
            None => converse(stream, request).await,
            Some(tls) => {
                let name = https::name(&self.address)?;
                let stream = tls.connect(name, stream).await;
                let stream = stream.map_err(|error| untrusted(&self.url(), &error))?;
                converse(stream, request).await
            }
        }
    }
}

/// Sends a request, and receives its answer.
async fn converse<S>(stream: S, request: Request<Body>) -> Result<Response<Body>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer, which says what is wrong with it.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?.map(Body::new))
}

impl Here {
    /// Has `doing` done to the view `view`, as a recorded action.
    pub(super) async fn recorded<T>(
        &self,
        action: &Action,
        view: &str,
        said: Value,
        doing: impl Future<Output = Result<T, ReplayError>>,
    ) -> Result<T, Failure> {
        let on = (action, view);
        let done = self.audit.have_done(&self.who, on, said, doing, came_to);
        Ok(done.await??)
    }
}

/// What a replay that failed comes to in the record: as if it had been asked for over HTTP.
fn came_to(error: &ReplayError) -> Ending {
    match error {
        ReplayError::AlreadyRunning { .. }
        | ReplayError::NothingBefore { .. }
        | ReplayError::NothingOf { .. }
        | ReplayError::SetAside { .. }
        | ReplayError::OtherDefinition { .. }
        | ReplayError::TooMany { .. }
        | ReplayError::KeptChanging { .. } => Ending::Refused,
        _ => Ending::Failed,
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

fn untrusted(url: &str, error: &std::io::Error) -> Unreachable {
    Unreachable(format!(
        "the process at {url} is not trusted ({error}): name the certificate of whoever signed its own with --{} or {}, and a name that it \
         is for with --{}",
        flag("tls_ca"),
        variable("tls_ca"),
        flag("admin_addr"),
    ))
}

fn unreachable(url: &str, error: &std::io::Error) -> Unreachable {
    Unreachable(format!(
        "a running process has the log's file, and none answers at {url} ({error}): name its admin address with \
         --{} or {}",
        flag("admin_addr"),
        variable("admin_addr"),
    ))
}
