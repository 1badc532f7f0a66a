//! The limit of sends: the commands that each takes at Redis, in trips as large as there is something to do, on blocking connections, and
//! nothing around them. No time-outs, no envelopes, nobody who waits for a reply of his own, no second try.

use std::time::{Duration, Instant};

use redis::streams::{StreamId, StreamReadOptions, StreamReadReply};
use redis::{Commands, Connection, ConnectionLike, Pipeline};

const REQUESTS: &str = "bare:requests";
const REPLIES: &str = "bare:replies";
const GROUP: &str = "bare";

/// As many bytes as a request of ours has, and about as many as a reply.
const MESSAGE: [u8; 330] = [b'x'; 330];

/// After how many replies their stream is trimmed.
const TRIM_AFTER: usize = 1_000;

/// Handles requests for ever.
pub(crate) fn work(url: &str) {
    let (mut reading, mut writing) = (connect(url), connect(url));
    let () = reading.xgroup_create_mkstream(REQUESTS, GROUP, 0).unwrap();
    println!("ready");
    let options = StreamReadOptions::default().group(GROUP, "one");
    let options = options.count(256).block(0);
    loop {
        let read = reading.xread_options(&[REQUESTS], &[">"], &options);
        let entries = entries(read.unwrap());
        let ids: Vec<_> = entries.iter().map(|entry| &entry.id).collect();
        let mut trip = Pipeline::new();
        for _ in &ids {
            add(&mut trip, REPLIES);
        }
        trip.xack(REQUESTS, GROUP, &ids).xdel(REQUESTS, &ids);
        go(&trip, &mut writing);
    }
}

/// Sends for `time`, so many at once: how many, and in what time.
pub(crate) fn send(url: &str, at_once: usize, time: Duration) -> (usize, Duration) {
    let (mut reading, mut writing) = (connect(url), connect(url));
    let mut last: String = writing.xadd(REPLIES, "*", &[("first", "")]).unwrap();
    let options = StreamReadOptions::default().count(500).block(0);
    let (mut to_send, mut sent, mut untrimmed) = (at_once, 0, 0);
    let begun = Instant::now();
    while begun.elapsed() < time {
        let mut trip = Pipeline::new();
        for _ in 0..to_send {
            add(&mut trip, REQUESTS);
        }
        untrimmed += to_send;
        if untrimmed >= TRIM_AFTER {
            untrimmed = 0;
            let xtrim = trip.cmd("XTRIM").arg(REPLIES);
            xtrim.arg("MINID").arg(&last);
        }
        go(&trip, &mut writing);
        let read = reading.xread_options(&[REPLIES], &[&last], &options);
        let entries = entries(read.unwrap());
        to_send = entries.len();
        sent += to_send;
        if let Some(entry) = entries.into_iter().last() {
            last = entry.id;
        }
    }
    (sent, begun.elapsed())
}

fn connect(url: &str) -> Connection {
    let client = redis::Client::open(url).unwrap();
    client.get_connection().unwrap()
}

fn add(trip: &mut Pipeline, stream: &str) {
    let xadd = trip.cmd("XADD").arg(stream).arg("NOMKSTREAM");
    xadd.arg("*").arg("message").arg(&MESSAGE);
}

fn go(trip: &Pipeline, connection: &mut Connection) {
    let commands = trip.len();
    let answers = connection.req_packed_commands(&trip.get_packed_pipeline(), 0, commands);
    assert_eq!(answers.unwrap().len(), commands);
}

fn entries(read: Option<StreamReadReply>) -> Vec<StreamId> {
    let streams = read.map(|read| read.keys).unwrap_or_default();
    streams.into_iter().flat_map(|stream| stream.ids).collect()
}
