//! A topic of Kafka that takes less than ours, which no broker at hand can be told to have: between the broker and its clients, what is too
//! large is refused, as brokers do.

use std::sync::Arc;

use tidelog_test_support::free_port;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, JoinSet};

/// The number of the request that has records.
const PRODUCE: i16 = 0;

/// The error of a record that is larger than its topic takes (`MESSAGE_TOO_LARGE`).
const TOO_LARGE: i16 = 10;

/// Listens for clients of a broker, until it is dropped.
pub(super) struct Bounded {
    port: u16,
    task: Option<AbortHandle>,
}

impl Bounded {
    pub(super) fn new() -> Self {
        let (port, task) = (free_port(), None);
        Self { port, task }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Leads clients to the broker on `port`, and refuses what it would be sent of records with more than `bytes`.
    pub(super) async fn lead_to(&mut self, port: u16, bytes: usize) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        let accepts = async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                connections.spawn(connect(client, server, bytes));
            }
        };
        self.task = Some(tokio::spawn(accepts).abort_handle());
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Passes requests and answers on, until an end is closed.
async fn connect(client: TcpStream, server: TcpStream, bytes: usize) {
    let (mut requests, to_client) = client.into_split();
    let (mut answers, mut to_server) = server.into_split();
    let to_client = Arc::new(Mutex::new(to_client));
    let back = Arc::clone(&to_client);
    let answering = tokio::spawn(async move {
        while let Some(answer) = frame(&mut answers).await {
            let mut to_client = back.lock().await;
            if to_client.write_all(&answer).await.is_err() {
                return;
            }
        }
    });
    while let Some(request) = frame(&mut requests).await {
        let passed = match refused(&request, bytes) {
            None => to_server.write_all(&request).await,
            Some(refusal) => to_client.lock().await.write_all(&refusal).await,
        };
        if passed.is_err() {
            break;
        }
    }
    answering.abort();
}

/// A request or an answer, with its length before it.
async fn frame(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let length = from.read_u32().await.ok()?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.resize(4 + length as usize, 0);
    from.read_exact(&mut frame[4..]).await.ok()?;
    Some(frame)
}

/// The answer to a request with records that are too large. (Kafka's protocol: `Produce`, in its versions 5 to 7, of one topic and one
/// partition.)
fn refused(request: &[u8], bytes: usize) -> Option<Vec<u8>> {
    let mut rest = &request[4..];
    let (request, version) = (rest_i16(&mut rest), rest_i16(&mut rest));
    if request != PRODUCE || rest.len() <= bytes {
        return None;
    }
    assert!((5..=7).contains(&version), "Produce in version {version}");
    let number = take(&mut rest, 4);
    for _client_and_transaction in 0..2 {
        let length = rest_i16(&mut rest);
        take(&mut rest, usize::try_from(length).unwrap_or(0));
    }
    let _acks_and_timeout = take(&mut rest, 2 + 4);
    let one = 1_u32.to_be_bytes();
    assert_eq!(take(&mut rest, 4), one, "of one topic");
    let length = rest_i16(&mut rest);
    let topic = take(&mut rest, length.try_into().unwrap());
    assert_eq!(take(&mut rest, 4), one, "of one partition");
    let partition = take(&mut rest, 4);
    let none = (-1_i64).to_be_bytes();
    let (length, error) = (length.to_be_bytes(), TOO_LARGE.to_be_bytes());
    let answer: [&[u8]; 11] = [
        number, &one, &length, topic, &one, partition, &error,
        // The offset, the time, and the first offset of the partition.
        &none, &none, &none, // How long to wait.
        &[0; 4],
    ];
    let answer = answer.concat();
    let length = u32::try_from(answer.len()).unwrap().to_be_bytes();
    Some([&length, &answer[..]].concat())
}

fn take<'b>(rest: &mut &'b [u8], count: usize) -> &'b [u8] {
    let (taken, left) = rest.split_at(count);
    *rest = left;
    taken
}

fn rest_i16(rest: &mut &[u8]) -> i16 {
    i16::from_be_bytes(take(rest, 2).try_into().unwrap())
}
