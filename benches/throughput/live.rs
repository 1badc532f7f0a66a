//! Live subscriptions over HTTP: how soon a change is told, and what they cost.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::commands::Found;
use crate::http::Connection;
use crate::posts::CONTENT;
use crate::services::Services;

/// How many subscriptions there are, all of one kind. The service takes 2,000.
const SUBSCRIPTIONS: [usize; 3] = [500, 1_000, 2_000];

/// How many changes a second are begun at an even pace.
const PACES: [u32; 2] = [100, 500];

/// How long it may take until the last change is told.
const PATIENCE: Duration = Duration::from_secs(30);

/// What clients subscribe to.
#[derive(Clone, Copy)]
enum Kind {
    /// Each to a document of its own.
    Document,
    /// Each to the posts of an author, of whom there is one.
    List,
}

/// Measures, and prints what it found.
pub(crate) async fn measure(time: Duration) {
    let services = Services::start().await;
    let most = SUBSCRIPTIONS.into_iter().max().unwrap();
    let ids = posts(&services, most).await;
    println!(
        "Live subscriptions to the query service, from the begin of a PATCH until the client of that document has its event; three processes, \
         {time:?} each\n"
    );
    println!(
        "| subscriptions | changes/s | told | p50 | p99 | most | memory of the query service |\n|---|---|---|---|---|---|---|"
    );
    println!(
        "| none | | | | | | {:.0} MiB |",
        services.resident_of_query()
    );
    for kind in [Kind::Document, Kind::List] {
        for count in SUBSCRIPTIONS {
            let subscribed = Subscribed::open(&services, kind, &ids[..count]).await;
            for pace in PACES {
                subscribed.clear();
                let changes = change(&services, &subscribed, &ids[..count], pace, time).await;
                let told = subscribed.told(changes).await;
                let found = Found::of(subscribed.clear(), time);
                let what = match kind {
                    Kind::Document => "documents",
                    Kind::List => "lists with a filter",
                };
                println!(
                    "| {count} {what} | {pace} | {told} of {changes} | {:.2?} | {:.2?} | {:.2?} | {:.0} MiB |",
                    found.p50,
                    found.p99,
                    found.most,
                    services.resident_of_query()
                );
            }
            subscribed.listening.abort().await;
        }
    }
    println!();
}

/// Makes posts, each of an author of its own.
async fn posts(services: &Services, count: usize) -> Vec<String> {
    let mut command = Connection::open(&services.command).await;
    let mut query = Connection::open(&services.query).await;
    let mut ids = Vec::new();
    let mut last = None;
    for number in 0..count {
        let body =
            format!(r#"{{"title":"0","content":"{CONTENT}","author_name":"Author {number}"}}"#);
        let answer = command.post("/post", &body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        ids.push(body["data"]["id"].as_str().unwrap().to_owned());
        last = answer.token;
    }
    let path = format!("/post/{}", ids.last().unwrap());
    assert_eq!(query.get(&path, last.as_deref()).await.status, 200);
    ids
}

/// Clients that listen.
struct Subscribed {
    began: Instant,
    /// How long each change took until it was told.
    took: Arc<Mutex<Vec<Duration>>>,
    listening: Listening,
}

struct Listening(JoinSet<()>);

impl Listening {
    async fn abort(mut self) {
        self.0.abort_all();
        while self.0.join_next().await.is_some() {}
        // The service sees that they are gone.
        sleep(Duration::from_secs(1)).await;
    }
}

impl Subscribed {
    async fn open(services: &Services, kind: Kind, ids: &[String]) -> Self {
        let (began, took) = (Instant::now(), Arc::default());
        let is_there = Arc::new(AtomicUsize::new(0));
        let mut listening = JoinSet::new();
        for (number, id) in ids.iter().enumerate() {
            let path = match kind {
                Kind::Document => format!("/post/{id}"),
                Kind::List => format!("/posts?author_name=Author%20{number}"),
            };
            let mut stream = TcpStream::connect(&services.query).await.unwrap();
            let request = format!(
                "GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            listening.spawn(listen(stream, began, Arc::clone(&took), is_there.clone()));
        }
        while is_there.load(Ordering::SeqCst) < ids.len() {
            sleep(Duration::from_millis(10)).await;
        }
        Self {
            began,
            took,
            listening: Listening(listening),
        }
    }

    fn clear(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.took.lock().unwrap())
    }

    /// How many of `changes` were told in the end.
    async fn told(&self, changes: usize) -> usize {
        let until = Instant::now() + PATIENCE;
        loop {
            let told = self.took.lock().unwrap().len();
            if told >= changes || Instant::now() > until {
                return told;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Notes of each change when it was begun, which is its title, in microseconds since `began`.
async fn listen(
    mut stream: TcpStream,
    began: Instant,
    took: Arc<Mutex<Vec<Duration>>>,
    is_there: Arc<AtomicUsize>,
) {
    let (mut received, mut is_new) = (Vec::new(), true);
    while stream.read_buf(&mut received).await.unwrap() > 0 {
        // An event ends with an empty line.
        while let Some(end) = received.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = received.drain(..end + 2).collect();
            let event = String::from_utf8_lossy(&event);
            if is_new && event.contains("event:") {
                is_new = false;
                is_there.fetch_add(1, Ordering::SeqCst);
            }
            let title = event.split_once(r#""title":""#).map(|(_, rest)| rest);
            let title = title.and_then(|rest| rest.split('"').next()?.parse().ok());
            if let Some(micros @ 1..) = title {
                let took_it = began
                    .elapsed()
                    .saturating_sub(Duration::from_micros(micros));
                took.lock().unwrap().push(took_it);
            }
        }
    }
}

/// Begins changes at an even pace, whether or not those before are done, and says how many; each of another document than the last ones.
async fn change(
    services: &Services,
    subscribed: &Subscribed,
    ids: &[String],
    pace: u32,
    time: Duration,
) -> usize {
    let idle: Arc<Mutex<Vec<Connection>>> = Arc::default();
    let mut running = JoinSet::new();
    let start = tokio::time::Instant::now();
    let mut changes = 0;
    for (number, id) in (0..).zip(ids.iter().cycle()) {
        let at = start + (Duration::from_secs(1) / pace) * number;
        if at > start + time {
            break;
        }
        sleep_until(at).await;
        let micros = subscribed.began.elapsed().as_micros();
        let (path, body) = (format!("/post/{id}"), format!(r#"{{"title":"{micros}"}}"#));
        let (idle, address) = (idle.clone(), services.command.clone());
        changes += 1;
        running.spawn(async move {
            let kept = idle.lock().unwrap().pop();
            let mut connection = match kept {
                Some(connection) => connection,
                None => Connection::open(&address).await,
            };
            let answer = connection.patch(&path, &body).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            idle.lock().unwrap().push(connection);
        });
    }
    running.join_all().await;
    changes
}
