//! A replay while clients write and read at a given pace, whose process is killed in the middle: nobody notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tidelog_test_support::Process;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use crate::client::{Answer, Client};
use crate::services::{Backends, CommandLine, Role, Site};
use crate::view::View;
use crate::waiting::eventually;

/// How many posts there are from the beginning on. None is added or deleted.
const POSTS: usize = 3_000;

/// How many of them each author has.
const OF_AUTHOR: usize = 10;

/// So many clients write, each so often: 200 writes a second, as long as the machine is fast enough.
const WRITERS: (usize, Duration) = (40, Duration::from_millis(200));

/// So many clients read, each so often: 500 reads a second.
const READERS: (usize, Duration) = (50, Duration::from_millis(100));

/// How many events a second are replayed: slow enough to be killed in the middle.
const THROTTLE: &str = "1000";

/// What the clients saw.
struct Seen {
    /// The newest version of each post that any read has shown: no later read may show less.
    versions: Vec<AtomicU64>,
    /// The post that was written last.
    written: AtomicUsize,
    writes: AtomicUsize,
    reads: AtomicUsize,
    /// Reads with a token that came before the view had the write.
    not_yet_projected: AtomicUsize,
    is_over: AtomicBool,
}

impl Seen {
    fn new() -> Self {
        Self {
            versions: (0..POSTS).map(|_| AtomicU64::new(1)).collect(),
            written: AtomicUsize::new(0),
            writes: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            not_yet_projected: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// The newest version of `post` that has been shown.
    fn shown(&self, post: usize) -> u64 {
        self.versions[post].load(Ordering::SeqCst)
    }

    /// Checks what a read that began when `before` had been shown gave.
    fn read(&self, post: &Value, before: impl Fn(usize) -> u64) {
        let version = is_whole(post);
        let name = post["id"].as_str().expect("an id");
        let number: usize = name["post-".len()..].parse().expect("a number");
        let before = before(number);
        assert!(version >= before, "{post} after version {before}");
        self.versions[number].fetch_max(version, Ordering::SeqCst);
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::SeqCst)
    }
}

fn id(post: usize) -> String {
    format!("post-{post:05}")
}

fn author(post: usize) -> String {
    format!("author-{}", post % (POSTS / OF_AUTHOR))
}

/// The title of a post at this version: what a reader must find with it.
fn title(version: u64) -> String {
    format!("v{version}")
}

/// Checks a post that was read, and gives its version.
fn is_whole(post: &Value) -> u64 {
    let version = post["version"].as_u64().expect("a version");
    assert_eq!(post["title"], json!(title(version)), "{post}");
    version
}

#[tokio::test]
async fn a_replay_that_is_killed_and_gone_on_with_under_load_is_noticed_by_nobody() {
    let backends = Backends::fresh().await;
    let mut site = Site::three(&backends).await;
    let view = View::on(&backends).await;
    write_posts(&site).await;
    view.equals_the_fold("post").await;
    let before = view.collection("post").await;
    let seen = Arc::new(Seen::new());
    let mut clients = JoinSet::new();
    for number in 0..WRITERS.0 {
        let (commands, queries) = (site.commands.clone(), site.queries.clone());
        clients.spawn(writes(number, commands, queries, seen.clone()));
    }
    for number in 0..READERS.0 {
        clients.spawn(reads(number, site.queries.clone(), seen.clone()));
    }

    let killed_at = kill_in_the_middle(&backends).await;
    assert_eq!(view.collection("post").await, before);
    // Any process tells that it was left, once it has noticed.
    let admin = site.service(Role::EventBus).admin();
    eventually("the replay to be left", async || {
        let shown = admin.get("/admin/api/views/post").await.data(200);
        match shown["replay"]["state"].as_str() {
            Some("left") => Ok(()),
            _ => Err(shown.to_string()),
        }
    })
    .await;
    let done = replayed(&backends, &["--throttle", THROTTLE]).await;
    assert!(
        done["resumed"].as_u64() >= Some(killed_at),
        "{done} after {killed_at}"
    );
    assert_eq!(done["compared"]["documents"], json!(POSTS));
    assert_eq!(done["documents"], json!(POSTS));
    let after = view.collection("post").await;
    assert_eq!(json!(after), done["collection"]);
    assert_ne!(after, before);
    // Readers follow within half a second: so many see only the new version.
    sleep(Duration::from_secs(2)).await;

    seen.is_over.store(true, Ordering::SeqCst);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let [writes, reads, late] = [&seen.writes, &seen.reads, &seen.not_yet_projected]
        .map(|count| count.load(Ordering::SeqCst));
    assert!(
        writes > 100 && reads > 100 && late < reads,
        "{writes} writes, {reads} reads, {late} of them too early"
    );
    view.equals_the_fold("post").await;
    // What was read last has the hash of the log's fold, and of a version that nobody disturbed.
    let (one, two) = (
        replayed(&backends, &[]).await,
        replayed(&backends, &[]).await,
    );
    assert_eq!(one["compared"], two["compared"]);
    assert_eq!(one["compared"]["documents"], json!(POSTS));
}

/// Writes all posts.
async fn write_posts(site: &Site) {
    const AT_ONCE: usize = 50;
    let mut clients = JoinSet::new();
    for first in 0..AT_ONCE {
        let commands = site.commands.clone();
        clients.spawn(async move {
            for number in (first..POSTS).step_by(AT_ONCE) {
                let post = json!({
                    "id": id(number), "title": title(1), "content": "-", "author_name": author(number)
                });
                let created = commands.post("/post", &post).await;
                assert_eq!(created.status, 201, "{created:?}");
            }
        });
    }
    clients.join_all().await;
}

/// Begins a replay, and kills its process when half is folded. Gives how many events it had told of by then.
async fn kill_in_the_middle(backends: &Backends) -> u64 {
    let arguments = [
        "replay",
        "post",
        "--throttle",
        THROTTLE,
        "--progress",
        "json",
    ];
    let replay = CommandLine::new(&arguments).with(backends.settings());
    let (mut process, _home) = replay.start();
    let half = u64::try_from(POSTS / 2).expect("a number");
    let events = eventually("half of it to be folded", async || match told(&process) {
        Some(line) if line["events"].as_u64() >= Some(half) => Ok(line),
        line => Err(format!("{line:?}\n{}", process.output())),
    })
    .await;
    assert_eq!(events["state"], "building", "{events}");
    assert!(events["per_second"].as_u64() > Some(0), "{events}");
    process.kill();
    events["events"].as_u64().expect("a number")
}

/// The last line that a process told of its progress.
fn told(process: &Process) -> Option<Value> {
    serde_json::from_str(process.stdout().last()?).ok()
}

/// Replays the posts to the end, compared with the log, and gives the last line.
async fn replayed(backends: &Backends, more: &[&str]) -> Value {
    let arguments = ["replay", "post", "--progress", "json", "--compare", "full"];
    let arguments = [&arguments[..], more].concat();
    let replay = CommandLine::new(&arguments).with(backends.settings());
    let ended = replay.run().await.succeeded();
    let last = ended.stdout.lines().last().expect("a line");
    let done: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(done["state"], "done", "{done}");
    done
}

/// Changes posts of its own in turn, at a pace, and reads some of them at once by their tokens.
async fn writes(number: usize, commands: Client, queries: Client, seen: Arc<Seen>) {
    let mut pace = interval(WRITERS.1);
    let mut version = 1;
    while seen.goes_on() {
        version += 1;
        // All of its posts before the next version of the first.
        for post in (number..POSTS).step_by(WRITERS.0) {
            if !seen.goes_on() {
                return;
            }
            pace.tick().await;
            let path = format!("/post/{}", id(post));
            let patched = commands
                .patch(&path, &json!({"title": title(version)}))
                .await;
            assert_eq!(is_whole(&patched.data(200)), version);
            seen.writes.fetch_add(1, Ordering::SeqCst);
            seen.written.store(post, Ordering::SeqCst);
            if post % 4 == 0 {
                let read = queries.get_after(&path, patched.token()).await;
                seen.reads.fetch_add(1, Ordering::SeqCst);
                if is_too_early(&read) {
                    seen.not_yet_projected.fetch_add(1, Ordering::SeqCst);
                } else {
                    let read = read.data(200);
                    assert_eq!(is_whole(&read), version);
                    seen.read(&read, |_| version);
                }
            }
        }
    }
}

/// Whether a read with a token came before the view had the write: the one answer of that kind that a client has to expect.
fn is_too_early(answer: &Answer) -> bool {
    answer.status == 503
        && answer.json()["type"]
            .as_str()
            .is_some_and(|kind| kind.ends_with("not-yet-projected"))
}

/// Reads posts that were just written, and lists of an author's, at a pace: each is whole, and none goes back.
async fn reads(number: usize, queries: Client, seen: Arc<Seen>) {
    let mut pace = interval(READERS.1);
    let mut round = number;
    while seen.goes_on() {
        pace.tick().await;
        round += 1;
        let post = seen.written.load(Ordering::SeqCst);
        // A list looks at all posts.
        if !round.is_multiple_of(10) {
            let before = seen.shown(post);
            let read = queries.get(&format!("/post/{}", id(post))).await;
            seen.read(&read.data(200), |_| before);
        } else {
            let all: Vec<_> = (0..POSTS).map(|post| seen.shown(post)).collect();
            let list = format!("/posts?author_name={}&limit=200", author(post));
            let list = queries.get(&list).await.data(200);
            let list = list.as_array().expect("a list").clone();
            assert_eq!(list.len(), OF_AUTHOR, "a list is not complete");
            list.iter()
                .for_each(|post| seen.read(post, |post| all[post]));
        }
        seen.reads.fetch_add(1, Ordering::SeqCst);
    }
}
