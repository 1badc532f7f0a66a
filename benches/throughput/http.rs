//! A client of HTTP/1.1 that costs next to nothing, as the load shares the machine with what is measured.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection that is kept.
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The token of a write.
    pub(crate) token: Option<String>,
    pub(crate) body: String,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Self {
        Self::try_open(address).await.unwrap()
    }

    /// The same with a server that may not take it.
    pub(crate) async fn try_open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::with_capacity(4_096),
        })
    }

    /// Reads a document; with a `token`, what its write made of it.
    pub(crate) async fn get(&mut self, path: &str, token: Option<&str>) -> Answer {
        let token = token.map(|token| format!("consistency-token: {token}\r\n"));
        let token = token.unwrap_or_default();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{token}\r\n");
        self.exchange(request).await.unwrap()
    }

    /// The same of a server that may close the connection.
    pub(crate) async fn try_get(&mut self, path: &str) -> io::Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        self.exchange(request).await
    }

    /// The same of a server that may close the connection.
    pub(crate) async fn try_post(&mut self, path: &str, body: &str) -> io::Result<Answer> {
        self.exchange(with_body("POST", path, body)).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &str) -> Answer {
        self.write("POST", path, body).await
    }

    pub(crate) async fn patch(&mut self, path: &str, body: &str) -> Answer {
        self.write("PATCH", path, body).await
    }

    async fn write(&mut self, method: &str, path: &str, body: &str) -> Answer {
        self.exchange(with_body(method, path, body)).await.unwrap()
    }

    async fn exchange(&mut self, request: String) -> io::Result<Answer> {
        self.stream.write_all(request.as_bytes()).await?;
        self.received.clear();
        let head = loop {
            self.receive().await?;
            let mut places = self.received.windows(4);
            if let Some(end) = places.position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let lines = String::from_utf8(self.received[..head].to_vec()).unwrap();
        let header = |name: &str| {
            let mut values = lines.lines().filter_map(|line| line.split_once(": "));
            values.find_map(|(own, value)| own.eq_ignore_ascii_case(name).then(|| value.to_owned()))
        };
        let length: usize = header("content-length").unwrap().parse().unwrap();
        while self.received.len() < head + length {
            self.receive().await?;
        }
        Ok(Answer {
            status: lines[9..12].parse().unwrap(),
            token: header("consistency-token"),
            body: String::from_utf8(self.received[head..].to_vec()).unwrap(),
        })
    }

    async fn receive(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(io::Error::other("the connection was closed")),
            _ => Ok(()),
        }
    }
}

fn with_body(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}
