//! The limit of sends: the commands that each takes at Redis, in trips as large as there is something to do, on blocking connections, and
//! nothing around them. No time-outs, no envelopes, nobody who waits for a reply of his own, no second try.

use std::time::{Duration, Instant};

use redis::streams::{StreamId, StreamReadOptions, StreamReadReply};
use redis::{Commands, Connection, ConnectionLike, Pipeline, Value};

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
        add(&mut trip, REPLIES, ids.len());
        trip.xack(REQUESTS, GROUP, &ids).xdel(REQUESTS, &ids);
        go(&trip, &mut writing);
    }
}

/// Sends for `time`, so many at once: how many, and in what time.
pub(crate) fn send(url: &str, at_once: usize, time: Duration) -> (usize, Duration) {
    let (mut reading, mut writing) = (connect(url), connect(url));
    let mut last: String = writing.xadd(REPLIES, "*", &[("first", "")]).unwrap();
    let mut xread = redis::cmd("XREAD");
    xread.arg("COUNT").arg(500).arg("BLOCK").arg(0);
    xread.arg("STREAMS").arg(REPLIES);
    let (mut to_send, mut sent, mut untrimmed) = (at_once, 0, 0);
    let begun = Instant::now();
    while begun.elapsed() < time {
        let mut trip = Pipeline::new();
        for _ in 0..to_send {
            add(&mut trip, REQUESTS, 1);
        }
        untrimmed += to_send;
        if untrimmed >= TRIM_AFTER {
            untrimmed = 0;
            let xtrim = trip.cmd("XTRIM").arg(REPLIES);
            xtrim.arg("MINID").arg(&last);
        }
        go(&trip, &mut writing);
        let read = xread.clone().arg(&last).query(&mut reading).unwrap();
        to_send = 0;
        for (id, fields) in replies(read) {
            to_send += fields.len() / 2;
            last = id;
        }
        sent += to_send;
    }
    (sent, begun.elapsed())
}

fn connect(url: &str) -> Connection {
    let client = redis::Client::open(url).unwrap();
    client.get_connection().unwrap()
}

/// An entry with so many messages.
fn add(trip: &mut Pipeline, stream: &str, messages: usize) {
    let xadd = trip.cmd("XADD").arg(stream).arg("NOMKSTREAM").arg("*");
    for _ in 0..messages {
        xadd.arg("message").arg(&MESSAGE);
    }
}

fn go(trip: &Pipeline, connection: &mut Connection) {
    let commands = trip.len();
    let answers = connection.req_packed_commands(&trip.get_packed_pipeline(), 0, commands);
    assert_eq!(answers.unwrap().len(), commands);
}

/// The requests of a read.
fn entries(read: Option<StreamReadReply>) -> Vec<StreamId> {
    let streams = read.map(|read| read.keys).unwrap_or_default();
    streams.into_iter().flat_map(|stream| stream.ids).collect()
}

/// The entries of a read of the one stream of replies: the id of each, and names and values in turn.
fn replies(read: Value) -> Vec<(String, Vec<Value>)> {
    let stream = items(read).pop().map(items).unwrap_or_default();
    let entries = stream.into_iter().last().map(items).unwrap_or_default();
    entries
        .into_iter()
        .map(|entry| {
            let [id, fields] = items(entry).try_into().unwrap();
            (redis::from_redis_value(id).unwrap(), items(fields))
        })
        .collect()
}

fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}
