//! Workers without this library (`examples/workers`), and requesters, by the wire form in `docs/messaging.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use tidelog::messaging::{
    HandlerError, MessageContext, MessageOptions, Messaging, ReplyError, SendError, Subject,
};
use tidelog_test_support::{Process, python_path, shared, unique_name, workers_path};
use tokio::sync::Barrier;

use super::{ECHO, PATIENCE, ask, eventually};

const WORDS: Subject<Value, String> = Subject::new("text.words");
const GROUP: &str = "words";
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/workers/worker.py");
const NODE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/workers/worker.mjs");

async fn python(app: &str) -> Command {
    let mut command = Process::command("python3");
    command
        .env("PYTHONPATH", python_path().await)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args([PYTHON, shared::redis().await.url(), app]);
    command
}

/// A module is looked for beside the program that asks for it.
async fn node(app: &str, beside: &Path) -> Command {
    let program = beside.join("worker.mjs");
    std::fs::copy(NODE, &program).unwrap();
    let modules = workers_path().await.join("node_modules");
    std::os::unix::fs::symlink(modules, beside.join("node_modules")).unwrap();
    let mut command = Process::command("node");
    command
        .arg(program)
        .args([shared::redis().await.url(), app]);
    command
}

fn key(app: &str) -> String {
    format!("{{{app}:messages:{WORDS}}}")
}

/// Runs a command about the worker's stream.
async fn on_stream<T: redis::FromRedisValue>(app: &str, name: &str, rest: &[&str]) -> T {
    let mut command = redis::cmd(name);
    match name {
        "XGROUP" | "XINFO" => command.arg(rest[0]).arg(key(app)).arg(&rest[1..]),
        _ => command.arg(key(app)).arg(rest),
    };
    ask(shared::redis().await.url(), &command).await
}

/// Puts a message on the stream, and has a worker take it that is dead for a minute already.
async fn left_behind(messaging: &Messaging, app: &str, message: &[u8]) {
    let url = shared::redis().await.url();
    let _made: String = on_stream(app, "XGROUP", &["CREATE", GROUP, "0", "MKSTREAM"]).await;
    let messages = [message.to_vec()];
    let entries = messaging.bus().publish(&WORDS.channel(), &messages).await;
    let mut take = redis::cmd("XREADGROUP");
    take.arg("GROUP").arg(GROUP).arg("dead");
    take.arg("STREAMS").arg(key(app)).arg(">");
    let _taken: redis::Value = ask(url, &take).await;
    let entry = entries.unwrap().remove(0);
    let idle = [GROUP, "dead", "0", &*entry, "IDLE", "60000", "JUSTID"];
    let claimed: Vec<String> = on_stream(app, "XCLAIM", &idle).await;
    assert_eq!(claimed.len(), 1);
}

async fn words(messaging: &Messaging, text: &Value) -> Result<Vec<String>, SendError> {
    let options = MessageOptions::default().timeout(PATIENCE);
    let mut values = messaging.send_stream(&WORDS, text, options).await?;
    let mut words = Vec::new();
    while let Some(word) = values.next().await {
        words.push(word?);
    }
    Ok(words)
}

async fn serves(app: String, worker: Command) {
    let messaging = Messaging::connect(shared::redis().await.url(), &app).unwrap();
    let left = br#"{"id":"left","data":"what a dead worker left"}"#;
    left_behind(&messaging, &app, left).await;
    let process = Process::start(worker);
    eventually("what a dead worker left is handled", async || {
        let pending: Vec<redis::Value> = on_stream(&app, "XPENDING", &[GROUP]).await;
        pending[0] == redis::Value::Int(0)
    })
    .await;
    let options = || MessageOptions::default().timeout(PATIENCE);
    let word = json!("tide");
    let one = messaging.send_with(&WORDS, &word, options()).await;
    assert_eq!(one.unwrap(), "tide");
    let several = words(&messaging, &json!("Zürich \"and\" the tide")).await;
    assert_eq!(several.unwrap(), ["Zürich", "\"and\"", "the", "tide"]);
    assert!(words(&messaging, &json!(" ")).await.unwrap().is_empty());
    let refused = messaging.send_with(&WORDS, &json!([1]), options()).await;
    assert!(
        matches!(&refused, Err(SendError::Refused(error)) if error.code == ReplyError::FAILED),
        "{refused:?}\n{}",
        process.output()
    );

    // What it cannot handle, and nobody waits for, it leaves to the group. What is handled is gone.
    messaging.emit(&WORDS, &json!([2])).await.unwrap();
    messaging.emit(&WORDS, &json!("fine")).await.unwrap();
    let pending = async || -> Vec<redis::Value> { on_stream(&app, "XPENDING", &[GROUP]).await };
    assert!(words(&messaging, &json!("")).await.unwrap().is_empty());
    assert_eq!(pending().await[0], redis::Value::Int(1));
    assert_eq!(on_stream::<usize>(&app, "XLEN", &[]).await, 3);
    drop(process);

    // One of this library is in the same group.
    let worker = messaging
        .worker(GROUP)
        .handle(&WORDS, |text: Value, _: MessageContext| async move {
            Ok::<_, HandlerError>(text.to_string())
        });
    let worker = worker.start().await.unwrap();
    let served = messaging.send_with(&WORDS, &json!(7), options()).await;
    assert_eq!(served.unwrap(), "7");
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_in_python_of_thirty_lines_serves_a_send() {
    let app = unique_name();
    let worker = python(&app).await;
    serves(app, worker).await;
}

#[tokio::test]
async fn a_worker_in_node_of_thirty_lines_serves_a_send() {
    let directory = tempfile::tempdir().unwrap();
    let app = unique_name();
    let worker = node(&app, directory.path()).await;
    serves(app, worker).await;
}

#[tokio::test]
async fn replies_to_a_requester_without_this_library_are_in_one_entry_where_they_are_put_at_once() {
    const EACH: usize = 10;
    let (app, url) = (unique_name(), shared::redis().await.url());
    let messaging = Messaging::connect(url, &app).unwrap();
    let all_are_here = Arc::new(Barrier::new(2 * EACH));
    let handler = move |value: Value, _: MessageContext| {
        let all_are_here = Arc::clone(&all_are_here);
        async move {
            all_are_here.wait().await;
            Ok::<_, HandlerError>(value)
        }
    };
    let worker = messaging.worker(GROUP).concurrency(2 * EACH);
    let worker = worker.handle(&ECHO, handler).start().await.unwrap();
    let inboxes = ["one", "other"].map(|name| format!("{{{app}:replies:{name}}}"));
    let mut requests = Vec::new();
    for inbox in &inboxes {
        let mut make = redis::cmd("XADD");
        make.arg(inbox).arg("*").arg("made").arg("here");
        let _made: String = ask(url, &make).await;
        for number in 0..EACH {
            let id = format!("{inbox}-{number}");
            let request = json!({"id": id, "replyto": inbox, "timeoutms": 600_000, "data": number});
            requests.push(request.to_string().into_bytes());
        }
    }
    let published = messaging.bus().publish(&ECHO.channel(), &requests).await;
    assert_eq!(published.unwrap().len(), 2 * EACH);
    for inbox in &inboxes {
        let mut xrange = redis::cmd("XRANGE");
        xrange.arg(inbox).arg("(0").arg("+");
        // As most clients read: the fields of an entry are a map.
        let read = async || -> Vec<(String, BTreeMap<String, String>)> { ask(url, &xrange).await };
        eventually("all replies are there", async || {
            let entries = read().await;
            let fields = entries.iter().skip(1).map(|(_, fields)| fields.len());
            fields.sum::<usize>() == EACH
        })
        .await;
        let entries = read().await;
        assert!(entries.len() < 1 + EACH, "each has its own: {entries:?}");
        let mut values = Vec::new();
        for (_, fields) in &entries[1..] {
            let names = (2..=fields.len()).map(|number| format!("message:{number}"));
            let names: BTreeSet<_> = names.chain(["message".to_owned()]).collect();
            assert!(fields.keys().eq(&names), "{fields:?}");
            for reply in fields.values() {
                let reply: Value = serde_json::from_str(reply).unwrap();
                let id = format!("{inbox}-{}", reply["data"]);
                assert_eq!(reply["requestid"], json!(id));
                values.push(reply["data"].as_u64().unwrap());
            }
        }
        values.sort_unstable();
        assert!(values.into_iter().eq(0..10));
    }
    worker.stop().await;
}

#[test]
fn a_worker_has_no_more_than_thirty_lines() {
    for program in [PYTHON, NODE] {
        let lines = std::fs::read_to_string(program).unwrap().lines().count();
        assert!(lines <= 30, "{program} has {lines}");
    }
}
