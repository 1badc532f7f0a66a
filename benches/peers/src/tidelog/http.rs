//! The same command service over HTTP/1.1 on the loopback interface, with connections that are kept alive.
//!
//! Client and server are in this process, so the rate is that of both on the same cores.

use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tidelog_command::{CommandSettings, command_router};
use tidelog_http::{ServerSettings, app, open_to_all, serve};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{CATEGORY, Tidelog, named};
use crate::post::{Contender, Miss, PostCommand};

/// A command service and its HTTP clients.
pub(crate) struct OverHttp {
    inner: Tidelog,
    /// Keeps a connection for each command that is in flight.
    client: Client<HttpConnector, Full<Bytes>>,
    /// `http://127.0.0.1:…/post`.
    url: String,
    stop: CancellationToken,
}

impl OverHttp {
    /// Serves `inner` on a free port.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(crate) async fn serve(inner: Tidelog) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/{CATEGORY}", listener.local_addr()?);
        let router = command_router(Arc::clone(&inner.service), CommandSettings::default());
        let stop = CancellationToken::new();
        let settings = ServerSettings::default();
        let router = open_to_all(app(router));
        tokio::spawn(serve(listener, router, settings, None, stop.clone()));
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self {
            inner,
            client,
            url,
            stop,
        })
    }

    fn request(&self, id: &str, command: &PostCommand) -> anyhow::Result<Request<Full<Bytes>>> {
        let (name, mut body) = named(command)?;
        let request = match name {
            "create" => {
                let fields = body.as_object_mut().context("a body is an object")?;
                fields.insert("id".to_owned(), Value::from(id));
                Request::post(&self.url)
            }
            _ => Request::patch(format!("{}/{id}", self.url)),
        };
        let body = Full::new(serde_json::to_vec(&body)?.into());
        Ok(request
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)?)
    }
}

#[async_trait]
impl Contender for OverHttp {
    async fn send(&self, id: &str, command: &PostCommand) -> Result<(), Miss> {
        let request = self.request(id, command).map_err(Miss::failed)?;
        let response = self.client.request(request).await.map_err(Miss::failed)?;
        let status = response.status();
        // Read to its end, or the connection is not used again.
        let body = response.into_body().collect().await;
        let body = body.map_err(Miss::failed)?.to_bytes();
        match status {
            StatusCode::OK | StatusCode::CREATED => Ok(()),
            StatusCode::CONFLICT => Err(Miss::Conflict),
            _ => Err(Miss::Failed(format!(
                "{status}: {}",
                String::from_utf8_lossy(&body)
            ))),
        }
    }

    async fn close(&self) {
        self.stop.cancel();
        self.inner.close().await;
    }
}
