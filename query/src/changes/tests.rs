//! Clients that listen to a whole read side, are cut off, and come back to other processes.

mod random;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use serde_json::json;
use tidelog_domain::{ConsistencyToken, ViewDefinition};
use tidelog_eventbus::{
    Checkpoint, Handler, Operations, Parked, Skip, StateRecord, StateStore, Why,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::mailbox::{MAX_PENDING, MAX_PENDING_BYTES};
use super::session::BEAT;
use super::{Asked, Changes, LiveId, Message, Refused, Session, Shown};
use crate::live::LiveViews;
use crate::projector::Projector;
use crate::store::{Alias, Document, Field, Filter, Query, ReadStore};
use crate::testing::{Change, Process, System, authors, eventually, posts};

/// How long a message may take: far more than it needs, and less than the time after which there is one anyway.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked for: one document of `view`, or those that meet `filter`.
fn asked(view: Arc<dyn ViewDefinition>, id: Option<&str>, filter: Filter) -> Asked {
    Asked {
        question: format!("{id:?} {filter:?}"),
        view,
        query: Query {
            filter,
            limit: 200,
            ..Query::default()
        },
        id: id.map(str::to_owned),
    }
}

fn post(id: &str) -> Asked {
    asked(posts(), Some(id), Filter::default())
}

/// Posts of this title.
fn titled(title: &str) -> Asked {
    let field = Field::Data(vec!["title".to_owned()]);
    asked(posts(), None, Filter::is(field, json!(title)))
}

fn all_posts() -> Asked {
    asked(posts(), None, Filter::default())
}

/// A client, and what it knows.
struct Client {
    asked: Asked,
    messages: mpsc::Receiver<Message>,
    stop: CancellationToken,
    documents: BTreeMap<String, Arc<Document>>,
    /// The revision of each document that it was told last, also of those that are gone.
    told: BTreeMap<String, u64>,
    last: Option<LiveId>,
}

impl Client {
    async fn of(changes: &Changes, asked: Asked) -> Self {
        Self::begin(changes, asked, None).await.unwrap()
    }

    async fn begin(changes: &Changes, asked: Asked, last: Option<LiveId>) -> Result<Self, Refused> {
        let stop = CancellationToken::new();
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        // As clients send it back: as a text.
        let sent = last.clone().map(|last| last.to_string().parse().unwrap());
        let begun = Session::begin(changes.clone(), asked.clone(), sent, stop.clone(), place);
        Ok(Self {
            messages: begun.await?,
            asked,
            stop,
            documents: BTreeMap::new(),
            told: BTreeMap::new(),
            last,
        })
    }

    /// It is cut off, and comes back to `changes` with what it knows.
    async fn back(self, changes: &Changes) -> Self {
        let Self {
            asked,
            messages,
            documents,
            told,
            last,
            ..
        } = self;
        drop(messages);
        let back = Self::begin(changes, asked, last).await.unwrap();
        Self {
            documents,
            told,
            ..back
        }
    }

    /// The next message that says something, taken to heart.
    async fn next(&mut self) -> Shown {
        loop {
            let message = timeout(PATIENCE, self.messages.recv()).await;
            let message = message.expect("a message in time").expect("a message");
            self.take(&message);
            if !matches!(message.shown, Shown::Beat) {
                return message.shown;
            }
        }
    }

    /// That there is no message for a while, but that the connection lives.
    async fn hears_nothing(&mut self) {
        while let Ok(message) = timeout(PATIENCE, self.messages.recv()).await {
            let message = message.expect("it goes on");
            assert!(matches!(message.shown, Shown::Beat), "{message:?}");
            self.take(&message);
        }
    }

    fn take(&mut self, message: &Message) {
        if let Some(id) = &message.id {
            self.last = Some(id.clone());
        }
        match &message.shown {
            Shown::State(document) => self.begins_with(std::slice::from_ref(document)),
            Shown::Page(documents) => self.begins_with(documents),
            Shown::Changed(document) => {
                let (id, revision) = (document.id.clone(), document.revision);
                let before = self.told.insert(id.clone(), revision);
                assert!(
                    before < Some(revision),
                    "{id} was told at {before:?}, now {revision}"
                );
                self.documents.insert(id, document.clone());
            }
            Shown::Removed(id) => {
                self.documents.remove(id);
            }
            Shown::Reset => self.begins_with(&[]),
            Shown::Dropped(_) | Shown::Beat => {}
        }
    }

    fn begins_with(&mut self, documents: &[Arc<Document>]) {
        let by_id = documents.iter().map(|doc| (doc.id.clone(), doc.clone()));
        self.documents = by_id.collect();
        let told = documents.iter().map(|doc| (doc.id.clone(), doc.revision));
        self.told = told.collect();
    }

    /// The titles that it knows, by id.
    fn titles(&self) -> BTreeMap<&str, &str> {
        let documents = self.documents.iter();
        documents
            .map(|(id, document)| (id.as_str(), document.data["title"].as_str().unwrap()))
            .collect()
    }
}

#[track_caller]
fn title(shown: &Shown) -> &str {
    match shown {
        Shown::State(document) | Shown::Changed(document) => {
            document.data["title"].as_str().unwrap()
        }
        other => panic!("{other:?}"),
    }
}

/// A process that keeps the posts, of which there is one, and what tells its changes.
async fn with_one_post() -> (System, Process, Changes) {
    let system = System::new();
    let process = system.start(vec![posts()]);
    system.write("p", "one").await;
    system.settled(&*posts()).await;
    let changes = system.changes(LiveViews::default());
    (system, process, changes)
}

async fn delete(system: &System, id: &str) {
    system.log.change(id, &Change::Delete).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_is_told_how_a_document_is_and_then_each_change() {
    let system = System::new();
    let process = system.start(vec![posts()]);
    system.write("p", "one").await;
    system.write("other", "one").await;
    system.settled(&*posts()).await;
    // Where the view is kept, and elsewhere.
    for live in [process.views.live(), LiveViews::default()] {
        let changes = system.changes(live);
        let id = if system.log.all().await.len() == 2 {
            "p"
        } else {
            "other"
        };
        let mut client = Client::of(&changes, post(id)).await;
        let state = client.next().await;
        assert!(
            matches!(state, Shown::State(_)) && title(&state) == "one",
            "{state:?}"
        );
        for text in ["two", "three"] {
            system.write(id, text).await;
            assert_eq!(title(&client.next().await), text);
        }
        system.write("beside", id).await;
        client.hears_nothing().await;
        delete(&system, id).await;
        let removed = client.next().await;
        assert!(
            matches!(&removed, Shown::Removed(gone) if gone == id),
            "{removed:?}"
        );
        let missing = Client::begin(&changes, post(id), None).await;
        assert!(matches!(missing, Err(Refused::Missing)));
    }
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_list_is_told_what_comes_in_and_what_goes_out() {
    let system = System::new();
    let process = system.start(vec![posts()]);
    for id in ["a", "b"] {
        system.write(id, "in").await;
    }
    system.write("c", "out").await;
    system.settled(&*posts()).await;
    let mut client = Client::of(&system.changes(LiveViews::default()), titled("in")).await;
    let page = client.next().await;
    assert!(matches!(page, Shown::Page(_)), "{page:?}");
    assert_eq!(client.titles(), BTreeMap::from([("a", "in"), ("b", "in")]));
    // In it goes, and out, by another title and by its end.
    system.write("c", "in").await;
    assert!(matches!(client.next().await, Shown::Changed(c) if c.id == "c"));
    system.write("a", "out").await;
    assert!(matches!(client.next().await, Shown::Removed(a) if a == "a"));
    delete(&system, "b").await;
    assert!(matches!(client.next().await, Shown::Removed(b) if b == "b"));
    // What never was in it is nobody's business.
    system.write("d", "out").await;
    system.write("a", "further out").await;
    client.hears_nothing().await;
    assert_eq!(client.titles(), BTreeMap::from([("c", "in")]));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_task_serves_all_who_listen_and_ends_with_the_last() {
    let system = System::new();
    let process = system.start(vec![posts(), authors()]);
    system.write("p", "one").await;
    system.settled(&*posts()).await;
    system.settled(&*authors()).await;
    let changes = system.changes(LiveViews::default());
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(Client::of(&changes, post("p")).await);
    }
    let author = asked(authors(), Some("ann"), Filter::default());
    clients.push(Client::of(&changes, author).await);
    for client in &mut clients {
        client.next().await;
    }
    assert_eq!(changes.feeds(), 2);
    let (loads, read) = (system.store.state_loads(), system.store.documents_read());
    system.write("p", "two").await;
    for client in &mut clients[..200] {
        assert_eq!(title(&client.next().await), "two");
    }
    let loads = system.store.state_loads() - loads;
    assert!(loads < 60, "{loads} looks for one change");
    // The projector reads none of the posts, and one of the authors; each of the two tasks reads what was touched.
    let read = system.store.documents_read() - read;
    assert!(read <= 8, "{read} documents read for 201 clients");
    drop(clients);
    eventually("the tasks to end", async || changes.feeds() == 0).await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn states_are_coalesced_for_who_reads_slowly() {
    let system = System::new();
    let process = system.start(vec![posts()]);
    system.write("p", "title 0").await;
    system.settled(&*posts()).await;
    let mut client = Client::of(&system.changes(LiveViews::default()), post("p")).await;
    for n in 1..=50 {
        system.write("p", &format!("title {n}")).await;
        // So long that each is looked at by itself.
        sleep(Duration::from_millis(250)).await;
    }
    let mut heard = 0;
    while client.titles().get("p") != Some(&"title 50") {
        client.next().await;
        heard += 1;
    }
    // The state, one that was under way, the last.
    assert!(heard <= 3, "{heard}");
    client.hears_nothing().await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_dropped_with_a_reason_and_holds_nothing() {
    let system = System::new();
    let process = system.start(vec![posts()]);
    let changes = system.changes(LiveViews::default());
    system.write("first", "one").await;
    system.settled(&*posts()).await;
    let mut by_number = Client::of(&changes, titled("one")).await;
    let mut by_size = Client::of(&changes, titled("one")).await;
    by_number.next().await;
    by_size.next().await;
    let large = "x".repeat(200_000);
    for n in 0..=(MAX_PENDING_BYTES / large.len()) {
        let payload = json!({"state": {"title": "one", "author": large}, "before": {}});
        let id = format!("large{n}");
        system.log.append(&id, "post.created", &payload).await;
    }
    system.settled(&*posts()).await;
    let dropped = async |client: &mut Client| loop {
        match client.next().await {
            Shown::Dropped(reason) => return reason,
            Shown::Changed(_) => {}
            other => panic!("{other:?}"),
        }
    };
    sleep(Duration::from_secs(1)).await;
    assert_eq!(dropped(&mut by_size).await, "slow");
    assert!(by_size.messages.recv().await.is_none());
    // The other one is not dropped alone by what a client may have that reads; it is by too many.
    drop(by_number);
    let mut by_number = Client::of(&changes, asked(posts(), None, Filter::default())).await;
    by_number.next().await;
    for n in 0..=MAX_PENDING {
        system.write(&format!("n{n}"), "one").await;
    }
    system.settled(&*posts()).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(dropped(&mut by_number).await, "slow");
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_list_that_grows_too_long_is_refused_and_dropped() {
    let system = System::new();
    let process = system.start(vec![posts()]);
    let changes = system.changes(LiveViews::default());
    for id in ["a", "b"] {
        system.write(id, "one").await;
    }
    system.settled(&*posts()).await;
    let mut few = all_posts();
    few.query.limit = 2;
    let mut client = Client::of(&changes, few.clone()).await;
    client.next().await;
    system.write("c", "one").await;
    let shown = client.next().await;
    assert!(matches!(shown, Shown::Dropped("too-many")), "{shown:?}");
    assert!(client.messages.recv().await.is_none());
    let refused = Client::begin(&changes, few, None).await;
    assert!(matches!(refused, Err(Refused::TooMany)));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_view_that_is_switched_begins_anew_for_all_who_listen_and_who_come_back() {
    let (system, process, changes) = with_one_post().await;
    let mut there = Client::of(&changes, post("p")).await;
    let mut away = Client::of(&changes, all_posts()).await;
    there.next().await;
    away.next().await;
    let replay = system.replay();
    let view = posts();
    let stop = CancellationToken::new();
    let replayed = replay.run(&view, &|_| {}, &stop).await;
    replayed.unwrap();
    assert!(matches!(there.next().await, Shown::Reset));
    let state = there.next().await;
    assert!(matches!(state, Shown::State(_)), "{state:?}");
    let mut back = away.back(&changes).await;
    assert!(matches!(back.next().await, Shown::Reset));
    assert!(matches!(back.next().await, Shown::Page(_)));
    eventually("the view to be followed", async || {
        system.alias("post").await.replaying.is_none()
    })
    .await;
    system.write("p", "two").await;
    for client in [&mut there, &mut back] {
        assert_eq!(title(&client.next().await), "two");
    }
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_set_aside_is_told_once_it_is_applied() {
    let system = System::new();
    let process = system.start(vec![posts()]);
    for id in ["bad", "good"] {
        system.write(id, "one").await;
    }
    system.settled(&*posts()).await;
    let changes = system.changes(process.views.live());
    let mut there = Client::of(&changes, post("bad")).await;
    there.next().await;
    let poison = json!("no object");
    let status = process.views.live().get("post_v1").unwrap();
    let reached = async |token: ConsistencyToken| {
        let (partition, position) = token.positions[0];
        status.reached(partition, position).await;
    };
    reached(system.log.append("bad", "post.updated", &poison).await).await;
    reached(system.write("bad", "two").await).await;
    reached(system.write("good", "two").await).await;
    there.hears_nothing().await;
    // One who is away while it waits.
    let mut away = Client::of(&changes, all_posts()).await;
    away.next().await;
    assert_eq!(away.titles()["bad"], "one");
    // One who was told before it waited.
    let before = there.last.clone();
    let operations = Operations::new(
        "post_v1",
        Arc::new(system.store.clone()),
        system.log.reader(),
    );
    let skip = Skip {
        sequence: "bad",
        reason: "it is no object",
        ..Skip::default()
    };
    let asked = operations.skip(&skip).await.unwrap();
    operations.answers(&[asked], PATIENCE).await.unwrap();
    assert_eq!(title(&there.next().await), "two");
    let mut away = away.back(&changes).await;
    // It cannot be known what was told of what waited.
    assert!(matches!(away.next().await, Shown::Reset));
    away.next().await;
    assert_eq!(away.titles()["bad"], "two");
    let mut early = Client::begin(&changes, post("bad"), before).await.unwrap();
    assert_eq!(title(&early.next().await), "two");
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_client_is_told_where_it_is_and_need_not_begin_anew() {
    let (system, process, changes) = with_one_post().await;
    let mut client = Client::of(&changes, post("p")).await;
    client.next().await;
    let first = client.last.clone();
    system.write("q", "one").await;
    system.settled(&*posts()).await;
    let beat = timeout(BEAT * 2, client.messages.recv())
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(beat.shown, Shown::Beat), "{beat:?}");
    client.take(&beat);
    assert_ne!(client.last, first);
    let mut client = client.back(&changes).await;
    client.hears_nothing().await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_messages_at_once() {
    let (system, process, changes) = with_one_post().await;
    let mut reading = Client::of(&changes, post("p")).await;
    reading.next().await;
    let mut stuck = Client::of(&changes, all_posts()).await;
    system.write("p", "two").await;
    reading.next().await;
    for client in [&mut reading, &mut stuck] {
        client.stop.cancel();
        while let Some(message) = client.messages.recv().await {
            client.take(&message);
        }
    }
    eventually("the task to end", async || changes.feeds() == 0).await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_a_while_costs_nobody_a_change() {
    let (system, process, changes) = with_one_post().await;
    let mut client = Client::of(&changes, post("p")).await;
    client.next().await;
    system.store.cut_off(true);
    system.write("p", "two").await;
    client.hears_nothing().await;
    let refused = Client::begin(&changes, post("p"), None).await;
    assert!(matches!(refused, Err(Refused::Now(_))));
    system.store.cut_off(false);
    assert_eq!(title(&client.next().await), "two");
    process.stop().await;
}

/// A view whose documents and checkpoints are written apart, as they are for a moment.
struct ByHand {
    system: System,
}

impl ByHand {
    async fn new() -> Self {
        let system = System::new();
        let alias = Alias::first("post_v1", "");
        let set = system.store.compare_and_set_alias("post", 0, &alias);
        assert!(set.await.unwrap());
        Self { system }
    }

    /// Writes what there is into the documents.
    async fn project(&self) {
        let projector = Projector::new(posts(), Arc::new(self.system.store.clone()), "post_v1");
        for partition in self.system.log.partitions().iter() {
            let events = self.system.log.events(partition).await;
            projector.handle(partition, &events).await.unwrap();
        }
    }

    /// Says that all was applied up to the write of `token`.
    async fn checkpoint(&self, token: &ConsistencyToken) {
        self.record(token, Parked::default()).await;
    }

    /// The same, where this is set aside.
    async fn record(&self, token: &ConsistencyToken, parked: Parked) {
        let (partition, position) = token.positions[0];
        let states = self.system.store.load_states("post_v1").await.unwrap();
        let revision = states.iter().find(|(of, ..)| *of == partition);
        let revision = revision.map_or(0, |(_, revision, _)| *revision);
        let events = self.system.log.events(partition).await;
        let at = events
            .iter()
            .find(|event| event.position == position)
            .unwrap();
        let history = token.history;
        let record = StateRecord {
            checkpoint: Checkpoint {
                history,
                cursor: at.cursor(),
            },
            parked,
            ..StateRecord::at_start(history)
        };
        let store = &self.system.store;
        let set = store.compare_and_set_state("post_v1", partition, revision, &record);
        assert!(set.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_ahead_of_its_checkpoint_is_told_with_its_later_event_and_once() {
    let view = ByHand::new().await;
    let one = view.system.write("p", "one").await;
    view.project().await;
    view.checkpoint(&one).await;
    let changes = view.system.changes(LiveViews::default());
    let mut there = Client::of(&changes, post("p")).await;
    let mut cut = Client::of(&changes, all_posts()).await;
    there.next().await;
    cut.next().await;
    let two = view.system.write("p", "two").await;
    let three = view.system.write("p", "three").await;
    view.project().await;
    view.checkpoint(&two).await;
    there.hears_nothing().await;
    let mut cut = cut.back(&view.system.changes(LiveViews::default())).await;
    cut.hears_nothing().await;
    view.checkpoint(&three).await;
    for client in [&mut there, &mut cut] {
        assert_eq!(title(&client.next().await), "three");
        client.hears_nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_left_the_list_before_its_checkpoint_and_changes_again_is_told_to_be_gone() {
    let view = ByHand::new().await;
    let in_list = view.system.write("p", "in").await;
    view.project().await;
    view.checkpoint(&in_list).await;
    let mut client = Client::of(&view.system.changes(LiveViews::default()), titled("in")).await;
    client.next().await;
    let out = view.system.write("p", "out").await;
    view.project().await;
    // It comes back where the document shows already what the view is not known to have applied.
    let mut client = client
        .back(&view.system.changes(LiveViews::default()))
        .await;
    client.hears_nothing().await;
    let later = view.system.write("p", "out again").await;
    view.project().await;
    view.checkpoint(&out).await;
    client.hears_nothing().await;
    view.checkpoint(&later).await;
    assert!(matches!(client.next().await, Shown::Removed(id) if id == "p"));
}

#[tokio::test(start_paused = true)]
async fn what_left_the_list_while_it_was_set_aside_is_told_to_be_gone() {
    let view = ByHand::new().await;
    let in_list = view.system.write("p", "in").await;
    view.project().await;
    view.checkpoint(&in_list).await;
    let mut client = Client::of(&view.system.changes(LiveViews::default()), titled("in")).await;
    client.next().await;
    let out = view.system.write("p", "out").await;
    let mut parked = Parked::default();
    let why = Why::behind("another", Utc::now());
    parked.set_aside(out.positions[0].1, &["p".to_owned()], &why);
    view.record(&out, parked).await;
    // It comes back where the document was written, and is not known to wait no longer.
    view.project().await;
    let mut client = client
        .back(&view.system.changes(LiveViews::default()))
        .await;
    client.hears_nothing().await;
    view.checkpoint(&out).await;
    assert!(matches!(client.next().await, Shown::Removed(id) if id == "p"));
}

#[tokio::test(start_paused = true)]
async fn what_is_there_at_first_is_not_told_again_to_who_is_cut_off_right_then() {
    let view = ByHand::new().await;
    let one = view.system.write("p", "one").await;
    view.project().await;
    let changes = view.system.changes(LiveViews::default());
    let late = async {
        sleep(Duration::from_millis(20)).await;
        view.checkpoint(&one).await;
    };
    let (mut client, ()) = tokio::join!(Client::of(&changes, post("p")), late);
    client.next().await;
    let mut client = client.back(&changes).await;
    client.hears_nothing().await;
}
