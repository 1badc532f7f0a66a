//! Clients that write while something breaks, and remember what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tidelog_test_support::unique_name;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Answer, Client, send};
use crate::log::Row;
use crate::waiting::BOUND;

/// How many clients write at once.
const CLIENTS: usize = 16;

/// How long a client waits before it asks again after "unavailable", or after no answer at all.
const PAUSE: Duration = Duration::from_millis(20);

/// What a client does with a post: the create, patches, and (for each second post) the delete.
const WRITES_A_POST: usize = 5;

/// Writers at work.
pub(crate) struct Load {
    writers: JoinSet<Outcome>,
    acknowledged: watch::Receiver<usize>,
    refused: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

/// What the clients were told.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Each write that was acknowledged: it is in the log once.
    acknowledged: Vec<Acknowledged>,
    /// The marks of writes that were refused as unavailable: nothing of them is in the log.
    refused: BTreeSet<String>,
    /// The marks of writes that were never answered, because the load was ended: each is in the log at most once.
    doubtful: BTreeSet<String>,
}

/// A write that was acknowledged.
#[derive(Debug)]
struct Acknowledged {
    stream: String,
    version: i64,
    /// What the write set the field `content` to; nothing for a delete.
    mark: Option<String>,
}

impl Load {
    /// Starts clients that together make `writes` writes of posts.
    pub(crate) fn start(commands: &Client, writes: usize) -> Self {
        let (count, acknowledged) = watch::channel(0);
        let refused = Arc::new(AtomicUsize::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let left = Arc::new(AtomicUsize::new(writes));
        let mut writers = JoinSet::new();
        for _ in 0..CLIENTS {
            let writer = Writer {
                service: commands.clone(),
                left: Arc::clone(&left),
                count: count.clone(),
                refusals: Arc::clone(&refused),
                ended: Arc::clone(&ended),
                outcome: Outcome::default(),
            };
            writers.spawn(writer.run());
        }
        Self {
            writers,
            acknowledged,
            refused,
            ended,
        }
    }

    /// Waits until this many writes are acknowledged.
    pub(crate) async fn reaches(&mut self, writes: usize) {
        let reached = timeout(BOUND, self.acknowledged.wait_for(|count| *count >= writes))
            .await
            .map(|ended| ended.is_ok());
        match reached {
            Ok(true) => {}
            Ok(false) => self.fail().await,
            Err(_) => panic!(
                "{writes} writes were not acknowledged in time, but {}",
                self.acknowledged()
            ),
        }
    }

    /// Waits until a client was told that the service is unavailable, or got no answer: what broke has been felt.
    pub(crate) async fn is_refused(&self) {
        let before = self.refused.load(Ordering::Relaxed);
        let felt = async {
            while self.refused.load(Ordering::Relaxed) == before {
                sleep(PAUSE).await;
            }
        };
        timeout(BOUND, felt)
            .await
            .expect("a client feels what broke");
    }

    /// How many writes are acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        *self.acknowledged.borrow()
    }

    /// Waits until all writes are made.
    pub(crate) async fn finish(mut self) -> Outcome {
        let mut outcome = Outcome::default();
        while let Some(joined) = self.writers.join_next().await {
            let one = joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            outcome.acknowledged.extend(one.acknowledged);
            outcome.refused.extend(one.refused);
            outcome.doubtful.extend(one.doubtful);
        }
        outcome
    }

    /// Ends the load: no client tries again.
    pub(crate) async fn end(self) -> Outcome {
        self.ended.store(true, Ordering::Relaxed);
        self.finish().await
    }

    /// All writers have ended, one of them with a panic: passes it on.
    async fn fail(&mut self) {
        while let Some(joined) = self.writers.join_next().await {
            if let Err(error) = joined {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        panic!("the load ended before it reached what it was waited for");
    }
}

impl Outcome {
    /// How many writes were acknowledged.
    pub(crate) fn count(&self) -> usize {
        self.acknowledged.len()
    }

    /// Checks a log that only this load wrote to: every acknowledged write is in it once, where the answer said; a
    /// refused one never; a doubtful one at most once; and nothing else.
    pub(crate) fn assert_in(&self, rows: &[Row]) {
        crate::log::assert_dense(rows);
        self.assert_all_in(rows);
    }

    /// The same of rows that are only a part of a log.
    pub(crate) fn assert_all_in(&self, rows: &[Row]) {
        let at: BTreeMap<_, _> = rows
            .iter()
            .map(|row| ((row.stream.as_str(), row.version), row))
            .collect();
        let mut marks: BTreeMap<&str, usize> = BTreeMap::new();
        for mark in rows.iter().filter_map(mark_of) {
            *marks.entry(mark).or_default() += 1;
        }
        for write in &self.acknowledged {
            let row = at.get(&(write.stream.as_str(), write.version));
            let row =
                row.unwrap_or_else(|| panic!("{write:?} was acknowledged and is not in the log"));
            match &write.mark {
                Some(mark) => {
                    assert_eq!(
                        mark_of(row),
                        Some(mark.as_str()),
                        "another write is where {write:?} should be: {row:?}"
                    );
                    assert_eq!(
                        marks[mark.as_str()],
                        1,
                        "{write:?} is in the log more than once"
                    );
                }
                None => assert!(row.event_type.ends_with(".deleted"), "{write:?} is {row:?}"),
            }
        }
        for mark in &self.refused {
            assert!(
                !marks.contains_key(mark.as_str()),
                "{mark} was refused, but is in the log"
            );
        }
        let expected: BTreeSet<_> = self
            .acknowledged
            .iter()
            .map(|write| (write.stream.as_str(), write.version))
            .collect();
        assert_eq!(
            expected.len(),
            self.acknowledged.len(),
            "two writes were told the same version"
        );
        for row in rows
            .iter()
            .filter(|row| !expected.contains(&(row.stream.as_str(), row.version)))
        {
            let mark = mark_of(row).unwrap_or(&row.stream);
            assert!(self.doubtful.contains(mark), "nobody was told of {row:?}");
            assert!(
                marks.get(mark).is_none_or(|count| *count == 1),
                "{mark} is in the log more than once"
            );
        }
    }
}

/// The mark that this event brought into the log; none for a delete.
fn mark_of(row: &Row) -> Option<&str> {
    if row.event_type.ends_with(".deleted") {
        None
    } else {
        row.state()["content"].as_str()
    }
}

/// One client.
struct Writer {
    service: Client,
    left: Arc<AtomicUsize>,
    count: watch::Sender<usize>,
    refusals: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    outcome: Outcome,
}

/// What became of a write.
enum Told {
    /// It is in the log, at this version where the answer said so.
    Done(Option<i64>),
    /// It is not, and never will be.
    Refused,
    /// Nobody knows.
    Doubtful,
}

impl Writer {
    async fn run(mut self) -> Outcome {
        let mut posts = 0;
        loop {
            posts += 1;
            let Some(id) = self.create().await else {
                return self.outcome;
            };
            for version in 2..=WRITES_A_POST {
                let delete = version == WRITES_A_POST && posts % 2 == 0;
                let version = i64::try_from(version).expect("a small number");
                let made = if delete {
                    self.remove(&id, version).await
                } else {
                    self.change(&id, version).await
                };
                if !made {
                    return self.outcome;
                }
            }
        }
    }

    /// Whether there is one more write to make.
    fn take(&self) -> bool {
        let take = |left: usize| left.checked_sub(1);
        !self.ended.load(Ordering::Relaxed)
            && self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_ok()
    }

    /// Makes a post, and returns its id. One that was refused is tried again with a new id, one in doubt with the same: then
    /// "already exists" means that it is in.
    async fn create(&mut self) -> Option<String> {
        let body =
            |id: &str| json!({"id": id, "title": "A post", "content": id, "author_name": "Ann"});
        let id = self
            .insist(Method::POST, |id| ("/post".to_owned(), Some(body(id))), 409)
            .await?
            .0;
        self.note(&id, 1, Some(id.clone()));
        Some(id)
    }

    /// Sets the content to something new. One in doubt is tried again with the same, which changes nothing where it is in.
    async fn change(&mut self, id: &str, version: i64) -> bool {
        let path = format!("/post/{id}");
        let request = |mark: &str| (path.clone(), Some(json!({"content": mark})));
        let Some((mark, told)) = self.insist(Method::PATCH, request, 0).await else {
            return false;
        };
        assert_eq!(
            told,
            Some(version),
            "the version after a patch of {id}, which nobody else writes to"
        );
        self.note(id, version, Some(mark));
        true
    }

    /// Deletes the post. One in doubt is tried again: "deleted" means that it is in.
    async fn remove(&mut self, id: &str, version: i64) -> bool {
        let path = format!("/post/{id}");
        if self
            .insist(Method::DELETE, |_| (path.clone(), None), 410)
            .await
            .is_none()
        {
            // A delete has no mark, so its stream stands for it.
            self.outcome.doubtful.insert(format!("post/{id}"));
            return false;
        }
        self.note(id, version, None);
        true
    }

    fn note(&mut self, id: &str, version: i64, mark: Option<String>) {
        self.outcome.acknowledged.push(Acknowledged {
            stream: format!("post/{id}"),
            version,
            mark,
        });
        self.count.send_modify(|count| *count += 1);
    }

    /// Makes one write, again and again until it is acknowledged: `request` of a mark, which is new each time that it is
    /// known that the one before is not in the log. `already` is the status that says, of a write in doubt, that it is in.
    /// Returns the mark, and the version that was told.
    async fn insist(
        &mut self,
        method: Method,
        request: impl Fn(&str) -> (String, Option<Value>),
        already: u16,
    ) -> Option<(String, Option<i64>)> {
        if !self.take() {
            return None;
        }
        let deadline = Instant::now() + BOUND;
        let mut mark = unique_name();
        let mut in_doubt = false;
        loop {
            let (path, body) = request(&mark);
            match self
                .attempt(method.clone(), &path, body.as_ref(), already, in_doubt)
                .await
            {
                Told::Done(version) => return Some((mark, version)),
                Told::Refused if !in_doubt => {
                    self.outcome
                        .refused
                        .insert(std::mem::replace(&mut mark, unique_name()));
                }
                Told::Refused => {}
                Told::Doubtful => in_doubt = true,
            }
            self.refusals.fetch_add(1, Ordering::Relaxed);
            if self.ended.load(Ordering::Relaxed) {
                if in_doubt {
                    self.outcome.doubtful.insert(mark);
                }
                return None;
            }
            assert!(
                Instant::now() < deadline,
                "{method} {path} was not acknowledged in time"
            );
            sleep(PAUSE).await;
        }
    }

    async fn attempt(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        already: u16,
        in_doubt: bool,
    ) -> Told {
        let mut sent = self.service.request(method, path);
        if let Some(body) = body {
            sent = sent.json(body);
        }
        let Ok(answer) = send(sent).await else {
            return Told::Doubtful;
        };
        match answer.status {
            200 | 201 => Told::Done(answer.json()["data"]["version"].as_i64()),
            503 => {
                assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
                Told::Refused
            }
            504 => Told::Doubtful,
            409 if is(&answer, "conflict") => Told::Refused,
            status if in_doubt && status == already => Told::Done(None),
            _ => panic!("a write to {path} was answered {answer:?}"),
        }
    }
}

/// Whether the answer is this problem.
fn is(answer: &Answer, problem: &str) -> bool {
    answer
        .body
        .contains(&format!("urn:tidelog:problem:{problem}\""))
}
