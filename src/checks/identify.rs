//! Asks whatever listens on a port what it is, so that an error can say what was found.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_millis(400);

/// What listens at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing can be reached; why, in words.
    Nothing(String),
    /// Something that greets as MySQL and MariaDB do.
    MySql,
    /// Something that answers `PING` as Redis does.
    Redis,
    /// Something that greets as NATS does.
    Nats,
    /// Something that answers as a broker of Kafka does.
    Kafka,
    /// Something that answers `hello` as MongoDB does.
    MongoDb,
    /// Something that answers in HTTP.
    Http,
    /// Something that takes connections and says nothing at all: it may be starting, or stuck.
    Silent,
    /// Something that says what no known server says.
    Unknown,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing(why) => f.write_str(why),
            Self::MySql => f.write_str("a MySQL or MariaDB server"),
            Self::Redis => f.write_str("a Redis server"),
            Self::Nats => f.write_str("a NATS server"),
            Self::Kafka => f.write_str("a Kafka broker"),
            Self::MongoDb => f.write_str("a MongoDB server"),
            Self::Http => f.write_str("an HTTP server"),
            Self::Silent => f.write_str("something that takes connections but does not answer"),
            Self::Unknown => f.write_str("something that does not answer as expected"),
        }
    }
}

/// Asks what listens at `host:port`: within about two seconds, whatever it does.
pub(crate) async fn identify(host: &str, port: u16) -> Found {
    match ask(host, port, b"").await {
        Err(why) => return Found::Nothing(why),
        Ok(greeting) if is_mysql_greeting(&greeting) => return Found::MySql,
        Ok(greeting) if greeting.starts_with(b"INFO {") => return Found::Nats,
        Ok(_) => {}
    }
    let ping = ask(host, port, b"PING\r\n").await.unwrap_or_default();
    if [
        &b"+PONG"[..],
        b"-NOAUTH",
        b"-DENIED",
        b"-LOADING",
        b"-NOPERM",
    ]
    .iter()
    .any(|p| ping.starts_with(p))
    {
        return Found::Redis;
    }
    if ping.starts_with(b"HTTP/") {
        return Found::Http;
    }
    let versions = ask(host, port, &KAFKA_API_VERSIONS).await;
    if is_kafka_answer(&versions.unwrap_or_default()) {
        return Found::Kafka;
    }
    let hello = ask(host, port, &mongodb_hello()).await.unwrap_or_default();
    let named = |name: &[u8]| hello.windows(name.len()).any(|window| window == name);
    match (
        named(b"maxBsonObjectSize") || named(b"maxWireVersion"),
        ping.is_empty() && hello.is_empty(),
    ) {
        (true, _) => Found::MongoDb,
        (false, true) => Found::Silent,
        (false, false) => Found::Unknown,
    }
}

/// Connects, says `question`, and gives what comes back in time: nothing, when nothing does.
async fn ask(host: &str, port: u16, question: &[u8]) -> Result<Vec<u8>, String> {
    let mut stream = match timeout(PATIENCE, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(in_words(&error)),
        Err(_) => return Err("nothing that answers: the connection timed out".to_owned()),
    };
    let mut answer = vec![0; 1024];
    let exchange = async {
        stream.write_all(question).await?;
        stream.read(&mut answer).await
    };
    let length = timeout(PATIENCE, exchange)
        .await
        .ok()
        .and_then(Result::ok)
        .unwrap_or(0);
    answer.truncate(length);
    Ok(answer)
}

/// Why nothing can be reached.
fn in_words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => {
            "nothing listening there: the connection was refused".to_owned()
        }
        _ => format!("nothing that can be reached: {error}"),
    }
}

/// MySQL speaks first: three bytes of length, a zero, protocol 10 (or an error packet when it is full or blocks the host).
fn is_mysql_greeting(bytes: &[u8]) -> bool {
    matches!(bytes, [_, _, _, 0, 10 | 0xff, ..])
}

/// Kafka's question for the versions of its questions, as number 2013, of a client without a name.
const KAFKA_API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 7, 221, 255, 255];

/// An answer begins with its length and the question's number; no error follows.
fn is_kafka_answer(bytes: &[u8]) -> bool {
    matches!(bytes, [0, 0, _, _, 0, 0, 7, 221, 0, 0, ..])
}

/// An `OP_MSG` with `{hello: 1, $db: "admin"}`, as MongoDB's wire protocol has it.
fn mongodb_hello() -> Vec<u8> {
    let mut document: Vec<u8> = Vec::new();
    document.extend(b"\x10hello\0\x01\0\0\0");
    document.extend(b"\x02$db\0\x06\0\0\0admin\0\0");
    let mut message = Vec::new();
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or_default().to_le_bytes();
    message.extend(length(16 + 4 + 1 + 4 + document.len()));
    message.extend(1u32.to_le_bytes()); // the request's id
    message.extend(0u32.to_le_bytes()); // in answer to nothing
    message.extend(2013u32.to_le_bytes()); // OP_MSG
    message.extend(0u32.to_le_bytes()); // no flags
    message.push(0); // a body section
    message.extend(length(4 + document.len()));
    message.extend(document);
    message
}
