//! A client of the services of its own process.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::Value;
use tidelog_command::{
    CommandError, CommandOutcome, CommandRequest, CommandService, MultiStreamOutcome,
    MultiStreamRequest,
};
use tidelog_domain::{ConsistencyToken, HistoryId, Metadata, Partition, Position, Tenant};
use tidelog_http::Caller;
use tower::ServiceExt;

/// How long a read waits for the writes of its client, in seconds.
const PREFER_WAIT: &str = "wait=10";

/// The most bytes that the answer to a read may have.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// How many positions a token may hold.
const POSITIONS_PER_TOKEN: usize = 64;

/// A client of the services of its own process, without a network between: [`Running::client`](crate::Running::client).
///
/// It reads what it wrote: each read waits, ten seconds at most, until the view has seen every write that was made through
/// this client. A clone is another handle to the same client; it waits for the other's writes too.
///
/// ```
/// use serde_json::json;
/// use tidelog::{App, CommandRequest, settings::Settings};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let running = App::new("blog").mount(Settings::in_memory()).await?;
/// let client = running.client();
/// let post = json!({"title": "Hello", "content": "…", "author_name": "Ann"});
/// client.execute(CommandRequest::new("post", "create", post).to("1")).await?;
/// let changed = CommandRequest::new("post", "patch", json!({"title": "Hello, again"})).to("1");
/// assert_eq!(client.execute(changed).await?.version.number(), 2);
/// let page = client.list("posts", &[("author_name", "Ann")]).await?;
/// assert_eq!(page.documents.len(), 1);
/// running.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    commands: Option<Arc<CommandService>>,
    queries: Option<Router>,
    /// Whom it asks for.
    tenant: Option<Tenant>,
    written: Arc<Mutex<Written>>,
}

/// The last position that the client has written to each partition.
#[derive(Default)]
struct Written {
    history: Option<HistoryId>,
    positions: BTreeMap<Partition, Position>,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The documents, in the order of their ids.
    pub documents: Vec<Value>,
    /// What to give as the filter `after` for the page after this one; `None` on the last.
    pub next: Option<String>,
}

/// Why the client has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The process does not run the service that is asked.
    #[error("this process does not run the {service} service")]
    NotHere {
        /// `command` or `query`.
        service: &'static str,
    },
    /// The command did not happen, or (in doubt alone) may have.
    #[error("the command did not go through")]
    Command(#[from] CommandError),
    /// The query service turned the read down.
    #[error("the read was turned down with status {status}: {detail}")]
    Read {
        /// The HTTP status.
        status: u16,
        /// The `type` of the problem, `urn:tidelog:problem:not-yet-projected`.
        problem: String,
        /// What happened and what to do.
        detail: String,
    },
}

impl Client {
    /// A client of what there is.
    pub(crate) fn new(commands: Option<Arc<CommandService>>, queries: Option<Router>) -> Self {
        Self {
            commands,
            queries,
            tenant: None,
            written: Arc::default(),
        }
    }

    /// The same for `tenant`: it commands the tenant's aggregates and reads the tenant's documents, and none of anybody else's. What it wrote
    /// is its own: it does not wait for the writes of the client that it is made from.
    #[must_use]
    pub fn for_tenant(&self, tenant: Tenant) -> Self {
        Self {
            tenant: Some(tenant),
            written: Arc::default(),
            ..self.clone()
        }
    }

    /// Runs a command, and answers once what it did is durable. A request without a correlation id begins a conversation
    /// of its own.
    ///
    /// # Errors
    ///
    /// [`ClientError::Command`]: but for [`CommandError::InDoubt`], nothing was written. [`ClientError::NotHere`].
    pub async fn execute(
        &self,
        mut request: CommandRequest,
    ) -> Result<CommandOutcome, ClientError> {
        self.is_asking(&mut request.metadata);
        let outcome = self.commands()?.execute(request).await?;
        self.written().add(&outcome.token);
        Ok(outcome)
    }

    /// Runs a command over several aggregates, and answers once what it did is durable: to all of them, or to none.
    ///
    /// # Errors
    ///
    /// As [`Client::execute`].
    pub async fn execute_multi_stream(
        &self,
        mut request: MultiStreamRequest,
    ) -> Result<MultiStreamOutcome, ClientError> {
        self.is_asking(&mut request.metadata);
        let outcome = self.commands()?.execute_multi_stream(request).await?;
        self.written().add(&outcome.token);
        Ok(outcome)
    }

    /// Says for whom a command is. A client of no tenant leaves that to the command.
    fn is_asking(&self, metadata: &mut Metadata) {
        if let Some(tenant) = &self.tenant {
            metadata.tenant = Some(tenant.to_string());
        }
    }

    fn commands(&self) -> Result<&CommandService, ClientError> {
        let here = self.commands.as_deref();
        here.ok_or(ClientError::NotHere { service: "command" })
    }

    /// The document `id` of `view`, as `GET /{view}/{id}` shows it; `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`ClientError::Read`] and [`ClientError::NotHere`].
    pub async fn get(&self, view: &str, id: &str) -> Result<Option<Value>, ClientError> {
        match self
            .read(&format!("/{}/{}", encoded(view), encoded(id)))
            .await
        {
            Ok(mut body) => Ok(Some(data(&mut body))),
            Err(ClientError::Read { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One page of the list `plural`, with the parameters that `GET /{plural}` has: fields to filter by, `limit`, `after`.
    ///
    /// # Errors
    ///
    /// [`ClientError::Read`] and [`ClientError::NotHere`].
    pub async fn list(
        &self,
        plural: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Page, ClientError> {
        let mut path = format!("/{}", encoded(plural));
        for (index, (name, value)) in parameters.iter().enumerate() {
            let mark = if index == 0 { '?' } else { '&' };
            let _ = write!(path, "{mark}{}={}", encoded(name), encoded(value));
        }
        let mut body = self.read(&path).await?;
        let documents = match data(&mut body) {
            Value::Array(documents) => documents,
            one => vec![one],
        };
        let next = body.get("next").and_then(Value::as_str).map(str::to_owned);
        Ok(Page { documents, next })
    }

    /// The answer to a read that sees all that was written.
    async fn read(&self, path: &str) -> Result<Value, ClientError> {
        let queries = self.queries.clone();
        let queries = queries.ok_or(ClientError::NotHere { service: "query" })?;
        // It is in the process, and needs no token.
        let caller = Caller::in_process(self.tenant.clone(), None);
        let request = Request::get(path).header("prefer", PREFER_WAIT);
        let mut request = request.extension(caller);
        for token in self.written().tokens(self.tenant.as_ref()) {
            request = request.header("consistency-token", token.to_string());
        }
        // What could be wrong with the request is encoded away; what is left is a problem of the read.
        let request = request
            .body(Body::empty())
            .map_err(|error| unread(0, &error))?;
        let response = match queries.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let status = response.status().as_u16();
        let bytes = to_bytes(response.into_body(), MAX_ANSWER_BYTES).await;
        let bytes = bytes.map_err(|error| unread(status, &error))?;
        let body: Value = serde_json::from_slice(&bytes).map_err(|error| unread(status, &error))?;
        if status == 200 {
            return Ok(body);
        }
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        Err(ClientError::Read {
            status,
            problem: text("type").to_owned(),
            detail: text("detail").to_owned(),
        })
    }

    fn written(&self) -> std::sync::MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Written {
    /// Another write. One of a new history makes the earlier ones void: they may be gone.
    fn add(&mut self, token: &ConsistencyToken) {
        if self.history != Some(token.history) {
            self.history = Some(token.history);
            self.positions.clear();
        }
        for (partition, position) in &token.positions {
            let last = self.positions.entry(*partition).or_default();
            *last = (*last).max(*position);
        }
    }

    /// What a read must have seen.
    fn tokens(&self, tenant: Option<&Tenant>) -> Vec<ConsistencyToken> {
        let Some(history) = self.history else {
            return Vec::new();
        };
        let positions: Vec<_> = self.positions.iter().map(|(p, at)| (*p, *at)).collect();
        let tokens = positions
            .chunks(POSITIONS_PER_TOKEN)
            .map(|positions| ConsistencyToken {
                history,
                positions: positions.to_vec(),
                tenant: tenant.map(Tenant::mark),
            });
        tokens.collect()
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("commands", &self.commands.is_some())
            .field("queries", &self.queries.is_some())
            .finish_non_exhaustive()
    }
}

/// The member `data` of an answer.
fn data(body: &mut Value) -> Value {
    body.get_mut("data").map(Value::take).unwrap_or_default()
}

fn unread(status: u16, error: &dyn std::error::Error) -> ClientError {
    ClientError::Read {
        status,
        problem: String::new(),
        detail: error.to_string(),
    }
}

/// `text` as one segment of a path, or one name or value of a query.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(history: u128, partition: u16, position: u64) -> ConsistencyToken {
        ConsistencyToken {
            history: HistoryId::new(uuid::Uuid::from_u128(history)),
            positions: vec![(Partition::new(partition), Position::new(position))],
            tenant: None,
        }
    }

    #[test]
    fn a_read_must_see_the_last_write_to_each_partition() {
        let mut written = Written::default();
        assert!(written.tokens(None).is_empty());
        for (partition, position) in [(1, 5), (0, 2), (1, 4)] {
            written.add(&token(1, partition, position));
        }
        let tokens = written.tokens(None);
        let positions = [(0, 2), (1, 5)].map(|(p, at)| (Partition::new(p), Position::new(at)));
        assert_eq!(tokens[0].positions, positions);
        // A token has room for some partitions only, and a log may have more.
        for partition in 0..100 {
            written.add(&token(1, partition, 9));
        }
        assert_eq!(written.tokens(None).len(), 2);
        written.add(&token(2, 3, 1));
        assert_eq!(written.tokens(None), [token(2, 3, 1)]);
    }

    #[test]
    fn what_a_path_cannot_hold_is_encoded() {
        assert_eq!(encoded("a-b_c.d~9"), "a-b_c.d~9");
        assert_eq!(encoded("a/b?c=ä&"), "a%2Fb%3Fc%3D%C3%A4%26");
    }
}
