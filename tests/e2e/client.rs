//! An HTTP client that a test can read.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No request waits longer; it only matters when a service hangs.
const BOUND: Duration = Duration::from_secs(60);

/// A client of one service.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    address: String,
}

/// What a service answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Client {
    /// A client of the service at `address`, `host:port`.
    pub(crate) fn new(address: &str) -> Self {
        Self {
            http: http(reqwest::Client::builder()),
            address: address.to_owned(),
        }
    }

    /// The same, but with a connection of its own for each request: for a client that tests share, as each test has
    /// a runtime that its connections end with.
    pub(crate) fn shared(&self) -> Self {
        Self {
            http: http(reqwest::Client::builder().pool_max_idle_per_host(0)),
            address: self.address.clone(),
        }
    }

    /// The service's address.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A request that a test adds to and then [`send`]s.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("http://{}{path}", self.address))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        must(self.request(Method::GET, path)).await
    }

    /// Reads what a write with this consistency token has made.
    pub(crate) async fn get_after(&self, path: &str, token: &str) -> Answer {
        let request = self
            .request(Method::GET, path)
            .header("consistency-token", token);
        must(request.header("prefer", "wait=30")).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        must(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        must(self.request(Method::PATCH, path).json(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        must(self.request(Method::DELETE, path)).await
    }

    /// Sends these bytes and reads until the service closes the connection: for what no client library would send. The
    /// bytes must ask for that (`Connection: close`), or be so wrong that it follows.
    pub(crate) async fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(&self.address)
            .await
            .expect("the service accepts connections");
        // The service may answer and close before it has read all, so that writing or the end of reading may fail.
        let mut answer = Vec::new();
        let exchange = async {
            let _ = stream.write_all(request).await;
            let mut chunk = [0; 16 * 1024];
            while let Ok(length @ 1..) = stream.read(&mut chunk).await {
                answer.extend_from_slice(&chunk[..length]);
            }
        };
        timeout(BOUND, exchange)
            .await
            .expect("the service closes the connection");
        parse(&answer)
    }
}

fn http(builder: reqwest::ClientBuilder) -> reqwest::Client {
    // The client wants one although it never encrypts; where a program in this process has chosen one, it stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    builder.timeout(BOUND).build().expect("an HTTP client")
}

/// Sends a request.
///
/// # Errors
///
/// When no complete answer comes.
pub(crate) async fn send(request: RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    Ok(Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.text().await?,
    })
}

/// Sends a request that must be answered.
pub(crate) async fn must(request: RequestBuilder) -> Answer {
    send(request)
        .await
        .unwrap_or_else(|error| panic!("no answer: {error:?}"))
}

impl Answer {
    /// The body, which must be JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match serde_json::from_str(&self.body) {
            Ok(json) => json,
            Err(error) => panic!("{error} in {self:?}"),
        }
    }

    /// The body's `data`, of an answer that must have this status.
    #[track_caller]
    pub(crate) fn data(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()["data"].clone()
    }

    /// A header, which must be there.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        match self.headers.get(name) {
            Some(value) => value.to_str().expect("a header is text"),
            None => panic!("no header {name} in {self:?}"),
        }
    }

    /// The consistency token of a write.
    #[track_caller]
    pub(crate) fn token(&self) -> &str {
        self.header("consistency-token")
    }

    /// Checks that this is the problem document `name` of HTTP.md's table, and returns it.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, name: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(
            problem["type"],
            format!("urn:tidelog:problem:{name}"),
            "{self:?}"
        );
        assert_eq!(problem["status"], status, "{self:?}");
        for member in ["title", "detail", "instance"] {
            assert!(
                problem[member]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "no {member} in {self:?}"
            );
        }
        problem
    }
}

/// Takes the bytes of an answer apart.
fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no HTTP answer: {text:?}"));
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name: reqwest::header::HeaderName = name.trim().parse().expect("a header's name");
        headers.append(name, value.trim().parse().expect("a header's value"));
    }
    let status = status.unwrap_or_else(|| panic!("no status in {head:?}"));
    Answer {
        status,
        headers,
        body: body.to_owned(),
    }
}
